//! Documents: what every kind has in common. `apiVersion`, `kind`, `metadata`, `spec`.

use std::collections::HashMap;

use super::decode::{self, Keys};
use super::finding::{FindingCode, Place, Report, quoted};
use super::yaml::{Content, Node};
use crate::domain::PolicyName;

/// The kinds of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    JoinPolicy,
    AccountSet,
    DenyList,
    Guardrails,
    TokenPublication,
    PolicyTest,
}

impl Kind {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("JoinPolicy", Self::JoinPolicy),
        ("AccountSet", Self::AccountSet),
        ("DenyList", Self::DenyList),
        ("Guardrails", Self::Guardrails),
        ("TokenPublication", Self::TokenPublication),
        ("PolicyTest", Self::PolicyTest),
    ];
    /// Kinds that are promised for later; a file with one is not misspelt.
    const LATER: &'static [&'static str] = &["OrganizationSnapshot"];

    const fn as_str(self) -> &'static str {
        match self {
            Self::JoinPolicy => "JoinPolicy",
            Self::AccountSet => "AccountSet",
            Self::DenyList => "DenyList",
            Self::Guardrails => "Guardrails",
            Self::TokenPublication => "TokenPublication",
            Self::PolicyTest => "PolicyTest",
        }
    }
}

/// One document whose frame is sound.
#[derive(Debug)]
pub(super) struct Document<'n> {
    pub(super) kind: Kind,
    pub(super) metadata: Metadata,
    pub(super) spec: &'n Node,
    /// `metadata.suppress`, if it is written.
    pub(super) suppress: Option<&'n Node>,
    /// Where it begins.
    pub(super) place: &'n Place,
    /// Where the next document of the same file begins.
    pub(super) next: Option<&'n Place>,
}

/// Who a document is and who answers for it.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub(super) name: PolicyName,
    pub(super) place: Place,
    pub(super) description: Option<String>,
    pub(super) owner: Option<String>,
}

/// Reads the frames of documents. Two of one kind with one name are reported, and only the first is
/// returned.
pub(super) fn read<'n>(nodes: &'n [Node], report: &mut Report) -> Vec<Document<'n>> {
    let mut names: HashMap<(Kind, PolicyName), Place> = HashMap::new();
    let mut documents = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let Some(mut document) = frame(node, report) else { continue };
        let next = nodes.get(index + 1).map(|next| &next.place);
        document.next = next.filter(|next| next.file == node.place.file);
        let name = (document.kind, document.metadata.name.clone());
        if let Some(first) = names.get(&name) {
            let kind = document.kind.as_str();
            let message = format!("a {kind} `{}` is already at {first}", name.1);
            let place = &document.metadata.place;
            report.add(FindingCode::NameTaken, place, message, "another name");
        } else {
            names.insert(name, document.metadata.place.clone());
            documents.push(document);
        }
    }
    documents
}

fn frame<'n>(node: &'n Node, report: &mut Report) -> Option<Document<'n>> {
    const KEYS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
    let keys = Keys::read(node, "a document", KEYS, report)?;
    let version = keys
        .required("apiVersion", "`apiVersion: muster/v1`", report)
        .and_then(|node| api_version(node, report));
    let kind = keys
        .required(
            "kind",
            "`kind: JoinPolicy`, AccountSet, DenyList, Guardrails, TokenPublication or PolicyTest",
            report,
        )
        .and_then(|node| kind(node, report));
    let written = keys.required("metadata", "`metadata: {name: …}`", report);
    let suppress = written.and_then(|node| node.value("suppress")).filter(|node| !node.is_null());
    let metadata = written.and_then(|node| metadata(node, report));
    let spec = keys.required("spec", "`spec:` and what belongs to the kind", report);
    let (kind, metadata, spec, ()) = (kind?, metadata?, spec?, version?);
    Some(Document { kind, metadata, spec, suppress, place: &node.place, next: None })
}

fn api_version(node: &Node, report: &mut Report) -> Option<()> {
    let text = decode::text(node, "apiVersion", report)?;
    if text == "muster/v1" {
        return Some(());
    }
    let message = format!("`apiVersion` is {}", quoted(text));
    report.add(FindingCode::ApiVersionUnknown, &node.place, message, "muster/v1");
    None
}

fn kind(node: &Node, report: &mut Report) -> Option<Kind> {
    let text = decode::text(node, "kind", report)?;
    if let Some((_, kind)) = Kind::NAMES.iter().find(|(name, _)| *name == text) {
        return Some(*kind);
    }
    let names: Vec<&str> = Kind::NAMES.iter().map(|(name, _)| *name).collect();
    let (code, message) = if Kind::LATER.contains(&text) {
        (FindingCode::NotInThisVersion, format!("{text} comes with a later version"))
    } else {
        (FindingCode::KindUnknown, format!("`kind` is {}", quoted(text)))
    };
    report.add(code, &node.place, message, decode::unknown(text, &names));
    None
}

fn metadata(node: &Node, report: &mut Report) -> Option<Metadata> {
    const KEYS: &[&str] = &["name", "description", "owner", "suppress"];
    let keys = Keys::read(node, "`metadata`", KEYS, report)?;
    let description = optional_text(&keys, "description", report);
    let owner = optional_text(&keys, "owner", report);
    let node = keys.required("name", "`name: web`", report)?;
    let name = decode::parsed(node, "metadata.name", report)?;
    Some(Metadata { name, place: node.place.clone(), description, owner })
}

/// The text of a key that may be left out.
pub(super) fn optional_text(
    keys: &Keys<'_>,
    name: &'static str,
    report: &mut Report,
) -> Option<String> {
    keys.get(name).and_then(|node| decode::text(node, name, report)).map(str::to_owned)
}

/// The names of account sets or other documents in a list.
pub(super) fn names<'n>(
    node: &'n Node,
    what: &str,
    report: &mut Report,
) -> Vec<(PolicyName, &'n Node)> {
    let texts = decode::texts(node, what, "[production]", report).unwrap_or_default();
    texts
        .into_iter()
        .filter_map(|(_, node)| Some((decode::parsed(node, what, report)?, node)))
        .collect()
}

/// How many items a list node has.
pub(super) fn length(node: Option<&Node>) -> usize {
    match node.map(|node| &node.content) {
        Some(Content::Sequence(items)) => items.len(),
        _ => 0,
    }
}

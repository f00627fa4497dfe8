//! A join policy: its rules and the terms on which it admits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::conditions::{MAX_RULES, Reader};
use super::decode::{self, Keys, invalid};
use super::dns::{NameTemplate, templates};
use super::document::{Document, Metadata, length};
use super::finding::{FindingCode, Place, Report, quoted};
use super::rule::{Effect, Rule};
use super::settings::{self, ComeBack, FreshProof, Rejoin, Settings};
use super::yaml::Node;
use crate::domain::{Lifetime, PolicyName};
use crate::methods::{Declaration, LookUp};

/// The life of a certificate unless the policy says otherwise.
const DEFAULT_TTL: Lifetime = Lifetime::from_hours(12);
/// The longest life of a certificate: access that was taken away ends within it.
const MAX_TTL: Lifetime = Lifetime::from_days(7);

/// One join policy, as it is in force.
#[derive(Debug)]
pub struct JoinPolicy {
    pub(super) name: PolicyName,
    pub(super) place: Place,
    pub(super) description: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) method: &'static Declaration,
    pub(super) roles: Vec<String>,
    pub(super) allow: Vec<Rule>,
    /// Its own, then those of the deny lists.
    pub(super) deny: Vec<Arc<Rule>>,
    pub(super) proof: Written<FreshProof>,
    /// Where `document_ttl` is written, or else where `fresh_proof` is.
    pub(super) age_place: Place,
    pub(super) look_up: Written<LookUp>,
    pub(super) rejoin: Option<Rejoin>,
    pub(super) come_back: Option<ComeBack>,
    pub(super) certificate: Certificate,
}

/// A value and where it is written; the place of the policy if it is a default.
#[derive(Debug, Clone)]
pub(super) struct Written<T> {
    pub(super) value: T,
    pub(super) place: Place,
    pub(super) is_default: bool,
}

/// What a policy says of certificates.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) ttl: Written<Lifetime>,
    pub(super) dns_names: Vec<NameTemplate>,
    pub(super) labels: BTreeMap<String, String>,
}

impl JoinPolicy {
    /// The name: `metadata.name`.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The name of its join method.
    pub fn method(&self) -> &'static str {
        self.method.name
    }

    /// Whether nodes join by it with tokens of the server's own.
    pub fn uses_tokens(&self) -> bool {
        self.method.uses_tokens
    }

    /// Whether a fresh proof is required.
    pub fn fresh_proof(&self) -> FreshProof {
        self.proof.value
    }

    /// How instances are looked at.
    pub fn look_up(&self) -> &LookUp {
        &self.look_up.value
    }

    /// Whether instances are looked at: only after a proof, so only where one is required.
    pub fn reads_facts(&self) -> bool {
        self.look_up.value != LookUp::None && self.proof.value == FreshProof::Required
    }

    /// When another key may take the place of one that fell silent; never, if none.
    pub fn rejoin(&self) -> Option<Rejoin> {
        self.rejoin
    }

    /// When a node whose certificate ended may come back by its key; never, if none.
    pub fn come_back(&self) -> Option<ComeBack> {
        self.come_back
    }

    /// How long its certificates live.
    pub fn ttl(&self) -> Lifetime {
        self.certificate.ttl.value
    }

    /// The roles of its nodes.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// The labels of its nodes.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.certificate.labels
    }

    /// The rules that may admit.
    pub fn allow(&self) -> &[Rule] {
        &self.allow
    }

    /// The rules that refuse, deny lists included.
    pub fn deny(&self) -> impl Iterator<Item = &Rule> {
        self.deny.iter().map(AsRef::as_ref)
    }
}

/// Reads a policy. `reader` must have the fields of `method`.
pub(super) fn read(
    document: &Document<'_>,
    method: &'static Declaration,
    reader: &mut Reader<'_>,
    report: &mut Report,
) -> Option<JoinPolicy> {
    let allowed = ["method", "roles", "allow", "deny", "certificate", "slots", method.name];
    let keys = Keys::read(document.spec, "the `spec` of a JoinPolicy", &allowed, report)?;
    if let Some(node) = keys.get("slots") {
        not_yet("`slots` come with a later version", "no `slots`", node, report);
    }
    let roles = keys.required("roles", "`roles: [node]`", report).map(|node| roles(node, report));
    let allow = keys
        .required("allow", "`allow:` with at least one rule", report)
        .map(|node| reader.rules(node, Effect::Allow, None, report));
    let deny = keys.get("deny").map(|node| reader.rules(node, Effect::Deny, None, report));
    if length(keys.get("allow")) + length(keys.get("deny")) > MAX_RULES {
        let expected = "at most 1,000 rules a policy, allow and deny together";
        report.add(FindingCode::LimitExceeded, keys.place, "too many rules", expected);
    }
    let place = &document.metadata.place;
    let block = keys.get(method.name);
    let Settings { proof, look_up, rejoin, come_back } =
        settings::read(block, method, place, report);
    let certificate = certificate(keys.get("certificate"), method, place, report);
    let proof = proof?;
    let age_place = block.and_then(|block| block.value("document_ttl"));
    let age_place = age_place.map_or(&proof.place, |node| &node.place).clone();
    let Metadata { name, place, description, owner } = document.metadata.clone();
    Some(JoinPolicy {
        name,
        place,
        description,
        owner,
        method,
        roles: roles?,
        allow: allow?,
        deny: deny.unwrap_or_default().into_iter().map(Arc::new).collect(),
        proof,
        age_place,
        look_up,
        rejoin,
        come_back,
        certificate: certificate?,
    })
}

/// The method that a policy names, read before the rest because it decides what the rest may say.
pub(super) fn method_of(
    document: &Document<'_>,
    methods: &'static [&'static Declaration],
    report: &mut Report,
) -> Option<&'static Declaration> {
    let names: Vec<&str> = methods.iter().map(|method| method.name).collect();
    decode::mapping(document.spec, "the `spec` of a JoinPolicy", report)?;
    let Some(node) = document.spec.value("method") else {
        let expected = format!("`method: {}`", names.join("` or `method: "));
        let place = &document.spec.place;
        report.add(FindingCode::KeyMissing, place, "the policy names no method", expected);
        return None;
    };
    let text = decode::text(node, "method", report)?;
    let found = methods.iter().find(|method| method.name == text);
    if found.is_none() {
        let message = format!("{} is no join method of this version", quoted(text));
        let expected = decode::unknown(text, &names);
        report.add(FindingCode::MethodUnknown, &node.place, message, expected);
    }
    found.copied()
}

fn roles(node: &Node, report: &mut Report) -> Vec<String> {
    let mut roles = Vec::new();
    for (text, item) in decode::texts(node, "roles", "[node]", report).unwrap_or_default() {
        let is_role = text.len() <= 63
            && text.starts_with(|first: char| first.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if is_role {
            roles.push(text.to_owned());
        } else {
            let expected = "a letter, then letters, digits, `-` and `_`, at most 63";
            let _reported: Option<()> = invalid(item, "roles", expected, report);
        }
    }
    roles
}

pub(super) fn not_yet(message: &str, expected: &str, node: &Node, report: &mut Report) {
    report.add(FindingCode::NotInThisVersion, &node.place, message, expected);
}

fn certificate(
    node: Option<&Node>,
    method: &'static Declaration,
    place: &Place,
    report: &mut Report,
) -> Option<Certificate> {
    let default = Written { value: DEFAULT_TTL, place: place.clone(), is_default: true };
    let Some(node) = node else {
        return Some(Certificate { ttl: default, dns_names: Vec::new(), labels: BTreeMap::new() });
    };
    let keys = Keys::read(node, "`certificate`", &["ttl", "dns_names", "labels"], report)?;
    let ttl = match keys.get("ttl") {
        None => Some(default),
        Some(node) => decode::duration(node, "ttl", MAX_TTL, report).map(|value| Written {
            value,
            place: node.place.clone(),
            is_default: false,
        }),
    };
    let dns_names = keys.get("dns_names").map(|node| templates(node, method, report));
    let labels = keys.get("labels").map(|node| labels(node, report));
    Some(Certificate {
        ttl: ttl?,
        dns_names: dns_names.unwrap_or_default(),
        labels: labels.unwrap_or_default(),
    })
}

/// Labels are literal text; variables in them come later and must not be silently taken for text.
pub(super) fn labels(node: &Node, report: &mut Report) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, value) in decode::mapping(node, "`labels`", report).unwrap_or_default() {
        if value.is_null() {
            decode::report_null(&quoted(&key.text), &value.place, report);
            continue;
        }
        let is_name = (1..=63).contains(&key.text.len())
            && key.text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !is_name {
            let message = format!("{} is no name of a label", quoted(&key.text));
            let expected = "letters, digits, `-`, `_`, `.` and `/`, at most 63";
            report.add(FindingCode::ValueInvalid, &key.place, message, expected);
        }
        let Some(text) = decode::text(value, &key.text, report) else { continue };
        if text.contains(['{', '}']) || text.chars().any(char::is_control) {
            let _reported: Option<()> =
                invalid(value, &key.text, "literal text without braces, on one line", report);
        }
        labels.insert(key.text.clone(), text.to_owned());
    }
    labels
}

/// Reads a deny list: its rules, which hold for every policy.
pub(super) fn deny_list(
    document: &Document<'_>,
    reader: &mut Reader<'_>,
    report: &mut Report,
) -> Vec<Arc<Rule>> {
    let Some(keys) = Keys::read(document.spec, "the `spec` of a DenyList", &["deny"], report)
    else {
        return Vec::new();
    };
    let Some(node) = keys.required("deny", "`deny:` with at least one rule", report) else {
        return Vec::new();
    };
    let name = Some(&document.metadata.name);
    reader.rules(node, Effect::Deny, name, report).into_iter().map(Arc::new).collect()
}

//! Teleport's `kind: token`, `version: v2` documents, as join policies. What says the same is written;
//! what cannot be said is listed; nothing is guessed, nothing is widened, and no secret is written:
//! the name of a document of method `token` is one (red team P11).

mod rule;

use std::collections::BTreeSet;
use std::fmt::Write;

use super::document::length;
use super::finding::{Place, Report};
use super::yaml::{self, Content, Node};
use crate::domain::{Lifetime, PolicyName, Timestamp};
use rule::{Rule, go_duration, look_up, write_until};

/// What Teleport takes where `aws_iid_ttl` is not written.
const DEFAULT_TTL: Lifetime = Lifetime::from_minutes(5);
/// What every document may have that changes nothing.
const NO_MATTER: &[&str] = &["id", "revision"];
/// The most policies that are named by number.
const NUMBERED_MAX: usize = 10_000;

/// What came of some documents.
#[derive(Debug, Default)]
pub struct Import {
    /// How many documents there were.
    pub documents: usize,
    /// The policies.
    pub policies: Vec<ImportedPolicy>,
    /// What could not be carried over.
    pub losses: Vec<ImportNote>,
    /// What is said in another way, and what is left to do.
    pub notes: Vec<ImportNote>,
    names: BTreeSet<PolicyName>,
    /// The last number that a name was made of.
    numbered: usize,
}

impl Import {
    fn add(&mut self, policy: ImportedPolicy) {
        self.names.insert(policy.name.clone());
        self.policies.push(policy);
    }

    /// A name that no policy of the import has. A file can hold very many documents that need one.
    fn free_name(&mut self) -> Option<PolicyName> {
        while self.numbered < NUMBERED_MAX {
            self.numbered += 1;
            let name = format!("imported-{}", self.numbered).parse().ok()?;
            if !self.names.contains(&name) {
                return Some(name);
            }
        }
        None
    }
}

/// A policy that says what a document said.
#[derive(Debug)]
pub struct ImportedPolicy {
    /// Its name.
    pub name: PolicyName,
    /// The file's text.
    pub text: String,
}

/// A remark about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportNote {
    /// Where in the file.
    pub place: Place,
    /// What.
    pub message: String,
}

/// Why nothing of a document, or of a rule, is written.
struct NotCarried(ImportNote);

impl NotCarried {
    fn at(node: &Node, message: impl Into<String>) -> Self {
        Self(ImportNote { place: node.place.clone(), message: message.into() })
    }
}

/// Reads one file; what comes of it goes to `import`.
pub fn import_teleport(file: &str, text: &str, import: &mut Import) {
    let mut report = Report::default();
    let nodes = yaml::parse(file, text, &mut report);
    // What is left of a broken file may say less than its author meant, or more.
    let nodes = if report.has_errors() { Vec::new() } else { nodes };
    for finding in report.into_findings() {
        // Without its words: they may repeat what is a secret here.
        let message =
            format!("nothing of this file is read because of this place [{}]", finding.code);
        import.losses.push(ImportNote { place: finding.place, message });
    }
    for node in &nodes {
        import.documents += 1;
        if let Err(NotCarried(loss)) = Document::read(node).and_then(|read| read.write(import)) {
            import.losses.push(loss);
        }
    }
}

/// A document whose frame is sound.
struct Document<'n> {
    node: &'n Node,
    metadata: &'n Node,
    spec: &'n Node,
    method: &'n str,
}

impl<'n> Document<'n> {
    fn read(node: &'n Node) -> Result<Self, NotCarried> {
        if node.value("kind").and_then(text) != Some("token") {
            return Err(NotCarried::at(node, "this is no `kind: token`"));
        }
        let version = node.value("version").unwrap_or(node);
        if text(version) != Some("v2") {
            return Err(NotCarried::at(version, "only `version: v2` is read"));
        }
        let part = |name: &str| {
            let found =
                node.value(name).filter(|found| matches!(found.content, Content::Mapping(_)));
            found.ok_or_else(|| NotCarried::at(node, format!("there is no `{name}`")))
        };
        let (metadata, spec) = (part("metadata")?, part("spec")?);
        // Without one the method is `token`, and the name a secret.
        let method = match spec.value("join_method") {
            Some(node) => text(node).unwrap_or_default(),
            None => "token",
        };
        Ok(Self { node, metadata, spec, method })
    }

    fn write(&self, import: &mut Import) -> Result<(), NotCarried> {
        match self.method {
            "ec2" => self.write_ec2(import),
            "token" => self.write_token(import),
            "iam" | "azure" | "gcp" | "github" | "gitlab" | "circleci" | "kubernetes"
            | "terraform_cloud" | "tpm" | "oracle" | "bitbucket" | "spacelift"
            | "bound_keypair" | "azure_devops" | "env0" => {
                let message = format!("muster has no join method `{}` yet", self.method);
                Err(NotCarried::at(self.spec, message))
            }
            _ => Err(NotCarried::at(self.spec, "`join_method` is none that Teleport documents")),
        }
    }

    fn write_ec2(&self, import: &mut Import) -> Result<(), NotCarried> {
        let mut losses = self.other_keys(&["roles", "join_method", "allow", "aws_iid_ttl"]);
        let name = self.public_name(import)?;
        let roles = self.roles()?;
        let until = self.expires()?;
        let (ttl, ttl_node) = match self.spec.value("aws_iid_ttl") {
            None => (DEFAULT_TTL, self.spec),
            Some(node) => match text(node).and_then(go_duration) {
                Some(ttl) => (ttl, node),
                None => return Err(NotCarried::at(node, "`aws_iid_ttl` is no whole seconds")),
            },
        };
        let mut carried = Vec::new();
        for item in self.rules() {
            match Rule::read(item) {
                Ok(rule) => carried.push(rule),
                Err(NotCarried(loss)) => losses.push(loss),
            }
        }
        if carried.is_empty() {
            import.losses.append(&mut losses);
            let message = "no rule of it can be carried over, so there is no policy";
            return Err(NotCarried::at(self.spec, message));
        }
        let look_up = look_up(&carried).ok_or_else(|| {
            NotCarried::at(
                self.spec,
                "its rules look at instances with different \
                roles, which is one for a policy here: split the document",
            )
        })?;
        let mut note = |node: &Node, message: String| {
            import.notes.push(ImportNote { place: node.place.clone(), message });
        };
        note(
            ttl_node,
            format!(
                "`aws_iid_ttl` is `launched_within: {ttl}`: it is judged at joins, by EC2's word, and the \
             node proves itself afresh besides"
            ),
        );
        let mut text = self.head(&name, "ec2", &roles);
        for rule in &carried {
            if rule.regions.is_empty() {
                let message = "no regions: any of the partition `aws`, and no other partition";
                note(rule.node, message.to_owned());
            }
            rule.write(ttl, until, &mut text);
        }
        let _infallible = write!(text, "  ec2:\n    fresh_proof: required\n{look_up}");
        import.losses.append(&mut losses);
        import.add(ImportedPolicy { name, text });
        Ok(())
    }

    fn write_token(&self, import: &mut Import) -> Result<(), NotCarried> {
        let mut losses = self.other_keys(&["roles", "join_method"]);
        let roles = self.roles()?;
        let until = self.expires()?;
        let name = import
            .free_name()
            .ok_or_else(|| NotCarried::at(self.node, "there are too many documents"))?;
        let mut text = self.head(&name, "token", &roles);
        text.push_str("    - tokens: any\n");
        write_until(until, &mut text);
        import.losses.append(&mut losses);
        let message = format!(
            "the name is a secret and is not written; the policy is called `{name}`, and `muster \
             tokens add --policy {name}` makes tokens for it"
        );
        import.notes.push(ImportNote { place: self.metadata.place.clone(), message });
        import.add(ImportedPolicy { name, text });
        Ok(())
    }

    fn head(&self, name: &PolicyName, method: &str, roles: &[&str]) -> String {
        let description =
            self.metadata.value("description").and_then(text).filter(|_| method == "ec2");
        let description = description.unwrap_or("Imported from a Teleport token");
        format!(
            "apiVersion: muster/v1\nkind: JoinPolicy\nmetadata:\n  name: {name}\n  description: {}\n\
             spec:\n  method: {method}\n  roles: [{}]\n  allow:\n",
            in_quotes(description),
            roles.join(", ")
        )
    }

    /// What a document has beyond what is carried over, and that says something.
    fn other_keys(&self, carried: &[&str]) -> Vec<ImportNote> {
        let in_metadata: &[&str] = &["name", "expires", "description"];
        let parts = [
            (self.node, "", ["kind", "version", "metadata", "spec"].as_slice()),
            (self.metadata, "metadata.", in_metadata),
            (self.spec, "spec.", carried),
        ];
        let mut found = Vec::new();
        for (node, prefix, known) in parts {
            for (key, value) in entries(node) {
                let says_nothing = value.is_null() || is_empty(value);
                let is_known = known.contains(&key) || NO_MATTER.contains(&key);
                if !is_known && !says_nothing {
                    let message = format!("`{prefix}{key}` is not carried over");
                    found.push(ImportNote { place: value.place.clone(), message });
                }
            }
        }
        found
    }

    /// The name of a document of a method whose names are no secrets.
    fn public_name(&self, import: &mut Import) -> Result<PolicyName, NotCarried> {
        let node = self.metadata.value("name").unwrap_or(self.metadata);
        let written = text(node).unwrap_or_default();
        let changed = written.to_ascii_lowercase().replace(['_', '.'], "-");
        let name: PolicyName = changed.parse().map_err(|error| {
            NotCarried::at(node, format!("`metadata.name` makes no name of a policy: {error}"))
        })?;
        if import.names.contains(&name) {
            return Err(NotCarried::at(node, format!("there is a policy `{name}` already")));
        }
        if changed != written {
            let message = format!("the policy is called `{name}`: nodes have to say so");
            import.notes.push(ImportNote { place: node.place.clone(), message });
        }
        Ok(name)
    }

    fn roles(&self) -> Result<Vec<&'n str>, NotCarried> {
        let missing =
            || NotCarried::at(self.spec, "`roles` is empty, and a policy has at least one");
        let node =
            self.spec.value("roles").filter(|node| length(Some(node)) > 0).ok_or_else(missing)?;
        let Content::Sequence(items) = &node.content else { return Err(missing()) };
        let is_role = |text: &&str| {
            text.len() <= 63
                && text.starts_with(|first: char| first.is_ascii_alphabetic())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        let read = |item| text(item).filter(is_role);
        items
            .iter()
            .map(|item| read(item).ok_or_else(|| NotCarried::at(item, "this is no role here")))
            .collect()
    }

    fn expires(&self) -> Result<Option<Timestamp>, NotCarried> {
        let Some(node) = self.metadata.value("expires").filter(|node| !node.is_null()) else {
            return Ok(None);
        };
        let read = text(node).and_then(|text| text.parse().ok());
        let message = "`metadata.expires` is no time such as 2027-01-01T00:00:00Z";
        read.map(Some).ok_or_else(|| NotCarried::at(node, message))
    }

    fn rules(&self) -> &'n [Node] {
        match self.spec.value("allow").map(|node| &node.content) {
            Some(Content::Sequence(items)) => items,
            Some(_) | None => &[],
        }
    }
}

fn entries(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    let entries = match &node.content {
        Content::Mapping(entries) => entries.as_slice(),
        Content::Scalar { .. } | Content::Sequence(_) => &[],
    };
    entries.iter().map(|(key, value)| (key.text.as_str(), value))
}

fn is_empty(node: &Node) -> bool {
    match &node.content {
        Content::Mapping(entries) => entries.is_empty(),
        Content::Sequence(items) => items.is_empty(),
        Content::Scalar { .. } => false,
    }
}

fn text(node: &Node) -> Option<&str> {
    match &node.content {
        Content::Scalar { text, .. } if !node.is_null() => Some(text),
        Content::Scalar { .. } | Content::Sequence(_) | Content::Mapping(_) => None,
    }
}

/// Text as YAML reads it back, whatever it is.
fn in_quotes(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' | '\r' | '\t' => quoted.push(' '),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

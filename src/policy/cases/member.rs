//! Which claims and facts the nodes of a method can have, and how each is written: read off what the
//! method declares. Values are held to their form, because a test that is refused for a misspelt
//! account or region would hold for the wrong reason.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::change::Member;
use crate::domain::{Lifetime, Partition};
use crate::methods::{Declaration, Kind, Source, Value};
use crate::policy::accounts::account;
use crate::policy::decode::{self, Keys, invalid, nearest, unknown};
use crate::policy::finding::{FindingCode, Report, quoted};
use crate::policy::kinds::is_id;
use crate::policy::yaml::{Content, Node};

/// One claim or fact that a node can have.
pub(super) struct Form {
    pub(super) name: &'static str,
    shape: Shape,
    is_list: bool,
}

/// How its value is written.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Account,
    Partition,
    Region,
    Id { prefix: &'static str },
    Text,
    Tags,
    Time,
    Span,
    Number,
    Address,
    MetadataOptions,
}

impl Shape {
    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Accounts => Self::Account,
            Kind::Partition => Self::Partition,
            Kind::Regions => Self::Region,
            Kind::Ids { prefix } => Self::Id { prefix },
            Kind::Globs { .. } => Self::Text,
            Kind::Tags => Self::Tags,
            Kind::Age => Self::Time,
            Kind::Span => Self::Span,
            Kind::Count => Self::Number,
            Kind::Networks => Self::Address,
            Kind::MetadataOptions => Self::MetadataOptions,
        }
    }
}

/// What a node of the method can claim, or what a look at it can say.
pub(super) fn forms(method: &Declaration, source: Source) -> Vec<Form> {
    let asked = method.fields.iter().filter(|field| field.source == source);
    let asked = asked.map(|field| (field.reads, Shape::of(field.kind), field.is_list));
    let text = |name: &&'static str| (*name, Shape::Text, false);
    let beside: Vec<(&'static str, Shape, bool)> = match source {
        Source::Claim => {
            let epoch = method.epoch_claim.map(|name| (name, Shape::Time, false));
            let named = method.name_variables.iter().chain(method.unasked).map(text);
            epoch.into_iter().chain(named).collect()
        }
        Source::Instance => {
            let running = method.running.iter();
            let facts = running.flat_map(|running| {
                [(running.reads, Shape::Text, false), (running.since, Shape::Time, false)]
            });
            facts.collect()
        }
    };
    let mut forms: Vec<Form> = Vec::new();
    for (name, shape, is_list) in asked.chain(beside) {
        if !forms.iter().any(|known| known.name == name) {
            forms.push(Form { name, shape, is_list });
        }
    }
    forms
}

/// Reads claims or facts. Null is a claim that is not made, or a fact that is not there.
pub(super) fn members(
    node: &Node,
    what: &'static str,
    forms: &[Form],
    regions: &BTreeMap<String, Partition>,
    report: &mut Report,
) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    let mut is_whole = true;
    for (key, node) in decode::mapping(node, what, report)? {
        let Some(form) = forms.iter().find(|form| form.name == key.text) else {
            let names: Vec<&str> = forms.iter().map(|form| form.name).collect();
            let message = format!("{} means nothing in {what}", quoted(&key.text));
            let expected = unknown(&key.text, &names);
            report.add(FindingCode::KeyUnknown, &key.place, message, expected);
            is_whole = false;
            continue;
        };
        if node.is_null() {
            members.push((form.name, None));
            continue;
        }
        match form.value(node, regions, report) {
            Some(value) => members.push((form.name, Some(value))),
            None => is_whole = false,
        }
    }
    is_whole.then_some(members)
}

impl Form {
    fn value(
        &self,
        node: &Node,
        regions: &BTreeMap<String, Partition>,
        report: &mut Report,
    ) -> Option<Value> {
        let name = self.name;
        if self.is_list {
            return self.list(node, regions, report).map(Value::List);
        }
        match self.shape {
            Shape::Tags => tags(node, name, report).map(Value::Tags),
            Shape::Time => decode::time(node, name, report).map(Value::Time),
            Shape::Span => decode::parsed::<Lifetime>(node, name, report).map(Value::Span),
            Shape::Number => decode::number(node, name, 0..=u32::MAX, report).map(Value::Number),
            Shape::MetadataOptions => metadata_options(node, report),
            Shape::Account
            | Shape::Partition
            | Shape::Region
            | Shape::Id { .. }
            | Shape::Text
            | Shape::Address => self.text(node, regions, report).map(Value::Text),
        }
    }

    fn list(
        &self,
        node: &Node,
        regions: &BTreeMap<String, Partition>,
        report: &mut Report,
    ) -> Option<Vec<String>> {
        if matches!(&node.content, Content::Sequence(items) if items.is_empty()) {
            return Some(Vec::new());
        }
        let texts = decode::texts(node, self.name, "[a, b]", report)?;
        texts.into_iter().map(|(_, node)| self.text(node, regions, report)).collect()
    }

    fn text(
        &self,
        node: &Node,
        regions: &BTreeMap<String, Partition>,
        report: &mut Report,
    ) -> Option<String> {
        let name = self.name;
        if matches!(self.shape, Shape::Account) {
            return account(node, report).map(|account| account.to_string());
        }
        let text = decode::text(node, name, report)?;
        let expected = match self.shape {
            Shape::Partition => {
                return decode::parsed::<Partition>(node, name, report)
                    .map(|partition| partition.to_string());
            }
            Shape::Region if !regions.contains_key(text) => {
                let message = format!("{} is no region with a known certificate", quoted(text));
                let expected = match nearest(text, regions.keys().map(String::as_str), report) {
                    Some(near) => format!("`{near}`? `muster regions ls` lists the known ones"),
                    None => "a region that `muster regions ls` lists".to_owned(),
                };
                report.add(FindingCode::RegionUnknown, &node.place, message, expected);
                return None;
            }
            Shape::Id { prefix } if !is_id(prefix, text) => {
                format!("`{prefix}` and 8 or 17 lower-case hexadecimal digits")
            }
            Shape::Address if text.parse::<IpAddr>().is_err() => {
                "an address such as 192.0.2.10".to_owned()
            }
            Shape::Account
            | Shape::Region
            | Shape::Id { .. }
            | Shape::Text
            | Shape::Tags
            | Shape::Time
            | Shape::Span
            | Shape::Number
            | Shape::Address
            | Shape::MetadataOptions => return Some(text.to_owned()),
        };
        invalid(node, name, &expected, report)
    }
}

/// Names and values. None at all is written `{}`, and a value may be empty in quotes.
fn tags(node: &Node, name: &str, report: &mut Report) -> Option<BTreeMap<String, String>> {
    if matches!(&node.content, Content::Mapping(entries) if entries.is_empty()) {
        return Some(BTreeMap::new());
    }
    let mut tags = Some(BTreeMap::new());
    for (key, value) in decode::mapping(node, &format!("`{name}`"), report)? {
        let is_empty =
            matches!(&value.content, Content::Scalar { text, is_plain: false } if text.is_empty());
        let text = if is_empty { Some("") } else { decode::text(value, &key.text, report) };
        match (text, &mut tags) {
            (Some(text), Some(tags)) => drop(tags.insert(key.text.clone(), text.to_owned())),
            (None, _) => tags = None,
            (Some(_), None) => {}
        }
    }
    tags
}

/// `{v2_only: true, hop_limit: 1}`: as a look says it, so with both.
fn metadata_options(node: &Node, report: &mut Report) -> Option<Value> {
    let keys = Keys::read(node, "the metadata options", &["v2_only", "hop_limit"], report)?;
    let v2_only = keys.required("v2_only", "`v2_only: true`", report);
    let v2_only = v2_only.and_then(|node| decode::boolean(node, "v2_only", report));
    let hop_limit = keys.required("hop_limit", "`hop_limit: 1`", report);
    let hop_limit = hop_limit.and_then(|node| decode::number(node, "hop_limit", 1..=64, report));
    Some(Value::MetadataOptions { v2_only: v2_only?, hop_limit: hop_limit? })
}

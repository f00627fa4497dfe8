//! The kinds of fields that need nothing but their own text: how each is written.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::decode::{self, Keys, invalid, report_null};
use super::finding::{FindingCode, Place, Report, quoted};
use super::glob::Glob;
use super::rule::{Effect, TagTest, Test};
use super::yaml::{Content, Node};
use crate::domain::is_plain_network;
use crate::methods::{Field, Kind, Presence};

/// How a field of this kind may look.
pub(super) const fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::Accounts => "[production]",
        Kind::Partition => "aws",
        Kind::Regions => "[us-east-1, us-west-2]",
        Kind::Ids { .. } => "[id-0123456789abcdef0]",
        Kind::Globs { .. } => "web-*",
        Kind::Tags => "{Tier: web}",
        Kind::Age | Kind::Span => "1h",
        Kind::Count => "10",
        Kind::Networks => "[10.0.0.0/8]",
        Kind::MetadataOptions => "{v2_only: true}",
    }
}

/// `any`: only in allow rules, only where it must be spelled, never for accounts (I2, T30).
pub(super) fn any(field: &Field, node: &Node, effect: Effect, report: &mut Report) -> Option<Test> {
    match (field.kind, field.presence, effect) {
        (Kind::Accounts, ..) => {
            report_any_account(&node.place, "any", report);
            None
        }
        (_, Presence::RequiredOrAny, Effect::Allow) => Some(Test::Any),
        _ => invalid(
            node,
            field.name,
            "a condition; where none is meant leave the field out",
            report,
        ),
    }
}

/// Reports an allow-list that would admit every AWS customer.
pub(super) fn report_any_account(place: &Place, text: &str, report: &mut Report) {
    report.add(
        FindingCode::AccountsAny,
        place,
        format!("{} would admit every AWS customer", quoted(text)),
        "names of AccountSets, such as `[production]`, or quoted account numbers: there is no \
         `any` for accounts",
    );
}

/// Identifiers: the prefix and 8 or 17 hexadecimal digits. A misspelt one would match nothing,
/// which in a deny rule is a prohibition that does not prohibit.
pub(super) fn ids(
    name: &str,
    prefix: &str,
    node: &Node,
    report: &mut Report,
) -> Option<BTreeSet<String>> {
    let example = format!("[{prefix}0123456789abcdef0]");
    let mut ids = BTreeSet::new();
    let mut is_whole = true;
    for (text, item) in decode::texts(node, name, &example, report)? {
        if is_id(prefix, text) {
            ids.insert(text.to_owned());
        } else {
            let expected = format!("`{prefix}` and 8 or 17 lower-case hexadecimal digits");
            let _reported: Option<()> = invalid(item, name, &expected, report);
            is_whole = false;
        }
    }
    is_whole.then_some(ids)
}

/// Whether text is an identifier with this prefix.
pub(super) fn is_id(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        matches!(digits.len(), 8 | 17)
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// A name with `*`, or a list of such names.
pub(super) fn globs(
    name: &str,
    separators: &'static [char],
    node: &Node,
    report: &mut Report,
) -> Option<Vec<Glob>> {
    let texts = match &node.content {
        Content::Scalar { .. } => vec![(decode::text(node, name, report)?, node)],
        Content::Sequence(_) | Content::Mapping(_) => {
            decode::texts(node, name, "[web-*, api]", report)?
        }
    };
    let mut globs = Vec::new();
    let mut is_whole = true;
    for (text, item) in texts {
        match Glob::new(text, separators) {
            Ok(glob) => globs.push(glob),
            Err(expected) => {
                let _reported: Option<()> = invalid(item, name, expected, report);
                is_whole = false;
            }
        }
    }
    is_whole.then_some(globs)
}

/// Networks, as their own first address and length: `10.1.2.3/8` is a slip of the pen.
pub(super) fn networks(name: &str, node: &Node, report: &mut Report) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    let mut is_whole = true;
    for (text, item) in decode::texts(node, name, "[10.0.0.0/8]", report)? {
        match text.parse::<IpNet>() {
            Ok(network) if is_plain_network(&network) => networks.push(network),
            Ok(network) => {
                let expected = format!("`{}`, and IPv4 as IPv4", network.trunc());
                let _reported: Option<()> = invalid(item, name, &expected, report);
                is_whole = false;
            }
            Err(_) => {
                let expected = "networks such as `10.0.0.0/8`, or `192.0.2.7/32` for one address";
                let _reported: Option<()> = invalid(item, name, expected, report);
                is_whole = false;
            }
        }
    }
    is_whole.then_some(networks)
}

/// Tags: exact values only. A `*` in a value is a star.
pub(super) fn tags(name: &str, node: &Node, report: &mut Report) -> Option<Vec<(String, TagTest)>> {
    let mut tests = Some(Vec::new());
    for (key, value) in decode::mapping(node, &format!("`{name}`"), report)? {
        if key.is_plain && decode::is_ambiguous(&key.text) {
            let message = format!("the tag {} needs quotes", quoted(&key.text));
            report.add(FindingCode::NeedsQuotes, &key.place, message, format!("\"{}\"", key.text));
            tests = None;
        }
        if key.text.is_empty() || key.text.chars().count() > 128 {
            let expected = "a tag name of 1 to 128 characters";
            report.add(FindingCode::ValueInvalid, &key.place, "not the name of a tag", expected);
            tests = None;
        }
        let test = tag_test(&key.text, value, report);
        match (test, &mut tests) {
            (Some(test), Some(tests)) => tests.push((key.text.clone(), test)),
            (None, _) => tests = None,
            (Some(_), None) => {}
        }
    }
    tests
}

fn tag_test(key: &str, value: &Node, report: &mut Report) -> Option<TagTest> {
    if value.is_null() {
        report_null(&quoted(key), &value.place, report);
        return None;
    }
    if let Content::Sequence(_) = value.content {
        let texts = decode::texts(value, key, "[web, api]", report)?;
        return Some(TagTest::OneOf(texts.into_iter().map(|(text, _)| text.to_owned()).collect()));
    }
    // A quoted word is a value, so that a tag with the value `present` can be written.
    match (decode::text(value, key, report)?, &value.content) {
        ("present", Content::Scalar { is_plain: true, .. }) => Some(TagTest::Present),
        ("absent", Content::Scalar { is_plain: true, .. }) => Some(TagTest::Absent),
        (text, _) => Some(TagTest::OneOf(BTreeSet::from([text.to_owned()]))),
    }
}

/// `{v2_only: true, max_hop_limit: 1}`.
pub(super) fn metadata_options(node: &Node, report: &mut Report) -> Option<Test> {
    let keys = Keys::read(node, "`imds`", &["v2_only", "max_hop_limit"], report)?;
    let v2_only = match keys.get("v2_only") {
        Some(node) => Some(decode::boolean(node, "v2_only", report)?),
        None => None,
    };
    let max_hop_limit = match keys.get("max_hop_limit") {
        Some(node) => Some(decode::number(node, "max_hop_limit", 1..=64, report)?),
        None => None,
    };
    (v2_only.is_some() || max_hop_limit.is_some())
        .then_some(Test::MetadataOptions { v2_only, max_hop_limit })
}

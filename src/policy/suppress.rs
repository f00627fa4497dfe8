//! Suppressions: warnings that somebody decided to live with, why, and until when.
//!
//! They change what is said of files, never who is admitted. What they cover is still told, and
//! marked. Only warnings can be suppressed, only within the own document, and for a limited time.

use super::decode::{self, Keys, invalid};
use super::document::Document;
use super::finding::{Finding, FindingCode, Place, Report, Severity, Suppressed, quoted};
use super::yaml::{Content, Node};
use crate::domain::{Lifetime, Timestamp};

/// The most suppressions of a document. A document that needs more should be mended.
const MAX_ENTRIES: usize = 100;
/// How far ahead a suppression may end: once a year somebody looks again.
const MAX_AHEAD: Lifetime = Lifetime::from_days(366);
/// What is said of suppressions themselves cannot be suppressed.
const OF_SUPPRESSIONS: &[FindingCode] = &[
    FindingCode::SuppressionExpired,
    FindingCode::SuppressionTooLong,
    FindingCode::SuppressionUnused,
];

/// One entry of `metadata.suppress`.
#[derive(Debug)]
pub(super) struct Suppression {
    place: Place,
    code: FindingCode,
    covered: Covered,
    suppressed: Suppressed,
}

/// The places that an entry speaks of.
#[derive(Debug)]
enum Covered {
    /// From the first place to before the second, or to the end of the file.
    Document(Place, Option<Place>),
    /// Rules of one name, each from its first to its last place.
    Rules(Vec<(Place, Place)>),
}

impl Covered {
    fn contains(&self, place: &Place) -> bool {
        match self {
            Self::Document(first, next) => {
                first.file == place.file
                    && first <= place
                    && next.as_ref().is_none_or(|next| place < next)
            }
            Self::Rules(rules) => rules.iter().any(|(first, last)| first <= place && place <= last),
        }
    }
}

/// Reads the suppressions of all documents, in their order.
pub(super) fn read(documents: &[Document<'_>], report: &mut Report) -> Vec<Suppression> {
    let mut all = Vec::new();
    for document in documents {
        let Some(node) = document.suppress else { continue };
        let example = "{code: LOOK_UP_DEFAULT, reason: …, until: …}";
        let Some(entries) = decode::list(node, "suppress", example, report) else { continue };
        if entries.len() > MAX_ENTRIES {
            let message = format!("there are {} suppressions", entries.len());
            let expected = "at most 100 a document";
            report.add(FindingCode::LimitExceeded, &node.place, message, expected);
            continue;
        }
        all.extend(entries.iter().filter_map(|entry| suppression(document, entry, report)));
    }
    all
}

fn suppression(document: &Document<'_>, node: &Node, report: &mut Report) -> Option<Suppression> {
    const KEYS: &[&str] = &["code", "reason", "until", "rule"];
    let keys = Keys::read(node, "a suppression", KEYS, report)?;
    let code = keys.required("code", "`code: LOOK_UP_DEFAULT`", report);
    let code = code.and_then(|node| code_of(node, report));
    let reason = keys.required("reason", "`reason:` and why the warning may stay", report);
    let reason = reason.and_then(|node| decode::text(node, "reason", report));
    let until = keys.required("until", "`until: 2027-01-31T00:00:00Z`", report);
    let until = until.and_then(|node| decode::time(node, "until", report));
    let covered = match keys.get("rule") {
        Some(rule) => rules(document, rule, report).map(Covered::Rules),
        // A rule without a value was reported; it must not become the whole document.
        None if keys.has("rule") => None,
        None => Some(Covered::Document(document.place.clone(), document.next.cloned())),
    };
    let (code, reason, until, covered) = (code?, reason?.to_owned(), until?, covered?);
    let suppressed = Suppressed { reason, until };
    Some(Suppression { place: node.place.clone(), code, covered, suppressed })
}

/// The code of a warning.
fn code_of(node: &Node, report: &mut Report) -> Option<FindingCode> {
    let text = decode::text(node, "code", report)?;
    let can_be = |code: &FindingCode| {
        code.severity() == Severity::Warning && !OF_SUPPRESSIONS.contains(code)
    };
    match FindingCode::ALL.iter().find(|code| code.as_str() == text) {
        Some(code) if can_be(code) => Some(*code),
        Some(code) => {
            let message = format!("`{code}` cannot be suppressed");
            let expected = match code.severity() {
                Severity::Error => "the code of a warning: errors are mended",
                Severity::Warning => "no such entry: what is said of suppressions is mended",
            };
            report.add(FindingCode::ValueInvalid, &node.place, message, expected);
            None
        }
        None => {
            let warnings = FindingCode::ALL.iter().filter(|code| can_be(code));
            let warnings: Vec<&str> = warnings.map(|code| code.as_str()).collect();
            invalid(node, "code", &decode::unknown(text, &warnings), report)
        }
    }
}

/// The rules of this name, or of this list and index. Allow and deny may each have one.
fn rules(document: &Document<'_>, node: &Node, report: &mut Report) -> Option<Vec<(Place, Place)>> {
    let wanted = decode::text(node, "rule", report)?;
    let mut rules = Vec::new();
    for list in ["allow", "deny"] {
        let items = document.spec.value(list).map(|node| &node.content);
        let Some(Content::Sequence(items)) = items else { continue };
        for (index, item) in items.iter().enumerate() {
            let name = match item.value("name").map(|name| &name.content) {
                Some(Content::Scalar { text, .. }) => text.clone(),
                _ => format!("{list}[{index}]"),
            };
            if name == wanted {
                rules.push((item.place.clone(), last_place(item)));
            }
        }
    }
    if rules.is_empty() {
        let message = format!("no rule of this document is called {}", quoted(wanted));
        let expected = "the name of a rule of the same document, or `allow[0]` for one without";
        report.add(FindingCode::ValueInvalid, &node.place, message, expected);
        return None;
    }
    Some(rules)
}

/// The last place within a node at which something begins.
fn last_place(node: &Node) -> Place {
    match &node.content {
        Content::Scalar { .. } => node.place.clone(),
        Content::Sequence(items) => items.last().map_or_else(|| node.place.clone(), last_place),
        Content::Mapping(entries) => {
            entries.last().map_or_else(|| node.place.clone(), |(_, value)| last_place(value))
        }
    }
}

/// Marks what is suppressed, and adds what is to be said of the suppressions. Without a time nothing
/// is suppressed, because nobody knows which suppressions are over.
pub(super) fn apply(suppressions: &[Suppression], now: Option<Timestamp>, report: &mut Report) {
    let Some(now) = now else { return };
    let mut valid = Vec::new();
    for one in suppressions {
        if let Some((code, message, expected)) = out_of_time(one, now) {
            report.add(code, &one.place, message, expected);
        } else {
            valid.push((one, false));
        }
    }
    for finding in report.findings_mut() {
        if let Some((one, is_used)) = valid.iter_mut().find(|(one, _)| covers(one, finding)) {
            *is_used = true;
            finding.suppressed = Some(one.suppressed.clone());
        }
    }
    // A set with errors is not looked at for doubts, so most would seem unused.
    let unused = valid.iter().filter(|(_, is_used)| !is_used && !report.has_errors());
    let unused: Vec<_> = unused.map(|(one, _)| one).collect();
    for one in unused {
        let message = format!("there is no {} that this entry would suppress", one.code);
        let expected = "no such entry, so that it does not hide the next one";
        report.add(FindingCode::SuppressionUnused, &one.place, message, expected);
    }
    // Where findings were left out, those that are left must not vanish from the sum as well.
    if !report.is_whole() {
        for finding in report.findings_mut() {
            finding.suppressed = None;
        }
    }
}

fn covers(suppression: &Suppression, finding: &Finding) -> bool {
    !finding.is_error()
        && suppression.code == finding.code
        && suppression.covered.contains(&finding.place)
}

/// Why an entry suppresses nothing at this time.
fn out_of_time(one: &Suppression, now: Timestamp) -> Option<(FindingCode, String, &'static str)> {
    let (code, until) = (one.code, one.suppressed.until);
    if now > until {
        let message = format!("the suppression of {code} ended at {until}");
        let expected = "the warning mended, or a later `until` if somebody looked again";
        return Some((FindingCode::SuppressionExpired, message, expected));
    }
    if until > now.plus(MAX_AHEAD) {
        let message = format!("the suppression of {code} ends at {until}, and suppresses nothing");
        let expected = "an `until` within 366 days";
        return Some((FindingCode::SuppressionTooLong, message, expected));
    }
    None
}

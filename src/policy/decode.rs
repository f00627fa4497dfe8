//! Reading typed values out of nodes, strictly: unknown keys, nulls, empty lists and text that YAML
//! may take for something else are findings. `None` always means "already reported".

use std::fmt::Display;
use std::str::FromStr;

use super::finding::{FindingCode, Place, Report, quoted};
use super::yaml::{Content, Key, Node, is_hidden};
use crate::domain::{Lifetime, Timestamp};

/// The longest text of a policy: a description.
const MAX_TEXT_CHARS: usize = 1024;

/// The keys of one mapping.
pub(super) struct Keys<'n> {
    /// Where the mapping stands.
    pub(super) place: &'n Place,
    what: &'static str,
    entries: &'n [(Key, Node)],
}

impl<'n> Keys<'n> {
    /// Reads a mapping that may have these keys; every other key and every null is reported.
    pub(super) fn read(
        node: &'n Node,
        what: &'static str,
        allowed: &[&str],
        report: &mut Report,
    ) -> Option<Self> {
        let entries = mapping(node, what, report)?;
        for (key, value) in entries {
            if !allowed.contains(&key.text.as_str()) {
                let message = format!("{} means nothing in {what}", quoted(&key.text));
                let expected = unknown(&key.text, allowed);
                report.add(FindingCode::KeyUnknown, &key.place, message, expected);
            } else if value.is_null() {
                report_null(&quoted(&key.text), &value.place, report);
            }
        }
        Some(Self { place: &node.place, what, entries })
    }

    /// The value of a key, unless it is not written or null.
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).filter(|node| !node.is_null())
    }

    /// Whether the key is written, with whatever value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The value of a key that must be there. A null was reported when the keys were read.
    pub(super) fn required(
        &self,
        name: &str,
        expected: impl Display,
        report: &mut Report,
    ) -> Option<&'n Node> {
        if !self.has(name) {
            let message = format!("{} has no `{name}`", self.what);
            report.add(FindingCode::KeyMissing, self.place, message, expected.to_string());
        }
        self.get(name)
    }

    fn entry(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
    }
}

/// Reports a key that is written without a value.
pub(super) fn report_null(what: &str, place: &Place, report: &mut Report) {
    report.add(
        FindingCode::ValueNull,
        place,
        format!("{what} has no value"),
        "a value, or leave it out: nothing never means everything",
    );
}

/// The entries of a mapping, which may not be empty.
pub(super) fn mapping<'n>(
    node: &'n Node,
    what: &str,
    report: &mut Report,
) -> Option<&'n [(Key, Node)]> {
    match &node.content {
        Content::Mapping(entries) if entries.is_empty() => {
            let message = format!("{what} is empty");
            report.add(FindingCode::ValueEmpty, &node.place, message, "its keys, or leave it out");
            None
        }
        Content::Mapping(entries) => Some(entries),
        Content::Scalar { .. } if node.is_null() => {
            report_null(what, &node.place, report);
            None
        }
        Content::Scalar { .. } | Content::Sequence(_) => {
            let message = format!("{what} is {}", node.describe());
            report.add(FindingCode::ValueType, &node.place, message, "a mapping: `key: value`");
            None
        }
    }
}

/// The items of a list, which may not be empty.
pub(super) fn list<'n>(
    node: &'n Node,
    what: &str,
    example: &str,
    report: &mut Report,
) -> Option<&'n [Node]> {
    match &node.content {
        Content::Sequence(items) if items.is_empty() => {
            report.add(
                FindingCode::ValueEmpty,
                &node.place,
                format!("`{what}` is empty"),
                format!("at least one, for example `{example}`: an empty list never means any"),
            );
            None
        }
        Content::Sequence(items) => Some(items),
        Content::Scalar { .. } | Content::Mapping(_) => {
            let message = format!("`{what}` is {}", node.describe());
            let expected = format!("a list, for example `{example}`");
            report.add(FindingCode::ValueType, &node.place, message, expected);
            None
        }
    }
}

/// The texts of a list, each once, with their nodes.
pub(super) fn texts<'n>(
    node: &'n Node,
    what: &str,
    example: &str,
    report: &mut Report,
) -> Option<Vec<(&'n str, &'n Node)>> {
    let mut seen = std::collections::HashSet::new();
    let mut texts = Some(Vec::new());
    for item in list(node, what, example, report)? {
        let Some(text) = text(item, what, report) else {
            texts = None;
            continue;
        };
        if !seen.insert(text) {
            let message = format!("{} stands twice in `{what}`", quoted(text));
            report.add(FindingCode::ValueRepeated, &item.place, message, "each value once");
        }
        if let Some(texts) = &mut texts {
            texts.push((text, item));
        }
    }
    texts
}

/// Text: not empty, short, on its lines, and not something that YAML may take for a number.
pub(super) fn text<'n>(node: &'n Node, what: &str, report: &mut Report) -> Option<&'n str> {
    let (text, is_plain) = scalar(node, what, report)?;
    if text.trim().is_empty() {
        let message = format!("`{what}` is empty");
        report.add(FindingCode::ValueEmpty, &node.place, message, "text, or leave the key out");
        return None;
    }
    if text.chars().count() > MAX_TEXT_CHARS {
        let message = format!("`{what}` is longer than {MAX_TEXT_CHARS} characters");
        report.add(FindingCode::LimitExceeded, &node.place, message, "shorter text");
        return None;
    }
    // Quotes can write with an escape what may not stand in a file.
    if text.chars().any(is_hidden) {
        let message = format!("`{what}` is {}", quoted(text));
        let expected = "text without control and text-direction characters";
        report.add(FindingCode::CharacterNotAllowed, &node.place, message, expected);
        return None;
    }
    if is_plain && is_ambiguous(text) {
        let message =
            format!("{} without quotes is not text to every reader of YAML", quoted(text));
        report.add(FindingCode::NeedsQuotes, &node.place, message, format!("\"{text}\""));
        return None;
    }
    Some(text)
}

/// Text of a certain form, which the error of `FromStr` describes.
pub(super) fn parsed<T>(node: &Node, what: &str, report: &mut Report) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    let text = text(node, what, report)?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            let expected = error.to_string();
            let expected = expected.split(", found").next().unwrap_or_default();
            let expected = expected.strip_prefix("expected ").unwrap_or(expected).to_owned();
            let message = format!("`{what}` is {}", quoted(text));
            report.add(FindingCode::ValueInvalid, &node.place, message, expected);
            None
        }
    }
}

/// A duration, longer than nothing and at most `max`.
pub(super) fn duration(
    node: &Node,
    what: &str,
    max: Lifetime,
    report: &mut Report,
) -> Option<Lifetime> {
    let span: Lifetime = parsed(node, what, report)?;
    if span == Lifetime::from_seconds(0) || span > max {
        let message = format!("`{what}` is {span}");
        let expected = format!("more than nothing, at most {max}");
        report.add(FindingCode::ValueInvalid, &node.place, message, expected);
        return None;
    }
    Some(span)
}

/// A point in time.
pub(super) fn time(node: &Node, what: &str, report: &mut Report) -> Option<Timestamp> {
    parsed(node, what, report)
}

/// `true` or `false`, without quotes.
pub(super) fn boolean(node: &Node, what: &str, report: &mut Report) -> Option<bool> {
    match scalar(node, what, report)? {
        ("true", true) => Some(true),
        ("false", true) => Some(false),
        _ => invalid(node, what, "true or false, without quotes", report),
    }
}

/// A whole number, without quotes.
pub(super) fn number(
    node: &Node,
    what: &str,
    range: std::ops::RangeInclusive<u32>,
    report: &mut Report,
) -> Option<u32> {
    let (text, is_plain) = scalar(node, what, report)?;
    let is_number = is_plain && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_number && range.contains(&number) => Some(number),
        _ => {
            let expected = format!("a number from {} to {}", range.start(), range.end());
            invalid(node, what, &expected, report)
        }
    }
}

/// Reports a value of the wrong form.
pub(super) fn invalid<T>(
    node: &Node,
    what: &str,
    expected: &str,
    report: &mut Report,
) -> Option<T> {
    let message = format!("`{what}` is {}", node.describe());
    report.add(FindingCode::ValueInvalid, &node.place, message, expected);
    None
}

/// The text of a scalar and whether it stands without quotes.
pub(super) fn scalar<'n>(
    node: &'n Node,
    what: &str,
    report: &mut Report,
) -> Option<(&'n str, bool)> {
    match &node.content {
        Content::Scalar { .. } if node.is_null() => {
            report_null(&quoted(what), &node.place, report);
            None
        }
        Content::Scalar { text, is_plain } => Some((text, *is_plain)),
        Content::Sequence(_) | Content::Mapping(_) => {
            let message = format!("`{what}` is {}", node.describe());
            report.add(FindingCode::ValueType, &node.place, message, "one value");
            None
        }
    }
}

/// Whether YAML 1.1 or 1.2 takes this plain scalar for a boolean, a number or nothing: `on`, `no`,
/// `1e3`, `0123`, `12:30`, `~`.
pub(super) fn is_ambiguous(text: &str) -> bool {
    const WORDS: &[&str] =
        &["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", ".inf", ".nan"];
    let lower = text.to_ascii_lowercase();
    let digits: String = lower.trim_start_matches(['+', '-']).replace('_', "");
    let is_based = ["0x", "0o", "0b"].iter().any(|prefix| {
        digits.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    let is_clock = digits.contains(':')
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'));
    let starts_as_number = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    WORDS.contains(&lower.as_str())
        || is_based
        || is_clock
        || (starts_as_number && digits.parse::<f64>().is_ok())
}

/// "Did you mean", and the whole list.
pub(super) fn unknown(text: &str, allowed: &[&str]) -> String {
    let all = allowed.join(", ");
    match most_like(text, allowed.iter().copied()) {
        Some(near) => format!("`{near}`? Allowed here: {all}"),
        None => format!("one of: {all}"),
    }
}

/// The candidate that is most like `text`, if one is like it at all and it is worth looking for.
pub(super) fn nearest<'c>(
    text: &str,
    candidates: impl Iterator<Item = &'c str>,
    report: &Report,
) -> Option<&'c str> {
    if report.is_short() { most_like(text, candidates) } else { None }
}

fn most_like<'c>(text: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    if text.len() > 64 {
        return None;
    }
    let at_most = (text.len() / 4).max(2);
    candidates
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(distance, _)| *distance <= at_most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, in bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.bytes().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(right.bytes()) {
            let substituted = diagonal + usize::from(from != to);
            diagonal = *cell;
            *cell = substituted.min(diagonal + 1).min(before + 1);
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_may_take_for_something_else_needs_quotes() {
        for text in ["on", "No", "~", "null", "0123", "1e3", "12:30", "0x1f", "1_000", "-1", ".5"] {
            assert!(is_ambiguous(text), "{text}");
        }
        for text in ["web", "i-1", "10.0.0.1", "2x", "onward", "12h", "us-east-1", "-", "+"] {
            assert!(!is_ambiguous(text), "{text}");
        }
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        let regions = ["us-east-1", "us-west-2", "eu-west-1"];
        assert_eq!(most_like("us-esat-1", regions.into_iter()), Some("us-east-1"));
        assert_eq!(most_like("mars", regions.into_iter()), None);
        // A quarter of the text may be wrong, but two letters of any.
        assert_eq!(most_like("us-xxxt-1", regions.into_iter()), None);
        assert_eq!(
            most_like("us-gov-xxxt-1", ["us-gov-east-1"].into_iter()),
            Some("us-gov-east-1")
        );
        assert_eq!(most_like("us-gov-xxxx-1", ["us-gov-east-1"].into_iter()), None);
        // Longer text is not guessed at: it costs the square of its length.
        for (length, is_guessed) in [(64, true), (65, false)] {
            let text = "a".repeat(length);
            assert_eq!(most_like(&text, [text.as_str()].into_iter()).is_some(), is_guessed);
        }
    }

    #[test]
    fn the_distance_is_the_fewest_letters_to_put_in_take_out_or_change() {
        for (left, right, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("web", "web", 0),
            ("web", "wed", 1),
            ("web", "eb", 1),
            ("web", "webs", 1),
            ("kitten", "sitting", 3),
            ("production", "prdouction", 2),
            ("saturday", "sunday", 3),
        ] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }
}

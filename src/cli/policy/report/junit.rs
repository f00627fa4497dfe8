//! `JUnit` XML: a test case for each code and file, because test reports know a case by its name from
//! one run to the next and show one of each name. Lines move, so they stand in the text.

use quick_xml::escape::escape;

use super::{Entry, Place, Report, visible};

/// The entries of one code and file.
struct Case<'r> {
    code: &'r str,
    file: String,
    entries: Vec<&'r Entry>,
}

pub(super) fn write(report: &Report<'_>) -> String {
    let cases = cases(report);
    let count = |holds: fn(&Report<'_>, &Case<'_>) -> bool| {
        cases.iter().filter(|case| holds(report, case)).count()
    };
    let (failures, skipped) = (count(fails), count(is_suppressed));
    // A test report without a test looks like one that was not made.
    let tests = cases.len() + 1;
    let name = format!("muster {}", report.command);
    let mut lines = vec![
        r#"<?xml version="1.0" encoding="UTF-8"?>"#.to_owned(),
        format!(
            r#"<testsuites tests="{tests}" failures="{failures}" skipped="{skipped}" errors="0">"#
        ),
        format!(
            r#"  <testsuite name="{}" tests="{tests}" failures="{failures}" skipped="{skipped}" errors="0">"#,
            attribute(&name)
        ),
        format!(
            r#"    <testcase classname="{}" name="{}">"#,
            attribute(&name),
            attribute(&report.asked)
        ),
        format!("      <system-out>{}</system-out>", text(&visible(&report.summary))),
        "    </testcase>".to_owned(),
    ];
    for case in &cases {
        test_case(report, case, &mut lines);
    }
    lines.push("  </testsuite>".to_owned());
    lines.push("</testsuites>".to_owned());
    lines.join("\n")
}

/// In the order in which their first entries stand.
fn cases<'r>(report: &'r Report<'_>) -> Vec<Case<'r>> {
    let mut cases: Vec<Case<'r>> = Vec::new();
    for entry in &report.entries {
        let file = entry.place.as_ref().map_or_else(|| report.asked.clone(), file);
        let code = entry.code.as_str();
        match cases.iter_mut().find(|case| case.code == code && case.file == file) {
            Some(case) => case.entries.push(entry),
            None => cases.push(Case { code, file, entries: vec![entry] }),
        }
    }
    cases
}

fn file(place: &Place) -> String {
    place.path.to_string_lossy().into_owned()
}

fn fails(report: &Report<'_>, case: &Case<'_>) -> bool {
    case.entries.iter().any(|entry| report.fails(entry))
}

fn is_suppressed(_: &Report<'_>, case: &Case<'_>) -> bool {
    case.entries.iter().all(|entry| entry.suppressed.is_some())
}

fn test_case(report: &Report<'_>, case: &Case<'_>, lines: &mut Vec<String>) {
    let (code, file) = (attribute(case.code), attribute(&case.file));
    lines.push(format!(
        r#"    <testcase classname="{file}" name="{code} in {file}" file="{file}">"#
    ));
    let body: Vec<String> = case.entries.iter().flat_map(|entry| words(entry)).collect();
    let body = text(&body.join("\n"));
    let first = case.entries.first().map(|entry| attribute(&entry.message)).unwrap_or_default();
    lines.push(if fails(report, case) {
        format!(r#"      <failure type="{code}" message="{first}">{body}</failure>"#)
    } else if is_suppressed(report, case) {
        format!(r#"      <skipped message="suppressed">{body}</skipped>"#)
    } else {
        format!("      <system-out>{body}</system-out>")
    });
    lines.push("    </testcase>".to_owned());
}

fn words(entry: &Entry) -> Vec<String> {
    let at = |place: &Place| format!("{}:{}:{}: ", visible(&file(place)), place.line, place.column);
    let place = entry.place.as_ref().map(at).unwrap_or_default();
    let level = entry.level.as_str();
    let mut words = vec![format!("{place}{level}: {}", visible(&entry.message))];
    words.push(format!("    instead: {}", visible(&entry.help)));
    words.extend(
        entry
            .also
            .iter()
            .map(|(place, what)| format!("    see also {}{}", at(place), visible(what))),
    );
    if let Some(reason) = &entry.suppressed {
        words.push(format!("    suppressed: {}", visible(reason)));
    }
    words
}

/// Text of an attribute: on one line, because XML makes line feeds in attributes blanks.
fn attribute(content: &str) -> String {
    text(&visible(content))
}

/// Escaped, and without the characters that XML 1.0 forbids in every form.
fn text(content: &str) -> String {
    let is_forbidden = |character: char| {
        let is_control = character < ' ' && !matches!(character, '\n' | '\r' | '\t');
        is_control || matches!(character, '\u{fffe}' | '\u{ffff}')
    };
    let mut allowed = String::with_capacity(content.len());
    for character in content.chars() {
        if is_forbidden(character) {
            allowed.extend(character.escape_default());
        } else {
            allowed.push(character);
        }
    }
    escape(allowed).into_owned()
}

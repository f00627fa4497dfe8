//! Results of tests as `JUnit` XML, the form that CI systems show.

use std::path::Path;

use super::words::details;
use super::{RunCase, Tested};

/// A suite for each document, a test case for each case.
pub(super) fn report(directory: &Path, tested: &Tested) -> String {
    let all: Vec<&RunCase> = tested.all().collect();
    let mut lines = vec![
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned(),
        format!("<testsuites name=\"muster policy test\" {}>", counts(&all)),
    ];
    for suite in all.chunk_by(|one, other| one.document == other.document) {
        let name = suite.first().map(|case| suite_name(case)).unwrap_or_default();
        lines.push(format!("  <testsuite name=\"{}\" {}>", escaped(name), counts(suite)));
        lines.extend(suite.iter().map(|case| test_case(directory, name, case)));
        lines.push("  </testsuite>".to_owned());
    }
    lines.push("</testsuites>\n".to_owned());
    lines.join("\n")
}

fn counts(cases: &[&RunCase]) -> String {
    let failed = cases.iter().filter(|case| !case.ok).count();
    format!("tests=\"{}\" failures=\"{failed}\" errors=\"0\"", cases.len())
}

fn suite_name(case: &RunCase) -> &str {
    case.document.as_deref().unwrap_or("generated")
}

fn test_case(directory: &Path, suite: &str, case: &RunCase) -> String {
    let file = directory.join(&case.file);
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\"",
        escaped(suite),
        escaped(&case.case),
        escaped(&file.display().to_string()),
        case.line
    );
    match &case.result.mismatch {
        None => format!("{head}/>"),
        Some(mismatch) => format!(
            "{head}>\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
            escaped(mismatch),
            escaped(&details(directory, case).join("\n"))
        ),
    }
}

/// Text as it may stand in XML 1.0, in an attribute too. What XML cannot say at all is replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_text() {
        let hostile = "</failure>\"><x a='&\u{0}\u{1b}\u{ffff}\n";
        let expected = "&lt;/failure&gt;&quot;&gt;&lt;x a='&amp;\u{fffd}\u{fffd}\u{fffd}&#10;";
        assert_eq!(escaped(hostile), expected);
    }
}

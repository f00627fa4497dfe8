//! What writers make of hostile text. What other programs make of whole reports is in
//! `tests/policy_reports.rs`.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::*;

/// File names, messages and reasons as somebody would write them who wants to be more than text.
const HOSTILE: &[&str] = &[
    "a\n::error file=x::y",
    "a\r::set-env name=PATH::/evil",
    "a::warning::b",
    "##[error]mine",
    "x,line=1,title=other",
    "100%0A::error::encoded",
    "| cell | <img src=x onerror=alert(1)> |",
    "\\| out of the cell",
    "`code` ``more`` `open",
    "@everyone and @a/team, #12, !34",
    "[link](https://evil.example) ![picture](https://evil.example/p.png)",
    "www.evil.example https://evil.example",
    "</failure></testcase><testcase name=\"mine\"/>",
    "]]> <!-- --> &amp; &#0; \u{0} \u{1b}[31m \u{8} \u{fffe} \u{ffff}",
    "right\u{202e}left",
    "{0} {instance_id} [x](1)",
];

fn entry(code: &str, level: Level, text: &str) -> Entry {
    let place = Place { path: PathBuf::from(text), line: 3, column: 7 };
    Entry {
        code: code.to_owned(),
        level,
        message: text.to_owned(),
        help: text.to_owned(),
        place: Some(place.clone()),
        also: vec![(place, text.to_owned())],
        suppressed: None,
        properties: serde_json::Map::new(),
    }
}

fn report(entries: Vec<Entry>) -> Report<'static> {
    Report {
        command: "policy check",
        asked: HOSTILE.join(" "),
        summary: HOSTILE.join(" "),
        strict: false,
        properties: serde_json::Map::new(),
        kinds: vec![Kind {
            code: "OWNER_MISSING".to_owned(),
            meaning: "Nobody is named to ask.".to_owned(),
            page: "docs/findings.md#owner_missing".to_owned(),
        }],
        entries,
    }
}

/// Each hostile text as an error, and once more suppressed with it as the reason.
fn hostile() -> Report<'static> {
    let mut entries: Vec<Entry> =
        HOSTILE.iter().map(|text| entry("OWNER_MISSING", Level::Error, text)).collect();
    entries.extend(HOSTILE.iter().map(|text| {
        let suppressed = Some((*text).to_owned());
        Entry { suppressed, ..entry("OWNER_MISSING", Level::Warning, text) }
    }));
    report(entries)
}

/// A command of a workflow: its name, properties and message.
type Command = (String, Vec<(String, String)>, String);

/// What the runner of GitHub's Actions reads in a line.
fn obeyed(line: &str) -> Option<Command> {
    let decode = |text: &str| {
        let text = text.replace("%3A", ":").replace("%2C", ",");
        text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
    };
    let rest = line.trim().strip_prefix("::")?;
    let (head, message) = rest.split_once("::")?;
    let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
    let properties = properties.split(',').map(|property| {
        let (name, value) = property.split_once('=').unwrap();
        (name.to_owned(), decode(value))
    });
    Some((name.to_owned(), properties.collect(), decode(message)))
}

#[test]
fn github_obeys_one_command_an_entry_and_none_that_somebody_else_wrote() {
    let report = hostile();
    let written = github::write(&report);
    // The runner ends a line at either.
    let lines: Vec<&str> = written.split(['\n', '\r']).collect();
    let (last, commands) = lines.split_last().unwrap();
    assert_eq!(commands.len(), report.entries.len(), "{written}");
    for (line, entry) in commands.iter().zip(&report.entries) {
        let (name, properties, message) = obeyed(line).unwrap();
        let expected = if entry.suppressed.is_some() { "notice" } else { "error" };
        assert_eq!(name, expected);
        let path = entry.place.as_ref().unwrap().path.to_str().unwrap().to_owned();
        let expected = [("file", path.as_str()), ("line", "3"), ("col", "7")];
        let expected = expected.into_iter().chain([("title", "OWNER_MISSING")]);
        let expected: Vec<_> = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        assert_eq!(properties, expected, "{line}");
        assert!(message.contains("\nInstead: "), "{message}");
    }
    assert!(obeyed(last).is_none() && !last.contains("##["), "{last}");
}

type Element = (String, Vec<(String, String)>);

/// Names and attributes of the elements, in order; panics if the text is not XML.
fn elements(xml: &str) -> Vec<Element> {
    let mut reader = Reader::from_str(xml);
    let mut found = Vec::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => {
                let attributes = start.attributes().map(|attribute| {
                    let attribute = attribute.unwrap();
                    let value = quick_xml::escape::unescape(&attribute.value).unwrap();
                    (attribute.key.as_ref().to_owned(), value.into_owned())
                });
                found.push((start.name().as_ref().to_owned(), attributes.collect()));
            }
            Event::GeneralRef(reference) => {
                quick_xml::escape::unescape(&format!("&{};", &*reference)).unwrap();
            }
            Event::Text(_) | Event::End(_) | Event::Decl(_) => {}
            Event::Eof => return found,
            other @ (Event::Empty(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::PI(_)
            | Event::DocType(_)) => panic!("nothing writes {other:?}"),
        }
    }
}

#[test]
fn junit_is_xml_with_one_case_a_code_and_file() {
    let report = hostile();
    let xml = junit::write(&report);
    let is_allowed = |c: char| c == '\n' || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'));
    assert!(xml.chars().all(is_allowed), "{xml:?}");
    let found = elements(&xml);
    let count = |name| found.iter().filter(|(found, ..)| found == name).count();
    // Each text is a file name; its error and its suppressed warning are one case. And one of the run.
    assert_eq!(count("testcase"), HOSTILE.len() + 1);
    assert_eq!((count("failure"), count("skipped")), (HOSTILE.len(), 0));
    let suite = &found.iter().find(|(name, ..)| name == "testsuite").unwrap().1;
    let expected = [("tests", HOSTILE.len() + 1), ("failures", HOSTILE.len())];
    for (name, number) in expected {
        assert!(suite.contains(&(name.to_owned(), number.to_string())), "{suite:?}");
    }
}

#[test]
fn junit_fails_by_errors_by_warnings_if_they_count_and_never_by_what_is_suppressed() {
    let suppressed = Some("known".to_owned());
    let entries = vec![
        entry("A", Level::Error, "a"),
        entry("B", Level::Warning, "b"),
        Entry { suppressed, ..entry("C", Level::Warning, "c") },
        entry("D", Level::Note, "d"),
    ];
    for (strict, failures) in [(false, 1), (true, 2)] {
        let xml = junit::write(&Report { strict, ..report(entries.clone()) });
        assert_eq!(xml.matches("<failure ").count(), failures, "{xml}");
        assert_eq!(xml.matches("<skipped ").count(), 1, "{xml}");
    }
    let xml = junit::write(&report(Vec::new()));
    assert_eq!(xml.matches("<testcase ").count(), 1, "a report without a test looks like none");
}

/// The table as its reader splits it: at every pipe, because a cell holds none of its own.
#[test]
fn markdown_holds_nothing_but_text() {
    let report = hostile();
    let written = markdown::write(&report);
    let rows: Vec<&str> = written.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), report.entries.len() + 2, "{written}");
    for row in rows {
        assert_eq!(row.matches('|').count(), 5, "{row}");
    }
    assert!(written.starts_with("### muster policy check: "), "{written}");
    let allowed = ["<code>", "</code>", "<br>"];
    let bare = allowed.iter().fold(written, |text, tag| text.replace(tag, ""));
    for forbidden in ["<", ">", "@", "](", "`", "://", "www.", "\\", "*", "\u{202e}", "\u{1b}"] {
        assert!(!bare.contains(forbidden), "{forbidden:?} in {bare}");
    }
}

#[test]
fn markdown_keeps_plain_words_plain_and_stays_short_enough_for_a_comment() {
    let plain = entry("OWNER_MISSING", Level::Warning, "the policy `web` names nobody to ask");
    let written = markdown::write(&report(vec![plain.clone()]));
    let expected = "| the policy <code>web</code> names nobody to ask<br>";
    assert!(written.contains(expected), "{written}");
    let written = markdown::write(&report(vec![plain; 5000]));
    assert!(written.len() < 65_536 && written.contains(" more, which do not fit here."));
}

#[test]
fn fingerprints_stay_when_lines_move_and_differ_for_two_of_a_kind() {
    let at = |line, message: &str| {
        let place = Place { path: PathBuf::from("a.yaml"), line, column: 1 };
        Entry { place: Some(place), ..entry("NAME_TAKEN", Level::Error, message) }
    };
    let prints = |entries: Vec<Entry>| -> Vec<String> {
        let value: Value = serde_json::from_str(&sarif::write(&report(entries))).unwrap();
        let results = value["runs"][0]["results"].as_array().unwrap();
        let print = |result: &Value| result["partialFingerprints"]["muster/v1"].to_string();
        results.iter().map(print).collect()
    };
    let before = prints(vec![at(3, "`web` is already at b.yaml:3:1"), at(9, "in line 9")]);
    let after = prints(vec![at(30, "`web` is already at b.yaml:12:1"), at(90, "in line 90")]);
    assert_eq!(before, after);
    assert_ne!(before[0], before[1]);
    let twice = prints(vec![at(3, "the same"), at(4, "the same")]);
    assert_ne!(twice[0], twice[1]);
    let other = prints(vec![at(3, "`api` is already at b.yaml:3:1")]);
    assert_ne!(before[0], other[0]);
}

#[test]
fn sarif_paths_are_relative_uris_and_messages_hold_no_link_and_no_placeholder() {
    let written = sarif::write(&hostile());
    let value: Value = serde_json::from_str(&written).unwrap();
    for result in value["runs"][0]["results"].as_array().unwrap() {
        let uri = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        let uri = uri.as_str().unwrap();
        let is_uri = |b: u8| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b);
        assert!(uri.bytes().all(is_uri), "{uri}");
        let text = result["message"]["text"].as_str().unwrap();
        let bare = text.replace("\\\\", "").replace("\\[", "").replace("\\]", "");
        let bare = bare.replace("{{", "").replace("}}", "");
        assert!(!bare.contains(['[', ']', '{', '}']), "{text}");
    }
}

#[test]
fn output_json_and_a_format_that_is_none_contradict_each_other() {
    let json = Printer::new(cli::Format::Json);
    for format in [Format::Text, Format::Junit, Format::Github, Format::Markdown] {
        let failure = Format::chosen(Some(format), json).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }
    assert_eq!(Format::chosen(Some(Format::Sarif), json).unwrap(), Format::Sarif);
    assert_eq!(Format::chosen(None, json).unwrap(), Format::Json);
    let text = Printer::new(cli::Format::Text);
    assert_eq!(Format::chosen(None, text).unwrap(), Format::Text);
    assert_eq!(Format::chosen(Some(Format::Json), text).unwrap(), Format::Json);
}

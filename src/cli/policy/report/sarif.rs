//! SARIF 2.1.0: one run. Paths are relative URIs, columns count characters.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{Entry, Kind, Place, Report};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

pub(super) fn write(report: &Report<'_>) -> String {
    let mut seen = HashMap::new();
    let results: Vec<Value> =
        report.entries.iter().map(|entry| result(entry, &report.kinds, &mut seen)).collect();
    let rules: Vec<Value> = report.kinds.iter().map(rule).collect();
    let mut properties = report.properties.clone();
    properties.insert("asked".to_owned(), json!(report.asked));
    properties.insert("summary".to_owned(), json!(report.summary));
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "muster",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            // Keeps the runs of several commands apart where they are uploaded together.
            "automationDetails": {"id": format!("muster {}/", report.command).replace(' ', "-")},
            "columnKind": "unicodeCodePoints",
            "results": results,
            "properties": properties,
        }],
    })
    .to_string()
}

/// No `helpUri`: it would have to be absolute, and the page comes with the program.
fn rule(kind: &Kind) -> Value {
    json!({
        "id": kind.code,
        "shortDescription": {"text": kind.meaning},
        "help": {"text": format!("{} See {}.", kind.meaning, kind.page)},
    })
}

fn result(entry: &Entry, kinds: &[Kind], seen: &mut HashMap<String, u32>) -> Value {
    let locations: Vec<Value> =
        entry.place.iter().map(|place| json!({"physicalLocation": physical(place)})).collect();
    let also = entry.also.iter().enumerate();
    let related: Vec<Value> = also
        .map(|(id, (place, what))| {
            let text = message(what);
            json!({"id": id, "physicalLocation": physical(place), "message": {"text": text}})
        })
        .collect();
    let suppressions: Vec<Value> = entry
        .suppressed
        .iter()
        .map(|reason| json!({"kind": "inSource", "status": "accepted", "justification": reason}))
        .collect();
    let text = format!("{}. Instead: {}", message(&entry.message), message(&entry.help));
    let mut result = json!({
        "ruleId": entry.code,
        "level": entry.level.as_str(),
        "message": {"text": text},
        "locations": locations,
        "relatedLocations": related,
        "suppressions": suppressions,
        "partialFingerprints": {"muster/v1": fingerprint(entry, seen)},
        "properties": entry.properties,
    });
    let index = kinds.iter().position(|kind| kind.code == entry.code);
    if let (Some(index), Some(result)) = (index, result.as_object_mut()) {
        result.insert("ruleIndex".to_owned(), json!(index));
    }
    result
}

fn physical(place: &Place) -> Value {
    json!({
        "artifactLocation": {"uri": uri(&place.path)},
        "region": {"startLine": place.line, "startColumn": place.column},
    })
}

/// A path as a URI; one that is not absolute stays relative. What is no letter, digit or `-._~` is
/// encoded, so that a colon does not begin a scheme.
fn uri(path: &Path) -> String {
    let mut uri = String::from(if path.is_absolute() { "file://" } else { "" });
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            let encoded = format!("%{byte:02X}");
            uri.push_str(&encoded);
        }
    }
    uri
}

/// In a message brackets make links and braces placeholders (SARIF 3.11.5, 3.11.6).
fn message(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('[', "\\[")
        .replace(']', "\\]")
        .replace('{', "{{")
        .replace('}', "}}")
}

/// The same for the same finding of another version of the file: lines and columns are left out, also
/// those that the message has. The second finding of the same kind is told by its number.
fn fingerprint(entry: &Entry, seen: &mut HashMap<String, u32>) -> String {
    let path = entry.place.as_ref().map(|place| uri(&place.path)).unwrap_or_default();
    let what = format!("{}\0{path}\0{}", entry.code, without_places(&entry.message));
    let number = seen.entry(what.clone()).or_insert(0);
    *number += 1;
    hex::encode(digest(&SHA256, format!("{what}\0{number}").as_bytes()))
}

/// Without numbers that follow a colon or `line `.
fn without_places(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for character in text.chars() {
        let is_number = character.is_ascii_digit();
        if !(is_number && (kept.ends_with(':') || kept.ends_with("line "))) {
            kept.push(character);
        }
    }
    kept
}

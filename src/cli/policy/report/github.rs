//! Workflow commands of GitHub Actions: one line an entry, shown as an annotation of the file.
//!
//! The runner takes every line that begins with `::` for a command. So nothing that stands in a
//! report may end a line, end a property or begin another one.

use super::{Entry, Level, Report, visible};

pub(super) fn write(report: &Report<'_>) -> String {
    let mut lines: Vec<String> = report.entries.iter().map(command).collect();
    // No command. The runner also obeys `##[…]` wherever it stands in such a line.
    let summary = visible(&report.summary).replace("##[", "## [");
    lines.push(format!("muster {}: {summary}", report.command));
    lines.join("\n")
}

fn command(entry: &Entry) -> String {
    // What somebody decided to live with is no warning to the next reader.
    let level = if entry.suppressed.is_some() { Level::Note } else { entry.level };
    let name = match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "notice",
    };
    let mut properties = Vec::new();
    if let Some(place) = &entry.place {
        properties.push(("file", place.path.to_string_lossy().into_owned()));
        properties.push(("line", place.line.to_string()));
        properties.push(("col", place.column.to_string()));
    }
    properties.push(("title", entry.code.clone()));
    let properties: Vec<String> =
        properties.iter().map(|(name, value)| format!("{name}={}", property(value))).collect();
    let mut message = vec![entry.message.clone(), format!("Instead: {}", entry.help)];
    message.extend(entry.also.iter().map(|(place, what)| {
        format!("{}:{}:{}: {what}", place.path.display(), place.line, place.column)
    }));
    message.extend(entry.suppressed.iter().map(|reason| format!("Suppressed: {reason}")));
    let message = message.join("\n");
    format!("::{name} {}::{}", properties.join(","), data(&message))
}

/// The text behind the second `::`: it ends with the line.
fn data(text: &str) -> String {
    let lines: Vec<String> =
        text.split('\n').map(|line| visible(&line.replace('%', "%25"))).collect();
    lines.join("%0A")
}

/// The value of a property: it ends with a comma, and all of them with `::`. A file name is told as
/// it is, also with a line feed in it, because only so does GitHub find the file.
fn property(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
        .replace(':', "%3A")
        .replace(',', "%2C")
}

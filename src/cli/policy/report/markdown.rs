//! Markdown for the comment of a pull request or a job summary: a heading and a table.
//!
//! Words of plain letters stand as they are. All else, and all that a message has between backticks,
//! is shown as code in which every special character is an entity: it cannot end a cell, become a
//! link or a picture, or mention somebody.

use super::{Entry, Place, Report, visible};

/// Less than the longest comment that GitHub takes.
const MAX_BYTES: usize = 60_000;

pub(super) fn write(report: &Report<'_>) -> String {
    let mut written = format!("### muster {}: {}\n", report.command, prose(&report.summary));
    if report.entries.is_empty() {
        written.push_str("\nNothing to report.\n");
        return written;
    }
    written.push_str("\n| | where | what | instead |\n|---|---|---|---|\n");
    for (index, entry) in report.entries.iter().enumerate() {
        let row = row(entry);
        if written.len() + row.len() > MAX_BYTES {
            let left = report.entries.len() - index;
            return written + &format!("\nand {left} more, which do not fit here.\n");
        }
        written.push_str(&row);
    }
    written
}

fn row(entry: &Entry) -> String {
    let place = entry.place.as_ref().map(place).unwrap_or_default();
    let level = if entry.suppressed.is_some() { "suppressed" } else { entry.level.as_str() };
    let mut what = vec![prose(&entry.message)];
    what.extend(
        entry.also.iter().map(|(at, said)| format!("{}: {}", self::place(at), prose(said))),
    );
    let what = what.join("<br>");
    let instead = match &entry.suppressed {
        Some(reason) => format!("suppressed: {}", prose(reason)),
        None => prose(&entry.help),
    };
    format!("| {level}<br>{} | {place} | {what} | {instead} |\n", code(&entry.code))
}

fn place(place: &Place) -> String {
    code(&format!("{}:{}:{}", place.path.display(), place.line, place.column))
}

/// A message: what it has between backticks is code, plain words are plain, and any other word is
/// code too.
pub(in crate::cli::policy) fn prose(text: &str) -> String {
    let text = visible(text);
    let parts: Vec<&str> = text.split('`').collect();
    let mut shown = String::new();
    for (index, part) in parts.iter().enumerate() {
        // A backtick that nothing ends is a character as any other.
        let is_quoted = index % 2 == 1;
        if is_quoted && index + 1 < parts.len() {
            shown.push_str(&code(part));
        } else {
            let words: Vec<String> = part.split(' ').map(word).collect();
            shown.push_str(&words.join(" "));
        }
    }
    shown
}

fn word(word: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || ".,;()'-…".contains(character);
    let body = word.strip_suffix(':').unwrap_or(word);
    let is_address = body.to_ascii_lowercase().contains("www.");
    if body.chars().all(is_plain) && !is_address { word.to_owned() } else { code(word) }
}

/// Code that holds nothing but text, also within a table.
pub(in crate::cli::policy) fn code(text: &str) -> String {
    let text = visible(text);
    let is_address = text.to_ascii_lowercase().contains("www.");
    let mut shown = String::from("<code>");
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let is_harmless = match character {
            '.' => !is_address,
            // Before a line or column. Before anything else it may begin an address.
            ':' => characters.peek().is_some_and(char::is_ascii_digit),
            other => other.is_alphanumeric() || " /-,".contains(other),
        };
        if is_harmless {
            shown.push(character);
        } else {
            let entity = format!("&#{};", u32::from(character));
            shown.push_str(&entity);
        }
    }
    shown.push_str("</code>");
    shown
}

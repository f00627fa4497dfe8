//! What a command found in policy files, for other programs: one neutral structure, and a writer
//! for each format. What stands in a report may come from a hostile pull request, so each writer
//! escapes what its reader would take for more than text.

mod github;
mod junit;
pub(in crate::cli::policy) mod markdown;
mod sarif;
#[cfg(test)]
mod tests;

use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::cli::{self, Exit, Failure, Printer};
use crate::domain::Code;
use crate::policy;

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Format {
    /// For people.
    Text,
    /// One JSON value.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// `JUnit` XML, for test reports.
    Junit,
    /// Workflow commands of GitHub's Actions: annotations in the pull request.
    Github,
    /// Markdown, for a comment or a job summary.
    Markdown,
}

impl Format {
    /// What `--format` says; without it, what `--output` says. `--output json` promises one JSON value
    /// on stdout, so together with a format that is none the two contradict each other.
    pub(in crate::cli) fn chosen(format: Option<Self>, printer: Printer) -> Result<Self, Failure> {
        let (output, is_json) = match printer.format() {
            cli::Format::Text => (Self::Text, false),
            cli::Format::Json => (Self::Json, true),
        };
        let chosen = format.unwrap_or(output);
        if is_json && !matches!(chosen, Self::Json | Self::Sarif) {
            let message = "`--output json` asks for JSON, and `--format` for something else";
            let mut failure = Failure::new(Code::ConfigurationInvalid, message);
            failure.hint = Some("give one of the two; `--format json` and `sarif` are JSON".into());
            failure.exit = Exit::Usage;
            return Err(failure);
        }
        Ok(chosen)
    }
}

/// What a command found.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Report<'a> {
    /// The command: `policy check`.
    pub(in crate::cli) command: &'a str,
    /// What it was asked about: the directory.
    pub(in crate::cli) asked: String,
    /// What came of it, in one line.
    pub(in crate::cli) summary: String,
    /// Warnings fail as errors do.
    pub(in crate::cli) strict: bool,
    /// Further facts of the whole, by name: the hash of the set.
    pub(in crate::cli) properties: serde_json::Map<String, Value>,
    /// The kinds of entries; each code of an entry stands here once.
    pub(in crate::cli) kinds: Vec<Kind>,
    /// What was found, in the order in which it is shown.
    pub(in crate::cli) entries: Vec<Entry>,
}

/// A kind of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Kind {
    /// The stable code.
    pub(in crate::cli) code: String,
    /// What it means, in a sentence.
    pub(in crate::cli) meaning: String,
    /// Where more is said of it: `docs/findings.md#owner_missing`.
    pub(in crate::cli) page: String,
}

/// One thing that was found.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Entry {
    /// The code of its kind.
    pub(in crate::cli) code: String,
    /// How bad it is.
    pub(in crate::cli) level: Level,
    /// What is there.
    pub(in crate::cli) message: String,
    /// What to write instead, or what to do.
    pub(in crate::cli) help: String,
    /// Where.
    pub(in crate::cli) place: Option<Place>,
    /// Where else to look, and what is there.
    pub(in crate::cli) also: Vec<(Place, String)>,
    /// Why it does not count, if it does not.
    pub(in crate::cli) suppressed: Option<String>,
    /// Further facts, by name.
    pub(in crate::cli) properties: serde_json::Map<String, Value>,
}

/// How bad an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Level {
    /// It must not stay.
    Error,
    /// Somebody should look.
    Warning,
    /// Good to know.
    Note,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Place {
    /// The file, as whoever runs the command would name it.
    pub(in crate::cli) path: PathBuf,
    /// The line.
    pub(in crate::cli) line: u32,
    /// The column.
    pub(in crate::cli) column: u32,
}

impl Place {
    /// A place in a file of a policies directory. Code review knows files by their path in the
    /// repository, so a path below the current directory is made relative to it.
    pub(in crate::cli) fn within(directory: &Path, place: &policy::Place) -> Self {
        let path = directory.join(&*place.file);
        let here = std::env::current_dir().unwrap_or_default();
        let path = path.strip_prefix(&here).unwrap_or(&path);
        let parts = path.components().filter(|part| *part != Component::CurDir);
        let path: PathBuf = parts.collect();
        let path = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
        Self { path, line: place.line, column: place.column }
    }
}

impl Report<'_> {
    /// Whether an entry makes the command say no.
    fn fails(&self, entry: &Entry) -> bool {
        let counts = match entry.level {
            Level::Error => true,
            Level::Warning => self.strict,
            Level::Note => false,
        };
        counts && entry.suppressed.is_none()
    }

    /// The report in a format for other programs; nothing for those that each command words itself.
    fn written(&self, format: Format) -> Option<String> {
        match format {
            Format::Text | Format::Json => None,
            Format::Sarif => Some(sarif::write(self)),
            Format::Junit => Some(junit::write(self)),
            Format::Github => Some(github::write(self)),
            Format::Markdown => Some(markdown::write(self)),
        }
    }
}

/// Prints what a command found: its own JSON or text, or the report.
pub(in crate::cli) fn print(
    format: Format,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
    report: &Report<'_>,
) {
    let output = if format == Format::Json { cli::Format::Json } else { cli::Format::Text };
    let text = || report.written(format).unwrap_or_else(text);
    Printer::new(output).result(value, text);
}

/// The text on one line, with what a reader would not see written out.
pub(in crate::cli) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if policy::is_hidden(character) || matches!(character, '\n' | '\r' | '\t') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

//! Results on stdout, words on stderr; with JSON exactly one value on stdout, whatever the answer.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::Exit;
use crate::domain::{Class, Code};

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value.
    Json,
}

/// Codes that say that the command could not begin: configuration and files, not the answer "no".
const BROKEN_SURROUNDINGS: &[Code] = &[
    Code::ConfigurationInvalid,
    Code::PolicySetInvalid,
    Code::FileUnreadable,
    Code::CertificatesInvalid,
    Code::DataDirectoryUnusable,
    Code::StateUnusable,
    Code::AuditKeyUnusable,
];

/// Why a command did not do what was asked.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// What is wrong, for the reader of this terminal.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where the operator finds the whole explanation.
    pub correlation_id: Option<String>,
    /// The exit status.
    pub exit: Exit,
}

impl Failure {
    /// A failure with the code's own remedy as hint, and the exit status that fits its class.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let exit = if code == Code::NotPermitted {
            Exit::NotPermitted
        } else if BROKEN_SURROUNDINGS.contains(&code) {
            Exit::Usage
        } else {
            match code.class() {
                Class::Denied | Class::Invalid => Exit::No,
                Class::Stale | Class::Throttled | Class::Unavailable => Exit::NotNow,
            }
        };
        let hint = Some(code.remedy().to_owned());
        Self { code, message: message.into(), hint, correlation_id: None, exit }
    }

    /// The error object of `--output json`.
    pub fn to_json(&self) -> serde_json::Value {
        json!({"error": {
            "code": self.code,
            "class": self.code.class().as_str(),
            "message": self.message,
            "hint": self.hint,
            "correlation_id": self.correlation_id,
        }})
    }
}

/// Prints results and failures in the chosen format. A closed stdout is not an error.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    format: Format,
}

impl Printer {
    /// A printer of this format.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// The format.
    pub fn format(self) -> Format {
        self.format
    }

    /// Prints `value` as JSON, or `text` for people.
    pub fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let printed = match self.format {
            Format::Text => text(),
            Format::Json => to_json(value),
        };
        write_line(&mut io::stdout().lock(), &printed);
    }

    /// Prints bytes as they are, whatever the format.
    pub fn bytes(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _closed = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// Says something on stderr that is not the result.
    pub fn note(self, text: &str) {
        write_line(&mut io::stderr().lock(), text);
    }

    /// Prints a failure: JSON on stdout, text on stderr.
    pub fn failure(self, failure: &Failure) -> Exit {
        match self.format {
            Format::Json => write_line(&mut io::stdout().lock(), &failure.to_json().to_string()),
            Format::Text => {
                let mut text = format!("error: {} [{}]", failure.message, failure.code);
                if let Some(hint) = &failure.hint {
                    text.push_str("\n  hint: ");
                    text.push_str(hint);
                }
                if let Some(id) = &failure.correlation_id {
                    text.push_str("\n  correlation id: ");
                    text.push_str(id);
                }
                write_line(&mut io::stderr().lock(), &text);
            }
        }
        failure.exit
    }
}

/// One line of JSON.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_else(|error| json!({"error": error.to_string()}).to_string())
}

/// Writes text and a line feed. A reader that went away (`| head`) is no failure of the command.
fn write_line(to: &mut impl Write, text: &str) {
    let _closed =
        to.write_all(text.trim_end_matches('\n').as_bytes()).and_then(|()| to.write_all(b"\n"));
    let _closed = to.flush();
}

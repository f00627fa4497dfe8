//! What `muster tokens` prints, and where a secret is written.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::Failure;
use crate::cli::local::text;
use crate::domain::Code;

/// A new file that only its owner can read.
pub(super) struct SecretFile {
    path: PathBuf,
    file: std::fs::File,
}

impl SecretFile {
    /// Makes the file. One that is there already is left alone: it may be somebody's.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| unwritten(path, &error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, which is empty, as there is no secret to keep.
    pub(super) fn take_back(&self) {
        let _gone = std::fs::remove_file(&self.path);
    }

    /// Writes the secret, durably.
    pub(super) fn write(mut self, secret: &str) -> Result<(), Failure> {
        self.file
            .write_all(secret.as_bytes())
            .and_then(|()| self.file.write_all(b"\n"))
            .and_then(|()| self.file.sync_all())
            .map_err(|error| unwritten(&self.path, &error))
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::FileUnreadable, format!("{}: {error}", path.display()))
}

pub(super) fn added(value: &Value) -> String {
    let of = |name| text(value, name);
    let uses = match value.get("max_uses").and_then(Value::as_u64) {
        Some(1) => "one node".to_owned(),
        Some(number) => format!("{number} nodes"),
        None => "any number of nodes".to_owned(),
    };
    let end = value.get("expires_at").and_then(Value::as_str);
    let until = end.map_or_else(|| "for ever".to_owned(), |end| format!("until {end}"));
    let secret = match value.get("token").and_then(Value::as_str) {
        Some(secret) => format!("{secret}\n\nThis is shown once."),
        None => format!("Its secret is in {}.", of("file")),
    };
    format!(
        "token {} for policy {}, {until}, for {uses}\n\n{secret} On the node, with the secret in \
         /etc/muster/token (mode 0600):\n\n  {}",
        of("name"),
        of("policy"),
        of("command")
    )
}

pub(super) fn made(value: &Value) -> String {
    let of = |name| text(value, name);
    let secret = match value.get("token").and_then(Value::as_str) {
        Some(secret) => format!("{secret}\n\nThis is shown once."),
        None => format!("The secret is in {}.", of("file")),
    };
    format!(
        "{secret} For the server's file of static tokens:\n\n[[token]]\nname = \"{}\"\npublic_key = \
         \"{}\"\npolicy = \"…\"\nexpires_at = \"…\"   # or \"never\"\nmax_uses = 1   # or \
         \"unlimited\"",
        of("name"),
        of("public_key")
    )
}

pub(super) fn listed(value: &Value) -> String {
    let tokens = value.get("tokens").and_then(Value::as_array).map(Vec::as_slice);
    let lines: Vec<_> = tokens.unwrap_or_default().iter().map(line).collect();
    if lines.is_empty() { "no tokens".to_owned() } else { lines.join("\n") }
}

fn line(token: &Value) -> String {
    let of = |name| text(token, name);
    let most = token.get("max_uses").and_then(Value::as_u64);
    let most = most.map_or_else(|| "unlimited".to_owned(), |number| number.to_string());
    let end = token.get("expires_at").and_then(Value::as_str).unwrap_or("never ends");
    format!(
        "{}  {}  {}  {} of {most}  {end}  by {}",
        of("name"),
        of("state"),
        of("policy"),
        of("uses"),
        of("created_by")
    )
}

pub(super) fn shown(token: &Value) -> String {
    let members = token.as_object().into_iter().flatten();
    let lines: Vec<_> = members.map(|(name, _)| format!("{name}: {}", text(token, name))).collect();
    lines.join("\n")
}

pub(super) fn removed(value: &Value) -> String {
    format!(
        "{} is removed; {} nodes had joined with it",
        text(value, "removed"),
        text(value, "uses")
    )
}

pub(super) fn findings(value: &Value) -> String {
    let found = value.get("findings").and_then(Value::as_array).map(Vec::as_slice);
    let lines: Vec<_> = found
        .unwrap_or_default()
        .iter()
        .map(|one| {
            let of = |name| text(one, name);
            format!(
                "{}: {} [{}]\n    expected: {}",
                of("token"),
                of("message"),
                of("code"),
                of("expected")
            )
        })
        .collect();
    match lines.len() {
        0 => format!("{} tokens, nothing doubtful", text(value, "tokens")),
        _ => lines.join("\n"),
    }
}

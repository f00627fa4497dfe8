//! `muster policy import`: Teleport's token documents become policies.

use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::aws::RegionCertificates;
use crate::cli::input;
use crate::cli::{Exit, Failure, Outcome, Printer};
use crate::domain::Code;
use crate::methods;
use crate::policy::{
    self, Import as Imported, ImportNote, PolicyFile, Vocabulary, import_teleport,
};

/// Writes policies that say what Teleport's token documents (`kind: token`, `version: v2`) say.
///
/// Methods `ec2` and `token`. What cannot be carried over is listed, and the exit status is 1 unless
/// --partial; nothing is widened, and no secret is written: of a document of method `token` the name
/// is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tctl get tokens | muster policy import - --out policies/imported.yaml
  muster policy import ec2-token.yaml --partial
  muster policy import *.yaml --output json

Exit status: 0 imported, 1 something cannot be carried over, 2 a file cannot be read or written.")]
pub(super) struct Import {
    /// Files of documents; `-` is stdin.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Writes what can be carried over although something cannot.
    #[arg(long)]
    partial: bool,
    /// Writes the policies to a new file instead of stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Import {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let mut imported = Imported::default();
        for path in &self.files {
            let text = String::from_utf8(input::read(path, policy::MAX_FILE_BYTES)?);
            let text = text.map_err(|_| {
                Failure::new(Code::FileUnreadable, format!("{}: not UTF-8", path.display()))
            })?;
            import_teleport(&path.display().to_string(), &text, &mut imported);
        }
        let text: Vec<_> = imported.policies.iter().map(|policy| policy.text.as_str()).collect();
        let text = text.join("---\n");
        check(&text, &mut imported);
        let is_whole = imported.losses.is_empty();
        let is_written = is_whole || self.partial;
        if let Some(out) = self.out.as_ref().filter(|_| is_written) {
            let written = std::fs::OpenOptions::new().write(true).create_new(true).open(out);
            written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
                Failure::new(Code::FileUnreadable, format!("{}: {error}", out.display()))
            })?;
        }
        remark(&imported, printer);
        let value = in_json(&imported);
        printer.result(&value, || match (&self.out, is_written) {
            (Some(out), true) => {
                format!("{} policies in {}", imported.policies.len(), out.display())
            }
            (None, true) => text.trim_end().to_owned(),
            (_, false) => "nothing is written: give --partial to leave that out".to_owned(),
        });
        Ok(if is_written { Exit::Yes } else { Exit::No })
    }
}

/// What `policy check` would say of the result.
fn check(text: &str, imported: &mut Imported) {
    if imported.policies.is_empty() {
        return;
    }
    let file = PolicyFile { name: "imported.yaml".to_owned(), text: text.to_owned() };
    let regions = RegionCertificates::embedded().known_regions().clone();
    let loaded = policy::load(&[file], &Vocabulary { methods: methods::ALL, regions }, None);
    for finding in loaded.findings.into_iter().filter(policy::Finding::is_error) {
        let message = format!("`policy check`: {} [{}]", finding.message, finding.code);
        imported.losses.push(ImportNote { place: finding.place, message });
    }
}

/// For people, beside the policies on stdout.
fn remark(imported: &Imported, printer: Printer) {
    let kinds = [("not carried over", &imported.losses), ("note", &imported.notes)];
    for (kind, remarks) in kinds {
        for ImportNote { place, message } in remarks {
            printer.note(&format!("{place}: {kind}: {message}"));
        }
    }
}

fn in_json(imported: &Imported) -> Value {
    let remarks = |remarks: &[ImportNote]| -> Vec<Value> {
        let shown = remarks.iter().map(|ImportNote { place, message }| {
            json!({"file": place.file.as_ref(), "line": place.line, "column": place.column, "message": message})
        });
        shown.collect()
    };
    let policies: Vec<_> = imported
        .policies
        .iter()
        .map(|policy| json!({"name": policy.name, "text": policy.text}))
        .collect();
    json!({
        "documents": imported.documents,
        "policies": policies,
        "losses": remarks(&imported.losses),
        "notes": remarks(&imported.notes),
    })
}

//! `muster policy check`: everything that is wrong or doubtful in a directory of policies.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::report::{self, Entry, Format, Kind, Level, Place, Report};
use super::{load, words};
use crate::cli::{Exit, Outcome, Printer};
use crate::clock::Clock;
use crate::domain::Lifetime;
use crate::policy::{self, Finding, FindingCode, PolicySet, Severity};

/// Reads a directory of policies and reports everything that is wrong or doubtful.
///
/// The exit status is 1 if there are errors, and with --strict also if there are warnings that are
/// not suppressed. The hash is the one that the server shows for the same files.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy check policies
  muster policy check policies --strict --output json
  muster policy check policies --format sarif > policies.sarif
  muster policy check policies --certificates-dir ./certificates

docs/findings.md explains every code.")]
pub(super) struct Check {
    /// The directory: `*.yaml` directly in it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Takes warnings for errors.
    #[arg(long)]
    strict: bool,
    /// Adds the regions of a directory of `<region>.pem` certificates.
    #[arg(long, value_name = "DIR")]
    certificates_dir: Vec<PathBuf>,
    /// How the findings are printed; text, or what --output says, unless given.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

/// What `check` prints.
#[derive(Serialize)]
pub(super) struct Checked<'a> {
    pub(super) hash: &'a str,
    pub(super) policies: usize,
    /// Within this time a removed account has no valid certificate left.
    pub(super) longest_ttl: Option<Lifetime>,
    pub(super) findings: &'a [Finding],
}

impl Check {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let format = Format::chosen(self.format, printer)?;
        let now = Clock::system().now();
        let loaded = load(&self.directory, &self.certificates_dir, now)?;
        let set = loaded.set.as_deref();
        let checked = Checked {
            hash: loaded.hash.as_str(),
            // The set loads as a whole or not at all.
            policies: set.map_or(0, PolicySet::len),
            longest_ttl: set.and_then(|set| set.policies().map(policy::JoinPolicy::ttl).max()),
            findings: &loaded.findings,
        };
        let text = || words::checked(&self.directory, &checked);
        report::print(format, &checked, text, &self.report(&checked));
        let has_doubts = loaded.findings.iter().any(Finding::counts);
        let is_refused = set.is_none() || (self.strict && has_doubts);
        Ok(if is_refused { Exit::No } else { Exit::Yes })
    }

    fn report(&self, checked: &Checked<'_>) -> Report<'static> {
        let mut codes: Vec<FindingCode> =
            checked.findings.iter().map(|finding| finding.code).collect();
        codes.sort();
        codes.dedup();
        let properties = [
            ("hash".to_owned(), checked.hash.into()),
            ("policies".to_owned(), checked.policies.into()),
        ];
        Report {
            command: "policy check",
            asked: self.directory.display().to_string(),
            summary: words::summary(checked),
            strict: self.strict,
            properties: properties.into_iter().collect(),
            kinds: codes.into_iter().map(kind).collect(),
            entries: checked.findings.iter().map(|found| entry(&self.directory, found)).collect(),
        }
    }
}

fn kind(code: FindingCode) -> Kind {
    Kind {
        code: code.to_string(),
        meaning: code.meaning().to_owned(),
        page: format!("docs/findings.md#{}", code.as_str().to_ascii_lowercase()),
    }
}

fn entry(directory: &Path, finding: &Finding) -> Entry {
    Entry {
        code: finding.code.to_string(),
        level: match finding.code.severity() {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
        },
        message: finding.message.clone(),
        help: finding.expected.clone(),
        place: Some(Place::within(directory, &finding.place)),
        also: Vec::new(),
        suppressed: finding.suppressed.as_ref().map(words::suppressed),
        properties: serde_json::Map::new(),
    }
}

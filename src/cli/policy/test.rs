//! `muster policy test`: puts the tests of a directory to the decision, and boundary cases that are
//! made from its policies.

mod junit;
mod words;

use std::path::PathBuf;

use serde::Serialize;

use super::{load, named, whole};
use crate::cli::{Exit, Format, Outcome, Printer};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::policy::{self, CaseResult, PolicySet, TestCase};

/// Runs the `PolicyTest` documents of a directory.
///
/// The exit status is 0 if every case ends as it must, 1 if one does not or if there is none, and 2 if
/// the policies do not load. The cases are put to the decision that nodes are put to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy test policies
  muster policy test policies --policy web --at 2026-12-31T00:00:00Z
  muster policy test policies --format junit > report.xml

docs/reference.md has the form of a PolicyTest.")]
pub(super) struct Test {
    /// The directory: `*.yaml` directly in it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only what is about this policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// The time of cases that have none of their own, instead of now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Adds the certificates `<region>.pem` of a directory.
    #[arg(long, value_name = "DIR")]
    certificates_dir: Vec<PathBuf>,
    /// How results are printed [default: text, or json with --output json].
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<ReportFormat>,
}

/// What `--format` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    /// For people: what does not hold.
    Text,
    /// One JSON value with every case.
    Json,
    /// `JUnit` XML, as CI systems show it.
    Junit,
}

/// What `test` prints.
#[derive(Serialize)]
struct Tested {
    hash: String,
    passed: usize,
    failed: usize,
    cases: Vec<RunCase>,
}

impl Tested {
    /// Every case that was run.
    fn all(&self) -> impl Iterator<Item = &RunCase> {
        self.cases.iter()
    }
}

/// A case and what came of it.
#[derive(Serialize)]
struct RunCase {
    /// The document.
    document: Option<String>,
    /// Its name in there.
    case: String,
    file: String,
    line: u32,
    expect: policy::Outcome,
    #[serde(flatten)]
    result: CaseResult,
    ok: bool,
}

impl RunCase {
    fn of(document: Option<String>, case: &TestCase, set: &PolicySet, now: Timestamp) -> Self {
        let result = case.run(set, now);
        Self {
            document,
            case: case.name().to_owned(),
            file: case.place().file.to_string(),
            line: case.place().line,
            expect: case.expected(),
            ok: result.mismatch.is_none(),
            result,
        }
    }
}

impl Test {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let now = self.at.unwrap_or_else(|| Clock::system().now());
        let loaded = load(&self.directory, &self.certificates_dir, now)?;
        let set = whole(&loaded)?;
        named(set, self.policy.as_deref())?;
        let cases = self.cases(set, now);
        let failed = cases.iter().filter(|case| !case.ok).count();
        let tested =
            Tested { hash: set.hash().to_string(), passed: cases.len() - failed, failed, cases };
        self.print(&tested, printer);
        if tested.passed + tested.failed == 0 {
            printer.note("there is nothing to run: no PolicyTest fits");
            return Ok(Exit::No);
        }
        Ok(if tested.failed == 0 { Exit::Yes } else { Exit::No })
    }

    /// The cases of the documents.
    fn cases(&self, set: &PolicySet, now: Timestamp) -> Vec<RunCase> {
        let documents = set.tests();
        let cases = documents.flat_map(|test| test.cases().iter().map(move |case| (test, case)));
        let fits = |case: &TestCase| {
            let of = case.policy().map(crate::domain::PolicyName::as_str);
            self.policy.is_none() || of == self.policy.as_deref()
        };
        cases
            .filter(|(_, case)| fits(case))
            .map(|(test, case)| RunCase::of(Some(test.name().to_string()), case, set, now))
            .collect()
    }

    fn print(&self, tested: &Tested, printer: Printer) {
        let default = match printer.format() {
            Format::Text => ReportFormat::Text,
            Format::Json => ReportFormat::Json,
        };
        match self.format.unwrap_or(default) {
            ReportFormat::Text => {
                Printer::new(Format::Text).result(&(), || words::tested(&self.directory, tested));
            }
            ReportFormat::Json => Printer::new(Format::Json).result(tested, String::new),
            ReportFormat::Junit => {
                printer.bytes(junit::report(&self.directory, tested).as_bytes());
            }
        }
    }
}

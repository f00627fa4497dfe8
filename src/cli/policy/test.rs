//! `muster policy test`: puts the tests of a directory to the decision, and boundary cases that are
//! made from its policies.

mod junit;
mod words;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::{load, named, whole};
use crate::cli::{Exit, Failure, Format, Outcome, Printer, input};
use crate::clock::Clock;
use crate::domain::{Code, Timestamp};
use crate::policy::{self, Boundaries, CaseResult, PolicySet, RuleNotTried, TestCase};

/// Runs the `PolicyTest` documents of a directory.
///
/// --generate adds boundary cases that are made from the policies: for each rule a node that it admits,
/// with one thing changed to what lies just outside. Every one of them must be refused.
///
/// The exit status is 0 if every case ends as it must, 1 if one does not or if there is none, and 2 if
/// the policies do not load. The cases are put to the decision that nodes are put to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy test policies
  muster policy test policies --policy web --at 2026-12-31T00:00:00Z
  muster policy test policies --format junit > report.xml
  muster policy test policies --generate 500
  muster policy test policies --generate 200 --write neighbours.yaml

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
    /// Makes at most so many boundary cases, up to 10000, and runs them too.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    generate: Option<u16>,
    /// Writes the cases of --generate to a new file, as `PolicyTest` documents.
    #[arg(long, value_name = "FILE", requires = "generate")]
    write: Option<PathBuf>,
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
    generated: Vec<RunCase>,
    /// How many boundary cases of each kind were made.
    made: BTreeMap<&'static str, usize>,
    /// Neighbours that another rule of the same policy admits, and that are no cases therefore.
    admitted_by_another_rule: usize,
    /// Rules beside which no case was made.
    not_tried: Vec<RuleNotTried>,
}

impl Tested {
    /// Every case that was run.
    fn all(&self) -> impl Iterator<Item = &RunCase> {
        self.cases.iter().chain(&self.generated)
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
    /// The kind of a boundary case.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
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
            kind: None,
        }
    }
}

impl Test {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let now = self.at.unwrap_or_else(|| Clock::system().now());
        let loaded = load(&self.directory, &self.certificates_dir, now)?;
        let set = whole(&loaded)?;
        named(set, self.policy.as_deref())?;
        let boundaries = self.boundaries(set, now)?;
        let generated = boundaries.cases.iter().map(|made| RunCase {
            kind: Some(made.step),
            ..RunCase::of(None, &made.case, set, now)
        });
        let mut tested = Tested {
            hash: set.hash().to_string(),
            passed: 0,
            failed: 0,
            cases: self.cases(set, now),
            generated: generated.collect(),
            made: boundaries.made(),
            admitted_by_another_rule: boundaries.admitted_elsewhere,
            not_tried: boundaries.not_tried,
        };
        tested.failed = tested.all().filter(|case| !case.ok).count();
        tested.passed = tested.all().count() - tested.failed;
        self.print(&tested, printer);
        if tested.passed + tested.failed == 0 {
            printer
                .note("there is nothing to run: no PolicyTest fits, and no boundary case was made");
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

    /// The cases that --generate asks for, written down if that is asked for too.
    fn boundaries(&self, set: &PolicySet, now: Timestamp) -> Result<Boundaries, Failure> {
        let Some(most) = self.generate else { return Ok(Boundaries::default()) };
        let regions = input::certificates(&self.certificates_dir)?.known_regions().clone();
        let made =
            policy::boundaries(set, &regions, self.policy.as_deref(), usize::from(most), now);
        let Some(file) = &self.write else { return Ok(made) };
        let text = policy::document_of_tests(&made);
        if text.len() > policy::MAX_FILE_BYTES {
            let message = "the cases are more than a policy file may hold (1 MiB)";
            let mut failure = Failure::new(Code::FileTooLarge, message);
            failure.hint = Some("give a smaller --generate, or one --policy at a time".to_owned());
            return Err(failure);
        }
        let written = OpenOptions::new().write(true).create_new(true).open(file);
        written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
            Failure::new(Code::FileUnreadable, format!("{}: {error}", file.display()))
        })?;
        Ok(made)
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

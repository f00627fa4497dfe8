//! `muster policies`: checks policy files and explains what they say of a node, without a server.

mod access;
mod check;
mod diff;
mod history;
mod impact;
mod import;
mod input;
mod origin;
mod records;
mod report;
mod show;
mod since;
mod test;
mod witness;
mod words;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::local::{DataDir, call_one, text};
use super::{Exit, Failure, Outcome, Printer};
use crate::clock::Clock;
use crate::domain::{Code, PolicyHash, Timestamp};
use crate::methods::{self, FactValues, Instance, Proof};
use crate::policy::{self, Explanation, Finding, Hypothesis, Loaded, PolicySet, Vocabulary};
use crate::server::{self, policy_directory};

/// `muster policies …`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Access(access::Access),
    Check(check::Check),
    Diff(diff::Diff),
    Explain(Explain),
    Import(import::Import),
    Show(show::Show),
    Status(Status),
    Test(test::Test),
}

/// Explains rule by rule whether a node may join.
///
/// The exit status is 0 if some policy (or the named one) admits the node, and 1 if none does or a
/// fact is missing. Claims from --claims are taken as if they were verified.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy explain policies --document document.b64
  muster iid verify document.b64 --output json | muster policy explain policies --claims -
  muster policy explain policies --claims node.json --policy web --proof none
  muster policy explain policies --claims node.json --at 2026-12-31T00:00:00Z")]
#[command(group = clap::ArgGroup::new("node").required(true).args(["document", "claims"]))]
struct Explain {
    /// The directory: `*.yaml` directly in it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// An instance identity document in its rsa2048 form; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// The JSON that `muster iid verify` prints; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// Only this policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Adds the certificates `<region>.pem` of a directory.
    #[arg(long, value_name = "DIR")]
    certificates_dir: Vec<PathBuf>,
    /// What EC2 would say of the instance: JSON with `state`, `instance_profile`, `tags`, `vpc`,
    /// `subnet`, `security_groups`, `auto_scaling_group`, `launch_time`, `imds`; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    instance: Option<PathBuf>,
    /// Whether the node gives a fresh proof.
    #[arg(long, value_enum, default_value_t = SupposedProof::Proven)]
    proof: SupposedProof,
    /// As of this time instead of now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

/// Shows the policy set that a running server has in force.
///
/// The exit status is 1 while an error stands, and with --reviewed also if what runs is not what
/// stands in that directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy status
  muster policy status --reviewed policies")]
struct Status {
    /// Compares the set in force with this directory.
    #[arg(long, value_name = "DIR")]
    reviewed: Option<PathBuf>,
    /// Adds the regions of a directory of `<region>.pem` certificates.
    #[arg(long, value_name = "DIR", requires = "reviewed")]
    certificates_dir: Vec<PathBuf>,
    #[command(flatten)]
    server: DataDir,
}

/// What `--proof` supposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SupposedProof {
    /// It does.
    Proven,
    /// It offers none.
    None,
}

pub(super) fn run(arguments: &Arguments, printer: Printer) -> Outcome {
    match &arguments.command {
        Command::Access(access) => access.run(printer),
        Command::Diff(diff) => diff.run(printer),
        Command::Check(check) => check.run(printer),
        Command::Explain(explain) => explain.run(printer),
        Command::Import(import) => import.run(printer),
        Command::Show(show) => show.run(printer),
        Command::Status(status) => status.run(printer),
        Command::Test(test) => test.run(printer),
    }
}

impl Status {
    fn run(&self, printer: Printer) -> Outcome {
        let reviewed = self.reviewed.as_deref().map(|directory| self.hash_of(directory));
        let reviewed = reviewed.transpose()?;
        let mut status = call_one(&self.server.data_dir, &server::Command::PolicyStatus {})?;
        let is_same = reviewed.as_ref().map(|hash| text(&status, "hash") == hash.as_str());
        if let (Some(hash), Some(is_same), Some(status)) =
            (&reviewed, is_same, status.as_object_mut())
        {
            status.insert("reviewed".to_owned(), json!({"hash": hash, "same": is_same}));
        }
        printer.result(&status, || {
            let mut lines = vec![
                format!(
                    "{} policies since {}",
                    text(&status, "policies"),
                    text(&status, "loaded_at")
                ),
                format!("set {}", text(&status, "hash")),
                format!("error {}", text(&status, "error")),
            ];
            lines.extend(reviewed.iter().map(|hash| match is_same {
                Some(true) => format!("reviewed {hash}: it is what runs"),
                Some(false) | None => format!("reviewed {hash}: it is NOT what runs"),
            }));
            lines.join("\n")
        });
        let has_error = status.get("error").is_some_and(|error| !error.is_null());
        Ok(if has_error || is_same == Some(false) { Exit::No } else { Exit::Yes })
    }

    /// The hash of a set that loads.
    fn hash_of(&self, directory: &Path) -> Result<PolicyHash, Failure> {
        let loaded = load(directory, &self.certificates_dir, Clock::system().now())?;
        whole(&loaded).map(|set| set.hash().clone())
    }
}

/// What `explain` prints.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    /// The claims were not verified but supposed.
    hypothetical: bool,
    /// As of this time.
    at: Timestamp,
}

impl Explain {
    fn run(&self, printer: Printer) -> Outcome {
        let now = self.at.unwrap_or_else(|| Clock::system().now());
        let loaded = load(&self.directory, &self.certificates_dir, now)?;
        let set = whole(&loaded)?;
        named(set, self.policy.as_deref())?;
        let node = match (&self.document, &self.claims) {
            (Some(file), _) => input::claims_of_document(file, &self.certificates_dir)?,
            (None, Some(file)) => input::claims_of_json(file)?,
            (None, None) => return Err(input::nothing_given()),
        };
        let instance = match &self.instance {
            Some(file) => Instance::Known(input::instance_of_json(file)?),
            None => Instance::NotRead("no --instance was given".to_owned()),
        };
        let proof = match self.proof {
            SupposedProof::Proven => Proof::Proven,
            SupposedProof::None => Proof::NotOffered,
        };
        let hypothesis =
            Hypothesis { method: input::METHOD, values: &node.values, epoch: node.epoch };
        let facts = FactValues { proof, instance };
        let explained = Explained {
            explanation: policy::explain(
                set,
                &hypothesis,
                Some(&facts),
                self.policy.as_deref(),
                now,
            ),
            hypothetical: self.claims.is_some(),
            at: now,
        };
        printer.result(&explained, || words::explained(&self.directory, &explained));
        Ok(match explained.explanation.outcome {
            policy::Outcome::Admitted => Exit::Yes,
            policy::Outcome::Refused | policy::Outcome::NeedsFacts => Exit::No,
        })
    }
}

/// What policies may speak of: AWS's regions, and those of every `--certificates-dir`.
fn vocabulary(certificates: &[PathBuf]) -> Result<Vocabulary, Failure> {
    let regions = super::input::certificates(certificates)?.known_regions().clone();
    Ok(Vocabulary { methods: methods::ALL, regions })
}

fn load(directory: &Path, certificates: &[PathBuf], now: Timestamp) -> Result<Loaded, Failure> {
    let vocabulary = vocabulary(certificates)?;
    policy_directory::load(directory, &vocabulary, Some(now))
        .map_err(|error| Failure::new(Code::FileUnreadable, error.to_string()))
}

/// Refuses the name of a policy that is not there.
fn named(set: &PolicySet, policy: Option<&str>) -> Result<(), Failure> {
    let Some(name) = policy.filter(|name| set.policy(name).is_none()) else { return Ok(()) };
    let message = format!("there is no policy `{}`", name.escape_debug());
    let mut failure = Failure::new(Code::PolicyUnknown, message);
    let names: Vec<&str> = set.policies().map(|policy| policy.name().as_str()).collect();
    failure.hint = Some(format!("one of: {}", names.join(", ")));
    Err(failure)
}

/// The set, or what keeps it from loading.
fn whole(loaded: &Loaded) -> Result<&PolicySet, Failure> {
    loaded.set.as_deref().ok_or_else(|| {
        let errors: Vec<&Finding> =
            loaded.findings.iter().filter(|finding| finding.is_error()).collect();
        let message = match errors.first() {
            Some(first) => {
                let more = errors.len() - 1;
                let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                format!("{}: {}{more}", first.place, first.message)
            }
            None => "the policy set does not load".to_owned(),
        };
        Failure::new(Code::PolicySetInvalid, message)
    })
}

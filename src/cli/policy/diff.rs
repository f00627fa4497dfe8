//! `muster policy diff`: what a change of policies means, whatever its text looks like.

mod words;

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use serde_json::Map;

use super::impact::{self, Impact};
use super::origin::Origin;
use super::report::{self, Entry, Format, Kind, Level, Place, Report};
use super::witness::WitnessDocument;
use super::{vocabulary, whole};
use crate::cli::{Exit, Outcome, Printer};
use crate::clock::Clock;
use crate::domain::{PolicyName, Timestamp};
use crate::policy::{self, Change, ChangeKind, ChangeProof, Comparison, Spot};
use words::{sentence, summary};

/// Tells in meaning, not in text, what a change of policies newly admits or cuts off.
///
/// OLD and NEW are directories, or REV:DIR of the git repository of the current directory. Each
/// change comes with a witness: a node that `muster policy explain` says fares otherwise in the two.
///
/// The exit status is 1 with --fail-on-new-access if somebody may get in, or get more, who did not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy diff origin/main:policies policies
  muster policy diff HEAD~1:policies HEAD:policies --format markdown
  muster policy diff old new --fail-on-new-access --format sarif > policies.sarif
  muster policy diff /var/lib/muster/policies policies --impact audit.jsonl")]
pub(super) struct Diff {
    /// The set as it is: a directory, or REV:DIR.
    #[arg(value_name = "OLD")]
    old: String,
    /// The set as it is to be: a directory, or REV:DIR.
    #[arg(value_name = "NEW")]
    new: String,
    /// Says no if somebody is newly admitted, or on weaker terms.
    #[arg(long)]
    fail_on_new_access: bool,
    /// Exported audit records, JSON lines: what the change would mean for the nodes in them; `-` is
    /// stdin.
    #[arg(long, value_name = "AUDIT")]
    impact: Option<PathBuf>,
    /// From this time on, instead of from now on.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Adds the regions of a directory of `<region>.pem` certificates.
    #[arg(long, value_name = "DIR")]
    certificates_dir: Vec<PathBuf>,
    /// How the changes are printed; text, or what --output says, unless given.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

/// The code of policies that were not compared as a whole.
const INCOMPLETE: &str = "INCOMPLETE";

/// What `diff` prints.
#[derive(Debug, Serialize)]
struct Answer {
    old: String,
    new: String,
    at: Timestamp,
    same_meaning: bool,
    changes: Vec<ChangeDocument>,
    complete: bool,
    /// The policies that are too large to be compared as a whole.
    incomplete: Vec<PolicyName>,
    impact: Option<Impact>,
}

#[derive(Debug, Serialize)]
struct ChangeDocument {
    kind: &'static str,
    what: &'static str,
    policy: Option<PolicyName>,
    message: String,
    accounts: Vec<Account>,
    new: Option<SpotDocument>,
    old: Option<SpotDocument>,
    witness: Option<Shown>,
}

#[derive(Debug, Serialize)]
struct Account {
    partition: &'static str,
    account_id: String,
}

#[derive(Debug, Serialize)]
struct SpotDocument {
    rule: Option<String>,
    file: String,
    line: u32,
    column: u32,
}

/// What shows a change: a node, or a policy file that the one set takes and the other does not.
#[derive(Debug)]
enum Shown {
    Node(Box<WitnessDocument>),
    File { document: String },
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Node(node) => node.serialize(to),
            Self::File { document } => to.collect_map([("document", document)]),
        }
    }
}

impl Diff {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let format = Format::chosen(self.format, printer)?;
        let at = self.at.unwrap_or_else(|| Clock::system().now());
        let vocabulary = vocabulary(&self.certificates_dir)?;
        let (old_origin, new_origin) = (Origin::of(&self.old), Origin::of(&self.new));
        let old = old_origin.load(&vocabulary, at)?;
        let new = new_origin.load(&vocabulary, at)?;
        let (old, new) = (whole(&old)?, whole(&new)?);
        let found = policy::compare(old, new, &vocabulary, at);
        let impact = match &self.impact {
            Some(file) => Some(impact::read(file, old, new, at, printer)?),
            None => None,
        };
        let answer = Answer {
            old: old.hash().to_string(),
            new: new.hash().to_string(),
            at,
            same_meaning: found.is_same(),
            changes: found.changes.iter().map(ChangeDocument::from).collect(),
            complete: found.incomplete.is_empty(),
            incomplete: found.incomplete.clone(),
            impact,
        };
        let directories = (old_origin.directory(), new_origin.directory());
        let report = self.report(&answer, &found, directories);
        if format == Format::Markdown {
            printer.bytes(words::markdown(&answer, directories).as_bytes());
        } else {
            report::print(format, &answer, || words::text(&answer, directories), &report);
        }
        let fails = self.fail_on_new_access && found.may_open_access();
        Ok(if fails { Exit::No } else { Exit::Yes })
    }

    fn report(
        &self,
        answer: &Answer,
        found: &Comparison,
        (old, new): (&Path, &Path),
    ) -> Report<'static> {
        let mut kinds: Vec<ChangeKind> = found.changes.iter().map(|change| change.kind).collect();
        kinds.dedup();
        let mut properties = Map::new();
        properties.insert("old".to_owned(), answer.old.clone().into());
        properties.insert("new".to_owned(), answer.new.clone().into());
        let entries = found.changes.iter().zip(&answer.changes).map(|(change, document)| {
            let place = |spot: &Option<Spot>, directory: &Path| {
                spot.as_ref().map(|spot| Place::within(directory, &spot.place))
            };
            let (was, is) = (place(&change.old, old), place(&change.new, new));
            let also = was.clone().filter(|_| is.is_some()).map(|was| (was, "before".to_owned()));
            Entry {
                code: code(change.kind),
                level: level(change),
                message: sentence(document),
                help: document.witness.as_ref().map(Shown::in_words).unwrap_or_default(),
                place: is.or(was),
                also: also.into_iter().collect(),
                suppressed: None,
                properties: as_properties(document),
            }
        });
        let incomplete = found.incomplete.iter().map(|policy| Entry {
            code: INCOMPLETE.to_owned(),
            level: Level::Error,
            message: format!(
                "`{policy}` is too large to be compared; there may be more changes in it"
            ),
            help: "fewer rules, or a reviewer who reads it whole".to_owned(),
            place: None,
            also: Vec::new(),
            suppressed: None,
            properties: Map::new(),
        });
        let mut kinds: Vec<Kind> = kinds.into_iter().map(kind).collect();
        if !found.incomplete.is_empty() {
            kinds.push(Kind {
                code: INCOMPLETE.to_owned(),
                meaning: "A policy that could not be compared as a whole.".to_owned(),
                page: "docs/review.md".to_owned(),
            });
        }
        Report {
            command: "policy diff",
            asked: format!("{} {}", self.old, self.new),
            summary: summary(answer),
            strict: self.fail_on_new_access,
            properties,
            entries: entries.chain(incomplete).collect(),
            kinds,
        }
    }
}

fn as_properties(document: &ChangeDocument) -> Map<String, serde_json::Value> {
    match serde_json::to_value(document) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// What may let somebody in is for somebody to look at.
fn level(change: &Change) -> Level {
    if change.opens_access() { Level::Warning } else { Level::Note }
}

fn code(kind: ChangeKind) -> String {
    kind.as_str().to_ascii_uppercase()
}

fn kind(kind: ChangeKind) -> Kind {
    let meaning = match kind {
        ChangeKind::NewlyAdmitted => "Nodes are admitted that were refused.",
        ChangeKind::Weaker => "Something is asked less strictly, or more is given.",
        ChangeKind::Changed => "Something is different, and neither way is stricter.",
        ChangeKind::Stronger => "Something is asked more strictly, or less is given.",
        ChangeKind::NoLongerAdmitted => "Nodes are refused that were admitted.",
    };
    Kind {
        code: code(kind),
        meaning: meaning.to_owned(),
        page: format!("docs/review.md#{}", kind.as_str().replace('_', "-")),
    }
}

impl From<&Change> for ChangeDocument {
    fn from(change: &Change) -> Self {
        let spot = |spot: &Option<Spot>| {
            spot.as_ref().map(|spot| SpotDocument {
                rule: spot.rule.clone(),
                file: spot.place.file.to_string(),
                line: spot.place.line,
                column: spot.place.column,
            })
        };
        let accounts = change.accounts.iter().map(|(partition, account)| Account {
            partition: partition.as_str(),
            account_id: account.to_string(),
        });
        Self {
            kind: change.kind.as_str(),
            what: change.what,
            policy: change.policy.clone(),
            message: change.message.clone(),
            accounts: accounts.collect(),
            new: spot(&change.new),
            old: spot(&change.old),
            witness: change.witness.as_ref().map(|witness| match witness {
                ChangeProof::Node(node) => Shown::Node(Box::new(node.as_ref().into())),
                ChangeProof::File(text) => Shown::File { document: text.clone() },
            }),
        }
    }
}

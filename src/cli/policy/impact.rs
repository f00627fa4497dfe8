//! What a change of policies would mean for real nodes: the joins, renewals and refusals of an audit
//! file, held against both sets.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Serialize;

use super::records::{Detail, Record, Source, Told};
use crate::audit;
use crate::cli::{Failure, Printer};
use crate::domain::Timestamp;
use crate::policy::{Hypothesis, Outcome, PolicySet, replay};

/// How many nodes and records are named.
const SHOWN: usize = 20;

/// What a change would mean.
#[derive(Debug, Default, Serialize)]
pub(super) struct Impact {
    /// How many records were read.
    records: u64,
    /// The first and the last of them.
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// Nodes with a certificate that is valid.
    live_nodes: usize,
    loses_renewal: Lost,
    joins: Joins,
    refusals: Refusals,
    /// Records whose node could not be held against the sets: of another version, or of no method.
    unreadable: u64,
}

/// Live nodes that the old set would renew and the new one will not.
#[derive(Debug, Default, Serialize)]
struct Lost {
    nodes: usize,
    /// When the last of their certificates ends.
    last_not_after: Option<Timestamp>,
    by_policy: BTreeMap<String, usize>,
    examples: Vec<String>,
}

/// Joins and renewals that happened.
#[derive(Debug, Default, Serialize)]
struct Joins {
    replayed: u64,
    /// The old set admits them, and the new one would not.
    would_be_refused: u64,
    examples: Vec<String>,
}

/// Refusals that happened.
#[derive(Debug, Default, Serialize)]
struct Refusals {
    replayed: u64,
    /// The new set would admit them.
    would_be_admitted: u64,
    /// The new set might: it was refused before the facts were read.
    might_be_admitted: u64,
    examples: Vec<String>,
}

/// A node as its last admission tells of it.
struct Live {
    record: Record,
    not_after: Timestamp,
}

/// Reads the records and holds each against both sets.
pub(super) fn read(
    file: &Path,
    old: &PolicySet,
    new: &PolicySet,
    at: Timestamp,
    printer: Printer,
) -> Result<Impact, Failure> {
    let mut impact = Impact::default();
    let mut live: HashMap<String, Live> = HashMap::new();
    let records = Source::File(file.to_owned()).read(printer, |record| {
        impact.from = Some(impact.from.map_or(record.time, |from| from.min(record.time)));
        impact.to = Some(impact.to.map_or(record.time, |to| to.max(record.time)));
        match (record.kind.as_str(), record.outcome) {
            ("forget", _) => drop(record.node_id.as_ref().and_then(|id| live.remove(id))),
            ("join" | "renew", audit::Outcome::Admitted) if record.is_admission() => {
                let detail = record.detail();
                impact.admission(&record, detail.as_ref(), old, new);
                let not_after = detail.and_then(|detail| detail.not_after);
                if let (Some(id), Some(not_after)) = (record.node_id.clone(), not_after) {
                    // Chains are read one after the other, and each has its own order alone.
                    let is_older = live.get(&id).is_some_and(|last| last.record.time > record.time);
                    if !is_older {
                        live.insert(id, Live { record, not_after });
                    }
                }
            }
            ("join" | "renew", audit::Outcome::Refused) => impact.refusal(&record, old, new),
            _ => {}
        }
    })?;
    impact.records = records;
    let mut live: Vec<(String, Live)> =
        live.into_iter().filter(|(_, node)| node.not_after > at).collect();
    live.sort_by(|left, right| left.0.cmp(&right.0));
    impact.live_nodes = live.len();
    for (id, node) in &live {
        impact.renewal(id, node, old, new, at);
    }
    Ok(impact)
}

impl Impact {
    fn admission(
        &mut self,
        record: &Record,
        detail: Option<&Detail>,
        old: &PolicySet,
        new: &PolicySet,
    ) {
        let Some(told) = self.told(record, detail) else { return };
        let has_joined = record.kind == "renew";
        let by = |set| outcome(set, record, &told, has_joined, record.time);
        self.joins.replayed += 1;
        if by(old) == Outcome::Admitted && by(new) != Outcome::Admitted {
            self.joins.would_be_refused += 1;
            name(&mut self.joins.examples, record);
        }
    }

    fn refusal(&mut self, record: &Record, old: &PolicySet, new: &PolicySet) {
        let Some(told) = self.told(record, record.detail().as_ref()) else { return };
        let by = |set| outcome(set, record, &told, record.kind == "renew", record.time);
        self.refusals.replayed += 1;
        match (by(old), by(new)) {
            // What another reason than policy refused is refused for it still.
            (Outcome::Refused | Outcome::NeedsFacts, Outcome::Admitted) => {
                self.refusals.would_be_admitted += 1;
                name(&mut self.refusals.examples, record);
            }
            (Outcome::Refused, Outcome::NeedsFacts) => {
                self.refusals.might_be_admitted += 1;
                name(&mut self.refusals.examples, record);
            }
            (_, _) => {}
        }
    }

    fn renewal(&mut self, id: &str, node: &Live, old: &PolicySet, new: &PolicySet, at: Timestamp) {
        let record = &node.record;
        let told = record.detail().and_then(|detail| detail.told(record.time));
        let Some(told) = told else { return };
        let by = |set| outcome(set, &node.record, &told, true, at);
        if by(old) != Outcome::Refused && by(new) == Outcome::Refused {
            let lost = &mut self.loses_renewal;
            lost.nodes += 1;
            lost.last_not_after =
                Some(lost.last_not_after.map_or(node.not_after, |last| last.max(node.not_after)));
            let policy = node.record.policy.clone().unwrap_or_default();
            *lost.by_policy.entry(policy).or_default() += 1;
            if lost.examples.len() < SHOWN {
                lost.examples.push(id.to_owned());
            }
        }
    }

    fn told(&mut self, record: &Record, detail: Option<&Detail>) -> Option<Told> {
        let told = detail.and_then(|detail| detail.told(record.time));
        self.unreadable += u64::from(told.is_none());
        told
    }

    /// The same in sentences.
    pub(super) fn in_words(&self) -> String {
        let Self { records, live_nodes, loses_renewal, joins, refusals, unreadable, .. } = self;
        let time =
            |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        let last = match loses_renewal.last_not_after {
            Some(last) => format!(", the last one at {last}"),
            None => String::new(),
        };
        [
            format!("impact on {records} records from {} to {}:", time(self.from), time(self.to)),
            format!("  {} of {live_nodes} live nodes lose renewal{last}", loses_renewal.nodes),
            format!(
                "  {} of {} joins and renewals would have been refused",
                joins.would_be_refused, joins.replayed
            ),
            format!(
                "  {} of {} refusals would have been admitted, and {} perhaps",
                refusals.would_be_admitted, refusals.replayed, refusals.might_be_admitted
            ),
            format!("  {unreadable} records tell of no node that can be tried again"),
        ]
        .join("\n")
    }
}

fn outcome(
    set: &PolicySet,
    record: &Record,
    told: &Told,
    has_joined: bool,
    at: Timestamp,
) -> Outcome {
    let node = Hypothesis { method: told.method.name, values: &told.claims, epoch: told.epoch };
    let policy = record.policy.as_deref().unwrap_or_default();
    replay(set, policy, &node, told.facts.as_ref(), has_joined, at)
}

fn name(examples: &mut Vec<String>, record: &Record) {
    if examples.len() < SHOWN {
        examples.extend(record.correlation_id.clone());
    }
}

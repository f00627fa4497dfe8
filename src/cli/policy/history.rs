//! What the audit log says of access: last used by whom, and what was granted by hand.

use std::collections::HashMap;

use serde::Serialize;

use super::records::{Detail, Record, Source};
use crate::cli::{Failure, Printer};
use crate::domain::Timestamp;

/// Policy, partition and account; no account for methods that know none.
pub(super) type Key = (String, Option<(String, String)>);

/// What the records told.
#[derive(Debug, Default)]
pub(super) struct History {
    used: HashMap<Key, Timestamp>,
    nodes: HashMap<String, Node>,
    live: HashMap<Key, usize>,
    grants: Vec<(Grant, Option<String>)>,
    /// The first record: of what was before, nothing is known.
    pub(super) begins: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct Node {
    time: Timestamp,
    key: Key,
    not_after: Timestamp,
}

/// A rejoin that was allowed by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Grant {
    pub(super) node_id: String,
    pub(super) at: Timestamp,
    pub(super) until: Option<Timestamp>,
    pub(super) reason: Option<String>,
}

/// What is known of one access.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    /// When a node last joined or renewed by it.
    pub(super) last_used: Option<Timestamp>,
    /// How many nodes have a certificate that is valid.
    pub(super) live_nodes: usize,
    /// What was granted by hand and is not over.
    pub(super) grants: Vec<Grant>,
}

impl History {
    /// Reads all records up to `at`.
    pub(super) fn read(source: &Source, at: Timestamp, printer: Printer) -> Result<Self, Failure> {
        let mut history = Self::default();
        source.read(printer, |record| {
            if record.time <= at {
                history.take(&record);
            }
        })?;
        for node in history.nodes.values().filter(|node| node.not_after > at) {
            *history.live.entry(node.key.clone()).or_default() += 1;
        }
        Ok(history)
    }

    fn take(&mut self, record: &Record) {
        self.begins = Some(self.begins.map_or(record.time, |begins| begins.min(record.time)));
        match record.kind.as_str() {
            "forget" => drop(record.node_id.as_ref().and_then(|id| self.nodes.remove(id))),
            "allow-rejoin" => self.granted(record),
            "join" | "renew" if record.is_admission() => self.admitted(record),
            _ => {}
        }
    }

    fn admitted(&mut self, record: &Record) {
        let (Some(policy), Some(detail)) = (&record.policy, record.detail()) else { return };
        let key = (policy.clone(), account(record, &detail));
        let used = self.used.entry(key.clone()).or_insert(record.time);
        *used = record.time.max(*used);
        if let (Some(node_id), Some(not_after)) = (&record.node_id, detail.not_after) {
            let node = Node { key, not_after, time: record.time };
            // Chains are read one after the other, and each has its own order alone.
            let last = self.nodes.entry(node_id.clone()).or_insert_with(|| node.clone());
            if last.time <= node.time {
                *last = node;
            }
        }
    }

    fn granted(&mut self, record: &Record) {
        let (Some(node_id), Some(detail)) = (record.node_id.clone(), record.detail()) else {
            return;
        };
        let grant = Grant { node_id, at: record.time, until: detail.until, reason: detail.reason };
        self.grants.push((grant, record.account_id.clone()));
    }

    /// What is known of this access at a time.
    pub(super) fn usage(&self, key: &Key, at: Timestamp) -> Usage {
        let account = key.1.as_ref().map(|(_, account)| account);
        let grants = self.grants.iter().filter(|(grant, of)| {
            grant.until.is_some_and(|until| until > at) && of.as_ref() == account
        });
        Usage {
            last_used: self.used.get(key).copied(),
            live_nodes: self.live.get(key).copied().unwrap_or_default(),
            grants: grants.map(|(grant, _)| grant.clone()).collect(),
        }
    }
}

/// Whose node a record tells of.
fn account(record: &Record, detail: &Detail) -> Option<(String, String)> {
    Some((detail.partition()?, record.account_id.clone()?))
}

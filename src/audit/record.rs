//! One audit record and its JSON form, version 1.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::domain::{Code, CorrelationId, NodeId, PolicyHash, Serial, Timestamp};
use crate::store::{LogEntry, StoreUnavailable};

/// How important a record is, which decides whether it may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A certificate was ordered or handed out.
    Admission,
    /// Conflicts, shared keys, evidence that disagrees, and everything people do by hand.
    Security,
    /// A refusal of an account that some policy names.
    Known,
    /// Every other refusal.
    Noise,
}

impl Class {
    /// The first letter of its correlation ids.
    pub const fn letter(self) -> char {
        match self {
            Self::Admission => 'a',
            Self::Security => 's',
            Self::Known => 'k',
            Self::Noise => 'n',
        }
    }

    /// The class of this name.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(Value::from(text)).ok()
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Yes.
    Admitted,
    /// No.
    Refused,
    /// Could not be decided or carried out.
    Failed,
    /// Something was done; not an answer to a node.
    Done,
}

impl Outcome {
    /// The outcome of this name.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(Value::from(text)).ok()
    }
}

/// One record. Absent members are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When.
    pub time: Timestamp,
    /// How important.
    pub class: Class,
    /// What happened, for example `join`.
    pub kind: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, if it was refused or failed.
    pub code: Option<Code>,
    /// Leads from the node's error to this record.
    pub correlation_id: Option<CorrelationId>,
    /// The policy's name.
    pub policy: Option<String>,
    /// The policy set in force.
    pub policy_hash: Option<PolicyHash>,
    /// The account, from verified evidence.
    pub account_id: Option<String>,
    /// The instance, from verified evidence.
    pub instance_id: Option<String>,
    /// The node.
    pub node_id: Option<NodeId>,
    /// The certificate.
    pub serial: Option<Serial>,
    /// The peer's address.
    pub source: Option<String>,
    /// What else is worth knowing. Text from outside is capped and printable.
    pub detail: Map<String, Value>,
}

impl Record {
    /// A record of which only the necessary is known.
    pub fn new(time: Timestamp, class: Class, kind: &str, outcome: Outcome) -> Self {
        Self {
            time,
            class,
            kind: kind.to_owned(),
            outcome,
            code: None,
            correlation_id: None,
            policy: None,
            policy_hash: None,
            account_id: None,
            instance_id: None,
            node_id: None,
            serial: None,
            source: None,
            detail: Map::new(),
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// The bytes that are chained.
    pub(super) fn to_payload(&self) -> Result<Vec<u8>, StoreUnavailable> {
        serde_json::to_vec(self).map_err(|error| StoreUnavailable(error.to_string()))
    }
}

/// A record as it stands in a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number in the chain, from 1.
    pub seq: u64,
    /// The chain's name.
    pub chain: String,
    /// Hash of this record and all before it.
    pub hash: String,
    /// The record.
    #[serde(flatten)]
    pub record: Record,
}

impl Entry {
    /// Reads a log entry.
    pub fn from_log(chain: &str, entry: &LogEntry) -> Result<Self, serde_json::Error> {
        Ok(Self {
            seq: entry.sequence,
            chain: chain.to_owned(),
            hash: entry.hash.to_string(),
            record: serde_json::from_slice(&entry.payload)?,
        })
    }
}

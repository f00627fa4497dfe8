//! Facts: what others say of a node whose claims are known. Only `gather` can make `Facts`;
//! `FactValues` is the same as plain data, for explanations of what might be.

use std::collections::BTreeMap;

use super::Value;
use crate::domain::Code;

/// The fresh, key-bound answer to the challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The node's cloud vouches for it, bound to this key and connection.
    Proven,
    /// A proof was offered and is false: a denial (D1).
    Disproven(Contradiction),
    /// None was offered.
    NotOffered,
    /// One was offered and nobody could check it. Only where the policy asks for none: elsewhere it
    /// is an outage.
    NotChecked(String),
}

impl Proof {
    /// Whether the evidence is as good as the policy asks for.
    pub fn stands(&self, is_required: bool) -> bool {
        match self {
            Self::Proven => true,
            Self::Disproven(_) => false,
            Self::NotOffered | Self::NotChecked(_) => !is_required,
        }
    }
}

/// What was found is not what the evidence says: a denial, never an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Which kind.
    pub code: Code,
    /// What differs, for the operator; never holds a secret (I10).
    pub reason: String,
    /// What the node may be told about its own evidence.
    pub hint: Option<String>,
}

/// Facts by name. `None`: the instance has none. A name that is missing was not read, and "not read"
/// is never "has none" (I11).
pub type InstanceFacts = BTreeMap<&'static str, Option<Value>>;

/// What the cloud says of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// It was read.
    Known(InstanceFacts),
    /// It was not read, and why.
    NotRead(String),
    /// It was read, and is not the instance that the evidence speaks of.
    Refuted(Contradiction),
}

/// How the instance is looked at, the weaker first.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LookUp {
    /// Not at all: its facts are never read.
    #[default]
    None,
    /// With the server's own credentials, in their account.
    Own,
    /// With a role in the instance's account.
    Role {
        /// The ARN, with `{partition}` and `{account}` in it.
        role: String,
        /// What the role's trust policy asks for.
        external_id: Option<String>,
    },
}

/// Proof and instance as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactValues {
    /// The fresh proof.
    pub proof: Proof,
    /// The look at the instance.
    pub instance: Instance,
}

/// Facts that were gathered for a join.
#[derive(Debug)]
pub struct Facts(FactValues);

impl Facts {
    /// Asserts that the values came from the sources that the method asks.
    pub(in crate::methods) fn assertion(values: FactValues) -> Self {
        Self(values)
    }

    /// What decisions are made on.
    pub fn values(&self) -> &FactValues {
        &self.0
    }
}

/// What a decision needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactsNeeded {
    /// The policy asks for a fresh proof: without an answer there is no decision.
    pub proof_required: bool,
    /// How the instance is looked at. Where it is, it is also asked whether the instance runs and
    /// is what the evidence says, whatever the rules ask.
    pub look_up: LookUp,
}

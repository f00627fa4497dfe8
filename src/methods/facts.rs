//! Facts: what others say of a node whose claims are known. Only `gather` can make `Facts`;
//! `FactValues` is the same as plain data, for explanations of what might be.

use std::collections::BTreeMap;

use super::Value;

/// The fresh, key-bound answer to the challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The node's cloud vouches for it, bound to this key and connection.
    Proven,
    /// A proof was offered and is false: a denial (D1).
    Disproven(String),
    /// None was offered.
    NotOffered,
}

/// What the cloud says of the instance. "Not read" is never "has none" (I11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// It was read; a name that is missing is absent.
    Known(BTreeMap<&'static str, Value>),
    /// It was not read, and why.
    NotRead(String),
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

/// What the rules that may still apply need to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FactsNeeded {
    /// Names of instance facts, the `reads` of their fields.
    pub instance: Vec<&'static str>,
    /// The policy asks for a fresh proof, so nothing is looked up without one.
    pub proof_required: bool,
}

impl FactsNeeded {
    /// Whether nothing of the instance is needed.
    pub fn is_empty(&self) -> bool {
        self.instance.is_empty()
    }
}

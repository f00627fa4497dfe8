//! Claims: what verified evidence says of the attester. Only a join method can make `Claims`;
//! `ClaimValues` is the same as plain data, for explanations of what might be.

use std::collections::BTreeMap;

use crate::domain::{Lifetime, PolicyName, Subject, Timestamp, Token};

/// How a value is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// It stands in bytes that the method verified.
    Proven,
    /// The attester says so. A hint can only refuse (I3).
    Hinted,
}

/// A value that rules can be held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A name or identifier.
    Text(String),
    /// Several identifiers, for example security groups.
    List(Vec<String>),
    /// Tag names and their values.
    Tags(BTreeMap<String, String>),
    /// A point in time.
    Time(Timestamp),
    /// How long something lasts.
    Span(Lifetime),
    /// How many.
    Number(u32),
    /// Instance metadata options.
    MetadataOptions {
        /// Session tokens are required (IMDSv2 only).
        v2_only: bool,
        /// How many network hops an answer may take.
        hop_limit: u32,
    },
}

/// A value and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The value.
    pub value: Value,
    /// How it is known.
    pub provenance: Provenance,
}

/// Claims as plain data, by name (`account_id`, `region`, …). A name that is missing is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimValues(BTreeMap<&'static str, Claim>);

impl ClaimValues {
    /// The claim of this name.
    pub fn get(&self, name: &str) -> Option<&Claim> {
        self.0.get(name)
    }

    /// The text of this name, if there is one and it is proven.
    pub fn proven_text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Claim { value: Value::Text(text), provenance: Provenance::Proven }) => Some(text),
            _ => None,
        }
    }

    /// Sets a value.
    pub fn insert(&mut self, name: &'static str, value: Value, provenance: Provenance) {
        self.0.insert(name, Claim { value, provenance });
    }

    /// Takes a value away.
    pub fn remove(&mut self, name: &'static str) {
        self.0.remove(name);
    }

    /// All claims, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Claim)> {
        self.0.iter().map(|(name, claim)| (*name, claim))
    }
}

/// What claims rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// Evidence that somebody outside vouches for.
    Evidence,
    /// A token that the server gave out: who was not enrolled by it is counted.
    Token(Box<Token>),
    /// The node's own key and nothing else: the claims are those of its enrollment, which is of this
    /// policy.
    Key(PolicyName),
}

/// What verified evidence says: the proof that a join method accepted it.
#[derive(Debug)]
pub struct Claims {
    method: &'static str,
    subject: Subject,
    values: ClaimValues,
    epoch: Timestamp,
    basis: Basis,
}

impl Claims {
    /// Asserts that `values` were read from verified bytes.
    ///
    /// `epoch` is the start of this run of the instance: the document's `pendingTime`.
    pub(in crate::methods) fn assertion(
        method: &'static str,
        subject: Subject,
        values: ClaimValues,
        epoch: Timestamp,
    ) -> Self {
        Self { method, subject, values, epoch, basis: Basis::Evidence }
    }

    /// The same, resting on something else than evidence.
    pub(in crate::methods) fn resting_on(self, basis: Basis) -> Self {
        Self { basis, ..self }
    }

    /// What they rest on.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The token that they rest on, if they do.
    pub fn token(&self) -> Option<&Token> {
        match &self.basis {
            Basis::Token(token) => Some(token),
            Basis::Evidence | Basis::Key(_) => None,
        }
    }

    /// The only policy that these claims are good for, if there is one.
    pub fn only_policy(&self) -> Option<&PolicyName> {
        match &self.basis {
            Basis::Evidence => None,
            Basis::Token(token) => Some(&token.policy),
            Basis::Key(policy) => Some(policy),
        }
    }

    /// The method that verified the evidence.
    pub fn method(&self) -> &'static str {
        self.method
    }

    /// Which attester this is.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What rules are held against.
    pub fn values(&self) -> &ClaimValues {
        &self.values
    }

    /// When this run of the instance began; also how old the document is.
    pub fn epoch(&self) -> Timestamp {
        self.epoch
    }
}

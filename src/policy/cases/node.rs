//! A node as somebody supposes it to be: what it claims, what a look at it would say, and whether it
//! proves itself.

use crate::domain::{Lifetime, Timestamp};
use crate::methods::{
    ClaimValues, Declaration, FactValues, Instance, InstanceFacts, Proof, Provenance, Source, Value,
};
use crate::policy::judge::Case;

/// A node that nobody has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SupposedNode {
    pub(super) claims: ClaimValues,
    /// Nothing if nobody looked.
    pub(super) instance: Option<InstanceFacts>,
    pub(super) is_proven: bool,
}

impl SupposedNode {
    /// One that claims nothing, at which nobody looked.
    pub(super) fn blank(is_proven: bool) -> Self {
        Self { claims: ClaimValues::default(), instance: None, is_proven }
    }

    /// Sets a claim or a fact: nothing is a claim that evidence does not make, or a fact that was
    /// read and is not there.
    pub(super) fn set(&mut self, source: Source, name: &'static str, value: Option<Value>) {
        match (source, value) {
            (Source::Claim, Some(value)) => self.claims.insert(name, value, Provenance::Proven),
            (Source::Claim, None) => self.claims.remove(name),
            (Source::Instance, value) => {
                self.instance.get_or_insert_default().insert(name, value);
            }
        }
    }

    /// The same, but for one claim or fact.
    pub(super) fn with(&self, source: Source, name: &'static str, value: Option<Value>) -> Self {
        let mut node = self.clone();
        node.set(source, name, value);
        node
    }

    /// A claim or a fact, if there is one.
    pub(super) fn get(&self, source: Source, name: &str) -> Option<&Value> {
        match source {
            Source::Claim => Some(&self.claims.get(name)?.value),
            Source::Instance => self.instance.as_ref()?.get(name)?.as_ref(),
        }
    }

    /// The same so much later: everything that happened to it, happened later.
    pub(super) fn later(&self, by: Lifetime) -> Self {
        let mut node = self.clone();
        let times = |name, value: Option<&Value>| match value {
            Some(Value::Time(time)) => Some((name, time.plus(by))),
            _ => None,
        };
        for (name, time) in
            self.claims.iter().filter_map(|(name, claim)| times(name, Some(&claim.value)))
        {
            node.set(Source::Claim, name, Some(Value::Time(time)));
        }
        let facts = self.instance.iter().flatten();
        for (name, time) in facts.filter_map(|(name, value)| times(*name, value.as_ref())) {
            node.set(Source::Instance, name, Some(Value::Time(time)));
        }
        node
    }

    /// When its run began. A node that does not say is as old as can be.
    pub(super) fn epoch(&self, method: &Declaration) -> Timestamp {
        match method.epoch_claim.and_then(|name| self.get(Source::Claim, name)) {
            Some(Value::Time(time)) => *time,
            _ => Timestamp::from_unix_seconds(0),
        }
    }

    /// What is gathered of it.
    pub(super) fn facts(&self) -> FactValues {
        let proof = if self.is_proven { Proof::Proven } else { Proof::NotOffered };
        let instance = match &self.instance {
            Some(facts) => Instance::Known(facts.clone()),
            None => Instance::NotRead("the test does not say what the instance is".to_owned()),
        };
        FactValues { proof, instance }
    }

    /// What is decided on, at the join of this node.
    pub(super) fn case<'c>(
        &'c self,
        facts: &'c FactValues,
        method: &Declaration,
        now: Timestamp,
    ) -> Case<'c> {
        let epoch = self.epoch(method);
        Case { claims: &self.claims, epoch, facts: Some(facts), age_waived: false, now }
    }
}

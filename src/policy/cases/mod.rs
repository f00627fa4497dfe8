//! Policy tests: nodes as they might come, and what must become of them. They are put to the very
//! decision that nodes are put to, admit nobody, and change nothing of a set.
//!
//! `read` reads them from `kind: PolicyTest` documents. `boundaries` makes them from the policies
//! themselves: nodes one step outside of what a rule admits. `write` turns those into a document.

mod boundaries;
mod change;
mod member;
mod neighbours;
mod node;
mod read;
mod run;
mod sample;
mod write;

pub use boundaries::{Boundaries, BoundaryCase, RuleNotTried, boundaries};
pub(super) use read::tests;
pub use run::CaseResult;
pub use write::document;

use std::sync::Arc;

use super::explain::Outcome;
use super::finding::Place;
use crate::domain::{Code, PolicyName, Timestamp};
use crate::methods::Declaration;
use change::Change;
use node::SupposedNode;

/// The most cases of one document.
pub(super) const MAX_CASES: usize = 1000;

/// One `PolicyTest` document.
#[derive(Debug)]
pub struct PolicyTest {
    name: PolicyName,
    cases: Vec<TestCase>,
}

impl PolicyTest {
    /// The name: `metadata.name`.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Its cases, in the order of the file.
    pub fn cases(&self) -> &[TestCase] {
        &self.cases
    }
}

/// One node, and what must become of it.
#[derive(Debug, Clone)]
pub struct TestCase {
    name: String,
    place: Place,
    /// The policy that decides; any policy of the method, if none.
    policy: Option<PolicyName>,
    method: &'static Declaration,
    /// As of then; the time of the run, if none.
    at: Option<Timestamp>,
    /// What the cases of a document have in common.
    base: Arc<SupposedNode>,
    /// In what this one differs.
    change: Change,
    expected: Expected,
}

/// How a case must end.
#[derive(Debug, Clone)]
struct Expected {
    outcome: Outcome,
    code: Option<Code>,
    rule: Option<String>,
    field: Option<String>,
}

impl Expected {
    const fn outcome(outcome: Outcome) -> Self {
        Self { outcome, code: None, rule: None, field: None }
    }
}

impl TestCase {
    /// Whether the two are kept as one common node and what differs.
    #[cfg(test)]
    pub(super) fn shares_node_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.base, &other.base)
    }

    /// What the case is called in its document.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is written; of a case that was made, the rule that it lies beside.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The policy that decides, unless any may.
    pub fn policy(&self) -> Option<&PolicyName> {
        self.policy.as_ref()
    }

    /// How it must end.
    pub fn expected(&self) -> Outcome {
        self.expected.outcome
    }
}

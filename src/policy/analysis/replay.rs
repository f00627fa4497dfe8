//! What a set would have said of a node that came once. Nothing is admitted by it.

use super::super::explain::{Hypothesis, Outcome};
use super::super::judge::Case;
use super::super::reason::reason;
use super::super::set::PolicySet;
use crate::domain::Timestamp;
use crate::methods::FactValues;

/// Holds a node against the policy that it names; the empty name is the only one of its method.
///
/// `facts` are what was gathered then, or nothing. `has_joined` is for renewals, at which ages in
/// permissions are no matter.
pub fn replay(
    set: &PolicySet,
    policy: &str,
    node: &Hypothesis<'_>,
    facts: Option<&FactValues>,
    has_joined: bool,
    now: Timestamp,
) -> Outcome {
    let Ok(policy) = set.resolve(node.method, policy, None) else { return Outcome::Refused };
    let case = Case { claims: node.values, epoch: node.epoch, facts, age_waived: has_joined, now };
    let outcome = reason(policy, &case).outcome;
    // Before anybody was asked, nothing is sure.
    if facts.is_none() && outcome == Outcome::Admitted { Outcome::NeedsFacts } else { outcome }
}

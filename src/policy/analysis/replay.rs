//! What a set would have said of a node that came once. Nothing is admitted by it.

use super::super::explain::{Hypothesis, Outcome};
use super::super::judge::{Case, Objection, judge};
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
    let has_names =
        || policy.certificate.dns_names.iter().all(|name| name.render(node.values).is_ok());
    match judge(policy, &case) {
        Ok(_) if !has_names() => Outcome::Refused,
        // Before anybody was asked, nothing is sure.
        Ok(_) if facts.is_none() => Outcome::NeedsFacts,
        Ok(_) => Outcome::Admitted,
        // Which of the two it is takes a look at every condition; the rest is plain, and there may be
        // a million of them.
        Err(Objection::AllowUnknown(_) | Objection::DenyUnknown(_)) => {
            reason(policy, &case).outcome
        }
        Err(Objection::NotSeen | Objection::ProofNotChecked(_)) => Outcome::NeedsFacts,
        Err(
            Objection::Contradicted(_)
            | Objection::ProofMissing
            | Objection::NotRunning(_)
            | Objection::Denied(_)
            | Objection::NoMatch
            | Objection::TooOld { .. },
        ) => Outcome::Refused,
    }
}

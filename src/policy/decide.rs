//! Claims, facts and a time in; an approval or a denial out. Pure.
//!
//! `judge` is the decision. `Candidates` and `decide` are its two moments: before anything was asked
//! of the cloud, and after.

use std::sync::Arc;

use super::approval::{Approval, OrderRequest, Strength, Terms, order};
use super::denial::Denial;
use super::join_policy::JoinPolicy;
use super::judge::{Case, Objection, judge};
use super::set::PolicySet;
use super::settings::FreshProof;
use crate::domain::{Code, PolicyName, Timestamp};
use crate::methods::{ClaimValues, Claims, Facts, FactsNeeded, Instance, LookUp, Proof, Value};

/// Policy's "perhaps": the node's policy has rules that may admit it, and none that surely refuses.
///
/// Only `PolicySet::candidates` makes one, so the allow-list is asked before the cloud is (I3):
/// ```compile_fail,E0451
/// # use muster::{methods::Claims, policy::Candidates};
/// fn forge(claims: Claims, other: Candidates) -> Candidates {
///     Candidates { claims, ..other }
/// }
/// ```
/// and it is used up by the decision:
/// ```compile_fail,E0277
/// # use muster::policy::Candidates;
/// fn must_be_clone<T: Clone>() {}
/// must_be_clone::<Candidates>();
/// ```
#[derive(Debug)]
pub struct Candidates {
    set: Arc<PolicySet>,
    policy: PolicyName,
    claims: Claims,
    needed: FactsNeeded,
}

impl PolicySet {
    /// Step 2, match: whether the named policy may admit these claims at all. Asks nothing of
    /// anybody; a hint or a fact that is not read yet can only keep a rule from admitting.
    pub fn candidates(
        self: &Arc<Self>,
        policy: &str,
        claims: Claims,
        now: Timestamp,
    ) -> Result<Candidates, Box<Denial>> {
        let found = match self.resolve(claims.method(), policy, claims.only_policy()) {
            Ok(found) => found,
            Err(denial) => return Err(Box::new(denial.of(self, claims, None, now))),
        };
        let case = Case {
            claims: claims.values(),
            epoch: claims.epoch(),
            facts: None,
            // The age is judged at the end, when the enrollment was read.
            age_waived: true,
            now,
        };
        match judge(found, &case) {
            // What is not known yet is for step 4.
            Ok(_) | Err(Objection::AllowUnknown(_) | Objection::DenyUnknown(_)) => {
                let (policy, needed) = (found.name.clone(), needed(found));
                Ok(Candidates { set: Arc::clone(self), policy, claims, needed })
            }
            Err(
                objection @ (Objection::Contradicted(_)
                | Objection::ProofMissing
                | Objection::ProofNotChecked(_)
                | Objection::NotRunning(_)
                | Objection::NotSeen
                | Objection::Denied(_)
                | Objection::NoMatch
                | Objection::TooOld { .. }),
            ) => {
                let denial = Denial::because(found, objection, &case.view());
                Err(Box::new(denial.of(self, claims, None, now)))
            }
        }
    }
}

impl PolicySet {
    /// Whether a policy may still admit a node by claims that were proven before: what step 2 would
    /// say. For telling whom a new set ends; nothing is admitted by it.
    pub fn may_admit(
        &self,
        policy: &str,
        method: &str,
        claims: &ClaimValues,
        epoch: Timestamp,
        now: Timestamp,
    ) -> bool {
        let case = Case { claims, epoch, facts: None, age_waived: true, now };
        self.policy(policy).filter(|policy| policy.method() == method).is_some_and(|policy| {
            matches!(
                judge(policy, &case),
                Ok(_) | Err(Objection::AllowUnknown(_) | Objection::DenyUnknown(_))
            )
        })
    }
}

impl JoinPolicy {
    /// Whether it surely admits by claims that somebody might come with. For telling what a
    /// token or a change would open; nothing is admitted by it.
    pub fn would_admit(&self, claims: &ClaimValues, epoch: Timestamp, now: Timestamp) -> bool {
        let case = Case { claims, epoch, facts: None, age_waived: true, now };
        judge(self, &case).is_ok()
    }
}

/// What must be gathered. A policy that looks at instances always looks: EC2 tells everything in one
/// answer, and that the instance runs is worth the call by itself.
fn needed(policy: &JoinPolicy) -> FactsNeeded {
    FactsNeeded {
        proof_required: policy.proof.value == FreshProof::Required,
        look_up: if policy.reads_facts() { policy.look_up.value.clone() } else { LookUp::None },
    }
}

impl Candidates {
    /// The claims that were matched.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The name of the policy that may admit.
    pub fn policy(&self) -> &PolicyName {
        &self.policy
    }

    /// The set that the policy is of.
    pub fn set(&self) -> &Arc<PolicySet> {
        &self.set
    }

    /// What must be gathered for the decision.
    pub fn needed(&self) -> &FactsNeeded {
        &self.needed
    }

    /// Step 4, decide: all rules again, on proven values and gathered facts.
    pub fn decide(
        self,
        facts: &Facts,
        request: OrderRequest,
        now: Timestamp,
    ) -> Result<Approval, Box<Denial>> {
        let Self { set, policy, claims, needed: _ } = self;
        let facts = facts.values();
        let found = match set.resolve(claims.method(), policy.as_str(), claims.only_policy()) {
            Ok(found) => found,
            Err(denial) => return Err(Box::new(denial.of(&set, claims, Some(facts), now))),
        };
        let case = Case {
            claims: claims.values(),
            epoch: claims.epoch(),
            facts: Some(facts),
            age_waived: request.age_waived,
            now,
        };
        let denial = match judge(found, &case) {
            Ok(rule) => match order(found, &claims, &request, now) {
                Ok(order) => {
                    let strength = match facts.proof {
                        Proof::Proven => Strength::Proof,
                        Proof::NotOffered | Proof::NotChecked(_) | Proof::Disproven(_) => {
                            Strength::Document
                        }
                    };
                    let aged = Case { age_waived: false, ..case };
                    let age_was_waived = case.age_waived && judge(found, &aged).is_err();
                    let run_began = run_began(found, &facts.instance);
                    let terms =
                        Terms { slot: request.slot, strength, age_was_waived, run_began, order };
                    return Ok(Approval::assertion(&set, found, rule, claims, terms));
                }
                Err(refused) => Denial::new(found, Code::NameNotPermitted, refused.to_string()),
            },
            Err(objection) => Denial::because(found, objection, &case.view()),
        };
        Err(Box::new(denial.of(&set, claims, Some(facts), now)))
    }
}

/// When the cloud says that this run of the instance began, if it was asked.
fn run_began(policy: &JoinPolicy, instance: &Instance) -> Option<Timestamp> {
    let fact = policy.method.running.as_ref()?.since;
    let Instance::Known(facts) = instance else { return None };
    match facts.get(fact)?.as_ref()? {
        Value::Time(time) => Some(*time),
        Value::Text(_)
        | Value::List(_)
        | Value::Tags(_)
        | Value::Span(_)
        | Value::Number(_)
        | Value::MetadataOptions { .. } => None,
    }
}

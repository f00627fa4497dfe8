//! The decision: claims, facts and a time in; an approval or a denial out. Pure.
//!
//! `judge` is the whole of it. `Candidates` and `decide` are its two moments: before anything was
//! asked of the cloud, and after.

use std::sync::Arc;

use super::approval::{Approval, OrderRequest, Strength, Terms, order};
use super::denial::Denial;
use super::join_policy::JoinPolicy;
use super::rule::{Effect, Rule};
use super::set::PolicySet;
use super::settings::FreshProof;
use super::truth::{Truth, View};
use crate::domain::{Code, Lifetime, PolicyName, Timestamp};
use crate::methods::{
    ClaimValues, Claims, Contradiction, FactValues, Facts, FactsNeeded, Instance, LookUp, Proof,
    Source, Value,
};

/// Why a policy does not admit a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Objection<'p> {
    /// A proof was offered and is false, or the instance is another than the evidence says.
    Contradicted(&'p Contradiction),
    /// A proof is required and none was offered.
    ProofMissing,
    /// A proof is required and the one that was offered could not be checked.
    ProofNotChecked(&'p str),
    /// The instance is in this state, and does not run.
    NotRunning(&'p str),
    /// The policy looks at instances, and nobody looked at this one.
    NotSeen,
    /// This rule refuses.
    Denied(&'p Rule),
    /// Whether this rule refuses is not known: that counts against admission (I11).
    DenyUnknown(&'p Rule),
    /// No rule admits.
    NoMatch,
    /// Whether this rule admits is not known.
    AllowUnknown(&'p Rule),
    /// The document alone may join, but not at this age.
    TooOld { age: Lifetime, document_ttl: Lifetime },
}

/// What a decision is made on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'c> {
    pub(super) claims: &'c ClaimValues,
    pub(super) epoch: Timestamp,
    /// Nothing in step 2, where nobody has been asked for proof or facts.
    pub(super) facts: Option<&'c FactValues>,
    pub(super) age_waived: bool,
    pub(super) now: Timestamp,
}

impl<'c> Case<'c> {
    pub(super) fn view(&self) -> View<'c> {
        let instance = self.facts.map(|facts| &facts.instance);
        View { claims: self.claims, instance, now: self.now }
    }
}

/// The decision: the rule that admits, or the first objection. Prohibitions come before permissions,
/// and what is not known never admits.
pub(super) fn judge<'p, 'o>(
    policy: &'p JoinPolicy,
    case: &Case<'o>,
) -> Result<&'p Rule, Objection<'o>>
where
    'p: 'o,
{
    if let Some(facts) = case.facts {
        judge_proof(policy, &facts.proof)?;
        judge_instance(policy, &facts.instance)?;
    }
    let view = case.view();
    let deny = strongest(policy.deny(), Effect::Deny, &view);
    let allow = strongest(policy.allow.iter(), Effect::Allow, &view);
    let rule = match (deny, allow) {
        (Matched::Surely(rule), _) => return Err(Objection::Denied(rule)),
        (_, Matched::None) => return Err(Objection::NoMatch),
        (Matched::Perhaps(rule), _) => return Err(Objection::DenyUnknown(rule)),
        (Matched::None, Matched::Perhaps(rule)) => return Err(Objection::AllowUnknown(rule)),
        (Matched::None, Matched::Surely(rule)) => rule,
    };
    if let FreshProof::NotRequired { document_ttl: Some(document_ttl) } = policy.proof.value {
        let age = case.now.since(case.epoch);
        if age > document_ttl && !case.age_waived {
            return Err(Objection::TooOld { age, document_ttl });
        }
    }
    let is_seen = case.facts.is_none_or(|facts| matches!(facts.instance, Instance::Known(_)));
    if policy.reads_facts() && !is_seen {
        return Err(Objection::NotSeen);
    }
    Ok(rule)
}

fn judge_proof<'o>(policy: &JoinPolicy, proof: &'o Proof) -> Result<(), Objection<'o>> {
    let is_required = policy.proof.value == FreshProof::Required;
    match proof {
        _ if proof.stands(is_required) => Ok(()),
        Proof::Disproven(found) => Err(Objection::Contradicted(found)),
        Proof::NotChecked(why) => Err(Objection::ProofNotChecked(why)),
        Proof::Proven | Proof::NotOffered => Err(Objection::ProofMissing),
    }
}

/// What a look must say whatever the rules ask. A state that is not known objects to nothing here:
/// a look that happened always has one.
fn judge_instance<'p>(policy: &JoinPolicy, instance: &'p Instance) -> Result<(), Objection<'p>> {
    let facts = match instance {
        Instance::Refuted(found) => return Err(Objection::Contradicted(found)),
        Instance::NotRead(_) => return Ok(()),
        Instance::Known(facts) => facts,
    };
    match policy.method.running.as_ref().filter(|_| policy.reads_facts()) {
        Some(running) => match facts.get(running.reads) {
            Some(Some(Value::Text(state))) if !running.values.contains(&state.as_str()) => {
                Err(Objection::NotRunning(state))
            }
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

/// What a list of rules says.
#[derive(Debug, Clone, Copy)]
enum Matched<'p> {
    /// No rule matches.
    None,
    /// No rule surely matches, and of this one it is not known.
    Perhaps(&'p Rule),
    /// This is the first rule that matches.
    Surely(&'p Rule),
}

fn strongest<'p>(
    rules: impl Iterator<Item = &'p Rule>,
    effect: Effect,
    view: &View<'_>,
) -> Matched<'p> {
    let mut matched = Matched::None;
    for rule in rules {
        match (rule.matches(effect, view), matched) {
            (Truth::True, _) => return Matched::Surely(rule),
            (Truth::Unknown, Matched::None) => matched = Matched::Perhaps(rule),
            (Truth::Unknown | Truth::False, _) => {}
        }
    }
    matched
}

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
        let found = match self.resolve(claims.method(), policy) {
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
                let (policy, needed) = (found.name.clone(), needed(found, &case.view()));
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

/// The facts that can still change the decision: those of every deny rule and every allow rule that
/// is not ruled out.
fn needed(policy: &JoinPolicy, view: &View<'_>) -> FactsNeeded {
    let deny = policy.deny().map(|rule| (Effect::Deny, rule));
    let allow = policy.allow.iter().map(|rule| (Effect::Allow, rule));
    let mut instance: Vec<&'static str> = deny
        .chain(allow)
        .filter(|(effect, rule)| rule.matches(*effect, view) != Truth::False)
        .flat_map(|(_, rule)| &rule.conditions)
        .filter(|condition| condition.field.source == Source::Instance)
        .map(|condition| condition.field.reads)
        .collect();
    instance.sort_unstable();
    instance.dedup();
    FactsNeeded {
        instance,
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
        let found = match set.resolve(claims.method(), policy.as_str()) {
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
        Value::Text(_) | Value::List(_) | Value::Tags(_) | Value::MetadataOptions { .. } => None,
    }
}

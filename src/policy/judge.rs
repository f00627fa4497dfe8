//! The decision itself: a policy, and what is known of a node; the rule that admits, or the first
//! objection. Pure; everything else in this module leads here or explains what came out.

use super::join_policy::JoinPolicy;
use super::rule::{Effect, Rule};
use super::settings::FreshProof;
use super::truth::{Truth, View};
use crate::domain::{Lifetime, Timestamp};
use crate::methods::{ClaimValues, Contradiction, FactValues, Instance, Proof, Value};

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
        View { claims: self.claims, instance, age_waived: self.age_waived, now: self.now }
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

//! Why one policy decides as it does: the rule and field that make it so, and where they stand.

use super::denial::Old;
use super::explain::Outcome;
use super::finding::Place;
use super::join_policy::JoinPolicy;
use super::judge::{Case, Objection, judge};
use super::rule::{Condition, Effect, Rule, Test};
use super::truth::{Truth, View};
use super::wording::{actual, expected};
use crate::methods::ClaimValues;

/// Why one policy decides as it does, and where that is written.
pub(super) struct Reason {
    pub(super) outcome: Outcome,
    misses: usize,
    pub(super) policy: String,
    pub(super) rule: Option<String>,
    pub(super) field: Option<String>,
    pub(super) place: Place,
    pub(super) message: String,
}

impl Reason {
    /// Smaller is nearer to admitting.
    pub(super) fn rank(&self) -> (u8, usize) {
        match self.outcome {
            Outcome::Admitted => (0, 0),
            Outcome::NeedsFacts => (1, self.misses),
            Outcome::Refused => (2, self.misses),
        }
    }
}

/// The outcome of `judge`, with the rule and field that make it so.
pub(super) fn reason(policy: &JoinPolicy, case: &Case<'_>) -> Reason {
    let view = case.view();
    let reason =
        |outcome, misses, rule: Option<&Rule>, field: Option<&str>, place: &Place, message| {
            Reason {
                outcome,
                misses,
                policy: policy.name.to_string(),
                rule: rule.map(|rule| rule.name.clone()),
                field: field.map(str::to_owned),
                place: place.clone(),
                message,
            }
        };
    let terms =
        |field, place, message| reason(Outcome::Refused, 1, None, Some(field), place, message);
    let proof_place = &policy.proof.place;
    match judge(policy, case) {
        Ok(rule) => match impossible_name(policy, case.claims) {
            None => {
                let message = format!("the rule `{}` admits", rule.name);
                reason(Outcome::Admitted, 0, Some(rule), None, &rule.place, message)
            }
            Some((place, message)) => {
                reason(Outcome::Refused, 1, Some(rule), Some("dns_names"), &place, message)
            }
        },
        Err(Objection::Contradicted(found)) => {
            terms("fresh_proof", proof_place, found.reason.clone())
        }
        Err(Objection::ProofNotChecked(why)) => {
            let outcome = Outcome::NeedsFacts;
            reason(outcome, 1, None, Some("fresh_proof"), proof_place, why.to_owned())
        }
        Err(Objection::NotSeen) => {
            let (place, message) = (&policy.look_up.place, "the instance was not looked at");
            reason(Outcome::NeedsFacts, 1, None, Some("state"), place, message.to_owned())
        }
        Err(Objection::NotRunning(state)) => {
            let message = format!("EC2 says that the instance is {state}");
            terms("state", &policy.look_up.place, message)
        }
        Err(Objection::ProofMissing) => terms(
            "fresh_proof",
            proof_place,
            "a fresh proof is required, none was offered".to_owned(),
        ),
        Err(Objection::TooOld { age, document_ttl }) => {
            let message = format!("the document is {}, at most {document_ttl} may join", Old(age));
            terms("document_ttl", &policy.age_place, message)
        }
        Err(Objection::Denied(rule)) => {
            let message = format!("the deny rule `{}` matches", rule.name);
            let field = rule.conditions.first().map(|condition| condition.field.name);
            // Farther than any allow rule: a prohibition is not nearly a permission.
            reason(Outcome::Refused, usize::MAX, Some(rule), field, &rule.place, message)
        }
        Err(Objection::DenyUnknown(rule)) => doubtful(rule, Effect::Deny, &view, &reason),
        Err(Objection::AllowUnknown(rule)) => doubtful(rule, Effect::Allow, &view, &reason),
        Err(Objection::NoMatch) => {
            let Some((misses, rule)) = nearest(policy, &view) else {
                let message = "the policy has no allow rule".to_owned();
                return reason(Outcome::Refused, usize::MAX, None, None, &policy.place, message);
            };
            let (field, place, why) = first_miss(rule, &view);
            let message = format!("no allow rule matches; the nearest is `{}`: {why}", rule.name);
            reason(Outcome::Refused, misses, Some(rule), Some(field), place, message)
        }
    }
}

fn doubtful(
    rule: &Rule,
    effect: Effect,
    view: &View<'_>,
    reason: &impl Fn(Outcome, usize, Option<&Rule>, Option<&str>, &Place, String) -> Reason,
) -> Reason {
    let unknown =
        rule.conditions.iter().filter(|condition| condition.holds(effect, view) == Truth::Unknown);
    let is_unread = unknown.clone().any(|condition| condition.is_unread(view));
    // Only what can still be read is worth waiting for; silent evidence stays silent.
    let outcome = if is_unread { Outcome::NeedsFacts } else { Outcome::Refused };
    let first = unknown.clone().next();
    let place = first.map_or(&rule.place, |condition| &condition.place);
    let message =
        format!("whether the {} rule `{}` matches is not known", effect.as_str(), rule.name);
    reason(
        outcome,
        unknown.count(),
        Some(rule),
        first.map(|condition| condition.field.name),
        place,
        message,
    )
}

/// The allow rule with the fewest fields that do not match.
fn nearest<'p>(policy: &'p JoinPolicy, view: &View<'_>) -> Option<(usize, &'p Rule)> {
    let misses = |rule: &Rule| {
        let conditions = rule.conditions.iter();
        let missed = conditions.filter(|held| held.holds(Effect::Allow, view) != Truth::True);
        missed.count() + usize::from(rule.has_expired(view.now))
    };
    policy.allow.iter().map(|rule| (misses(rule), rule)).min_by_key(|(misses, _)| *misses)
}

/// The first field that keeps a rule from matching.
fn first_miss<'r>(rule: &'r Rule, view: &View<'_>) -> (&'static str, &'r Place, String) {
    let missed = |condition: &&Condition| condition.holds(Effect::Allow, view) == Truth::False;
    // Accounts are compared with their partition; where the rule names it, that is what differs.
    let partition = |condition: &&Condition| matches!(condition.test, Test::Partition(_));
    let partition = rule.conditions.iter().filter(missed).find(partition);
    match partition.or_else(|| rule.conditions.iter().find(missed)) {
        Some(condition) => {
            let (name, wanted) = (condition.field.name, expected(&condition.test));
            let found = actual(condition, view).unwrap_or_else(|| "nothing".to_owned());
            (name, &condition.place, format!("`{name}` wants {wanted}, the node has {found}"))
        }
        None => ("until", &rule.place, "it has expired".to_owned()),
    }
}

fn impossible_name(policy: &JoinPolicy, claims: &ClaimValues) -> Option<(Place, String)> {
    policy.certificate.dns_names.iter().find_map(|template| {
        let why = template.render(claims).err()?.why;
        Some((template.place.clone(), format!("`{}` makes no name: {why}", template.text)))
    })
}

//! What authors get wrong without breaking a rule: warnings, never errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compare::{self, Budget};
use super::document::Metadata;
use super::finding::{FindingCode, Place, Report};
use super::join_policy::JoinPolicy;
use super::rule::{Effect, Rule, Test};
use super::settings::FreshProof;
use crate::domain::{Lifetime, PolicyName, Timestamp};
use crate::methods::LookUp;

/// How long before its end a rule is worth a look.
const SOON: Lifetime = Lifetime::from_days(14);

/// Looks at a deny list by itself.
pub(super) fn deny_list(
    rules: &[Arc<Rule>],
    metadata: &Metadata,
    now: Option<Timestamp>,
    report: &mut Report,
) {
    if metadata.owner.is_none() {
        no_owner("deny list", &metadata.name, &metadata.place, report);
    }
    for rule in rules {
        ends(rule, Effect::Deny, now, report);
    }
    evadable(rules.iter().map(AsRef::as_ref), report);
}

/// Looks at all policies, alone and together. Only a set that loads is worth it.
pub(super) fn policies(
    policies: &BTreeMap<PolicyName, JoinPolicy>,
    deny_lists: &[Arc<Rule>],
    now: Option<Timestamp>,
    report: &mut Report,
) {
    if policies.is_empty() {
        let place = Place::start_of(".");
        let expected = "a JoinPolicy, unless nobody is meant to join";
        report.add(
            FindingCode::NoPolicies,
            &place,
            "there is no join policy: nobody can join",
            expected,
        );
    }
    for policy in policies.values() {
        alone(policy, now, report);
    }
    not_applicable(policies, deny_lists, report);
    let mut budget = Budget::default();
    for policy in policies.values() {
        shadowed(policy, &mut budget, report);
        dead(policy, &mut budget, report);
    }
    overlaps(policies, &mut budget, report);
    if budget.is_spent() {
        let place = policies.values().next().map(JoinPolicy::place);
        let message = "there are too many rules to compare every one with every other";
        let expected = "fewer rules, or a reviewer who looks for overlaps";
        if let Some(place) = place {
            report.add(FindingCode::AnalysisIncomplete, place, message, expected);
        }
    }
}

pub(super) fn no_owner(kind: &str, name: &PolicyName, place: &Place, report: &mut Report) {
    let message = format!("the {kind} `{name}` names nobody to ask");
    report.add(FindingCode::OwnerMissing, place, message, "`owner: a-team` in `metadata`");
}

fn alone(policy: &JoinPolicy, now: Option<Timestamp>, report: &mut Report) {
    let JoinPolicy { name, place, .. } = policy;
    if policy.owner.is_none() {
        no_owner("policy", name, place, report);
    }
    if policy.description.is_none() {
        let message = format!("the policy `{name}` does not say what it is for");
        let expected = "`description: …` in `metadata`";
        report.add(FindingCode::DescriptionMissing, place, message, expected);
    }
    if policy.method.has_look_up() && policy.look_up.is_default {
        let message = "nobody looks whether the instance still runs: credentials of a terminated \
                       one may join for some hours";
        let expected = format!("`{}: {{look_up: none}}` if that is meant", policy.method());
        report.add(FindingCode::LookUpDefault, place, message, expected);
    }
    if policy.look_up.value != LookUp::None && !policy.reads_facts() {
        let message = "an instance is only looked at after a fresh proof, which this policy does \
                       not require";
        let expected = "`fresh_proof: required`, or `look_up: none`";
        report.add(FindingCode::LookUpUnused, &policy.look_up.place, message, expected);
    }
    if policy.method.has_fresh_proof && policy.proof.value != FreshProof::Required {
        let message = "without a fresh proof a renewal rests on the certificate alone: whoever copies \
                       the node's key and document can renew from anywhere";
        let expected = "`fresh_proof: required`, unless the nodes or the server cannot reach STS";
        report.add(FindingCode::RenewalByCertificate, &policy.proof.place, message, expected);
    }
    shared_names(policy, report);
    for rule in &policy.allow {
        ends(rule, Effect::Allow, now, report);
    }
    let own_deny = || policy.deny().filter(|rule| rule.deny_list.is_none());
    for rule in own_deny() {
        ends(rule, Effect::Deny, now, report);
    }
    evadable(policy.allow.iter().chain(own_deny()), report);
}

/// Conditions that do less than a reader believes; each field once a list.
fn evadable<'r>(rules: impl Iterator<Item = &'r Rule>, report: &mut Report) {
    let mut seen = std::collections::BTreeSet::new();
    for condition in rules.flat_map(|rule| &rule.conditions) {
        let Some(caution) = condition.field.caution else { continue };
        if !matches!(condition.test, Test::Any) && seen.insert(condition.field.name) {
            let message = format!("`{}`: {caution}", condition.field.name);
            let expected = "no reliance on this condition alone";
            report.add(FindingCode::ConditionEvadable, &condition.place, message, expected);
        }
    }
}

/// A name is a node's own only if something of it belongs to one node. What a field of a rule reads
/// is a property that many nodes share, so such a variable does not make a name one node's.
fn shared_names(policy: &JoinPolicy, report: &mut Report) {
    let is_shared = |variable| policy.method.fields.iter().any(|field| field.reads == variable);
    for name in &policy.certificate.dns_names {
        if name.variables().all(is_shared) {
            let message =
                format!("every node of the policy gets `{}`, and can be any other", name.text);
            let expected = "a name with `{instance_id}`, unless the nodes share one service";
            report.add(FindingCode::DnsNameShared, &name.place, message, expected);
        }
    }
}

fn ends(rule: &Rule, effect: Effect, now: Option<Timestamp>, report: &mut Report) {
    let (Some(until), Some(now)) = (rule.until, now) else { return };
    let name = &rule.name;
    let (code, message, expected) = if rule.has_expired(now) {
        let message = format!("the {} rule `{name}` ended at {until}", effect.as_str());
        (FindingCode::RuleExpired, message, "a later `until`, or no such rule")
    } else if until > now.plus(SOON) {
        return;
    } else if effect == Effect::Deny {
        let message = format!("the deny rule `{name}` ends at {until}, and its end opens access");
        (FindingCode::DenyEndsSoon, message, "a later `until`, unless the access is meant")
    } else {
        let message =
            format!("the allow rule `{name}` ends at {until}: its nodes cannot join then");
        (FindingCode::RuleEndsSoon, message, "a later `until`, unless the end is meant")
    };
    report.add(code, &rule.place, message, expected);
}

/// Deny rules on fields that the method of some policy does not have.
fn not_applicable(
    policies: &BTreeMap<PolicyName, JoinPolicy>,
    deny_lists: &[Arc<Rule>],
    report: &mut Report,
) {
    for rule in deny_lists {
        let names: Vec<&str> = policies
            .values()
            .filter(|policy| !super::set::applies(rule, policy.method))
            .map(|policy| policy.name.as_str())
            .collect();
        if !names.is_empty() {
            let message = format!(
                "`{}` asks what the methods of these policies cannot say, and does not hold for \
                 them: {}",
                rule.name,
                names.join(", ")
            );
            let expected = "fields that every method has, or a rule a method";
            report.add(FindingCode::DenyNotApplicable, &rule.place, message, expected);
        }
    }
}

/// Rules that an earlier rule of the same list already says.
fn shadowed(policy: &JoinPolicy, budget: &mut Budget, report: &mut Report) {
    let own_deny: Vec<&Rule> = policy.deny().filter(|rule| rule.deny_list.is_none()).collect();
    let allow: Vec<&Rule> = policy.allow.iter().collect();
    for list in [allow, own_deny] {
        for (index, rule) in list.iter().enumerate() {
            let earlier = list.iter().take(index);
            let covering = earlier.copied().find(|wide| compare::covers(wide, rule, budget));
            if let Some(wide) = covering {
                let message = format!("`{}` already says all that `{}` says", wide.name, rule.name);
                let expected = "one of the two";
                report.add(FindingCode::RuleShadowed, &rule.place, message, expected);
            }
        }
    }
}

/// Allow rules of which every node is refused by a deny rule.
fn dead(policy: &JoinPolicy, budget: &mut Budget, report: &mut Report) {
    for rule in &policy.allow {
        if let Some(wide) = policy.deny().find(|wide| compare::covers(wide, rule, budget)) {
            let message = format!(
                "`{}` admits nobody: the deny rule `{}` ({}) refuses all of them",
                rule.name, wide.name, wide.place
            );
            let expected = "a rule that the deny rule leaves something, or no such rule";
            report.add(FindingCode::RuleDead, &rule.place, message, expected);
        }
    }
}

/// A node names its policy, so it may take the weaker one of two that admit it (P3).
fn overlaps(policies: &BTreeMap<PolicyName, JoinPolicy>, budget: &mut Budget, report: &mut Report) {
    for policy in policies.values() {
        for other in policies.values() {
            let weaker = weaker_in(other, policy);
            if weaker.is_empty() || other.method() != policy.method() || budget.is_spent() {
                continue;
            }
            let meets = policy.allow.iter().any(|rule| {
                other.allow.iter().any(|others| compare::may_meet(rule, others, budget))
            });
            if meets {
                let message = format!(
                    "nodes of `{}` may also join by `{}` ({}), which is weaker in: {}",
                    policy.name,
                    other.name,
                    other.place,
                    weaker.join(", ")
                );
                let expected = "rules that no node meets in both, or the same terms";
                report.add(FindingCode::PolicyOverlap, &policy.place, message, expected);
            }
        }
    }
}

/// In what the terms of `weak` are weaker than those of `strong`.
fn weaker_in(weak: &JoinPolicy, strong: &JoinPolicy) -> Vec<&'static str> {
    let mut weaker = Vec::new();
    match (weak.proof.value, strong.proof.value) {
        (FreshProof::NotRequired { .. }, FreshProof::Required) => weaker.push("fresh_proof"),
        (
            FreshProof::NotRequired { document_ttl: longer },
            FreshProof::NotRequired { document_ttl },
        ) if longer > document_ttl => weaker.push("document_ttl"),
        (FreshProof::NotRequired { .. } | FreshProof::Required, _) => {}
    }
    if strong.reads_facts() && !weak.reads_facts() {
        weaker.push("look_up");
    }
    if weak.ttl() > strong.ttl() {
        weaker.push("ttl");
    }
    weaker
}

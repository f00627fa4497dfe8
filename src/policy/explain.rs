//! Explanations: every rule and field of a decision, with what was expected and what was there.
//! Made only when somebody asks; the outcome is the one that `judge` gives.

use std::collections::BTreeMap;

use serde::Serialize;

use super::denial::Old;
use super::finding::Place;
use super::join_policy::JoinPolicy;
use super::judge::Case;
use super::reason::{Reason, reason};
use super::rule::{Effect, Rule};
use super::set::PolicySet;
use super::settings::FreshProof;
use super::truth::{Truth, View};
use super::wording::{actual, expected};
use crate::domain::{Lifetime, Timestamp};
use crate::methods::{ClaimValues, FactValues, Instance, Proof, Value};

/// A node as it is, or as it might be.
#[derive(Debug, Clone, Copy)]
pub struct Hypothesis<'h> {
    /// Its join method.
    pub method: &'h str,
    /// Its claims.
    pub values: &'h ClaimValues,
    /// When its run began.
    pub epoch: Timestamp,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The node is admitted.
    Admitted,
    /// It is not.
    Refused,
    /// It depends on facts that were not read.
    NeedsFacts,
}

impl Outcome {
    /// The name in JSON and in tests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::NeedsFacts => "needs_facts",
        }
    }
}

/// Whether a rule or field fits the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// It does.
    Match,
    /// It does not.
    NoMatch,
    /// That is not known.
    Unknown,
}

impl From<Truth> for Fit {
    fn from(truth: Truth) -> Self {
        match truth {
            Truth::True => Self::Match,
            Truth::False => Self::NoMatch,
            Truth::Unknown => Self::Unknown,
        }
    }
}

/// The whole reason of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// How it ends.
    pub outcome: Outcome,
    /// The policy that decides, or that comes nearest to admitting.
    pub policy: Option<String>,
    /// The rule that decides, or that comes nearest to admitting.
    pub rule: Option<String>,
    /// The field that keeps it from admitting.
    pub field: Option<String>,
    /// Where to look.
    pub file: Option<String>,
    /// Where to look.
    pub line: Option<u32>,
    /// Where to look.
    pub column: Option<u32>,
    /// The same in a sentence.
    pub message: String,
    /// Every policy that was asked.
    pub policies: Vec<PolicyExplanation>,
}

/// One policy of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyExplanation {
    /// Its name.
    pub name: String,
    /// How it ends under this policy.
    pub outcome: Outcome,
    /// Its rules: deny, allow, and the terms on which it admits.
    pub rules: Vec<RuleExplanation>,
    /// What it gives to whom it admits.
    pub grants: Grants,
}

/// What a policy gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// How long a certificate lives.
    pub ttl: Lifetime,
    /// The DNS names that can be made for the node.
    pub dns_names: Vec<String>,
    /// The roles.
    pub roles: Vec<String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// One rule of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleExplanation {
    /// Its name, or its list and index.
    pub name: String,
    /// `allow`, `deny` or `terms`.
    pub kind: &'static str,
    /// Whether it fits.
    pub outcome: Fit,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// Its column.
    pub column: u32,
    /// Its fields.
    pub fields: Vec<FieldExplanation>,
}

/// One field of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldExplanation {
    /// Its name.
    pub field: String,
    /// Whether it fits.
    pub outcome: Fit,
    /// What the rule wants.
    pub expected: String,
    /// What the node has; nothing where it has none or where it was not read.
    pub actual: Option<String>,
    /// Its line.
    pub line: u32,
    /// Its column.
    pub column: u32,
}

/// Explains what the set, or one policy of it, says of a node. A name that no policy of the method
/// has leaves `policies` empty.
pub fn explain(
    set: &PolicySet,
    node: &Hypothesis<'_>,
    facts: Option<&FactValues>,
    policy: Option<&str>,
    now: Timestamp,
) -> Explanation {
    let case = Case { claims: node.values, epoch: node.epoch, facts, age_waived: false, now };
    let policies = set
        .policies()
        .filter(|found| found.method() == node.method)
        .filter(|found| policy.is_none_or(|name| found.name().as_str() == name));
    explain_case(policies, &case)
}

pub(super) fn explain_case<'p>(
    policies: impl IntoIterator<Item = &'p JoinPolicy>,
    case: &Case<'_>,
) -> Explanation {
    let mut reasons: Vec<Reason> = Vec::new();
    let mut explained = Vec::new();
    for policy in policies {
        let reason = reason(policy, case);
        let outcome = reason.outcome;
        reasons.push(reason);
        let rules = rules(policy, case);
        let (name, grants) = (policy.name.to_string(), grants(policy, case));
        explained.push(PolicyExplanation { name, outcome, rules, grants });
    }
    // The best outcome; among refusals the one that misses least, then the first by name.
    let Some(reason) = reasons.into_iter().min_by_key(Reason::rank) else {
        return Explanation {
            outcome: Outcome::Refused,
            policy: None,
            rule: None,
            field: None,
            file: None,
            line: None,
            column: None,
            message: "there is no such policy".to_owned(),
            policies: Vec::new(),
        };
    };
    Explanation {
        outcome: reason.outcome,
        policy: Some(reason.policy),
        rule: reason.rule,
        field: reason.field,
        file: Some(reason.place.file.to_string()),
        line: Some(reason.place.line),
        column: Some(reason.place.column),
        message: reason.message,
        policies: explained,
    }
}

fn grants(policy: &JoinPolicy, case: &Case<'_>) -> Grants {
    let names = policy.certificate.dns_names.iter();
    Grants {
        ttl: policy.ttl(),
        dns_names: names.filter_map(|name| name.render(case.claims).ok()).collect(),
        roles: policy.roles().to_vec(),
        labels: policy.labels().clone(),
    }
}

fn rules(policy: &JoinPolicy, case: &Case<'_>) -> Vec<RuleExplanation> {
    let view = case.view();
    let deny = policy.deny().map(|rule| explained(rule, Effect::Deny, &view));
    let allow = policy.allow.iter().map(|rule| explained(rule, Effect::Allow, &view));
    deny.chain(allow).chain([terms(policy, case)]).collect()
}

fn explained(rule: &Rule, effect: Effect, view: &View<'_>) -> RuleExplanation {
    let mut fields: Vec<FieldExplanation> = rule
        .conditions
        .iter()
        .map(|condition| FieldExplanation {
            field: condition.field.name.to_owned(),
            outcome: condition.holds(effect, view).into(),
            expected: expected(&condition.test),
            actual: actual(condition, view),
            line: condition.place.line,
            column: condition.place.column,
        })
        .collect();
    if let Some(until) = rule.until {
        let is_in_force = !rule.has_expired(view.now);
        let wanted = format!("until {until}");
        let found = Some(view.now.to_string());
        fields.push(field("until", is_in_force, wanted, found, &rule.place));
    }
    RuleExplanation {
        name: rule.name.clone(),
        kind: effect.as_str(),
        outcome: rule.matches(effect, view).into(),
        file: rule.place.file.to_string(),
        line: rule.place.line,
        column: rule.place.column,
        fields,
    }
}

/// The terms beside the rules: proof, age, names.
fn terms(policy: &JoinPolicy, case: &Case<'_>) -> RuleExplanation {
    let place = &policy.proof.place;
    let mut fields = Vec::new();
    let proof = case.facts.map(|facts| &facts.proof);
    let is_required = policy.proof.value == FreshProof::Required;
    let (is_met, found) = match proof {
        None => (Fit::Unknown, None),
        Some(Proof::Proven) => (Fit::Match, Some("proven")),
        Some(Proof::NotOffered) if is_required => (Fit::NoMatch, Some("not offered")),
        Some(Proof::NotOffered) => (Fit::Match, Some("not offered")),
        Some(Proof::NotChecked(_)) if is_required => (Fit::Unknown, Some("not checked")),
        Some(Proof::NotChecked(_)) => (Fit::Match, Some("not checked")),
        Some(Proof::Disproven(_)) => (Fit::NoMatch, Some("disproven")),
    };
    let wanted = if is_required { "required" } else { "not_required" };
    let found = found.map(str::to_owned);
    let proof = field("fresh_proof", true, wanted.to_owned(), found, place);
    fields.push(FieldExplanation { outcome: is_met, ..proof });
    if let FreshProof::NotRequired { document_ttl: Some(document_ttl) } = policy.proof.value {
        let age: Lifetime = case.now.since(case.epoch);
        let is_young = age <= document_ttl;
        let (wanted, found) = (document_ttl.to_string(), Some(Old(age).to_string()));
        fields.push(field("document_ttl", is_young, wanted, found, &policy.age_place));
    }
    fields.extend(state_of_instance(policy, case));
    for template in &policy.certificate.dns_names {
        let name = template.render(case.claims);
        let is_possible = name.is_ok();
        let (wanted, place) = (template.text.clone(), &template.place);
        fields.push(field("dns_names", is_possible, wanted, name.ok(), place));
    }
    let has = |wanted| fields.iter().any(|field| field.outcome == wanted);
    let outcome = match (has(Fit::NoMatch), has(Fit::Unknown)) {
        (true, _) => Fit::NoMatch,
        (false, true) => Fit::Unknown,
        (false, false) => Fit::Match,
    };
    RuleExplanation {
        name: policy.method().to_owned(),
        kind: "terms",
        outcome,
        file: place.file.to_string(),
        line: place.line,
        column: place.column,
        fields,
    }
}

/// What a look says whatever the rules ask: that the instance is the right one, and runs.
fn state_of_instance(policy: &JoinPolicy, case: &Case<'_>) -> Option<FieldExplanation> {
    let running = policy.method.running.as_ref().filter(|_| policy.reads_facts())?;
    let place = &policy.look_up.place;
    let wanted = running.values.join(" or ");
    match &case.facts?.instance {
        Instance::NotRead(_) => {
            let unread = field(running.reads, false, wanted, None, place);
            Some(FieldExplanation { outcome: Fit::Unknown, ..unread })
        }
        Instance::Refuted(found) => {
            Some(field(running.reads, false, wanted, Some(found.reason.clone()), place))
        }
        Instance::Known(facts) => match facts.get(running.reads)?.as_ref()? {
            Value::Text(state) => {
                let runs = running.values.contains(&state.as_str());
                Some(field(running.reads, runs, wanted, Some(state.clone()), place))
            }
            Value::List(_)
            | Value::Tags(_)
            | Value::Time(_)
            | Value::Span(_)
            | Value::Number(_)
            | Value::MetadataOptions { .. } => None,
        },
    }
}

fn field(
    name: &str,
    fits: bool,
    expected: String,
    actual: Option<String>,
    place: &Place,
) -> FieldExplanation {
    FieldExplanation {
        field: name.to_owned(),
        outcome: if fits { Fit::Match } else { Fit::NoMatch },
        expected,
        actual,
        line: place.line,
        column: place.column,
    }
}

//! Boundary cases: for each rule a node that it admits, and then one thing of it changed to what lies
//! just outside. Each must be refused. What another rule of the policy admits is no boundary of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::Serialize;

use super::change::Change;
use super::neighbours::{Ground, Neighbour, beside};
use super::node::SupposedNode;
use super::sample::{document_ttl, enter, node_of};
use super::{Expected, TestCase};
use crate::domain::{Lifetime, Partition, Timestamp};
use crate::methods::{Kind, Source, Value};
use crate::policy::explain::Outcome;
use crate::policy::finding::Place;
use crate::policy::join_policy::JoinPolicy;
use crate::policy::judge::{Objection, judge};
use crate::policy::reason::reason;
use crate::policy::rule::{Effect, Rule};
use crate::policy::set::PolicySet;
use crate::policy::settings::FreshProof;
use crate::policy::truth::Truth;

/// How many ways are tried to find a node that a rule admits, and how many prohibitions are evaded on
/// each.
const CHOICES: usize = 16;
const EVASIONS: usize = 8;
/// How many of the values of a prohibition are tried.
const DENIED: usize = 4;
/// A policy makes no more of a kind than this many times its part, however many rules it has.
const SURPLUS: usize = 8;
const SECOND: Lifetime = Lifetime::from_seconds(1);

/// What was made of a set.
#[derive(Debug, Default)]
pub struct Boundaries {
    /// The cases; each must be refused.
    pub cases: Vec<BoundaryCase>,
    /// How many neighbours another rule of the same policy admits; none of them is a case.
    pub admitted_elsewhere: usize,
    /// The rules beside which there is no case.
    pub not_tried: Vec<RuleNotTried>,
}

/// One node beside a rule.
#[derive(Debug)]
pub struct BoundaryCase {
    /// What kind of step leads out of the rule, for example `region`.
    pub step: &'static str,
    /// The rule.
    pub rule: String,
    /// The node, and that it must be refused.
    pub case: TestCase,
}

/// A rule that admits nobody whom this could find.
#[derive(Debug, Serialize)]
pub struct RuleNotTried {
    /// Its policy.
    pub policy: String,
    /// Its name.
    pub rule: String,
    /// Its file.
    pub file: String,
    /// Its line.
    pub line: u32,
    /// Why.
    pub message: &'static str,
}

impl Boundaries {
    /// How many cases there are of each kind.
    pub fn made(&self) -> BTreeMap<&'static str, usize> {
        let mut made = BTreeMap::new();
        for case in &self.cases {
            *made.entry(case.step).or_default() += 1;
        }
        made
    }
}

/// Makes at most so many cases from the policies, or from one of them, as of `at`. Always the same
/// ones of the same set, spread over policies and kinds.
pub fn boundaries(
    set: &PolicySet,
    regions: &BTreeMap<String, Partition>,
    only: Option<&str>,
    most: usize,
    at: Timestamp,
) -> Boundaries {
    let is_meant = |policy: &&JoinPolicy| only.is_none_or(|only| policy.name.as_str() == only);
    let policies: Vec<&JoinPolicy> = set.policies().filter(is_meant).collect();
    let part = most.div_ceil(policies.len().max(1)).saturating_mul(SURPLUS).min(most);
    let mut made = Boundaries::default();
    let mut buckets = Vec::new();
    for (index, policy) in policies.into_iter().enumerate() {
        let region_claim = policy.method.fields.iter().find(|field| field.kind == Kind::Regions);
        let region_claim = region_claim.map(|field| field.reads);
        let of_rule = part.div_ceil(policy.allow.len().max(1)).max(SURPLUS);
        let ground = Ground { set, regions, region_claim, at, most: of_rule };
        let mut maker = Maker { ground, policy, part, by_step: BTreeMap::new(), made: &mut made };
        for rule in policy.allow.iter().take(part) {
            maker.beside_rule(rule);
        }
        let by_step = maker.by_step;
        buckets.extend(by_step.into_iter().map(|(step, cases)| Bucket { index, step, cases }));
    }
    made.cases = spread(buckets, most);
    made
}

/// The cases of one kind beside the rules of one policy.
struct Bucket {
    index: usize,
    step: &'static str,
    cases: VecDeque<BoundaryCase>,
}

/// Takes evenly from all policies and kinds, so that few cases touch each.
fn spread(mut buckets: Vec<Bucket>, most: usize) -> Vec<BoundaryCase> {
    let mut of_step: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut of_policy: BTreeMap<usize, usize> = BTreeMap::new();
    let mut cases = Vec::new();
    while cases.len() < most {
        let taken = |bucket: &Bucket| {
            let step = of_step.get(bucket.step).copied().unwrap_or_default();
            let policy = of_policy.get(&bucket.index).copied().unwrap_or_default();
            (step + policy, step, policy)
        };
        buckets.retain(|bucket| !bucket.cases.is_empty());
        let next = buckets.iter_mut().min_by_key(|bucket| taken(bucket));
        let Some(bucket) = next else { break };
        cases.extend(bucket.cases.pop_front());
        *of_step.entry(bucket.step).or_default() += 1;
        *of_policy.entry(bucket.index).or_default() += 1;
    }
    cases
}

/// Makes the cases of one policy.
struct Maker<'m> {
    ground: Ground<'m>,
    policy: &'m JoinPolicy,
    part: usize,
    by_step: BTreeMap<&'static str, VecDeque<BoundaryCase>>,
    made: &'m mut Boundaries,
}

impl Maker<'_> {
    fn beside_rule(&mut self, rule: &Rule) {
        if rule.has_expired(self.ground.at) {
            return self.not_tried(rule, "it has ended");
        }
        let Some(base) = self.admitted_by(rule).map(Arc::new) else {
            return self.not_tried(rule, "no node was found that it admits");
        };
        let mut seen = BTreeSet::new();
        let mut neighbours = Vec::new();
        for condition in &rule.conditions {
            neighbours.extend(beside(&self.ground, &base, condition));
        }
        neighbours.extend(self.beside_terms(&base));
        neighbours.extend(self.denied(&base, rule));
        for Neighbour { step, to, node } in neighbours {
            if seen.insert(to.clone()) {
                self.keep(step, &to, rule, &base, &node, self.ground.at);
            }
        }
        if let Some(until) = rule.until.filter(|until| until.plus(SECOND) > *until) {
            let end = until.plus(SECOND);
            let later = base.later(end.since(self.ground.at));
            self.keep("until", &format!("ended at {until}"), rule, &base, &later, end);
        }
    }

    fn not_tried(&mut self, rule: &Rule, message: &'static str) {
        let Place { file, line, .. } = &rule.place;
        let policy = self.policy.name.to_string();
        let (rule, file, line) = (rule.name.clone(), file.to_string(), *line);
        self.made.not_tried.push(RuleNotTried { policy, rule, file, line, message });
    }

    /// Keeps a neighbour as a case, unless another rule admits it. One that the very rule admits is
    /// kept: it is outside by how it was made, so the case will not hold, and somebody must know.
    fn keep(
        &mut self,
        step: &'static str,
        to: &str,
        rule: &Rule,
        base: &Arc<SupposedNode>,
        node: &SupposedNode,
        at: Timestamp,
    ) {
        let bucket = self.by_step.entry(step).or_default();
        if bucket.len() >= self.part {
            return;
        }
        let method = self.policy.method;
        let facts = node.facts();
        let judged = reason(self.policy, &node.case(&facts, method, at));
        if judged.outcome == Outcome::Admitted && judged.rule.as_deref() != Some(rule.name.as_str())
        {
            self.made.admitted_elsewhere += 1;
            return;
        }
        let case = TestCase {
            name: to.to_owned(),
            place: rule.place.clone(),
            policy: Some(self.policy.name.clone()),
            method,
            at: Some(at),
            base: Arc::clone(base),
            change: Change::between(base, node),
            expected: Expected::outcome(Outcome::Refused),
        };
        bucket.push_back(BoundaryCase { step, rule: rule.name.clone(), case });
    }

    /// A node that the rule admits and no prohibition refuses.
    fn admitted_by(&self, rule: &Rule) -> Option<SupposedNode> {
        let Ground { regions, at, .. } = self.ground;
        (0..CHOICES).find_map(|choice| {
            let node = node_of(self.policy, rule, regions, at, choice);
            self.evading(rule, node)
        })
    }

    /// The same node, moved out of the prohibitions that it meets, if that can be done within the rule.
    fn evading(&self, rule: &Rule, mut node: SupposedNode) -> Option<SupposedNode> {
        for _ in 0..EVASIONS {
            let facts = node.facts();
            let case = node.case(&facts, self.policy.method, self.ground.at);
            if rule.matches(Effect::Allow, &case.view()) != Truth::True {
                return None;
            }
            let deny = match judge(self.policy, &case) {
                Ok(_) => {
                    let is_admitted = reason(self.policy, &case).outcome == Outcome::Admitted;
                    return is_admitted.then_some(node);
                }
                Err(Objection::Denied(deny) | Objection::DenyUnknown(deny)) => deny,
                Err(_) => return None,
            };
            let ways = deny.conditions.iter().flat_map(|one| beside(&self.ground, &node, one));
            let next = ways.map(|way| way.node).find(|next| {
                self.matches(rule, Effect::Allow, next) && !self.matches(deny, Effect::Deny, next)
            });
            node = next?;
        }
        None
    }

    fn matches(&self, rule: &Rule, effect: Effect, node: &SupposedNode) -> bool {
        let facts = node.facts();
        let case = node.case(&facts, self.policy.method, self.ground.at);
        rule.matches(effect, &case.view()) == Truth::True
    }

    /// Beside what the policy asks of every node: the proof, its age, that the instance runs.
    fn beside_terms(&self, base: &SupposedNode) -> Vec<Neighbour> {
        let mut found = Vec::new();
        let mut push = |step, to: String, node| found.push(Neighbour { step, to, node });
        let method = self.policy.method;
        if self.policy.proof.value == FreshProof::Required {
            push("proof", "no proof".to_owned(), SupposedNode { is_proven: false, ..base.clone() });
        }
        if let (Some(ttl), Some(epoch)) = (document_ttl(self.policy), method.epoch_claim) {
            let earlier = self.ground.at.minus(ttl).minus(SECOND);
            let node = base.with(Source::Claim, epoch, Some(Value::Time(earlier)));
            push("document-age", format!("{epoch} {earlier}"), node);
        }
        if let Some(running) = method.running.as_ref().filter(|_| self.policy.reads_facts()) {
            for state in ["stopped", "terminated"] {
                if !running.values.contains(&state) {
                    let value = Some(Value::Text(state.to_owned()));
                    let node = base.with(Source::Instance, running.reads, value);
                    push("state", format!("{} {state}", running.reads), node);
                }
            }
        }
        found
    }

    /// Nodes that the rule would admit, and that a prohibition refuses.
    fn denied(&self, base: &SupposedNode, rule: &Rule) -> Vec<Neighbour> {
        let at = self.ground.at;
        let mut found = Vec::new();
        for deny in self.policy.deny().filter(|deny| !deny.has_expired(at)) {
            let mut seen: Vec<SupposedNode> = Vec::new();
            for choice in 0..DENIED {
                let mut node = base.clone();
                for condition in &deny.conditions {
                    enter(&mut node, condition, at, choice);
                }
                let is_met = self.matches(rule, Effect::Allow, &node)
                    && self.matches(deny, Effect::Deny, &node);
                if is_met && !seen.contains(&node) {
                    let to = match choice {
                        0 => format!("denied by {}", deny.name),
                        _ => format!("denied by {} ({})", deny.name, choice + 1),
                    };
                    seen.push(node.clone());
                    found.push(Neighbour { step: "denied", to, node });
                }
            }
        }
        found
    }
}

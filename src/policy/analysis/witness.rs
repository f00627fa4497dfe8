//! A node that shows an answer to be true: whoever doubts it can ask `explain` about the node.

use std::collections::BTreeSet;

use super::super::join_policy::JoinPolicy;
use super::super::judge::Case;
use super::samples::Sample;
use super::search::Path;
use super::space::{Of, Space, StandsFor, in_partition, put};
use crate::domain::{AccountId, PolicyName, Timestamp};
use crate::methods::{
    ClaimValues, Declaration, FactValues, Instance, InstanceFacts, Kind, Proof, Provenance, Value,
};

/// A node that might be, and when.
#[derive(Debug, Clone)]
pub struct Witness {
    /// The policy that it names.
    pub policy: PolicyName,
    /// The join method.
    pub method: &'static Declaration,
    /// When it joins.
    pub at: Timestamp,
    /// What its evidence says.
    pub claims: ClaimValues,
    /// When its run began.
    pub epoch: Timestamp,
    /// What others say of it.
    pub facts: FactValues,
}

impl Witness {
    /// The node of a path; it looks as ordinary as the path lets it.
    pub(super) fn of(
        space: &Space<'_>,
        path: &Path,
        policy: &JoinPolicy,
        is_looked_at: bool,
        ground: super::Ground<'_>,
    ) -> Self {
        let method = policy.method;
        let chosen =
            || {
                space.axes.iter().zip(path).filter_map(|(axis, index)| {
                    Some((axis.of, &axis.classes.get(*index)?.stands_for))
                })
            };
        let start = chosen().find_map(|(_, class)| match class {
            StandsFor::Time(start) => Some(*start),
            StandsFor::Accounts { .. } | StandsFor::Value(_) => None,
        });
        let at = start.unwrap_or(ground.at);
        let mut claims = in_partition(space.partition);
        let mut facts = InstanceFacts::new();
        let mut asked = BTreeSet::new();
        for (of, class) in chosen() {
            match (of, class) {
                (Of::Accounts(field), StandsFor::Accounts { one, .. }) => {
                    let account = Value::Text(one.as_str().to_owned());
                    claims.insert(field.reads, account, Provenance::Proven);
                }
                (Of::Field(field), StandsFor::Value(sample)) => {
                    asked.insert(field.reads);
                    put(field, sample, at, &mut claims, &mut facts);
                }
                (Of::Accounts(_) | Of::Time | Of::Field(_), _) => {}
            }
        }
        fill(method, &asked, ground, space, &mut claims);
        tidy(space, path, method, &mut claims);
        if let Some(running) = &method.running {
            let state = running.values.last().map(|state| Value::Text((*state).to_owned()));
            facts.insert(running.reads, state);
        }
        let instance = if is_looked_at {
            Instance::Known(facts)
        } else {
            Instance::NotRead("the policy does not look at instances".to_owned())
        };
        let proof = if method.has_fresh_proof { Proof::Proven } else { Proof::NotOffered };
        let facts = FactValues { proof, instance };
        Self { policy: policy.name.clone(), method, at, claims, epoch: at, facts }
    }

    /// Another account of its class.
    pub(super) fn put_account(&mut self, account: Option<&AccountId>) {
        let field = self.method.fields.iter().find(|field| field.kind == Kind::Accounts);
        if let Some((field, account)) = field.zip(account) {
            let account = Value::Text(account.as_str().to_owned());
            self.claims.insert(field.reads, account, Provenance::Proven);
        }
    }

    /// What a decision about it is made on.
    pub(super) fn case(&self) -> Case<'_> {
        Case {
            claims: &self.claims,
            epoch: self.epoch,
            facts: Some(&self.facts),
            age_waived: false,
            now: self.at,
        }
    }
}

/// Where the method's example of something that goes with a region fares like the sample, the example
/// is what people expect to see.
fn tidy(space: &Space<'_>, path: &Path, method: &Declaration, claims: &mut ClaimValues) {
    let region = method.fields.iter().find(|field| field.kind == Kind::Regions);
    let region = region.and_then(|field| claims.proven_text(field.reads)).map(str::to_owned);
    let Some(region) = region else { return };
    for (axis, index) in space.axes.iter().zip(path) {
        let (Of::Field(field), Some(class)) = (axis.of, axis.classes.get(*index)) else { continue };
        let example = method.example.iter().find(|(name, _)| *name == field.reads);
        let Some((name, text)) = example.filter(|(_, text)| text.contains("{region}")) else {
            continue;
        };
        let text = Value::Text(text.replace("{region}", &region));
        let mut alone = in_partition(space.partition);
        alone.insert(name, text.clone(), Provenance::Proven);
        let now = Timestamp::from_unix_seconds(0);
        if class.is_known() && space.survivors(field, &alone, None, now) == class.survivors {
            claims.insert(name, text, Provenance::Proven);
        }
    }
}

/// What no rule asks about is as in the method's example.
fn fill(
    method: &Declaration,
    asked: &BTreeSet<&'static str>,
    ground: super::Ground<'_>,
    space: &Space<'_>,
    claims: &mut ClaimValues,
) {
    let region_field = method.fields.iter().find(|field| field.kind == Kind::Regions);
    if let Some(field) = region_field.filter(|field| !asked.contains(field.reads)) {
        let mut known = ground.regions.iter().filter(|(_, of)| Some(**of) == space.partition);
        let region = known.next().map_or("elsewhere-1", |(region, _)| region.as_str());
        put(
            field,
            &Sample::Value(Value::Text(region.to_owned())),
            ground.at,
            claims,
            &mut InstanceFacts::new(),
        );
    }
    let region = region_field.and_then(|field| claims.proven_text(field.reads)).map(str::to_owned);
    for (name, text) in method.example {
        if !asked.contains(name) {
            let text = text.replace("{region}", region.as_deref().unwrap_or("elsewhere-1"));
            claims.insert(name, Value::Text(text), Provenance::Proven);
        }
    }
}

//! Nodes that name no policy: they get the only one of their method, if there is only one.

use std::collections::BTreeSet;

use super::super::join_policy::JoinPolicy;
use super::super::set::PolicySet;
use super::diff::{Change, ChangeKind, Spot};

/// What these changes are about.
pub(super) const WHAT: &str = "unnamed";

/// The methods whose only policy is another, or is or was not the only one. A token says by which
/// policy it is good, so nodes with one need not.
pub(super) fn changes(old: &PolicySet, new: &PolicySet) -> Vec<Change> {
    let is_asked = |policy: &&JoinPolicy| !policy.uses_tokens();
    let methods: BTreeSet<&str> = old.policies().filter(is_asked).map(JoinPolicy::method).collect();
    methods
        .into_iter()
        .filter_map(|method| {
            let (before, after) = (only(old, method), only(new, method));
            let name = |policy: Option<&JoinPolicy>| policy.map(|policy| policy.name().clone());
            (name(before) != name(after)).then(|| change(method, before, after))
        })
        .collect()
}

fn only<'p>(set: &'p PolicySet, method: &str) -> Option<&'p JoinPolicy> {
    let mut all = set.policies().filter(|policy| policy.method() == method);
    all.next().filter(|_| all.next().is_none())
}

fn change(method: &str, before: Option<&JoinPolicy>, after: Option<&JoinPolicy>) -> Change {
    let fate = |policy: Option<&JoinPolicy>| match policy {
        Some(policy) => format!("join by `{}`", policy.name()),
        None => "are refused, for there is not exactly one policy".to_owned(),
    };
    let spot = |policy: Option<&JoinPolicy>| policy.map(|policy| Spot::at(policy.place()));
    Change {
        kind: ChangeKind::Changed,
        what: WHAT,
        policy: after.or(before).map(|policy| policy.name().clone()),
        message: format!(
            "`{method}` nodes that name no policy now {}; before they {}",
            fate(after),
            fate(before)
        ),
        accounts: Vec::new(),
        old: spot(before),
        new: spot(after),
        witness: None,
    }
}

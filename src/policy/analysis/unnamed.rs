//! Nodes that name no policy: they get the only one of their method, if there is only one.

use super::super::join_policy::JoinPolicy;
use super::super::set::PolicySet;
use super::diff::{Change, ChangeKind, Spot};

/// What these changes are about.
pub(super) const WHAT: &str = "unnamed";

/// The methods whose only policy is another, or is not the only one any more.
pub(super) fn changes(old: &PolicySet, new: &PolicySet) -> Vec<Change> {
    old.policies()
        .filter_map(|policy| {
            let (before, after) = (only(old, policy.method())?, only(new, policy.method()));
            let is_same = after.is_some_and(|after| after.name() == before.name());
            (!is_same).then(|| change(before, after))
        })
        .collect()
}

fn only<'p>(set: &'p PolicySet, method: &str) -> Option<&'p JoinPolicy> {
    let mut all = set.policies().filter(|policy| policy.method() == method);
    all.next().filter(|_| all.next().is_none())
}

fn change(before: &JoinPolicy, after: Option<&JoinPolicy>) -> Change {
    let (name, method) = (before.name(), before.method());
    let message = match after {
        Some(after) => format!(
            "`{method}` nodes that name no policy joined by `{name}` and now join by `{}`",
            after.name()
        ),
        None => format!(
            "`{method}` nodes that name no policy joined by `{name}` and are now refused, for it is \
             not the only one"
        ),
    };
    Change {
        kind: ChangeKind::Changed,
        what: WHAT,
        policy: Some(name.clone()),
        message,
        accounts: Vec::new(),
        old: Some(Spot::at(before.place())),
        new: after.map(|after| Spot::at(after.place())),
        witness: None,
    }
}

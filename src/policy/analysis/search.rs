//! Looks for nodes that one list of rules admits and another does not, or that both admit: through
//! all combinations of classes, never twice through the same.

use std::collections::HashSet;

use fixedbitset::FixedBitSet;

use super::super::compare::Budget;
use super::space::{Class, Role, Space};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// What the left admits and the right does not.
    Beyond,
    /// What both admit.
    Both,
}

/// One class of each axis.
pub(super) type Path = Vec<usize>;

/// Where a search begins.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Start {
    /// Of the left's permissions only this one.
    pub(super) rule: Option<usize>,
    /// Of the first axis only this class.
    pub(super) class: Option<usize>,
    /// Of the left's prohibitions only these.
    pub(super) deny: Denials,
    /// Only what the right refuses for this.
    pub(super) cause: Cause,
}

/// For what the right refuses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Cause {
    /// Whatever it is.
    #[default]
    Any,
    /// This prohibition, and no other if it is to be alone.
    Deny { rule: usize, alone: bool },
    /// No prohibition, but no permission holds.
    NoPermission,
    /// The same, and this permission would hold but for this axis.
    ButFor { rule: usize, axis: usize },
}

impl Cause {
    /// Whether a class of an axis may be chosen.
    fn admits(self, depth: usize, class: &Class) -> bool {
        match self {
            Self::ButFor { rule, axis } => (depth == axis) != class.survivors.contains(rule),
            Self::Any | Self::Deny { .. } | Self::NoPermission => true,
        }
    }
}

/// Which prohibitions of the left hold.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Denials {
    #[default]
    All,
    One(usize),
    None,
}

/// A space, prepared for being searched again and again.
pub(super) struct Searcher<'s, 'p> {
    space: &'s Space<'p>,
    roles: Roles,
    /// For each axis the rules that ask for something from there on.
    open: Vec<FixedBitSet>,
}

impl<'s, 'p> Searcher<'s, 'p> {
    pub(super) fn new(space: &'s Space<'p>) -> Self {
        let roles = Roles {
            left_allow: space.in_role(Role::LeftAllow),
            left_deny: space.in_role(Role::LeftDeny),
            right_allow: space.in_role(Role::RightAllow),
            right_deny: space.in_role(Role::RightDeny),
        };
        let open = (0..=space.axes.len()).map(|axis| space.open_from(axis)).collect();
        Self { space, roles, open }
    }

    /// The permissions of the left.
    pub(super) fn left_rules(&self) -> impl Iterator<Item = usize> {
        self.roles.left_allow.ones()
    }

    /// The prohibitions of the right.
    pub(super) fn right_denials(&self) -> impl Iterator<Item = usize> {
        self.roles.right_deny.ones()
    }

    /// The permissions of the right of this name.
    pub(super) fn right_rules<'n>(&'n self, name: &'n str) -> impl Iterator<Item = usize> + 'n {
        let is_named = move |rule: &usize| {
            self.space.rules.get(*rule).is_some_and(|(rule, _)| rule.name == name)
        };
        self.roles.right_allow.ones().filter(is_named)
    }

    /// The prohibitions of the left.
    pub(super) fn left_denials(&self) -> impl Iterator<Item = usize> {
        self.roles.left_deny.ones()
    }

    /// The first combination, if there is one. Where the rest of the axes makes no difference any
    /// more, their first classes stand for all.
    pub(super) fn first(
        &self,
        question: Question,
        start: Start,
        budget: &mut Budget,
    ) -> Option<Path> {
        let mut standing = FixedBitSet::with_capacity(self.space.rules.len());
        standing.insert_range(..);
        if let Some(rule) = start.rule {
            standing.difference_with(&self.roles.left_allow);
            standing.insert(rule);
        }
        match start.deny {
            Denials::All => {}
            Denials::One(rule) => {
                standing.difference_with(&self.roles.left_deny);
                standing.insert(rule);
            }
            Denials::None => standing.difference_with(&self.roles.left_deny),
        }
        let mut path = Vec::new();
        if let Some(index) = start.class {
            let class = self.space.axes.first().and_then(|axis| axis.classes.get(index));
            let class = class.filter(|class| start.cause.admits(0, class))?;
            standing.intersect_with(&class.survivors);
            path.push(index);
        }
        let (barren, cause) = (HashSet::new(), start.cause);
        let mut walk = Walk { searcher: self, question, cause, barren, path, budget };
        let is_found = walk.below(standing);
        walk.path.resize(self.space.axes.len(), 0);
        is_found.then_some(walk.path)
    }
}

struct Roles {
    left_allow: FixedBitSet,
    left_deny: FixedBitSet,
    right_allow: FixedBitSet,
    right_deny: FixedBitSet,
}

struct Walk<'w, 's, 'p> {
    searcher: &'w Searcher<'s, 'p>,
    question: Question,
    cause: Cause,
    /// Where nothing was found before.
    barren: HashSet<(usize, FixedBitSet)>,
    path: Path,
    budget: &'w mut Budget,
}

/// What the rules that still stand say of a list, whatever is chosen from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Admits,
    Refuses,
    Open,
}

impl Walk<'_, '_, '_> {
    /// Looks below the path, and makes it one that leads to something; `standing` are the rules that
    /// its classes leave. Says whether there was anything, or no while the budget is spent.
    fn below(&mut self, mut standing: FixedBitSet) -> bool {
        let depth = self.path.len();
        let roles = &self.searcher.roles;
        let left = self.verdict(&standing, depth, &roles.left_allow, &roles.left_deny);
        let right = self.verdict(&standing, depth, &roles.right_allow, &roles.right_deny);
        let (wanted, unwanted) = match self.question {
            Question::Beyond => (Verdict::Refuses, Verdict::Admits),
            Question::Both => (Verdict::Admits, Verdict::Refuses),
        };
        if left == Verdict::Refuses || right == unwanted || !self.may_be_for(&standing, depth) {
            return false;
        }
        if left == Verdict::Admits && right == wanted && self.is_for(&standing, depth) {
            return true;
        }
        if right == Verdict::Refuses && matches!(self.cause, Cause::Any) {
            // The right has nothing more to say: paths that differ in it alone are the same.
            standing.difference_with(&roles.right_allow);
            standing.difference_with(&roles.right_deny);
        }
        let here = (depth, standing);
        if !self.budget.pay(1) || self.barren.contains(&here) {
            return false;
        }
        let (_, standing) = &here;
        let Some(axis) = self.searcher.space.axes.get(depth) else { return false };
        let mut tried: HashSet<FixedBitSet> = HashSet::new();
        for (index, class) in axis.classes.iter().enumerate() {
            let mut next = standing.clone();
            next.intersect_with(&class.survivors);
            if self.cause.admits(depth, class) && tried.insert(next.clone()) {
                self.path.push(index);
                if self.below(next) {
                    return true;
                }
                self.path.pop();
            }
        }
        self.barren.insert(here);
        false
    }

    fn verdict(
        &self,
        standing: &FixedBitSet,
        depth: usize,
        allow: &FixedBitSet,
        deny: &FixedBitSet,
    ) -> Verdict {
        let is_settled = |rule: usize| self.is_settled(rule, standing, depth);
        if standing.is_disjoint(allow) || deny.ones().any(is_settled) {
            Verdict::Refuses
        } else if standing.is_disjoint(deny) && allow.ones().any(is_settled) {
            Verdict::Admits
        } else {
            Verdict::Open
        }
    }

    /// Whether the right may still refuse for the cause that is asked for.
    fn may_be_for(&self, standing: &FixedBitSet, depth: usize) -> bool {
        let Roles { right_allow, right_deny, .. } = &self.searcher.roles;
        match self.cause {
            Cause::Any => true,
            Cause::Deny { rule, alone } => {
                let mut others = right_deny.ones().filter(|other| *other != rule);
                let has_another = others.any(|other| self.is_settled(other, standing, depth));
                standing.contains(rule) && !(alone && has_another)
            }
            Cause::NoPermission | Cause::ButFor { .. } => {
                let mut rules = right_allow.ones().chain(right_deny.ones());
                !rules.any(|rule| self.is_settled(rule, standing, depth))
            }
        }
    }

    /// Whether it surely does, whatever is chosen from here on.
    fn is_for(&self, standing: &FixedBitSet, depth: usize) -> bool {
        let Roles { right_allow, right_deny, .. } = &self.searcher.roles;
        let is_silent = standing.is_disjoint(right_allow) && standing.is_disjoint(right_deny);
        match self.cause {
            Cause::Any => true,
            Cause::Deny { rule, alone } => {
                let mut others = right_deny.ones().filter(|other| *other != rule);
                let has_another = others.any(|other| standing.contains(other));
                self.is_settled(rule, standing, depth) && !(alone && has_another)
            }
            Cause::NoPermission => is_silent,
            Cause::ButFor { .. } => is_silent && depth == self.searcher.space.axes.len(),
        }
    }

    /// Whether a rule stands and asks for nothing that is not chosen yet.
    fn is_settled(&self, rule: usize, standing: &FixedBitSet, depth: usize) -> bool {
        let open = self.searcher.open.get(depth);
        standing.contains(rule) && open.is_some_and(|open| !open.contains(rule))
    }
}

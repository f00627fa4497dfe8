//! In what one node differs from another, member by member: so that a thousand cases of a document do
//! not keep a thousand copies of what they have in common.

use crate::methods::{Source, Value};

use super::node::SupposedNode;

/// A claim or a fact, and nothing where there is none.
pub(super) type Member = (&'static str, Option<Value>);

/// What is otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) claims: Vec<Member>,
    pub(super) instance: Look,
    pub(super) is_proven: Option<bool>,
}

/// What a look at the instance says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// These facts are others.
    Differs(Vec<Member>),
    /// Nobody looked.
    NotRead,
}

impl Default for Look {
    fn default() -> Self {
        Self::Differs(Vec::new())
    }
}

impl Change {
    /// What makes `other` of `base`.
    pub(super) fn between(base: &SupposedNode, other: &SupposedNode) -> Self {
        let mut claims: Vec<Member> = Vec::new();
        for (name, claim) in other.claims.iter() {
            if base.claims.get(name) != Some(claim) {
                claims.push((name, Some(claim.value.clone())));
            }
        }
        let gone = base.claims.iter().filter(|(name, _)| other.claims.get(name).is_none());
        claims.extend(gone.map(|(name, _)| (name, None)));
        let instance = match (&base.instance, &other.instance) {
            (Some(_), None) => Look::NotRead,
            (_, None) => Look::default(),
            (base, Some(facts)) => {
                let before = |name| base.as_ref().and_then(|facts| facts.get(name));
                let differs = facts.iter().filter(|(name, value)| before(*name) != Some(*value));
                Look::Differs(differs.map(|(name, value)| (*name, value.clone())).collect())
            }
        };
        let is_proven = (base.is_proven != other.is_proven).then_some(other.is_proven);
        Self { claims, instance, is_proven }
    }

    /// The node that differs from `base` in this.
    pub(super) fn applied(&self, base: &SupposedNode) -> SupposedNode {
        let mut node = base.clone();
        for (name, value) in &self.claims {
            node.set(Source::Claim, name, value.clone());
        }
        match &self.instance {
            Look::NotRead => node.instance = None,
            Look::Differs(facts) => {
                for (name, value) in facts {
                    node.set(Source::Instance, name, value.clone());
                }
            }
        }
        node.is_proven = self.is_proven.unwrap_or(node.is_proven);
        node
    }
}

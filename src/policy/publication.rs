//! Token publications: which tokens the server makes by itself, and in which parameters of SSM it
//! writes them for nodes to fetch at boot.

mod read;
mod target;

pub(super) use read::publications;
pub use target::{Layout, ParameterNames, PublicationTarget, TargetRole};

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::finding::Place;
use crate::domain::{Lifetime, PolicyName};

/// One publication, as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPublication {
    pub(super) name: PolicyName,
    pub(super) place: Place,
    pub(super) policy: PolicyName,
    pub(super) policy_place: Place,
    pub(super) targets: Vec<PublicationTarget>,
    pub(super) period: Lifetime,
    pub(super) overlap: Lifetime,
    pub(super) tokens: TokenTerms,
}

/// What its tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTerms {
    /// How long each lives.
    pub life: Lifetime,
    /// How many nodes may join with each; any number, if none.
    pub max_uses: Option<u32>,
    /// From where; from anywhere, if empty.
    pub cidrs: Vec<IpNet>,
    /// What rules can ask for.
    pub labels: BTreeMap<String, String>,
}

impl TokenPublication {
    /// Whether another publication says the same, wherever it stands.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let (place, policy_place) = (self.place.clone(), self.policy_place.clone());
        let tokens = TokenTerms { cidrs: self.tokens.cidrs.clone(), ..other.tokens.clone() };
        let targets = self.targets.clone();
        *self == Self { place, policy_place, targets, tokens, ..other.clone() }
            && have_the_same(&self.targets, &other.targets)
            && have_the_same(&self.tokens.cidrs, &other.tokens.cidrs)
    }

    /// The name: `metadata.name`.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// The policy that its tokens join under.
    pub fn policy(&self) -> &PolicyName {
        &self.policy
    }

    /// Where its tokens are written.
    pub fn targets(&self) -> &[PublicationTarget] {
        &self.targets
    }

    /// How often a new token is published.
    pub fn period(&self) -> Lifetime {
        self.period
    }

    /// How long the token before lives on when a new one is published.
    pub fn overlap(&self) -> Lifetime {
        self.overlap
    }

    /// What its tokens are.
    pub fn tokens(&self) -> &TokenTerms {
        &self.tokens
    }
}

/// Whether two lists have the same members, in whatever order.
fn have_the_same<T: PartialEq>(left: &[T], right: &[T]) -> bool {
    left.len() == right.len()
        && left.iter().all(|one| right.contains(one))
        && right.iter().all(|one| left.contains(one))
}

//! What the policy set in force wants of one target, ready to be done.

use std::collections::BTreeMap;

use super::board::TargetKey;
use super::plan::Wanted;
use crate::aws::{SsmAccess, SsmRole};
use crate::domain::{Lifetime, Partition, TrustDomain};
use crate::policy::{ParameterNames, PolicySet, TokenTerms};
use crate::registry::PublicationPlace;

/// One target of one publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Spec {
    pub(super) wanted: Wanted,
    pub(super) overlap: Lifetime,
    pub(super) tokens: TokenTerms,
    pub(super) names: ParameterNames,
    pub(super) kms_key: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
}

impl Spec {
    /// How often a token is published.
    pub(in crate::server) fn period(&self) -> Lifetime {
        self.wanted.period
    }

    /// Where the token is written.
    pub(in crate::server) fn place(&self) -> &PublicationPlace {
        &self.wanted.place
    }

    /// The policy of its tokens.
    pub(in crate::server) fn policy(&self) -> &str {
        self.wanted.policy.as_str()
    }
}

/// Every target that a policy set wants.
pub(in crate::server) fn specs(
    set: &PolicySet,
    trust_domain: &TrustDomain,
) -> BTreeMap<TargetKey, Spec> {
    let mut specs = BTreeMap::new();
    for publication in set.publications() {
        for target in publication.targets() {
            let names = target.names(trust_domain);
            let role = target
                .role
                .as_ref()
                .map(|role| (role.account.clone(), role.arn.clone(), role.external_id.clone()));
            let region = target.region.clone();
            let place = PublicationPlace { region, role, parameter: names.token.clone() };
            let (policy, period) = (publication.policy().clone(), publication.period());
            let spec = Spec {
                wanted: Wanted { policy, place, period },
                overlap: publication.overlap(),
                tokens: publication.tokens().clone(),
                names,
                kms_key: target.kms_key.clone(),
                tags: target.tags.clone(),
            };
            specs.insert((publication.name().clone(), target.to_string()), spec);
        }
    }
    specs
}

/// Whose credentials touch these parameters of a place.
pub(super) fn access(place: &PublicationPlace, names: Vec<String>) -> SsmAccess {
    let region = place.region.clone();
    let role = place.role.clone().map(|(account, arn, external_id)| SsmRole {
        partition: Partition::of_region(&region),
        account,
        arn,
        external_id,
        names,
    });
    SsmAccess { region, role }
}

//! What a decision yields: an order, complete before anything is signed, and who may have it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dns::NameNotPossible;
use super::finding::Place;
use super::join_policy::JoinPolicy;
use super::rule::Rule;
use super::set::PolicySet;
use super::settings::{ComeBack, Rejoin};
use crate::domain::{
    InvalidSpiffeId, KeyDigest, Lifetime, PolicyHash, PolicyName, PublicKey, Serial, SpiffeId,
    Subject, Timestamp, Token, TrustDomain,
};
use crate::methods::{Basis, Claims};

/// How far clocks may be apart.
const CLOCK_SKEW: Lifetime = Lifetime::from_seconds(60);
/// The slot of an instance that runs one agent.
pub const DEFAULT_SLOT: &str = "default";

/// What the server asks for: nothing of it comes from the node but the public key (I6).
#[derive(Debug, Clone)]
pub struct OrderRequest {
    /// The serial that the certificate will have.
    pub serial: Serial,
    /// The node's key, whose possession was proven.
    pub public_key: PublicKey,
    /// The root of all names.
    pub trust_domain: TrustDomain,
    /// The key that will sign.
    pub issuer: KeyDigest,
    /// Which agent of the instance: `default`.
    pub slot: String,
    /// An operator let this node rejoin, which waives the age of its document once.
    pub age_waived: bool,
    /// The server's own DNS names, which no node may have.
    pub reserved_names: Vec<String>,
}

/// A complete certificate that was decided and is not issued yet. Plain data: the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// The subject's common name: the instance id.
    pub common_name: String,
    /// Further names.
    pub dns_names: Vec<String>,
    /// The beginning of validity: a minute ago, for clocks that are behind.
    pub not_before: Timestamp,
    /// The end of validity.
    pub not_after: Timestamp,
    /// When the node should renew: after two thirds of the life.
    pub renew_after: Timestamp,
    /// The serial.
    pub serial: Serial,
    /// The key that signs.
    pub issuer: KeyDigest,
    /// The node's key: the DER `SubjectPublicKeyInfo` in hexadecimal.
    #[serde(with = "spki_hex")]
    pub public_key: PublicKey,
}

mod spki_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::domain::PublicKey;

    pub(super) fn serialize<S: Serializer>(key: &PublicKey, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(key.spki_der()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PublicKey, D::Error> {
        let der = hex::decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        PublicKey::from_spki_der(&der).map_err(D::Error::custom)
    }
}

/// A name that would not be this node's to have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameRefused {
    #[error("the identity would be `{0}`, which is the server's own")]
    Reserved(SpiffeId),
    #[error("the identity cannot be written: {0}")]
    NoSpiffeId(#[from] InvalidSpiffeId),
    #[error("no policy of this version names a slot `{0}`")]
    Slot(String),
    #[error("`{0}` is a name of the server itself")]
    ServersOwn(String),
    #[error("`{}` makes no name for this node: {}", .0.template, .0.why)]
    NotPossible(NameNotPossible),
}

/// Writes the order that a policy gives this node.
pub(super) fn order(
    policy: &JoinPolicy,
    claims: &Claims,
    request: &OrderRequest,
    now: Timestamp,
) -> Result<Order, NameRefused> {
    // Slots come with a later version; until then no policy names one.
    if request.slot != DEFAULT_SLOT {
        return Err(NameRefused::Slot(request.slot.clone()));
    }
    let spiffe_id = spiffe_id(policy, claims.subject(), &request.slot, &request.trust_domain)?;
    // The fixed form cannot be reserved; this line is for whoever changes the form.
    if spiffe_id.is_reserved() {
        return Err(NameRefused::Reserved(spiffe_id));
    }
    let mut dns_names = Vec::new();
    for template in &policy.certificate.dns_names {
        let name = template.render(claims.values()).map_err(NameRefused::NotPossible)?;
        if request.reserved_names.iter().any(|reserved| is_same_name(reserved, &name)) {
            return Err(NameRefused::ServersOwn(name));
        }
        dns_names.push(name);
    }
    let ttl = policy.ttl();
    Ok(Order {
        spiffe_id,
        common_name: claims.subject().name().to_owned(),
        dns_names,
        not_before: now.minus(CLOCK_SKEW),
        not_after: now.plus(ttl),
        renew_after: now.plus(ttl.fraction(2, 3)),
        serial: request.serial,
        issuer: request.issuer,
        public_key: request.public_key.clone(),
    })
}

/// `spiffe://<trust domain>/node/<method>/<policy>/<subject…>[/<slot>]`: fixed, so that relying
/// parties can authorize by prefix and no policy can look like another.
pub(super) fn spiffe_id(
    policy: &JoinPolicy,
    subject: &Subject,
    slot: &str,
    trust_domain: &TrustDomain,
) -> Result<SpiffeId, InvalidSpiffeId> {
    let head = ["node", policy.method(), policy.name.as_str()];
    let slot = (slot != DEFAULT_SLOT).then_some(slot);
    trust_domain.id(head.into_iter().chain(subject.values()).chain(slot))
}

/// DNS names do not differ by case or by the dot of the root.
fn is_same_name(left: &str, right: &str) -> bool {
    left.trim_end_matches('.').eq_ignore_ascii_case(right.trim_end_matches('.'))
}

/// What an enrollment rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// A document alone, which may be a copy.
    Document,
    /// A fresh proof, bound to key and connection.
    Proof,
}

/// The rule that admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedBy {
    /// Its name, or its list and index.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// Policy's yes, with everything that will be signed. Only `Candidates::decide` makes one.
///
/// It can neither be made nor changed elsewhere
/// ```compile_fail,E0451
/// # use muster::policy::{Approval, Order};
/// fn forge(order: Order, other: Approval) -> Approval {
///     Approval { order, ..other }
/// }
/// ```
/// nor used twice:
/// ```compile_fail,E0277
/// # use muster::policy::Approval;
/// fn must_be_clone<T: Clone>() {}
/// must_be_clone::<Approval>();
/// ```
#[derive(Debug)]
pub struct Approval {
    set: Arc<PolicySet>,
    policy: PolicyName,
    rule: AdmittedBy,
    claims: Claims,
    slot: String,
    strength: Strength,
    age_was_waived: bool,
    run_began: Option<Timestamp>,
    order: Order,
}

/// On what terms a node is admitted.
pub(super) struct Terms {
    pub(super) slot: String,
    pub(super) strength: Strength,
    pub(super) age_was_waived: bool,
    pub(super) run_began: Option<Timestamp>,
    pub(super) order: Order,
}

impl Approval {
    /// Asserts that `rule` of `policy` admits this node on proven values.
    pub(in crate::policy) fn assertion(
        set: &Arc<PolicySet>,
        policy: &JoinPolicy,
        rule: &Rule,
        claims: Claims,
        terms: Terms,
    ) -> Self {
        let Terms { slot, strength, age_was_waived, run_began, order } = terms;
        let rule = AdmittedBy { name: rule.name.clone(), place: rule.place.clone() };
        Self {
            set: Arc::clone(set),
            policy: policy.name.clone(),
            rule,
            claims,
            slot,
            strength,
            age_was_waived,
            run_began,
            order,
        }
    }

    /// The certificate that was decided.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The claims that were decided on.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The token that it rests on, if it does.
    pub fn token(&self) -> Option<&Token> {
        self.claims.token()
    }

    /// Whether the node showed its own key, which is on record, and nothing more.
    pub fn rests_on_key(&self) -> bool {
        matches!(self.claims.basis(), Basis::Key(_))
    }

    /// Which attester this is.
    pub fn subject(&self) -> &Subject {
        self.claims.subject()
    }

    /// Which agent of the instance.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// When this run of the instance began.
    pub fn epoch(&self) -> Timestamp {
        self.claims.epoch()
    }

    /// When this run began by the cloud's own word, if the instance was looked at.
    pub fn run_began(&self) -> Option<Timestamp> {
        self.run_began
    }

    /// The join method.
    pub fn method(&self) -> &'static str {
        self.claims.method()
    }

    /// The policy that admitted.
    pub fn policy(&self) -> &PolicyName {
        &self.policy
    }

    /// The set that the policy is of.
    pub fn policy_hash(&self) -> &PolicyHash {
        self.set.hash()
    }

    /// The rule that admitted.
    pub fn rule(&self) -> &AdmittedBy {
        &self.rule
    }

    /// The roles that the policy gives.
    pub fn roles(&self) -> &[String] {
        self.set.policy(self.policy.as_str()).map_or(&[], JoinPolicy::roles)
    }

    /// When the policy lets another key in for one that fell silent.
    pub fn rejoin(&self) -> Option<Rejoin> {
        self.set.policy(self.policy.as_str()).and_then(JoinPolicy::rejoin)
    }

    /// When the policy lets a node back in by its key alone.
    pub fn come_back(&self) -> Option<ComeBack> {
        self.set.policy(self.policy.as_str()).and_then(JoinPolicy::come_back)
    }

    /// The labels that the policy gives.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let policy = self.set.policy(self.policy.as_str());
        policy.into_iter().flat_map(|policy| {
            policy.labels().iter().map(|(name, value)| (name.as_str(), value.as_str()))
        })
    }

    /// The document is too old for the policy, and an operator's grant waived that.
    pub fn age_was_waived(&self) -> bool {
        self.age_was_waived
    }

    /// What the enrollment will rest on.
    pub fn strength(&self) -> Strength {
        self.strength
    }
}

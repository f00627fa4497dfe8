//! Join methods: evidence in, claims and facts out. A method knows nothing of policy, so no method
//! can make an exception.
//!
//! Adding a method is one folder here and two lines in the table below.

mod claims;
mod facts;
mod fields;
mod json;

pub use claims::{Basis, Claim, ClaimValues, Claims, Provenance, Value};
pub use facts::{
    Contradiction, FactValues, Facts, FactsNeeded, Instance, InstanceFacts, LookUp, Proof,
};
pub use fields::{Declaration, Field, Kind, Presence, Running, Source};
pub use json::UnreadableValues;

use std::net::IpAddr;
use std::sync::Arc;

use crate::aws::{Ec2Client, SharedCertificates, Sts};
use crate::domain::{
    Code, KeyBinding, KeyDigest, PolicyName, Subject, Timestamp, Token, TokenName,
};

pub mod ec2;
pub mod token;

/// Every method that this build has, and how it is made.
const TABLE: &[(&Declaration, Build)] = &[
    (&ec2::DECLARATION, ec2::build), //
    (&token::DECLARATION, token::build),
];

type Build = fn(&Sources) -> Arc<dyn JoinMethod>;

/// What every method says of itself.
pub const ALL: &[&Declaration] = &declarations();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
const fn declarations() -> [&'static Declaration; TABLE.len()] {
    let mut all = [TABLE[0].0; TABLE.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = TABLE[index].0;
        index += 1;
    }
    all
}

/// What methods verify with and whom they ask.
#[derive(Clone)]
pub struct Sources {
    /// The certificates that sign identity documents.
    pub certificates: SharedCertificates,
    /// Who says who signed a request.
    pub sts: Sts,
    /// Who says what an instance is.
    pub ec2: Ec2Client,
}

/// The methods of this build, ready to verify.
pub fn build(sources: &Sources) -> Vec<Arc<dyn JoinMethod>> {
    TABLE.iter().map(|(_, build)| build(sources)).collect()
}

/// Evidence that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What kind of refusal.
    pub code: Code,
    /// What is wrong, for the operator: never holds the evidence itself (I10).
    pub message: String,
    /// What the node may be told about its own evidence.
    pub hint: Option<String>,
    /// The token whose secret the node has shown to hold, if it has.
    pub token: Option<TokenName>,
}

impl Rejection {
    /// A rejection of evidence by which nothing was proven.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, token: None }
    }
}

/// Something that the method needs did not answer: an outage, never a denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SourceUnavailable {
    /// Who did not answer, and what helps.
    pub code: Code,
    /// How it failed.
    pub detail: String,
}

/// What the server remembers of whoever presents evidence; read before that is verified.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// The token that the evidence names, if one of that name is on record.
    pub token: Option<Token>,
    /// The enrollment of the node's key; at a renewal that of its certificate. Only for methods
    /// without a fresh proof.
    pub node: Option<Enrolled>,
}

/// An enrollment as a method sees it.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Which attester.
    pub subject: Subject,
    /// What its claims were.
    pub values: ClaimValues,
    /// Which run of it is bound.
    pub epoch: Timestamp,
    /// By which policy.
    pub policy: PolicyName,
    /// Whether it stands; otherwise an operator has forgotten it.
    pub is_bound: bool,
}

/// What a node presented on one stream. No `Debug`: evidence holds a session token.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The method's own bytes: attacker-controlled.
    pub evidence: &'a [u8],
    /// What this stream's proof must be bound to, by the server's own view.
    pub binding: &'a KeyBinding,
    /// The node's key, whose possession was proven.
    pub key: KeyDigest,
    /// What is on record of it already.
    pub remembered: &'a Remembered,
    /// From where it came; nothing if that is not known.
    pub source: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// Verifies one kind of evidence.
#[async_trait::async_trait]
pub trait JoinMethod: Send + Sync {
    /// What the method is called and what rules may ask of it.
    fn declaration(&self) -> &'static Declaration;

    /// The token of the server's own that the evidence names, so that it can be looked for before
    /// the evidence is verified. Most methods know of none.
    fn token_named(&self, _evidence: &[u8]) -> Result<Option<TokenName>, Rejection> {
        Ok(None)
    }

    /// Verifies evidence without network or clock.
    fn verify(&self, presented: &Presented<'_>) -> Result<Claims, Rejection>;

    /// Checks the fresh proof that came with the evidence. Asked only after the allow-list (I3).
    async fn prove(
        &self,
        _claims: &Claims,
        _presented: &Presented<'_>,
    ) -> Result<Proof, SourceUnavailable> {
        Ok(Proof::NotOffered)
    }

    /// Reads what the cloud says of the instance. Asked only where `prove` has said `Proven`.
    async fn look_up(
        &self,
        _claims: &Claims,
        _needed: &FactsNeeded,
        _now: Timestamp,
    ) -> Result<Instance, SourceUnavailable> {
        Ok(Instance::NotRead("this method looks at no instances".to_owned()))
    }
}

/// Gathers facts in the order that protects the cloud: the proof first, and the instance only after
/// a proof, because old documents are in many hands (D2).
pub async fn gather(
    method: &dyn JoinMethod,
    claims: &Claims,
    presented: &Presented<'_>,
    needed: &FactsNeeded,
) -> Result<Facts, SourceUnavailable> {
    let proof = match method.prove(claims, presented).await {
        // Where no proof is asked for, the evidence alone decides, and the record says so.
        Err(unavailable) if !needed.proof_required => Proof::NotChecked(unavailable.to_string()),
        proven => proven?,
    };
    let not_read = |why: &str| Instance::NotRead(why.to_owned());
    let instance = match (&proof, &needed.look_up) {
        (_, LookUp::None) => not_read("the policy does not look at instances"),
        (Proof::Proven, LookUp::Own | LookUp::Role { .. }) => {
            method.look_up(claims, needed, presented.now).await?
        }
        (Proof::Disproven(_) | Proof::NotOffered | Proof::NotChecked(_), _) => {
            not_read("without a proof nobody is asked")
        }
    };
    Ok(Facts::assertion(FactValues { proof, instance }))
}

/// Claims and facts for the tests of other modules, which cannot make them.
#[cfg(test)]
pub(crate) mod fake {
    use super::{ClaimValues, Claims, FactValues, Facts};
    use crate::domain::{Subject, Timestamp};

    /// Claims as if `method` had verified them.
    pub(crate) fn claims(
        method: &'static str,
        subject: Subject,
        values: ClaimValues,
        epoch: Timestamp,
    ) -> Claims {
        Claims::assertion(method, subject, values, epoch)
    }

    /// Facts as if they had been gathered.
    pub(crate) fn facts(values: FactValues) -> Facts {
        Facts::assertion(values)
    }
}

//! Join methods: evidence in, claims and facts out. A method knows nothing of policy, so no method
//! can make an exception.
//!
//! Adding a method is one folder here and two lines in the table below.

mod claims;
pub mod ec2;
mod facts;
mod fields;
mod json;

pub use claims::{Claim, ClaimValues, Claims, Provenance, Value};
pub use facts::{FactValues, Facts, FactsNeeded, Instance, Proof};
pub use fields::{Declaration, Field, Kind, Presence, Source};
pub use json::UnreadableValues;

use std::sync::Arc;

use crate::aws::RegionCertificates;
use crate::domain::{Code, KeyBinding, Timestamp};

/// Every method that this build has.
pub const ALL: &[&Declaration] = &[
    &ec2::DECLARATION, //
];

/// The methods of this build, ready to verify.
pub fn build(certificates: RegionCertificates) -> Vec<Arc<dyn JoinMethod>> {
    vec![
        Arc::new(ec2::Ec2::new(certificates)), //
    ]
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
}

/// Something that the method needs did not answer: an outage, never a denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} did not answer: {detail}")]
pub struct SourceUnavailable {
    /// What did not answer, for example `STS`.
    pub what: &'static str,
    /// How it failed.
    pub detail: String,
}

/// Verifies one kind of evidence.
#[async_trait::async_trait]
pub trait JoinMethod: Send + Sync {
    /// What the method is called and what rules may ask of it.
    fn declaration(&self) -> &'static Declaration;

    /// Verifies evidence without network or clock. `evidence` is attacker-controlled.
    fn verify(
        &self,
        evidence: &[u8],
        binding: &KeyBinding,
        now: Timestamp,
    ) -> Result<Claims, Rejection>;

    /// Checks the fresh proof that came with the evidence. Asked only after the allow-list (I3).
    async fn prove(
        &self,
        claims: &Claims,
        binding: &KeyBinding,
    ) -> Result<Proof, SourceUnavailable>;

    /// Reads what the cloud says of the instance. Asked only where `prove` has said `Proven`, or
    /// the policy accepts the document alone.
    async fn look_up(
        &self,
        claims: &Claims,
        needed: &FactsNeeded,
    ) -> Result<Instance, SourceUnavailable>;
}

/// Gathers facts in the order that protects the cloud: the proof first, the instance only if the
/// proof allows it.
pub async fn gather(
    method: &dyn JoinMethod,
    claims: &Claims,
    binding: &KeyBinding,
    needed: &FactsNeeded,
) -> Result<Facts, SourceUnavailable> {
    let proof = method.prove(claims, binding).await?;
    let instance = match (&proof, needed.is_empty()) {
        (Proof::Disproven(_), _) => Instance::NotRead("the proof is false".to_owned()),
        (Proof::NotOffered, _) if needed.proof_required => {
            Instance::NotRead("no proof was offered".to_owned())
        }
        (Proof::Proven | Proof::NotOffered, true) => {
            Instance::NotRead("no rule asks for it".to_owned())
        }
        (Proof::Proven | Proof::NotOffered, false) => method.look_up(claims, needed).await?,
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

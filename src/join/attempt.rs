//! What a node sent, in parsed form.

use std::net::IpAddr;

use super::refusal::Stop;
use crate::domain::{KeyBinding, PublicKey, pop_message};

/// The longest policy or method name, evidence, signature and unverified text, in bytes.
const NAME_BYTES_MAX: usize = 63;
const EVIDENCE_BYTES_MAX: usize = 16 * 1024;
const SIGNATURE_BYTES_MAX: usize = 1024;
const FACTS_BYTES_MAX: usize = 1024;

/// The first message of a join.
#[derive(Debug, Clone)]
pub struct Start {
    /// Which policy the node asks for; empty if it leaves that to the server.
    pub policy: String,
    /// Which method its evidence is of.
    pub method: String,
    /// The key that the certificate is for.
    pub public_key: PublicKey,
    /// What the node says of itself: for the log, never for a decision (B8).
    pub facts: String,
}

/// Why a first message is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStart {
    /// Its form is wrong.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its key is wrong.
    #[error(transparent)]
    PublicKey(#[from] crate::domain::InvalidPublicKey),
}

impl Start {
    /// Reads the first message. Every argument is attacker-controlled.
    pub fn parse(
        policy: &str,
        method: &str,
        public_key: &[u8],
        facts: &str,
    ) -> Result<Self, InvalidStart> {
        let is_name = |text: &str| {
            text.len() <= NAME_BYTES_MAX
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !is_name(policy) || !is_name(method) {
            return Err(InvalidStart::Malformed("policy or method is not a name"));
        }
        let is_printable = facts.bytes().all(|b| (b' '..=b'~').contains(&b));
        if facts.len() > FACTS_BYTES_MAX || !is_printable {
            return Err(InvalidStart::Malformed("facts are not up to 1 KiB of printable ASCII"));
        }
        Ok(Self {
            policy: policy.to_owned(),
            method: method.to_owned(),
            public_key: PublicKey::from_spki_der(public_key)?,
            facts: facts.to_owned(),
        })
    }
}

/// A whole attempt: everything that one stream brought.
pub struct Attempt {
    /// The first message.
    pub start: Start,
    /// This connection's RFC 9266 `tls-exporter` value.
    pub channel: [u8; 32],
    /// This stream's challenge.
    pub nonce: [u8; 32],
    /// The method's evidence, as sent.
    pub evidence: Vec<u8>,
    /// The node key's signature.
    pub pop: Vec<u8>,
    /// The peer's address, for the log and for budgets.
    pub source: IpAddr,
}

impl Attempt {
    /// Refuses evidence that the node key did not sign for this connection and challenge.
    pub(super) fn check_possession(&self, binding: &KeyBinding) -> Result<(), Stop> {
        if self.evidence.len() > EVIDENCE_BYTES_MAX || self.pop.len() > SIGNATURE_BYTES_MAX {
            return Err(Stop::Oversized);
        }
        let message = pop_message(binding, &self.evidence);
        if self.start.public_key.has_signed(&message, &self.pop) {
            Ok(())
        } else {
            Err(Stop::NotPossessed)
        }
    }
}

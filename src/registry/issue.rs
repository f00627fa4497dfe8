//! A certificate of a node: what was decided, and what was issued.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::domain::{KeyDigest, Lifetime, Serial, Timestamp};
use crate::policy::{Approval, Order, Strength};

/// An order, and the certificate that fulfils it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issue {
    /// The certificate that was decided.
    pub order: Order,
    /// The policy that it is by.
    pub policy: String,
    /// How its key was proven.
    pub strength: Strength,
    /// The certificate that was issued, base64 DER, leaf first; none until it is remembered.
    pub certificate: Option<Vec<String>>,
    /// SHA-256 of the leaf, lower-case hexadecimal.
    pub fingerprint: Option<String>,
}

/// A certificate as a node presents it: its key was proven by TLS, its issuer by the node CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// Its serial.
    pub serial: Serial,
    /// SHA-256 of its DER, lower-case hexadecimal.
    pub fingerprint: String,
}

impl Issue {
    /// An order that nothing was issued for yet.
    pub(super) fn of(approval: &Approval, strength: Strength) -> Self {
        Self {
            order: approval.order().clone(),
            policy: approval.policy().to_string(),
            strength,
            certificate: None,
            fingerprint: None,
        }
    }

    /// The node's key.
    pub fn key(&self) -> KeyDigest {
        self.order.public_key.digest()
    }

    /// The issued certificates, DER, leaf first.
    pub fn chain(&self) -> Option<Vec<Vec<u8>>> {
        let decode = |text: &String| STANDARD.decode(text).ok();
        self.certificate.as_ref()?.iter().map(decode).collect()
    }

    /// Whether this very certificate was presented: all of it, not only its names (T27, T28).
    pub(super) fn is(&self, presented: &PresentedCertificate) -> bool {
        self.order.serial == presented.serial
            && self.fingerprint.as_ref() == Some(&presented.fingerprint)
    }

    pub(super) fn keep(&mut self, chain: &[Vec<u8>], fingerprint: &str) {
        self.certificate = Some(chain.iter().map(|der| STANDARD.encode(der)).collect());
        self.fingerprint = Some(fingerprint.to_owned());
    }

    /// How long the certificate lasts.
    pub(super) fn life(&self) -> Lifetime {
        self.order.not_after.since(self.order.not_before)
    }

    /// Whether it is young enough to be handed out again, by two thirds of its life (I15).
    pub(super) fn is_young(&self, now: Timestamp) -> bool {
        now.since(self.order.not_before) < self.life().fraction(1, 3)
    }
}

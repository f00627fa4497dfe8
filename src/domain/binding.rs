//! What ties a proof to one connection, one nonce, one key and one purpose.
//!
//! Each side computes these values from its own view; nothing but the nonce is copied from the
//! other side. Every input has a fixed length, so no two inputs can be read as each other.

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::PublicKey;

/// What a proof is for; a proof for one purpose is worthless for another (T79).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// A node's first certificate.
    Join = 1,
    /// A node's next certificate.
    Renew = 2,
    /// An operator's login.
    Login = 3,
}

/// SHA-256 over purpose, channel, nonce, method, policy and key: `muster/key-binding/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyBinding([u8; 32]);

impl KeyBinding {
    /// Computes the binding.
    ///
    /// `channel` is the RFC 9266 `tls-exporter` value of this very connection, `nonce` the 32 bytes
    /// of this stream's challenge, `method` and `policy` the strings of `JoinStart`.
    pub fn new(
        purpose: Purpose,
        channel: &[u8; 32],
        nonce: &[u8; 32],
        method: &str,
        policy: &str,
        key: &PublicKey,
    ) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(b"muster/key-binding/v1\0");
        hash.update(&[purpose as u8]);
        hash.update(channel);
        hash.update(nonce);
        for text in [method.as_bytes(), policy.as_bytes(), key.spki_der()] {
            hash.update(digest(&SHA256, text).as_ref());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.finish().as_ref());
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The message that the node key signs: `muster/pop/v1`, the binding, and the SHA-256 of the
/// evidence exactly as it is sent.
pub fn pop_message(binding: &KeyBinding, evidence: &[u8]) -> Vec<u8> {
    let mut message = b"muster/pop/v1\0".to_vec();
    message.extend_from_slice(binding.as_bytes());
    message.extend_from_slice(digest(&SHA256, evidence).as_ref());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_changes_the_binding() {
        use rcgen::PublicKeyData;
        let key = || {
            let pair = rcgen::KeyPair::generate().unwrap();
            PublicKey::from_spki_der(&pair.subject_public_key_info()).unwrap()
        };
        let (first, second) = (key(), key());
        let base = KeyBinding::new(Purpose::Join, &[1; 32], &[2; 32], "ec2", "web", &first);
        for other in [
            KeyBinding::new(Purpose::Renew, &[1; 32], &[2; 32], "ec2", "web", &first),
            KeyBinding::new(Purpose::Join, &[9; 32], &[2; 32], "ec2", "web", &first),
            KeyBinding::new(Purpose::Join, &[1; 32], &[9; 32], "ec2", "web", &first),
            KeyBinding::new(Purpose::Join, &[1; 32], &[2; 32], "ec2w", "eb", &first),
            KeyBinding::new(Purpose::Join, &[1; 32], &[2; 32], "ec2", "", &first),
            KeyBinding::new(Purpose::Join, &[1; 32], &[2; 32], "ec2", "web", &second),
        ] {
            assert_ne!(base, other);
        }
    }
}

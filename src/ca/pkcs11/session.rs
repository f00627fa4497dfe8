//! A session with the token: it signs with the node CA's key, and has shown that it does.

use std::cell::Cell;
use std::sync::Arc;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use der::Encode;
use der::asn1::{SequenceOf, UintRef};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use super::TokenError;
use super::pool::Device;
use super::token::{Token, TokenPublicKey};
use crate::ca::profile::HEALTH_CHECK_MESSAGE;

/// The node CA's key: a token, and which key it must have.
pub(super) struct TokenKey {
    pub(super) token: Arc<Token>,
    pub(super) public: TokenPublicKey,
}

impl Device for TokenKey {
    type Session = SigningSession;

    fn open(&self) -> Result<SigningSession, String> {
        let opened = self.open_session().or_else(|error| {
            // Some modules, SoftHSM among them, see only after a new start that a token is back.
            let may_help = !self.token.has_refused_pin();
            if may_help && self.token.start_anew() { self.open_session() } else { Err(error) }
        });
        opened.map_err(|error| error.to_string())
    }
}

impl TokenKey {
    /// Opens a session, which must show that it has the key: the token that came back may be
    /// another one of the same name.
    pub(super) fn open_session(&self) -> Result<SigningSession, TokenError> {
        let token = &self.token;
        let starts = token.starts();
        let session = token.log_in_to_session()?;
        let private = token.find(&session, ObjectClass::PRIVATE_KEY)?.ok_or_else(|| {
            TokenError::Unusable(format!("{token} has no key `{}`", token.key_label()))
        })?;
        let session =
            OpenSession { token: Arc::clone(token), start: *starts, session: Some(session) };
        drop(starts);
        let public = self.public.clone();
        let session = SigningSession { session, private, public, failure: Cell::new(None) };
        session.prove()?;
        Ok(session)
    }
}

/// A session that knows whether the module was started anew since. Its handle may be another
/// session's then: it is neither used nor closed.
struct OpenSession {
    token: Arc<Token>,
    start: u64,
    /// There until it is dropped.
    session: Option<Session>,
}

impl OpenSession {
    fn sign(&self, key: ObjectHandle, digest: &[u8]) -> Result<Vec<u8>, TokenError> {
        let starts = self.token.starts();
        let session = self.session.as_ref().filter(|_| *starts == self.start);
        let session =
            session.ok_or_else(|| TokenError::Unavailable(format!("{} was away", self.token)))?;
        Ok(session.sign(&Mechanism::Ecdsa, key, digest)?)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let starts = self.token.starts();
        let session = self.session.take();
        if *starts != self.start {
            std::mem::forget(session);
        }
    }
}

/// A session that signs with the node CA's key.
pub(super) struct SigningSession {
    session: OpenSession,
    private: ObjectHandle,
    public: TokenPublicKey,
    /// What the token said when a signature failed: rcgen's errors cannot carry it.
    failure: Cell<Option<String>>,
}

impl SigningSession {
    /// Signs something harmless and verifies it with the public key.
    pub(super) fn prove(&self) -> Result<(), TokenError> {
        let signature = self.signature(HEALTH_CHECK_MESSAGE)?;
        if self.public.key().has_signed(HEALTH_CHECK_MESSAGE, &signature) {
            return Ok(());
        }
        Err(TokenError::Unusable(
            "the token signs with another key than the node CA's certificate has".to_owned(),
        ))
    }

    /// Why the last signature failed, if it was the token.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.failure.take()
    }

    /// Not every token has `CKM_ECDSA_SHA256`, so the digest is made here.
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
        let raw = self.session.sign(self.private, digest.as_ref())?;
        to_der(&raw).ok_or_else(|| {
            TokenError::Unavailable("the token's signature is no signature of P-256".to_owned())
        })
    }
}

impl PublicKeyData for SigningSession {
    fn der_bytes(&self) -> &[u8] {
        self.public.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for SigningSession {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signature(message).map_err(|error| {
            self.failure.set(Some(error.to_string()));
            rcgen::Error::RemoteKeyError
        })
    }
}

/// PKCS#11 gives r and s one after the other, certificates want a sequence of two integers.
fn to_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
    let mut integers = SequenceOf::<UintRef<'_>, 2>::new();
    integers.add(UintRef::new(r).ok()?).ok()?;
    integers.add(UintRef::new(s).ok()?).ok()?;
    integers.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_becomes_two_integers_without_needless_zeros() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[32] = 0x80;
        let der = to_der(&raw).unwrap();
        assert_eq!(der[..5], [0x30, 0x26, 0x02, 0x01, 0x7f]);
        assert_eq!(der[5..9], [0x02, 0x21, 0x00, 0x80]);
        assert_eq!(der.len(), 40);
        for wrong in [0, 63, 65, 96] {
            assert_eq!(to_der(&vec![1; wrong]), None, "{wrong}");
        }
    }
}

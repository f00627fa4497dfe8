//! The node's key: P-256, written only to the state directory, never shown.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use pkcs8::{LineEnding, SecretDocument};
use spki::der::Encode;
use spki::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use zeroize::Zeroizing;

use crate::domain::PublicKey;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const LABEL: &str = "PRIVATE KEY";

/// The cryptographic library refused to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node key could not sign")]
pub struct SigningFailed;

/// A node's key pair.
pub struct NodeKey {
    pkcs8: SecretDocument,
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl NodeKey {
    /// A new key. `None` if the cryptographic library refuses.
    pub(in crate::agent) fn generate() -> Option<Self> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).ok()?;
        Self::new(SecretDocument::try_from(pkcs8.as_ref()).ok()?)
    }

    /// Reads PKCS#8 PEM.
    pub(super) fn from_pem(pem: &[u8]) -> Option<Self> {
        let (label, pkcs8) = SecretDocument::from_pem(std::str::from_utf8(pem).ok()?).ok()?;
        if label == LABEL { Self::new(pkcs8) } else { None }
    }

    pub(super) fn to_pem(&self) -> Option<Zeroizing<String>> {
        self.pkcs8.to_pem(LABEL, LineEnding::LF).ok()
    }

    fn new(pkcs8: SecretDocument) -> Option<Self> {
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_bytes()).ok()?;
        let algorithm =
            AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some(AnyRef::from(&P256)) };
        let subject_public_key = BitStringRef::from_bytes(pair.public_key().as_ref()).ok()?;
        let spki = SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().ok()?;
        let public = PublicKey::from_spki_der(&spki).ok()?;
        Some(Self { pkcs8, pair, public })
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// ECDSA with SHA-256, in ASN.1 form.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| SigningFailed)?;
        Ok(signature.as_ref().to_vec())
    }

    /// The PKCS#8 DER, for TLS with this key. Zeroed when dropped, as the key itself.
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.to_bytes()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.public.digest())
    }
}

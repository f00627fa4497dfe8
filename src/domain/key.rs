//! Public keys of nodes: one key, one encoding, one digest.
//!
//! "One key" is a comparison of digests, so a key must have exactly one accepted encoding. A
//! `SubjectPublicKeyInfo` is parsed, written anew, and refused if the bytes differ (red team B6).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::text_form;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A key that is not accepted, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPublicKey(&'static str);

/// A node's public key: P-256, P-384, Ed25519, or RSA of 2048 to 4096 bits with e = 65537.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    kind: KeyKind,
    raw: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl PublicKey {
    /// The longest DER that is looked at: RSA-4096 needs 550 bytes.
    pub const MAX_BYTES: usize = 600;

    /// Reads a DER `SubjectPublicKeyInfo`. `der` is attacker-controlled.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, InvalidPublicKey> {
        if der.len() > Self::MAX_BYTES {
            return Err(InvalidPublicKey("the public key is longer than RSA-4096 can be"));
        }
        let spki = SubjectPublicKeyInfoRef::from_der(der)
            .map_err(|_| InvalidPublicKey("the public key is not a DER SubjectPublicKeyInfo"))?;
        let raw = spki
            .subject_public_key
            .as_bytes()
            .ok_or(InvalidPublicKey("the public key is not a whole number of bytes"))?;
        let kind = kind_of(&spki.algorithm)?;
        check_material(kind, raw)?;
        ParsedPublicKey::new(kind.algorithm(), raw).map_err(|_| {
            InvalidPublicKey("the public key is not a point or modulus of its kind")
        })?;
        let canonical = canonical_der(kind, raw)?;
        if canonical != der {
            return Err(InvalidPublicKey("the public key is not in its canonical encoding"));
        }
        Ok(Self { spki: canonical, kind, raw: raw.to_vec() })
    }

    /// The canonical DER `SubjectPublicKeyInfo`.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the canonical DER: what "the same key" means everywhere.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of_spki(&self.spki)
    }

    /// Whether `signature` is this key's over `message`: ECDSA in ASN.1 form with the curve's hash
    /// (SHA-256, SHA-384), Ed25519, or RSA PKCS#1 v1.5 with SHA-256.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        ParsedPublicKey::new(self.kind.algorithm(), &self.raw)
            .is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.digest())
    }
}

impl KeyKind {
    fn algorithm(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
            Self::Ed25519 => &ED25519,
            Self::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

fn kind_of(algorithm: &AlgorithmIdentifierRef<'_>) -> Result<KeyKind, InvalidPublicKey> {
    const REFUSED: InvalidPublicKey =
        InvalidPublicKey("the public key is none of P-256, P-384, Ed25519, RSA 2048 to 4096");
    if algorithm.oid == ED25519_KEY {
        return Ok(KeyKind::Ed25519);
    }
    if algorithm.oid == RSA_KEY {
        return Ok(KeyKind::Rsa);
    }
    if algorithm.oid != EC_PUBLIC_KEY {
        return Err(REFUSED);
    }
    let curve: ObjectIdentifier =
        algorithm.parameters.and_then(|any| any.decode_as().ok()).ok_or(REFUSED)?;
    match curve {
        P256 => Ok(KeyKind::P256),
        P384 => Ok(KeyKind::P384),
        _ => Err(REFUSED),
    }
}

fn check_material(kind: KeyKind, raw: &[u8]) -> Result<(), InvalidPublicKey> {
    match kind {
        KeyKind::P256 | KeyKind::P384 => {
            let length = if kind == KeyKind::P256 { 65 } else { 97 };
            if raw.len() != length || raw.first() != Some(&0x04) {
                return Err(InvalidPublicKey("the elliptic curve point must be uncompressed"));
            }
        }
        KeyKind::Ed25519 => {
            if is_small_order(raw) {
                return Err(InvalidPublicKey("the Ed25519 key is a point of small order"));
            }
        }
        KeyKind::Rsa => {
            let key = RsaKey::from_der(raw)
                .map_err(|_| InvalidPublicKey("the RSA key is not a DER RSAPublicKey"))?;
            let modulus = key.modulus.as_bytes();
            // Cost of a verification grows with the square of the size (T37).
            if !(256..=512).contains(&modulus.len()) || modulus.first().is_none_or(|b| *b < 0x80) {
                return Err(InvalidPublicKey("the RSA modulus must have 2048 to 4096 bits"));
            }
            if key.exponent.as_bytes() != [0x01, 0x00, 0x01] {
                return Err(InvalidPublicKey("the RSA exponent must be 65537"));
            }
        }
    }
    Ok(())
}

#[derive(Sequence)]
struct RsaKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

fn canonical_der(kind: KeyKind, raw: &[u8]) -> Result<Vec<u8>, InvalidPublicKey> {
    let algorithm = match kind {
        KeyKind::P256 => {
            AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some(AnyRef::from(&P256)) }
        }
        KeyKind::P384 => {
            AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some(AnyRef::from(&P384)) }
        }
        KeyKind::Ed25519 => AlgorithmIdentifierRef { oid: ED25519_KEY, parameters: None },
        KeyKind::Rsa => AlgorithmIdentifierRef { oid: RSA_KEY, parameters: Some(AnyRef::NULL) },
    };
    BitStringRef::from_bytes(raw)
        .and_then(|subject_public_key| {
            SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der()
        })
        .map_err(|_| InvalidPublicKey("the public key cannot be encoded"))
}

/// Points whose multiples are few: a signature of nobody verifies under them. The encodings are
/// those of edwards25519 of order 1, 2, 4 and 8, canonical or not, without the sign bit
/// ("Taming the many `EdDSAs`", 2020, table 1).
fn is_small_order(raw: &[u8]) -> bool {
    const SMALL: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let mut unsigned = raw.to_vec();
    if let Some(last) = unsigned.last_mut() {
        *last &= 0x7f;
    }
    SMALL.contains(&hex::encode(unsigned).as_str())
}

/// SHA-256 of a canonical `SubjectPublicKeyInfo`, written as lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of DER bytes that are known to be canonical.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, spki_der).as_ref());
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for KeyDigest {
    type Err = super::InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        super::identifier::digest_from_hex(text).map(Self)
    }
}

text_form!(KeyDigest);

#[cfg(test)]
mod tests {
    use super::*;

    fn spki(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        use rcgen::PublicKeyData;
        rcgen::KeyPair::generate_for(algorithm).unwrap().subject_public_key_info()
    }

    #[test]
    fn the_four_kinds_are_read_and_keep_their_bytes() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let der = spki(algorithm);
            assert_eq!(PublicKey::from_spki_der(&der).unwrap().spki_der(), der);
        }
    }

    #[test]
    fn a_key_has_only_one_encoding() {
        let der = spki(&rcgen::PKCS_ECDSA_P256_SHA256);
        let key = SubjectPublicKeyInfoRef::from_der(&der).unwrap();
        let point = key.subject_public_key.raw_bytes();
        let mut compressed = vec![0x02 | (point[64] & 1)];
        compressed.extend_from_slice(&point[1..33]);
        let compressed = SubjectPublicKeyInfoRef {
            algorithm: key.algorithm,
            subject_public_key: BitStringRef::from_bytes(&compressed).unwrap(),
        };
        assert!(PublicKey::from_spki_der(&compressed.to_der().unwrap()).is_err());
        let mut trailing = der.clone();
        trailing.push(0);
        assert!(PublicKey::from_spki_der(&trailing).is_err());
    }

    #[test]
    fn ed25519_parameters_must_be_absent() {
        let der = spki(&rcgen::PKCS_ED25519);
        let key = SubjectPublicKeyInfoRef::from_der(&der).unwrap();
        let with_null = SubjectPublicKeyInfoRef {
            algorithm: AlgorithmIdentifierRef { oid: ED25519_KEY, parameters: Some(AnyRef::NULL) },
            subject_public_key: key.subject_public_key,
        };
        assert!(PublicKey::from_spki_der(&with_null.to_der().unwrap()).is_err());
    }

    #[test]
    fn small_order_points_are_refused() {
        for last in [0x00, 0x80] {
            let mut point = [0u8; 32];
            point[31] = last;
            let der = canonical_der(KeyKind::Ed25519, &point).unwrap();
            assert!(PublicKey::from_spki_der(&der).is_err());
        }
    }

    // T37: a huge RSA key or exponent costs nothing.
    #[test]
    fn rsa_sizes_and_exponents_are_bounded() {
        let rsa = |bytes: usize, exponent: &[u8]| {
            let mut modulus = vec![0xff; bytes];
            modulus[bytes - 1] = 0x01;
            let raw = RsaKey {
                modulus: UintRef::new(&modulus).unwrap(),
                exponent: UintRef::new(exponent).unwrap(),
            };
            canonical_der(KeyKind::Rsa, &raw.to_der().unwrap()).unwrap()
        };
        for (bytes, exponent) in [
            (128, &[1, 0, 1][..]),
            (2048, &[1, 0, 1]),
            (513, &[1, 0, 1]),
            (256, &[3]),
            (256, &[1, 0, 0, 0, 0, 0, 1]),
        ] {
            assert!(PublicKey::from_spki_der(&rsa(bytes, exponent)).is_err(), "{bytes}");
        }
        assert!(PublicKey::from_spki_der(&rsa(256, &[1, 0, 1])).is_ok());
    }
}

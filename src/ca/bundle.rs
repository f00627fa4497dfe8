//! The node CA's trust anchors in the forms that relying parties read.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

use super::TrustAnchors;

/// How often a consumer should look for a newer bundle, in seconds.
const REFRESH_HINT: u32 = 3600;

/// An anchor that has no place in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a trust anchor {0}")]
pub struct UnusableAnchor(&'static str);

impl TrustAnchors {
    /// PEM, one certificate after the other.
    pub fn to_pem(&self) -> String {
        let mut pem = String::new();
        for anchor in &self.0 {
            let text = STANDARD.encode(anchor);
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            for line in text.as_bytes().chunks(64) {
                let _infallible = writeln!(pem, "{}", String::from_utf8_lossy(line));
            }
            pem.push_str("-----END CERTIFICATE-----\n");
        }
        pem
    }

    /// A SPIFFE trust bundle: a JWK set ("SPIFFE Trust Domain and Bundle", section 4).
    pub fn to_spiffe_bundle(&self) -> Result<Value, UnusableAnchor> {
        let mut keys = Vec::new();
        // Must grow with every change. A new anchor is younger than all before it.
        let mut sequence = 0;
        for anchor in &self.0 {
            let (_, parsed) = x509_parser::parse_x509_certificate(anchor)
                .map_err(|_| UnusableAnchor("is no X.509 certificate"))?;
            sequence = sequence.max(parsed.validity().not_before.timestamp());
            let mut key = public_jwk(&parsed)?;
            if let Value::Object(members) = &mut key {
                members.insert("use".to_owned(), json!("x509-svid"));
                members.insert("x5c".to_owned(), json!([STANDARD.encode(anchor)]));
            }
            keys.push(key);
        }
        Ok(json!({
            "spiffe_sequence": sequence,
            "spiffe_refresh_hint": REFRESH_HINT,
            "keys": keys,
        }))
    }
}

/// The key as a JWK (RFC 7518, section 6).
fn public_jwk(certificate: &X509Certificate<'_>) -> Result<Value, UnusableAnchor> {
    const UNKNOWN: UnusableAnchor = UnusableAnchor("has a key of a kind that has no JWK here");
    let parsed = certificate.public_key().parsed().map_err(|_| UNKNOWN)?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match parsed {
        PublicKey::EC(point) => {
            let (curve, length) = match point.data().len() {
                65 => ("P-256", 32),
                97 => ("P-384", 48),
                _ => return Err(UNKNOWN),
            };
            let coordinates = point.data().strip_prefix(&[0x04]).ok_or(UNKNOWN)?;
            let (x, y) = coordinates.split_at_checked(length).ok_or(UNKNOWN)?;
            Ok(json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)}))
        }
        PublicKey::RSA(key) => {
            // Integers of DER have a zero in front that a JWK has not.
            let modulus = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
            Ok(json!({"kty": "RSA", "n": encode(modulus), "e": encode(key.exponent)}))
        }
        PublicKey::DSA(_)
        | PublicKey::GostR3410(_)
        | PublicKey::GostR3410_2012(_)
        | PublicKey::Unknown(_) => Err(UNKNOWN),
    }
}

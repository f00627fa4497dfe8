//! One pinned certificate: which region it speaks for, and the key that its documents verify with.

use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use der::asn1::{ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use x509_cert::Certificate;

use crate::aws::armour;
use crate::domain::{Partition, Region, Timestamp};

const RSA_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// What AWS's keys have, and what keeps forged paddings hopeless (T42: e = 3).
const EXPONENT: [u8; 3] = [0x01, 0x00, 0x01];
const MODULUS_BYTES: usize = 256;

/// Where a pinned certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// Built in.
    Embedded,
    /// A file of the operator's.
    File(PathBuf),
}

impl fmt::Display for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How a signed message names its signer: the DER of issuer and serial.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::aws) struct SignerName {
    pub(in crate::aws) issuer: Vec<u8>,
    pub(in crate::aws) serial: Vec<u8>,
}

impl SignerName {
    /// The serial as upper-case hexadecimal, without the zero that marks it as positive.
    pub(in crate::aws) fn serial_text(&self) -> String {
        match self.serial.as_slice() {
            [0, rest @ ..] if !rest.is_empty() => hex::encode_upper(rest),
            whole => hex::encode_upper(whole),
        }
    }
}

/// A region's certificate. Its validity is shown and not judged: it is pinned, so its dates add
/// nothing, and AWS goes on signing with keys whose certificates have ended.
pub struct RegionCertificate {
    region: Region,
    serial: String,
    der: Vec<u8>,
    not_after: Timestamp,
    source: CertificateSource,
    key: ParsedPublicKey,
}

impl RegionCertificate {
    /// Reads a DER certificate of an RSA-2048 key.
    pub(super) fn from_der(
        region: Region,
        der: &[u8],
        source: CertificateSource,
    ) -> Result<(SignerName, Self), &'static str> {
        let certificate =
            Certificate::from_der(der).map_err(|_| "it holds something that is no certificate")?;
        // The signer is compared by its encoding, so that has to be the only one.
        if certificate.to_der().ok().as_deref() != Some(der) {
            return Err("it holds a certificate that is not DER");
        }
        let signed = &certificate.tbs_certificate;
        let name = SignerName {
            issuer: signed.issuer.to_der().map_err(|_| "the issuer cannot be encoded")?,
            serial: signed.serial_number.as_bytes().to_vec(),
        };
        let algorithm = &signed.subject_public_key_info.algorithm;
        let raw = signed.subject_public_key_info.subject_public_key.as_bytes();
        let key = raw
            .filter(|_| algorithm.oid == RSA_KEY)
            .and_then(rsa_2048)
            .ok_or("it holds a certificate whose key is not RSA-2048 with exponent 65537")?;
        let not_after = signed.validity.not_after.to_unix_duration().as_secs();
        let certificate = Self {
            region,
            serial: name.serial_text(),
            der: der.to_vec(),
            not_after: Timestamp::from_unix_seconds(i64::try_from(not_after).unwrap_or(i64::MAX)),
            source,
            key,
        };
        Ok((name, certificate))
    }

    /// The region that it speaks for.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The partition of that region.
    pub fn partition(&self) -> Partition {
        Partition::of_region(&self.region)
    }

    /// The serial, as upper-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When it ends.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Where it comes from.
    pub fn source(&self) -> &CertificateSource {
        &self.source
    }

    /// The DER certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The certificate as a PEM block.
    pub fn to_pem(&self) -> String {
        armour::block("CERTIFICATE", &self.der)
    }

    /// SHA-256 of the DER, as lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(digest(&SHA256, &self.der))
    }

    /// Whether `signature` is this key's over `message`: PKCS#1 v1.5 with SHA-256, the one
    /// algorithm of this type of key.
    #[must_use]
    pub(in crate::aws) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for RegionCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionCertificate({} {} {})", self.region, self.serial, self.source)
    }
}

#[derive(Sequence)]
struct RsaKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

fn rsa_2048(raw: &[u8]) -> Option<ParsedPublicKey> {
    let key = RsaKey::from_der(raw).ok()?;
    let modulus = key.modulus.as_bytes();
    let has_2048_bits =
        modulus.len() == MODULUS_BYTES && modulus.first().is_some_and(|byte| *byte >= 0x80);
    if !has_2048_bits || key.exponent.as_bytes() != EXPONENT {
        return None;
    }
    ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, raw).ok()
}

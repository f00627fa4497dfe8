//! Signs documents as AWS does: CMS in indefinite-length BER, a constructed octet string, no
//! certificate inside, and the same signed attributes.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{GeneralizedTime, UtcTime};
use der::{Decode, Encode};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, RsaKeySize, SerialNumber,
    SigningKey,
};
use x509_cert::Certificate;
use x509_cert::time::Time;

use crate::domain::{Region, Timestamp};

/// AWS breaks its base64 after this many characters.
const LINE: usize = 76;
/// Nobody who reads a certificate takes it for Amazon's.
const ORGANIZATION: &str = "SIMULATED by muster, not Amazon";

// Object identifiers with their tag and length.
const SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const CONTENT_TYPE: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
const MESSAGE_DIGEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
const SIGNING_TIME: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05";
const ALGORITHM_PROTECTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x34";
/// SHA-256 and RSA with SHA-256, each with NULL parameters.
const SHA_256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00";
const RSA_WITH_SHA_256: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";

const INTEGER_1: &[u8] = b"\x02\x01\x01";
const OCTET_STRING: u8 = 0x04;
const CONSTRUCTED_OCTET_STRING: u8 = 0x24;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_1: u8 = 0xa1;

/// One key for all regions, and a certificate with a serial of its own for each.
pub(super) struct Signer {
    key: KeyPair,
    regions: BTreeMap<Region, Identity>,
}

struct Identity {
    pem: String,
    /// DER of issuer and serial, as a `SignerInfo` names its signer.
    name: Vec<u8>,
}

impl Signer {
    /// A new key. `None` if the cryptographic library refuses.
    pub(super) fn new(regions: impl Iterator<Item = Region>) -> Option<Self> {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).ok()?;
        let regions = regions
            .map(|region| Some((region.clone(), Identity::new(&region, &key)?)))
            .collect::<Option<_>>()?;
        Some(Self { key, regions })
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = (&Region, &str)> {
        self.regions.iter().map(|(region, identity)| (region, identity.pem.as_str()))
    }

    /// What the path `rsa2048` answers. `None` for a region without a certificate.
    pub(super) fn rsa2048(
        &self,
        region: &Region,
        content: &str,
        signed_at: Timestamp,
    ) -> Option<String> {
        let message = self.message(self.regions.get(region)?, content.as_bytes(), signed_at)?;
        Some(in_lines(&STANDARD.encode(message)))
    }

    /// What the path `signature` answers: a bare signature. AWS's has 1024 bits.
    pub(super) fn signature(&self, content: &str) -> Option<String> {
        Some(in_lines(&STANDARD.encode(self.key.sign(content.as_bytes()).ok()?)))
    }

    fn message(&self, signer: &Identity, content: &[u8], signed_at: Timestamp) -> Option<Vec<u8>> {
        let attributes = signed_attributes(content, signed_at)?;
        let signature = self.key.sign(&element(SET, &[&attributes])).ok()?;
        let signer_info = element(
            SEQUENCE,
            &[
                INTEGER_1,
                &signer.name,
                &element(SEQUENCE, &[SHA_256]),
                &element(CONTEXT_0, &[&attributes]),
                &element(SEQUENCE, &[RSA_WITH_SHA_256]),
                &element(OCTET_STRING, &[&signature]),
            ],
        );
        let string = indefinite(CONSTRUCTED_OCTET_STRING, &[&element(OCTET_STRING, &[content])]);
        let content_info = indefinite(SEQUENCE, &[DATA, &indefinite(CONTEXT_0, &[&string])]);
        let signed_data = indefinite(
            SEQUENCE,
            &[
                INTEGER_1,
                &element(SET, &[&element(SEQUENCE, &[SHA_256])]),
                &content_info,
                &element(SET, &[&signer_info]),
            ],
        );
        Some(indefinite(SEQUENCE, &[SIGNED_DATA, &indefinite(CONTEXT_0, &[&signed_data])]))
    }
}

impl Identity {
    fn new(region: &Region, key: &KeyPair) -> Option<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name()?;
        let digest = digest(&SHA256, region.as_str().as_bytes());
        params.serial_number = Some(SerialNumber::from_slice(digest.as_ref().get(..8)?));
        let certificate = params.self_signed(key).ok()?;
        let parsed = Certificate::from_der(certificate.der()).ok()?.tbs_certificate;
        let issuer = parsed.issuer.to_der().ok()?;
        let serial = parsed.serial_number.to_der().ok()?;
        let name = element(SEQUENCE, &[&issuer, &serial]);
        Some(Self { pem: certificate.pem(), name })
    }
}

/// Like AWS's, which is the same for every region, but for the organization.
fn distinguished_name() -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::CountryName, "US"),
        (DnType::StateOrProvinceName, "Washington State"),
        (DnType::LocalityName, "Seattle"),
        (DnType::OrganizationName, ORGANIZATION),
    ] {
        name.push(kind, DnValue::PrintableString(value.try_into().ok()?));
    }
    Some(name)
}

/// The attributes in AWS's order, which is also that of DER.
fn signed_attributes(content: &[u8], signed_at: Timestamp) -> Option<Vec<u8>> {
    let attribute = |kind, value: &[u8]| element(SEQUENCE, &[kind, &element(SET, &[value])]);
    let protection = element(
        SEQUENCE,
        &[&element(SEQUENCE, &[SHA_256]), &element(CONTEXT_1, &[RSA_WITH_SHA_256])],
    );
    let digest = digest(&SHA256, content);
    Some(
        [
            attribute(CONTENT_TYPE, DATA),
            attribute(SIGNING_TIME, &time(signed_at)?),
            attribute(ALGORITHM_PROTECTION, &protection),
            attribute(MESSAGE_DIGEST, &element(OCTET_STRING, &[digest.as_ref()])),
        ]
        .concat(),
    )
}

/// `UTCTime` through the year 2049, then `GeneralizedTime` (RFC 5652 section 11.3).
fn time(at: Timestamp) -> Option<Vec<u8>> {
    let since_1970 = Duration::from_secs(u64::try_from(at.unix_seconds()).ok()?);
    let time = UtcTime::from_unix_duration(since_1970)
        .map(Time::UtcTime)
        .or_else(|_| GeneralizedTime::from_unix_duration(since_1970).map(Time::GeneralTime));
    time.ok()?.to_der().ok()
}

/// One element with a definite length of at most two bytes: all that a document needs.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let [.., high, low] = contents.len().to_be_bytes();
    let mut encoded = match contents.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        0x100.. => vec![tag, 0x82, high, low],
    };
    encoded.extend_from_slice(&contents);
    encoded
}

fn indefinite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat()
}

fn in_lines(text: &str) -> String {
    let lines: Vec<String> = text
        .as_bytes()
        .chunks(LINE)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    lines.join("\n")
}

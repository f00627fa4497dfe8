//! I7: what the backend returns is compared with the order, field by field. Whatever differs is
//! discarded; nothing is repaired.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{X509Certificate, X509Version};

use super::{IssuedCertificate, TrustAnchors};
use crate::domain::Timestamp;
use crate::policy::Order;
use crate::registry::Recorded;

/// Longest chain that a backend may return.
const CHAIN_LENGTH_MAX: usize = 5;
/// Longest certificate in it, in bytes.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// What is wrong with an issued certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the issued certificate is not the one that was ordered: {0}")]
pub struct Nonconforming(pub &'static str);

/// A certificate that is exactly what was ordered.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    fingerprint: String,
}

impl Certificate {
    /// Asserts that the chain is what was ordered and recorded.
    fn assertion(chain: Vec<CertificateDer<'static>>, leaf: &CertificateDer<'_>) -> Self {
        Self { chain, fingerprint: hex::encode(digest(&SHA256, leaf)) }
    }

    /// The leaf, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// SHA-256 of the leaf's DER, lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Compares what was issued with what was ordered.
pub fn check(
    recorded: &Recorded,
    issued: IssuedCertificate,
    anchors: &TrustAnchors,
) -> Result<Certificate, Nonconforming> {
    let order = recorded.order();
    if issued.chain.len() > CHAIN_LENGTH_MAX
        || issued.chain.iter().any(|one| one.len() > CERTIFICATE_BYTES_MAX)
    {
        return Err(Nonconforming("the chain is too long"));
    }
    let (leaf, intermediates) =
        issued.chain.split_first().ok_or(Nonconforming("the chain is empty"))?;
    let leaf = leaf.clone();
    let (rest, parsed) = x509_parser::parse_x509_certificate(&leaf)
        .map_err(|_| Nonconforming("it is not an X.509 certificate"))?;
    if !rest.is_empty() {
        return Err(Nonconforming("bytes follow it"));
    }
    check_fields(order, &parsed)?;
    check_extensions(order, &parsed)?;
    check_chain(order.not_before, &leaf, intermediates, anchors)?;
    Ok(Certificate::assertion(issued.chain, &leaf))
}

fn check_fields(order: &Order, found: &X509Certificate<'_>) -> Result<(), Nonconforming> {
    let differs = |field| Err(Nonconforming(field));
    if found.version() != X509Version::V3 {
        return differs("its version is not 3");
    }
    if found.public_key().raw != order.public_key.spki_der() {
        return differs("its key is another one");
    }
    if found.raw_serial() != order.serial.as_bytes() {
        return differs("its serial is another one");
    }
    if found.validity().not_before.timestamp() != order.not_before.unix_seconds() {
        return differs("it begins at another time");
    }
    if found.validity().not_after.timestamp() != order.not_after.unix_seconds() {
        return differs("it ends at another time");
    }
    let mut names = found.subject().iter_attributes();
    let (Some(only), None) = (names.next(), names.next()) else {
        return differs("its subject is not one common name");
    };
    let is_common_name = *only.attr_type() == x509_parser::oid_registry::OID_X509_COMMON_NAME;
    if !is_common_name || only.as_str() != Ok(order.common_name.as_str()) {
        return differs("its common name is another one");
    }
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is not named is refused (I11)")]
fn check_extensions(order: &Order, found: &X509Certificate<'_>) -> Result<(), Nonconforming> {
    let (mut names, mut usage, mut extended, mut constraints) = (false, false, false, false);
    for extension in found.extensions() {
        let (seen, holds, differs) = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => (
                &mut names,
                are_exactly(order, &san.general_names),
                "its alternative names are not the ones that were ordered",
            ),
            ParsedExtension::KeyUsage(key_usage) => (
                &mut usage,
                extension.critical && key_usage.flags == 1,
                "its key usage is not digitalSignature alone, critical",
            ),
            ParsedExtension::ExtendedKeyUsage(eku) => (
                &mut extended,
                eku.server_auth
                    && eku.client_auth
                    && !(eku.any
                        || eku.code_signing
                        || eku.email_protection
                        || eku.time_stamping
                        || eku.ocsp_signing)
                    && eku.other.is_empty(),
                "its extended key usages are not serverAuth and clientAuth",
            ),
            ParsedExtension::BasicConstraints(basic) => {
                (&mut constraints, !basic.ca, "it is the certificate of an authority")
            }
            // Whatever else there is must not change what the certificate is good for.
            ParsedExtension::AuthorityKeyIdentifier(_)
            | ParsedExtension::SubjectKeyIdentifier(_)
            | ParsedExtension::CRLDistributionPoints(_)
            | ParsedExtension::AuthorityInfoAccess(_)
            | ParsedExtension::CertificatePolicies(_)
                if !extension.critical =>
            {
                continue;
            }
            _ => return Err(Nonconforming("it has an extension that was not ordered")),
        };
        if !holds {
            return Err(Nonconforming(differs));
        }
        if std::mem::replace(seen, true) {
            return Err(Nonconforming("an extension stands twice"));
        }
    }
    if names && usage && extended && constraints {
        Ok(())
    } else {
        Err(Nonconforming("an extension is missing"))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is not named is refused (I11)")]
fn are_exactly(order: &Order, found: &[GeneralName<'_>]) -> bool {
    let ordered: BTreeSet<&str> = order.dns_names.iter().map(String::as_str).collect();
    let mut names = BTreeSet::new();
    let mut ids = Vec::new();
    for name in found {
        match name {
            GeneralName::URI(uri) => ids.push(*uri),
            GeneralName::DNSName(dns) => {
                names.insert(*dns);
            }
            _ => return false,
        }
    }
    ids == [order.spiffe_id.as_str()] && names == ordered && found.len() == ordered.len() + 1
}

/// Each certificate after the leaf is the one that issued the certificate before it. Whatever else
/// came along, such as a second leaf, would be handed to the node as if it were its own.
fn check_intermediates(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'static>],
) -> Result<(), Nonconforming> {
    const STRAY: Nonconforming = Nonconforming("something else than its issuers follows it");
    let parse = |der| x509_parser::parse_x509_certificate(der).map_err(|_| STRAY);
    let (_, mut before) = parse(leaf)?;
    for intermediate in intermediates {
        let (rest, found) = parse(intermediate)?;
        let is_issuer = rest.is_empty()
            && found.is_ca()
            && found.subject().as_raw() == before.issuer().as_raw();
        if !is_issuer {
            return Err(STRAY);
        }
        before = found;
    }
    Ok(())
}

fn check_chain(
    at: Timestamp,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'static>],
    anchors: &TrustAnchors,
) -> Result<(), Nonconforming> {
    const UNCHAINED: Nonconforming = Nonconforming("it does not chain to the node CA");
    check_intermediates(leaf, intermediates)?;
    let anchors: Vec<_> =
        anchors.0.iter().filter_map(|anchor| anchor_from_trusted_cert(anchor).ok()).collect();
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| UNCHAINED)?;
    let seconds = u64::try_from(at.unix_seconds()).unwrap_or_default();
    // The order's beginning may lie a minute before the issuer's; a second inside is enough.
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds.saturating_add(61)));
    end_entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            time,
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map(|_| ())
        .map_err(|_| UNCHAINED)
}

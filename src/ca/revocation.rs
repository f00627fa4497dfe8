//! Revocation lists: what a backend is asked to sign, and whether it signed that.

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Version};

use super::TrustAnchors;
use crate::domain::{KeyDigest, PublicKey, Serial, Timestamp};

/// The longest list that is looked at, in bytes: some 400,000 entries.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which certificates of the node CA count no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// Higher than that of every list before it.
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When there will be a newer one, at the latest.
    pub next_update: Timestamp,
    /// What it revokes, in the order in which it stands there.
    pub entries: Vec<RevokedCertificate>,
}

/// One certificate that counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// Its serial.
    pub serial: Serial,
    /// Since when.
    pub revoked_at: Timestamp,
}

/// What is wrong with a signed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signed revocation list is not the one that was asked for: {0}")]
pub struct NonconformingList(pub &'static str);

/// Compares what was signed with what was asked for (I7, for lists). A list that is passed on
/// unchecked may unrevoke what was revoked.
pub fn check_revocation_list(
    list: &RevocationList,
    signed: &[u8],
    issuer: KeyDigest,
    anchors: &TrustAnchors,
) -> Result<(), NonconformingList> {
    if signed.len() > LIST_BYTES_MAX {
        return Err(NonconformingList("it is too long"));
    }
    let (rest, found) = CertificateRevocationList::from_der(signed)
        .map_err(|_| NonconformingList("it is not an X.509 revocation list"))?;
    if !rest.is_empty() {
        return Err(NonconformingList("bytes follow it"));
    }
    check_signature(&found, issuer, anchors)?;
    check_fields(list, &found)?;
    check_extensions(list, &found)?;
    check_entries(list, &found)
}

fn check_signature(
    found: &CertificateRevocationList<'_>,
    issuer: KeyDigest,
    anchors: &TrustAnchors,
) -> Result<(), NonconformingList> {
    for anchor in &anchors.0 {
        let Ok((_, anchor)) = x509_parser::parse_x509_certificate(anchor) else { continue };
        let Ok(key) = PublicKey::from_spki_der(anchor.public_key().raw) else { continue };
        if key.digest() != issuer {
            continue;
        }
        if anchor.subject().as_raw() != found.issuer().as_raw() {
            return Err(NonconformingList("its issuer is not the node CA"));
        }
        if found.tbs_cert_list.signature != found.signature_algorithm {
            return Err(NonconformingList("it names two signature algorithms"));
        }
        if !key.has_signed(found.tbs_cert_list.as_ref(), &found.signature_value.data) {
            return Err(NonconformingList("its signature is not the node CA's"));
        }
        return Ok(());
    }
    Err(NonconformingList("the node CA's key is in no trust anchor"))
}

fn check_fields(
    list: &RevocationList,
    found: &CertificateRevocationList<'_>,
) -> Result<(), NonconformingList> {
    if found.version() != Some(X509Version::V2) {
        return Err(NonconformingList("its version is not 2"));
    }
    if found.last_update().timestamp() != list.this_update.unix_seconds() {
        return Err(NonconformingList("it begins at another time"));
    }
    let next_update = found.next_update().map(|time| time.timestamp());
    if next_update != Some(list.next_update.unix_seconds()) {
        return Err(NonconformingList("the next one is due at another time"));
    }
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is not named is refused (I11)")]
fn check_extensions(
    list: &RevocationList,
    found: &CertificateRevocationList<'_>,
) -> Result<(), NonconformingList> {
    let (mut number, mut key_identifier) = (false, false);
    for extension in found.extensions() {
        // A critical extension, such as a scope, would change what the list says.
        let seen = match extension.parsed_extension() {
            ParsedExtension::CRLNumber(found) if !extension.critical => {
                if u64::try_from(found) != Ok(list.number) {
                    return Err(NonconformingList("its number is another one"));
                }
                &mut number
            }
            ParsedExtension::AuthorityKeyIdentifier(_) if !extension.critical => {
                &mut key_identifier
            }
            _ => return Err(NonconformingList("it has an extension that was not asked for")),
        };
        if std::mem::replace(seen, true) {
            return Err(NonconformingList("an extension stands twice"));
        }
    }
    if number { Ok(()) } else { Err(NonconformingList("it has no number")) }
}

fn check_entries(
    list: &RevocationList,
    found: &CertificateRevocationList<'_>,
) -> Result<(), NonconformingList> {
    let mut entries = found.iter_revoked_certificates();
    for asked in &list.entries {
        let Some(entry) = entries.next() else {
            return Err(NonconformingList("an entry is missing"));
        };
        if entry.raw_serial() != asked.serial.as_bytes() {
            return Err(NonconformingList("an entry has another serial"));
        }
        if entry.revocation_date.timestamp() != asked.revoked_at.unix_seconds() {
            return Err(NonconformingList("an entry has another time"));
        }
        if !entry.extensions().is_empty() {
            return Err(NonconformingList("an entry has an extension that was not asked for"));
        }
    }
    if entries.next().is_some() {
        return Err(NonconformingList("it has an entry that was not asked for"));
    }
    Ok(())
}

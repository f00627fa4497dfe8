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
    // A second and stricter reader, which is also the one of relying parties in Rust.
    webpki::BorrowedCertRevocationList::from_der(signed)
        .map_err(|_| NonconformingList("relying parties cannot read it"))?;
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
        let signature = &found.signature_value;
        if signature.unused_bits != 0
            || !key.has_signed(found.tbs_cert_list.as_ref(), &signature.data)
        {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Authority, BuiltinCa, CertificateAuthority};
    use crate::domain::Lifetime;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry(number: u8) -> RevokedCertificate {
        RevokedCertificate {
            serial: Serial::from_random([number; 16]),
            revoked_at: at("2026-11-20T11:00:00Z"),
        }
    }

    fn list() -> RevocationList {
        RevocationList {
            number: 300,
            this_update: at("2026-11-20T12:00:00Z"),
            next_update: at("2026-11-20T13:00:00Z"),
            entries: vec![entry(1), entry(2)],
        }
    }

    fn backend() -> BuiltinCa {
        let directory = tempfile::tempdir().unwrap();
        let domain = "prod.example.org".parse().unwrap();
        let now = at("2026-11-20T12:00:00Z");
        let node_ca = Authority::node_ca(directory.path(), &domain, None, now).unwrap();
        BuiltinCa::new(std::sync::Arc::new(node_ca))
    }

    #[tokio::test]
    async fn a_list_that_differs_in_anything_is_refused_with_its_own_reason() {
        let backend = backend();
        let anchors = backend.trust_anchors().await.unwrap();
        let signed = backend.sign_revocation_list(&list()).await.unwrap();
        let check = |asked: &RevocationList, signed: &[u8]| {
            let checked = check_revocation_list(asked, signed, backend.issuer(), &anchors);
            checked.map_err(|error| error.0)
        };
        assert_eq!(check(&list(), &signed), Ok(()));

        let later = |time: Timestamp| time.plus(Lifetime::from_seconds(1));
        let mut other_time = entry(2);
        other_time.revoked_at = later(other_time.revoked_at);
        let with = |entries: Vec<RevokedCertificate>| RevocationList { entries, ..list() };
        for (asked, reason) in [
            (RevocationList { number: 301, ..list() }, "its number is another one"),
            (
                RevocationList { this_update: later(list().this_update), ..list() },
                "it begins at another time",
            ),
            (
                RevocationList { next_update: later(list().next_update), ..list() },
                "the next one is due at another time",
            ),
            (with(vec![entry(1), entry(2), entry(3)]), "an entry is missing"),
            (with(vec![entry(1)]), "it has an entry that was not asked for"),
            (with(vec![entry(1), entry(3)]), "an entry has another serial"),
            (with(vec![entry(1), other_time]), "an entry has another time"),
        ] {
            assert_eq!(check(&asked, &signed), Err(reason));
        }

        let longer = [signed.as_slice(), &[0]].concat();
        assert_eq!(check(&list(), &longer), Err("bytes follow it"));
        assert_eq!(check(&list(), b"list"), Err("it is not an X.509 revocation list"));
        // Every byte counts: no flip is accepted.
        for place in 0..signed.len() {
            let mut flipped = signed.clone();
            flipped[place] ^= 1;
            assert!(check(&list(), &flipped).is_err(), "byte {place}");
        }
    }

    #[tokio::test]
    async fn only_the_node_ca_of_the_order_signs_lists() {
        let (backend, stranger) = (backend(), backend());
        let anchors = backend.trust_anchors().await.unwrap();
        let signed = stranger.sign_revocation_list(&list()).await.unwrap();
        // The stranger has the same name.
        let by_name = check_revocation_list(&list(), &signed, backend.issuer(), &anchors);
        assert_eq!(by_name, Err(NonconformingList("its signature is not the node CA's")));
        let by_key = check_revocation_list(&list(), &signed, stranger.issuer(), &anchors);
        assert_eq!(by_key, Err(NonconformingList("the node CA's key is in no trust anchor")));
    }
}

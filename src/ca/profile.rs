//! What the node CA signs, byte for byte: one profile for every backend that builds certificates
//! here. The backend adds the signature and nothing else.

use rcgen::{
    CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, SigningKey, SubjectPublicKeyInfo,
};

use super::{IssueError, IssuedCertificate, RevocationList};
use crate::domain::KeyDigest;
use crate::policy::Order;

/// What a health check signs. It is no beginning of a certificate or of a revocation list.
pub(super) const HEALTH_CHECK_MESSAGE: &[u8] = b"muster/ca-check/v1\0";

/// An order names the key that signs it; no other key may.
pub(super) fn refuse_other_issuer(order: &Order, issuer: KeyDigest) -> Result<(), IssueError> {
    if order.issuer == issuer {
        return Ok(());
    }
    Err(IssueError::Refused("the order is for another issuer".to_owned()))
}

/// Signs the order. Every byte but the signature's is a function of the order and the issuer.
pub(super) fn certificate(
    order: &Order,
    issuer: &Issuer<'_, impl SigningKey>,
) -> Result<IssuedCertificate, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(order.serial.as_bytes()));
    parameters.not_before = order.not_before.to_date_time();
    parameters.not_after = order.not_after.to_date_time();
    // IAM Roles Anywhere takes the CN as source identity, so it is the instance and nothing else.
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, order.common_name.clone());
    let uri = SanType::URI(order.spiffe_id.as_str().try_into()?);
    parameters.subject_alt_names = vec![uri];
    for name in &order.dns_names {
        parameters.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // X509-SVID: if the extension is there it holds both.
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    let key = SubjectPublicKeyInfo::from_der(order.public_key.spki_der())?;
    let certificate = parameters.signed_by(&key, issuer)?;
    Ok(IssuedCertificate { chain: vec![certificate.der().clone()] })
}

/// Signs the list; DER. No entry has a reason: RFC 5280 wants it left out where it is "unspecified",
/// and why a node was revoked is nobody's business but the operator's.
pub(super) fn revocation_list(
    list: &RevocationList,
    issuer: &Issuer<'_, impl SigningKey>,
) -> Result<Vec<u8>, rcgen::Error> {
    let revoked_certs = list.entries.iter().map(|entry| RevokedCertParams {
        serial_number: SerialNumber::from_slice(entry.serial.as_bytes()),
        revocation_time: entry.revoked_at.to_date_time(),
        reason_code: None,
        invalidity_date: None,
    });
    let parameters = CertificateRevocationListParams {
        this_update: list.this_update.to_date_time(),
        next_update: list.next_update.to_date_time(),
        crl_number: SerialNumber::from(list.number),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(parameters.signed_by(issuer)?.der().to_vec())
}

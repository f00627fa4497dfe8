//! The built-in backend: the node CA's key in this process.

use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};

use super::{
    Authorities, Authority, Capabilities, CertificateAuthority, IssueError, IssuedCertificate,
    TrustAnchors,
};
use crate::domain::KeyDigest;
use crate::policy::Order;
use crate::registry::Recorded;

/// Issues with the node CA of a data directory.
pub struct BuiltinCa {
    authorities: Arc<Authorities>,
}

impl BuiltinCa {
    /// Uses the node CA of these authorities.
    pub fn new(authorities: Arc<Authorities>) -> Self {
        Self { authorities }
    }

    fn node_ca(&self) -> &Authority {
        &self.authorities.node_ca
    }
}

#[async_trait::async_trait]
impl CertificateAuthority for BuiltinCa {
    async fn issue(&self, recorded: &Recorded) -> Result<IssuedCertificate, IssueError> {
        let order = recorded.order();
        if order.issuer != self.issuer() {
            return Err(IssueError::Refused("the order is for another issuer".to_owned()));
        }
        sign(order, self.node_ca()).map_err(|error| IssueError::Refused(error.to_string()))
    }

    async fn trust_anchors(&self) -> Result<TrustAnchors, IssueError> {
        Ok(TrustAnchors(vec![self.node_ca().certificate().clone()]))
    }

    fn issuer(&self) -> KeyDigest {
        self.node_ca().key()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { needs_csr: false, is_idempotent: true }
    }

    async fn check(&self) -> Result<(), IssueError> {
        use rcgen::SigningKey;
        let signed = self.node_ca().issuer().key().sign(b"muster/ca-check/v1\0");
        signed.map(|_| ()).map_err(|error| IssueError::Unavailable(error.to_string()))
    }
}

/// Signs the order. Every byte but the signature's is a function of the order and the issuer.
fn sign(order: &Order, issuer: &Authority) -> Result<IssuedCertificate, rcgen::Error> {
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
    let certificate = parameters.signed_by(&key, issuer.issuer())?;
    Ok(IssuedCertificate { chain: vec![certificate.der().clone()] })
}

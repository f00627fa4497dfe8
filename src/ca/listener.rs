//! The join listener's own certificate: signed by the join root, for one name only, short-lived and
//! made anew by the process that uses it.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Authority;
use crate::domain::{Lifetime, Serial, SpiffeId, Timestamp};

/// How long a listener certificate lasts (outside.md, "Defaults of a policy").
pub const LISTENER_LIFETIME: Lifetime = Lifetime::from_days(30);
/// How far back the certificate begins: a node whose clock is not set yet must still be able to
/// hear that.
const CLOCK_SKEW: Lifetime = Lifetime::from_hours(1);

/// A certificate chain and its key. The root is part of the chain so that a node can check its pin.
pub struct ListenerIdentity {
    /// The listener's certificate, then the join root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// When it ends.
    pub not_after: Timestamp,
}

impl ListenerIdentity {
    /// Makes a new key and certificate with the URI SAN `id` and no other name.
    pub fn issue(
        join_root: &Authority,
        id: &SpiffeId,
        serial: Serial,
        now: Timestamp,
    ) -> Result<Self, rcgen::Error> {
        let pair = KeyPair::generate()?;
        let not_after = now.plus(LISTENER_LIFETIME);
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        parameters.not_before = now.minus(CLOCK_SKEW).to_date_time();
        parameters.not_after = not_after.to_date_time();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "muster server");
        parameters.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&pair, join_root.issuer())?;
        let key = PrivateKeyDer::try_from(pair.serialize_der())
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok(Self {
            chain: vec![certificate.der().clone(), join_root.certificate().clone()],
            key,
            not_after,
        })
    }
}

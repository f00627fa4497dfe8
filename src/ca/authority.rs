//! The three authorities of one installation, their keys and certificates in a directory.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::key_file::{self, KeyFileError, Passphrase};
use crate::domain::{KeyDigest, Lifetime, Timestamp, TrustDomain};

/// How long an authority's own certificate lasts.
const AUTHORITY_LIFETIME: Lifetime = Lifetime::from_days(3650);
/// File name and title of each authority.
const NAMES: [(&str, &str); 3] =
    [("join-root", "join root"), ("node-ca", "node CA"), ("user-ca", "user CA")];
/// Tolerated difference of clocks.
const CLOCK_SKEW: Lifetime = Lifetime::from_seconds(60);

/// One authority: a key and its self-signed certificate.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    key: KeyDigest,
}

impl Authority {
    /// The self-signed certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The digest of its public key; for the join root, this is the pin.
    pub fn key(&self) -> KeyDigest {
        self.key
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// The three authorities (design, "Trust: three CAs, never mixed").
pub struct Authorities {
    /// Signs the listener's certificate only; its key is what nodes pin.
    pub join_root: Authority,
    /// Signs nodes.
    pub node_ca: Authority,
    /// Signs operators.
    pub user_ca: Authority,
}

impl Authorities {
    /// Whether the keys of all three are in `directory`.
    pub fn exist(directory: &Path) -> bool {
        NAMES.iter().all(|(name, _)| key_path(directory, name).exists())
    }

    /// Opens the authorities in `directory`, or makes those that are not there yet.
    pub fn open_or_create(
        directory: &Path,
        trust_domain: &TrustDomain,
        passphrase: Option<&Passphrase>,
        now: Timestamp,
    ) -> Result<Self, KeyFileError> {
        let [join_root, node_ca, user_ca] = NAMES.map(|(name, title)| {
            open_or_create(directory, name, title, trust_domain, passphrase, now)
        });
        Ok(Self { join_root: join_root?, node_ca: node_ca?, user_ca: user_ca? })
    }
}

fn key_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.key"))
}

fn open_or_create(
    directory: &Path,
    name: &str,
    title: &str,
    trust_domain: &TrustDomain,
    passphrase: Option<&Passphrase>,
    now: Timestamp,
) -> Result<Authority, KeyFileError> {
    let key_path = key_path(directory, name);
    let certificate_path = directory.join(format!("{name}.pem"));
    if !key_path.exists() {
        if certificate_path.exists() {
            return Err(KeyFileError::new(&key_path, "the certificate is there, its key is not"));
        }
        let pair = KeyPair::generate().map_err(|error| KeyFileError::new(&key_path, error))?;
        key_file::create(&key_path, &Zeroizing::new(pair.serialize_der()), passphrase)?;
    }
    let der = key_file::read(&key_path, passphrase)?;
    let pair = KeyPair::try_from(der.as_slice())
        .map_err(|_| KeyFileError::new(&key_path, "not a key of a supported kind"))?;
    if !certificate_path.exists() {
        let parameters = parameters(title, trust_domain, &pair, now);
        let certificate = parameters
            .self_signed(&pair)
            .map_err(|error| KeyFileError::new(&certificate_path, error))?;
        key_file::write_new_file(&certificate_path, certificate.pem().as_bytes())
            .map_err(|error| KeyFileError::new(&certificate_path, error))?;
    }
    let certificate = CertificateDer::from_pem_file(&certificate_path)
        .map_err(|error| KeyFileError::new(&certificate_path, error))?;
    assemble(certificate, pair).map_err(|problem| KeyFileError::new(&certificate_path, problem))
}

fn assemble(
    certificate: CertificateDer<'static>,
    pair: KeyPair,
) -> Result<Authority, &'static str> {
    let spki = pair.subject_public_key_info();
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
        .map_err(|_| "not an X.509 certificate")?;
    if parsed.public_key().raw != spki {
        return Err("the certificate is not for the key beside it");
    }
    let key = KeyDigest::of_spki(&spki);
    let issuer = Issuer::from_ca_cert_der(&certificate, pair)
        .map_err(|_| "not the certificate of an authority")?;
    Ok(Authority { certificate, issuer, key })
}

fn parameters(
    title: &str,
    trust_domain: &TrustDomain,
    pair: &KeyPair,
    now: Timestamp,
) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = now.minus(CLOCK_SKEW).to_date_time();
    parameters.not_after = now.plus(AUTHORITY_LIFETIME).to_date_time();
    // A function of the key, so that two certificates of one key are told apart by nothing else.
    let digest = KeyDigest::of_spki(&pair.subject_public_key_info());
    let mut serial: Vec<u8> = digest.as_bytes().iter().copied().take(16).collect();
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    parameters.serial_number = Some(SerialNumber::from(serial));
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("muster {title} of {trust_domain}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

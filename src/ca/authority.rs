//! The authorities of one installation, their keys and certificates in a directory.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SigningKey,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::key_file::{self, KeyFileError, Passphrase};
use crate::domain::{KeyDigest, Lifetime, Timestamp, TrustDomain};

/// How long an authority's own certificate lasts.
const AUTHORITY_LIFETIME: Lifetime = Lifetime::from_days(3650);
/// Tolerated difference of clocks.
const CLOCK_SKEW: Lifetime = Lifetime::from_seconds(60);

/// What an authority is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    JoinRoot,
    NodeCa,
    UserCa,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::JoinRoot => "join-root",
            Self::NodeCa => "node-ca",
            Self::UserCa => "user-ca",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::JoinRoot => "join root",
            Self::NodeCa => "node CA",
            Self::UserCa => "user CA",
        }
    }

    fn key_path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.key", self.name()))
    }

    pub(super) fn certificate_path(self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.pem", self.name()))
    }
}

/// One authority: a key in a file and its self-signed certificate.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    key: KeyDigest,
}

impl Authority {
    /// Opens the node CA in `directory`, or makes it: for the built-in backend.
    pub fn node_ca(
        directory: &Path,
        trust_domain: &TrustDomain,
        passphrase: Option<&Passphrase>,
        now: Timestamp,
    ) -> Result<Self, KeyFileError> {
        Self::open_or_create(directory, Role::NodeCa, trust_domain, passphrase, now)
    }

    fn open_or_create(
        directory: &Path,
        role: Role,
        trust_domain: &TrustDomain,
        passphrase: Option<&Passphrase>,
        now: Timestamp,
    ) -> Result<Self, KeyFileError> {
        let (key_path, certificate_path) =
            (role.key_path(directory), role.certificate_path(directory));
        if !key_path.exists() {
            if certificate_path.exists() {
                return Err(KeyFileError::new(
                    &key_path,
                    "the certificate is there, its key is not",
                ));
            }
            let pair = KeyPair::generate().map_err(|error| KeyFileError::new(&key_path, error))?;
            key_file::create(&key_path, &Zeroizing::new(pair.serialize_der()), passphrase)?;
        }
        let der = key_file::read(&key_path, passphrase)?;
        let pair = KeyPair::try_from(der.as_slice())
            .map_err(|_| KeyFileError::new(&key_path, "not a key of a supported kind"))?;
        if !certificate_path.exists() {
            create_certificate(directory, role, trust_domain, &pair, now)?;
        }
        let certificate = read_certificate(directory, role)?;
        assemble(certificate, pair).map_err(|problem| KeyFileError::new(&certificate_path, problem))
    }

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

/// The authorities whose keys are always files (design, "Trust: three CAs, never mixed"). The third
/// one, the node CA, belongs to its backend.
pub struct Authorities {
    /// Signs the listener's certificate only; its key is what nodes pin.
    pub join_root: Authority,
    /// Signs operators.
    pub user_ca: Authority,
}

impl Authorities {
    /// Whether the keys of both are in `directory`.
    pub fn exist(directory: &Path) -> bool {
        [Role::JoinRoot, Role::UserCa].iter().all(|role| role.key_path(directory).exists())
    }

    /// Opens the authorities in `directory`, or makes those that are not there yet.
    pub fn open_or_create(
        directory: &Path,
        trust_domain: &TrustDomain,
        passphrase: Option<&Passphrase>,
        now: Timestamp,
    ) -> Result<Self, KeyFileError> {
        let open = |role| Authority::open_or_create(directory, role, trust_domain, passphrase, now);
        Ok(Self { join_root: open(Role::JoinRoot)?, user_ca: open(Role::UserCa)? })
    }
}

/// The file of the node CA's key, where it is a file.
pub fn node_ca_key_path(directory: &Path) -> PathBuf {
    Role::NodeCa.key_path(directory)
}

/// The file of the node CA's certificate, wherever its key is.
pub fn node_ca_certificate_path(directory: &Path) -> PathBuf {
    Role::NodeCa.certificate_path(directory)
}

/// Makes the self-signed certificate of a key and writes it to its file.
pub(super) fn create_certificate(
    directory: &Path,
    role: Role,
    trust_domain: &TrustDomain,
    key: &impl SigningKey,
    now: Timestamp,
) -> Result<(), KeyFileError> {
    let path = role.certificate_path(directory);
    let certificate = parameters(role.title(), trust_domain, key, now)
        .self_signed(key)
        .map_err(|error| KeyFileError::new(&path, error))?;
    key_file::write_new_file(&path, certificate.pem().as_bytes())
        .map_err(|error| KeyFileError::new(&path, error))
}

/// Reads an authority's certificate from its file.
pub(super) fn read_certificate(
    directory: &Path,
    role: Role,
) -> Result<CertificateDer<'static>, KeyFileError> {
    let path = role.certificate_path(directory);
    CertificateDer::from_pem_file(&path).map_err(|error| KeyFileError::new(&path, error))
}

/// Whether the certificate is of the key with this `SubjectPublicKeyInfo`.
pub(super) fn is_certificate_of(
    certificate: &CertificateDer<'_>,
    spki: &[u8],
) -> Result<bool, &'static str> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| "not an X.509 certificate")?;
    Ok(parsed.public_key().raw == spki)
}

fn assemble(
    certificate: CertificateDer<'static>,
    pair: KeyPair,
) -> Result<Authority, &'static str> {
    let spki = pair.subject_public_key_info();
    if !is_certificate_of(&certificate, &spki)? {
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
    key: &impl PublicKeyData,
    now: Timestamp,
) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = now.minus(CLOCK_SKEW).to_date_time();
    parameters.not_after = now.plus(AUTHORITY_LIFETIME).to_date_time();
    // A function of the key, so that two certificates of one key are told apart by nothing else.
    let digest = KeyDigest::of_spki(&key.subject_public_key_info());
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

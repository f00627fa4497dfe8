//! Private keys in files: PKCS#8 PEM, mode 0600, encrypted if there is a passphrase.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use pkcs8::der::pem::PemLabel;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};
use zeroize::Zeroizing;

/// The longest key file that is read.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Why a key file cannot be used. Never holds the key or the passphrase.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct KeyFileError {
    path: String,
    problem: String,
}

impl KeyFileError {
    pub(super) fn new(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self { path: path.display().to_string(), problem: problem.to_string() }
    }
}

/// A passphrase; it has no `Debug`, so it cannot be printed by accident (I10).
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Reads the first line of a file that only its owner can read.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        read_first_line(path, "passphrase", 8).map(Self)
    }
}

/// Reads a secret: the first line of a file that only its owner can read.
pub(super) fn read_first_line(
    path: &Path,
    what: &str,
    bytes_min: usize,
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    refuse_open_permissions(path)?;
    let bytes = Zeroizing::new(read_bounded(path)?);
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() < bytes_min {
        let problem = format!("the {what} must have at least {bytes_min} bytes");
        return Err(KeyFileError::new(path, problem));
    }
    Ok(Zeroizing::new(line.to_vec()))
}

/// Reads a PKCS#8 DER key.
pub fn read(
    path: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    refuse_open_permissions(path)?;
    let text = Zeroizing::new(read_bounded(path)?);
    let text = std::str::from_utf8(&text).map_err(|_| KeyFileError::new(path, "not a PEM file"))?;
    let (label, document) =
        SecretDocument::from_pem(text).map_err(|_| KeyFileError::new(path, "not a PEM key"))?;
    if label == PrivateKeyInfo::PEM_LABEL {
        return Ok(Zeroizing::new(document.as_bytes().to_vec()));
    }
    if label != EncryptedPrivateKeyInfo::PEM_LABEL {
        return Err(KeyFileError::new(path, "not a PKCS#8 key"));
    }
    let passphrase = passphrase
        .ok_or_else(|| KeyFileError::new(path, "the key is encrypted; set `ca.passphrase_file`"))?;
    let key = EncryptedPrivateKeyInfo::try_from(document.as_bytes())
        .and_then(|encrypted| encrypted.decrypt(passphrase.0.as_slice()))
        .map_err(|_| KeyFileError::new(path, "the passphrase does not open this key"))?;
    Ok(Zeroizing::new(key.as_bytes().to_vec()))
}

/// Writes a PKCS#8 DER key to a new file and syncs it.
pub fn create(
    path: &Path,
    pkcs8_der: &[u8],
    passphrase: Option<&Passphrase>,
) -> Result<(), KeyFileError> {
    let pem = match passphrase {
        None => SecretDocument::try_from(pkcs8_der)
            .and_then(|document| document.to_pem(PrivateKeyInfo::PEM_LABEL, LineEnding::LF))
            .map_err(|error| KeyFileError::new(path, error))?,
        Some(passphrase) => encrypt(path, pkcs8_der, passphrase)?,
    };
    write_new_file(path, pem.as_bytes()).map_err(|error| KeyFileError::new(path, error))
}

/// Writes a new file of mode 0600 so that a crash or power cut leaves all of it or nothing: another
/// name first, synced, renamed, and the directory synced. A file of this name must not exist yet.
pub fn write_new_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if path.exists() {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    }
    let unfinished = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    fs::File::open(directory)?.sync_all()
}

fn encrypt(
    path: &Path,
    pkcs8_der: &[u8],
    passphrase: &Passphrase,
) -> Result<Zeroizing<String>, KeyFileError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    aws_lc_rs::rand::fill(&mut salt)
        .and_then(|()| aws_lc_rs::rand::fill(&mut iv))
        .map_err(|_| KeyFileError::new(path, "no random bytes"))?;
    // N = 2^14, r = 8, p = 5: of the OWASP settings for scrypt the one that OpenSSL reads without a
    // raised memory limit.
    let cost = pkcs8::pkcs5::scrypt::Params::new(14, 8, 5, 32)
        .map_err(|error| KeyFileError::new(path, error))?;
    let parameters = pbes2::Parameters::scrypt_aes256cbc(cost, &salt, &iv)
        .map_err(|error| KeyFileError::new(path, error))?;
    PrivateKeyInfo::try_from(pkcs8_der)
        .and_then(|key| key.encrypt_with_params(parameters, passphrase.0.as_slice()))
        .and_then(|document| {
            Ok(document.to_pem(EncryptedPrivateKeyInfo::PEM_LABEL, LineEnding::LF)?)
        })
        .map_err(|error| KeyFileError::new(path, error))
}

fn refuse_open_permissions(path: &Path) -> Result<(), KeyFileError> {
    let metadata = fs::metadata(path).map_err(|error| KeyFileError::new(path, error))?;
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyFileError::new(path, "others can read this file; `chmod 600` it"));
    }
    Ok(())
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    use std::io::Read;
    let file = fs::File::open(path).map_err(|error| KeyFileError::new(path, error))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| KeyFileError::new(path, error))?;
    Ok(bytes)
}

//! The key that signs the audit log's checkpoints: a file outside the store, made at the first start,
//! never exchanged by itself.

use std::fs;
use std::path::{Path, PathBuf};

use super::data_directory::DataDirectory;
use crate::audit::{CheckpointKey, public_key_to_pem};
use crate::ca::{KeyFileError, Passphrase, create_key_file, read_key_file, write_new_file};
use crate::domain::KeyDigest;

/// The public half is far shorter.
const PUBLIC_BYTES_MAX: u64 = 4096;

/// Why the server cannot sign checkpoints, and what helps.
#[derive(Debug, thiserror::Error)]
pub enum UnusableAuditKey {
    /// The file of the key.
    #[error("the key of the audit checkpoints: {0}")]
    File(#[from] KeyFileError),
    /// Everything else.
    #[error("the key of the audit checkpoints: {0}")]
    Problem(String),
}

/// The public half in a data directory, by which `muster audit verify` checks.
pub fn audit_public_key_path(data_dir: &Path) -> PathBuf {
    data_dir.join("audit-checkpoint.pub")
}

/// Opens the key, or makes it if this installation never had one. A key that was exchanged in
/// silence would make every older checkpoint worthless.
pub(super) fn open(
    data: &DataDirectory,
    path: Option<&Path>,
    passphrase: Option<&Passphrase>,
) -> Result<CheckpointKey, UnusableAuditKey> {
    let path = path.map_or_else(|| data.ca().join("audit-checkpoint.key"), Path::to_owned);
    let public_path = audit_public_key_path(data.path());
    let known = read_public(&public_path)?;
    let problem = |what: String| UnusableAuditKey::Problem(what);
    if !path.exists() {
        if known.is_some() {
            return Err(problem(format!(
                "{} is not there, and {} is; restore the key, or mount the disk that has it. {HOW_TO_CHANGE}",
                path.display(),
                public_path.display(),
            )));
        }
        let der = CheckpointKey::generate().map_err(|error| problem(error.to_string()))?;
        create_key_file(&path, &der, passphrase)?;
    }
    let key = CheckpointKey::from_pkcs8(&read_key_file(&path, passphrase)?)
        .map_err(|error| problem(format!("{}: {error}", path.display())))?;
    match known {
        Some(public) if public == key.public().digest() => {}
        Some(_) => {
            return Err(problem(format!(
                "{} is not the key whose public half is in {}; restore the right one. {HOW_TO_CHANGE}",
                path.display(),
                public_path.display(),
            )));
        }
        None => {
            let written = public_key_to_pem(key.public())
                .map_err(std::io::Error::other)
                .and_then(|pem| write_new_file(&public_path, pem.as_bytes()));
            written.map_err(|error| problem(format!("{}: {error}", public_path.display())))?;
        }
    }
    Ok(key)
}

const HOW_TO_CHANGE: &str = "To change the key, move the file of the public half to a safe place \
    first: `muster audit verify --checkpoint-key` needs it for the checkpoints of before";

/// Which key signed until now.
fn read_public(path: &Path) -> Result<Option<KeyDigest>, UnusableAuditKey> {
    use std::io::Read;
    let problem = |error: &dyn std::fmt::Display| {
        UnusableAuditKey::Problem(format!("{}: {error}", path.display()))
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(&error)),
    };
    let mut text = String::new();
    file.take(PUBLIC_BYTES_MAX).read_to_string(&mut text).map_err(|error| problem(&error))?;
    let key = crate::audit::public_key_from_pem(&text).map_err(|error| problem(&error))?;
    Ok(Some(key.digest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site {
        keep: tempfile::TempDir,
        data: DataDirectory,
    }

    fn site() -> Site {
        let keep = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(&keep.path().join("data"), None, true).unwrap();
        Site { keep, data }
    }

    fn refused(site: &Site, path: Option<&Path>) -> String {
        open(&site.data, path, None).err().unwrap().to_string()
    }

    #[test]
    fn the_key_is_made_once_and_is_then_the_same() {
        let site = site();
        let made = open(&site.data, None, None).unwrap().public().digest();
        assert_eq!(open(&site.data, None, None).unwrap().public().digest(), made);
        let pem = fs::read_to_string(audit_public_key_path(site.data.path())).unwrap();
        assert_eq!(crate::audit::public_key_from_pem(&pem).unwrap().digest(), made);

        // On another disk, with a passphrase.
        let (elsewhere, passphrase) = (self::site(), site.keep.path().join("passphrase"));
        write_new_file(&passphrase, b"correct horse battery").unwrap();
        let passphrase = Passphrase::from_file(&passphrase).unwrap();
        let path = elsewhere.keep.path().join("other.key");
        open(&elsewhere.data, Some(&path), Some(&passphrase)).unwrap();
        assert!(refused(&elsewhere, Some(&path)).contains("encrypted"));
        assert!(!elsewhere.data.ca().join("audit-checkpoint.key").exists());
    }

    #[test]
    fn a_key_that_is_gone_or_another_one_is_refused_and_says_what_to_do() {
        let site = site();
        open(&site.data, None, None).unwrap();
        let path = site.data.ca().join("audit-checkpoint.key");
        let own = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = refused(&site, None);
        assert!(error.contains("is not there") && error.contains("--checkpoint-key"), "{error}");

        create_key_file(&path, &CheckpointKey::generate().unwrap(), None).unwrap();
        let error = refused(&site, None);
        assert!(error.contains("is not the key") && error.contains("--checkpoint-key"), "{error}");

        for garbage in
            [&b"garbage"[..], b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            fs::write(&path, garbage).unwrap();
            assert!(refused(&site, None).contains("audit-checkpoint.key"));
        }

        // Rotation: the old public half is moved away by hand.
        fs::remove_file(&path).unwrap();
        fs::remove_file(audit_public_key_path(site.data.path())).unwrap();
        open(&site.data, None, None).unwrap();
        assert_ne!(fs::read(&path).unwrap(), own);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let site = site();
        open(&site.data, None, None).unwrap();
        let path = site.data.ca().join("audit-checkpoint.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&site, None).contains("chmod 600"));
    }
}

//! The CA backend that the configuration names, and the authorities beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::config::Config;
use super::data_directory::{DataDirectory, UnusableDirectory};
use super::start_error::StartError;
use crate::ca::{
    Authorities, Authority, BuiltinCa, CertificateAuthority, IssueError, Passphrase, Pkcs11Ca,
    Pkcs11Settings, TokenError, TokenName, node_ca_certificate_path, node_ca_key_path,
};
use crate::clock::Clock;
use crate::store::{CommitError, Key, Put, Store, StoreUnavailable, Transaction};

/// The most sessions with a token: each may hold a thread.
const SESSIONS_MAX: usize = 64;
/// Sessions unless the file says otherwise.
const SESSIONS: usize = 4;

/// The section `[ca]` of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CaSection {
    backend: Option<BackendName>,
    pub(super) passphrase_file: Option<PathBuf>,
    pkcs11: Pkcs11Section,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackendName {
    Builtin,
    Pkcs11,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Pkcs11Section {
    module: Option<PathBuf>,
    token_label: Option<String>,
    token_serial: Option<String>,
    key_label: Option<String>,
    pin_file: Option<PathBuf>,
    sessions: Option<usize>,
    create_key: Option<bool>,
}

/// Who signs nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A key in the data directory.
    Builtin,
    /// A key in a PKCS#11 token.
    Pkcs11(Pkcs11Settings),
}

impl CaSection {
    /// The backend that the section names.
    pub(super) fn backend(&self) -> Result<Backend, String> {
        match self.backend.unwrap_or(BackendName::Builtin) {
            BackendName::Builtin if self.pkcs11 == Pkcs11Section::default() => Ok(Backend::Builtin),
            BackendName::Builtin => Err("[ca.pkcs11] needs ca.backend = \"pkcs11\"".to_owned()),
            BackendName::Pkcs11 => self.pkcs11.settings().map(Backend::Pkcs11),
        }
    }
}

impl Pkcs11Section {
    fn settings(&self) -> Result<Pkcs11Settings, String> {
        let missing = |key: &str| format!("ca.backend = \"pkcs11\" needs ca.pkcs11.{key}");
        let token = match (&self.token_label, &self.token_serial) {
            (Some(label), None) => TokenName::Label(label.clone()),
            (None, Some(serial)) => TokenName::Serial(serial.clone()),
            _ => return Err(missing("token_label or token_serial, one of the two")),
        };
        let sessions = self.sessions.unwrap_or(SESSIONS);
        if !(1..=SESSIONS_MAX).contains(&sessions) {
            return Err(format!("ca.pkcs11.sessions must be from 1 to {SESSIONS_MAX}"));
        }
        Ok(Pkcs11Settings {
            module: self.module.clone().ok_or_else(|| missing("module"))?,
            token,
            key_label: self.key_label.clone().ok_or_else(|| missing("key_label"))?,
            pin_file: self.pin_file.clone().ok_or_else(|| missing("pin_file"))?,
            sessions,
            create_key: self.create_key.unwrap_or(false),
        })
    }
}

/// Opens the authorities and the backend; they are made only if this installation never had any. A
/// join root that is made anew would lock out every node that pinned the old one.
pub(super) async fn open(
    config: &Config,
    data: &DataDirectory,
    store: &dyn Store,
    clock: &Clock,
) -> Result<(Arc<Authorities>, Arc<dyn CertificateAuthority>), StartError> {
    let passphrase = config.passphrase_file.as_deref().map(Passphrase::from_file).transpose()?;
    let key = Key::new(["authority", "join-root"]);
    let is_known = store.get(&key).await?.is_some();
    let (directory, domain) = (data.ca(), data.trust_domain());
    check_files(&directory, &config.ca_backend, is_known)?;
    let (passphrase, now) = (passphrase.as_ref(), clock.now());
    // The token first: where it cannot be used, nothing is left behind.
    let backend: Arc<dyn CertificateAuthority> = match &config.ca_backend {
        Backend::Builtin => {
            let node_ca = Authority::node_ca(&directory, domain, passphrase, now)?;
            Arc::new(BuiltinCa::new(Arc::new(node_ca)))
        }
        Backend::Pkcs11(settings) => {
            Arc::new(Pkcs11Ca::open(settings, &directory, domain, now).await?)
        }
    };
    let authorities = Authorities::open_or_create(&directory, domain, passphrase, now)?;
    if !is_known {
        let value = authorities.join_root.key().to_string().into_bytes();
        let put = Put { key, value, expires_at: None };
        let transaction = Transaction { puts: vec![put], ..Transaction::default() };
        let failed = |error: CommitError| StoreUnavailable(error.to_string());
        store.commit(transaction).await.map_err(failed)?;
    }
    Ok((Arc::new(authorities), backend))
}

/// Whether the files fit the backend. A node CA cannot move from one backend to another: that is a
/// rotation, and a server that just made a new one would issue what relying parties do not know.
fn check_files(
    directory: &Path,
    backend: &Backend,
    is_known: bool,
) -> Result<(), UnusableDirectory> {
    let has_key = node_ca_key_path(directory).exists();
    let has_certificate = node_ca_certificate_path(directory).exists();
    let problem = match backend {
        Backend::Pkcs11(_) if has_key => {
            "has the key of a built-in node CA (node-ca.key), which cannot move into a token in \
             this version; set ca.backend = \"builtin\", or use a new data directory"
        }
        Backend::Builtin if has_certificate && !has_key => {
            "has a node CA's certificate without its key (node-ca.key); if the key is in a token, \
             set ca.backend = \"pkcs11\", otherwise restore the directory"
        }
        Backend::Builtin | Backend::Pkcs11(_)
            if is_known && !(Authorities::exist(directory) && has_certificate) =>
        {
            "the authorities of this installation are gone; restore the directory"
        }
        Backend::Builtin | Backend::Pkcs11(_) => return Ok(()),
    };
    Err(UnusableDirectory(format!("{}: {problem}", directory.display())))
}

impl From<TokenError> for StartError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unusable(problem) => Self::Token(problem),
            TokenError::Unavailable(problem) => Self::Authority(IssueError::Unavailable(problem)),
            TokenError::File(error) => Self::Keys(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(text: &str) -> Result<Backend, String> {
        toml::from_str::<CaSection>(text).map_err(|error| error.to_string())?.backend()
    }

    const WHOLE: &str = "backend = 'pkcs11'\n[pkcs11]\nmodule = '/m.so'\ntoken_label = 't'\n\
                         key_label = 'k'\npin_file = '/pin'\n";

    #[test]
    fn a_token_needs_a_name_a_key_and_a_pin() {
        assert_eq!(backend(""), Ok(Backend::Builtin));
        assert_eq!(backend("backend = 'builtin'"), Ok(Backend::Builtin));
        let Backend::Pkcs11(settings) = backend(WHOLE).unwrap() else { panic!("{WHOLE}") };
        assert_eq!(settings.token, TokenName::Label("t".to_owned()));
        assert_eq!((settings.sessions, settings.create_key), (4, false));
        for key in ["module", "token_label", "key_label", "pin_file"] {
            let without: Vec<_> = WHOLE.lines().filter(|line| !line.starts_with(key)).collect();
            let error = backend(&without.join("\n")).unwrap_err();
            assert!(error.contains(key), "{key}: {error}");
        }
        for wrong in ["token_serial = '1'", "sessions = 0", "sessions = 65", "pin = '1234'"] {
            assert!(backend(&format!("{WHOLE}{wrong}\n")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_that_is_not_asked_for_is_an_error() {
        let error = backend("[pkcs11]\nmodule = '/m.so'\n").unwrap_err();
        assert!(error.contains("ca.backend"), "{error}");
        assert!(backend("backend = 'vault'").is_err());
    }

    #[test]
    fn a_node_ca_never_changes_its_backend_by_itself() {
        let Backend::Pkcs11(settings) = backend(WHOLE).unwrap() else { panic!("{WHOLE}") };
        let pkcs11 = Backend::Pkcs11(settings);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        check_files(path, &Backend::Builtin, false).unwrap();
        check_files(path, &pkcs11, false).unwrap();
        assert!(check_files(path, &Backend::Builtin, true).is_err());
        assert!(check_files(path, &pkcs11, true).is_err());

        for name in ["join-root.key", "user-ca.key", "node-ca.pem"] {
            std::fs::write(path.join(name), "").unwrap();
        }
        check_files(path, &pkcs11, true).unwrap();
        let error = check_files(path, &Backend::Builtin, true).unwrap_err().0;
        assert!(error.contains("set ca.backend = \"pkcs11\""), "{error}");

        std::fs::write(path.join("node-ca.key"), "").unwrap();
        check_files(path, &Backend::Builtin, true).unwrap();
        let error = check_files(path, &pkcs11, true).unwrap_err().0;
        assert!(error.contains("set ca.backend = \"builtin\""), "{error}");
    }
}

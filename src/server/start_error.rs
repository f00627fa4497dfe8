//! Why a server does not start.

use std::path::PathBuf;

use super::audit_key::UnusableAuditKey;
use super::data_directory::UnusableDirectory;
use super::policy_directory;
use super::tls::UnusableTls;
use crate::ca::{IssueError, KeyFileError};
use crate::policy::Finding;
use crate::store::StoreUnavailable;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDirectory(#[from] UnusableDirectory),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
    /// CA keys or the passphrase.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The key of the audit log's checkpoints.
    #[error(transparent)]
    AuditKey(#[from] UnusableAuditKey),
    /// The token of the node CA cannot be used as it is configured.
    #[error("{0}")]
    Token(String),
    /// The CA backend does not sign.
    #[error(transparent)]
    Authority(#[from] IssueError),
    /// TLS of the listener.
    #[error(transparent)]
    Tls(#[from] UnusableTls),
    /// The file of static tokens.
    #[error("{0}")]
    StaticTokens(String),
    /// Region certificates, or the way to AWS.
    #[error("{0}")]
    Cloud(String),
    /// The policy set; it loads as a whole or not at all.
    #[error("the policy set in {} has {} errors; the first is {}", .directory.display(), .errors.len(), first(.errors))]
    Policies {
        /// Where it is.
        directory: PathBuf,
        /// What is wrong.
        errors: Vec<Finding>,
    },
    /// The policy files.
    #[error(transparent)]
    PolicyFiles(#[from] policy_directory::Unreadable),
    /// An address or the socket.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        error: std::io::Error,
    },
    /// The listener's certificate.
    #[error("cannot make the listener's certificate: {0}")]
    ListenerCertificate(String),
}

fn first(errors: &[Finding]) -> String {
    errors.first().map(ToString::to_string).unwrap_or_default()
}

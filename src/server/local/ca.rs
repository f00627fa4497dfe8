//! What `muster ca` shows and tries.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::commands::Local;
use super::protocol::{BundleFormat, LocalError};
use crate::ca::{CertificateAuthority, IssueError, RevocationList, check_revocation_list};
use crate::domain::{Code, KeyDigest, Lifetime, Timestamp};

/// How long a CA backend may take: what a join gives it.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);

impl Local {
    /// The three authorities. There is no rotation yet, so each has one certificate, which is active.
    pub(super) async fn ca_status(&self) -> Result<Value, LocalError> {
        let backend = self.joins.authority.as_ref();
        let anchors = backend.trust_anchors().await?;
        let issuer = backend.issuer();
        let node_ca = anchors.0.iter().find(|anchor| key_of(anchor) == Some(issuer));
        let node_ca = node_ca.ok_or_else(|| {
            LocalError::new(Code::CaUnavailable, "the backend's key is in no trust anchor")
        })?;
        let mut node_ca = shown(node_ca)?;
        if let Value::Object(members) = &mut node_ca {
            members.insert("backend".to_owned(), json!(backend.name()));
        }
        Ok(json!({
            "join_root": shown(self.authorities.join_root.certificate())?,
            "node_ca": node_ca,
            "user_ca": shown(self.authorities.user_ca.certificate())?,
        }))
    }

    pub(super) fn ca_pin(&self) -> Value {
        json!({"pin": format!("sha256:{}", self.authorities.join_root.key())})
    }

    /// Has the backend sign. A certificate would be one that is not on record (I9), so it is a
    /// revocation list; it is empty and ended long ago, so it is worth nothing to whoever gets it.
    pub(super) async fn ca_check(&self) -> Result<Value, LocalError> {
        let backend = self.joins.authority.as_ref();
        let begin = Timestamp::from_unix_seconds(0);
        let list = RevocationList {
            number: 0,
            this_update: begin,
            next_update: begin.plus(Lifetime::from_seconds(1)),
            entries: Vec::new(),
        };
        let problem = match timeout(CHECK_TIMEOUT, signs(backend, &list)).await {
            Ok(Ok(problem)) => problem,
            Ok(Err(IssueError::Refused(why))) => Some(why),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(LocalError::new(Code::CaUnavailable, "no answer in time")),
        };
        Ok(json!({"ok": problem.is_none(), "backend": backend.name(), "problem": problem}))
    }

    pub(super) async fn ca_export(&self, format: BundleFormat) -> Result<Value, LocalError> {
        let anchors = self.joins.authority.trust_anchors().await?;
        match format {
            BundleFormat::Pem => Ok(json!({"format": "pem", "bundle": anchors.to_pem()})),
            BundleFormat::Der => {
                let der: Vec<u8> = anchors.0.iter().flat_map(|anchor| anchor.to_vec()).collect();
                Ok(json!({"format": "der", "bundle": STANDARD.encode(der)}))
            }
            BundleFormat::Spiffe => anchors
                .to_spiffe_bundle()
                .map_err(|error| LocalError::new(Code::Internal, error.to_string())),
        }
    }
}

impl From<IssueError> for LocalError {
    fn from(error: IssueError) -> Self {
        Self::new(Code::CaUnavailable, error.to_string())
    }
}

/// Whether the backend is alive and signs what it is asked to; else what is wrong.
async fn signs(
    backend: &dyn CertificateAuthority,
    list: &RevocationList,
) -> Result<Option<String>, IssueError> {
    backend.check().await?;
    let signed = backend.sign_revocation_list(list).await?;
    let anchors = backend.trust_anchors().await?;
    let compared = check_revocation_list(list, &signed, backend.issuer(), &anchors);
    Ok(compared.err().map(|error| error.to_string()))
}

fn key_of(certificate: &[u8]) -> Option<KeyDigest> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(KeyDigest::of_spki(parsed.public_key().raw))
}

fn shown(certificate: &[u8]) -> Result<Value, LocalError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| LocalError::new(Code::Internal, error.to_string()))?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    let not_after = Timestamp::from_unix_seconds(parsed.validity().not_after.timestamp());
    Ok(json!({
        "subject": parsed.subject().to_string(),
        "serial": hex::encode_upper(parsed.raw_serial()),
        "sha256": hex::encode(digest),
        "not_after": not_after,
        "phase": "active",
    }))
}

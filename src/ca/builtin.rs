//! The built-in backend: the node CA's key in this process.

use std::sync::Arc;

use rcgen::SigningKey;

use super::{
    Authority, Capabilities, CertificateAuthority, IssueError, IssuedCertificate, RevocationList,
    TrustAnchors, profile,
};
use crate::domain::KeyDigest;
use crate::registry::Recorded;

/// Issues with a node CA whose key is a file.
pub struct BuiltinCa {
    node_ca: Arc<Authority>,
}

impl BuiltinCa {
    /// Uses this node CA.
    pub fn new(node_ca: Arc<Authority>) -> Self {
        Self { node_ca }
    }
}

#[async_trait::async_trait]
impl CertificateAuthority for BuiltinCa {
    fn name(&self) -> &'static str {
        "builtin"
    }

    async fn issue(&self, recorded: &Recorded) -> Result<IssuedCertificate, IssueError> {
        let order = recorded.order();
        profile::refuse_other_issuer(order, self.issuer())?;
        profile::certificate(order, self.node_ca.issuer()).map_err(|error| refused(&error))
    }

    async fn sign_revocation_list(&self, list: &RevocationList) -> Result<Vec<u8>, IssueError> {
        profile::revocation_list(list, self.node_ca.issuer()).map_err(|error| refused(&error))
    }

    async fn trust_anchors(&self) -> Result<TrustAnchors, IssueError> {
        Ok(TrustAnchors(vec![self.node_ca.certificate().clone()]))
    }

    fn issuer(&self) -> KeyDigest {
        self.node_ca.key()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { needs_csr: false, is_idempotent: true }
    }

    async fn check(&self) -> Result<(), IssueError> {
        let signed = self.node_ca.issuer().key().sign(profile::HEALTH_CHECK_MESSAGE);
        signed.map(|_| ()).map_err(|error| IssueError::Unavailable(error.to_string()))
    }
}

fn refused(error: &rcgen::Error) -> IssueError {
    IssueError::Refused(error.to_string())
}

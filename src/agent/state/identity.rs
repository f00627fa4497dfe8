//! What `current` holds, read with or without the lock.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::directory::Directory;
use super::{BUNDLE, CERTIFICATE, CURRENT, IDENTITY_PREFIX, JOIN_ROOT, NODE, Problem};
use crate::agent::method::Method;
use crate::client::trust_domain_of;
use crate::domain::{Timestamp, TrustDomain};

/// How often a reader without the lock follows a link that is switched under its eyes.
const READS_MAX: u32 = 5;

/// What the node has at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentIdentity {
    /// PEM: the leaf, then intermediates.
    pub certificate_pem: String,
    /// PEM: trust anchors of the node CA.
    pub bundle_pem: String,
    /// PEM: the join root, if the server sent it.
    pub join_root_pem: Option<String>,
    /// The record of the node, as JSON.
    pub node_json: String,
}

/// What the agent needs of `node.json`; its other members are for others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NodeRecord {
    /// The server's name for the node.
    pub node_id: String,
    /// The node's SPIFFE ID.
    pub spiffe_id: String,
    /// The method that it joined by, and renews by.
    #[serde(default)]
    pub method: Method,
    /// The policy that admitted it: at a renewal proofs are bound to this string.
    pub policy: String,
    /// The certificate's serial.
    pub serial: String,
    /// From when on the certificate counts.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// When the next one is to be asked for.
    pub renew_after: Timestamp,
}

impl CurrentIdentity {
    /// The record, if it is one.
    pub fn record(&self) -> Option<NodeRecord> {
        serde_json::from_str(&self.node_json).ok()
    }

    /// The leaf, then intermediates.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.certificate_pem)
    }

    /// The join root that the server sent.
    pub fn join_root(&self) -> Vec<CertificateDer<'static>> {
        self.join_root_pem.as_deref().map(certificates).unwrap_or_default()
    }

    /// The trust domain that the node is a member of.
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        self.chain().first().and_then(trust_domain_of)
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

/// What `current` leads to, if the node ever joined.
pub(super) fn read(directory: &Directory) -> Result<Option<CurrentIdentity>, Problem> {
    let mut reads = 1;
    loop {
        let Some(name) = current_name(directory)? else { return Ok(None) };
        match read_identity(directory, &name) {
            // The agent has switched meanwhile: what the link led to is removed.
            Err(_) if reads < READS_MAX && current_name(directory)?.as_ref() != Some(&name) => {
                reads += 1;
            }
            identity => return identity.map(Some),
        }
    }
}

fn read_identity(directory: &Directory, name: &str) -> Result<CurrentIdentity, Problem> {
    let identity = directory.child(name)?;
    let find = |file: &str| -> Result<Option<String>, Problem> {
        let text = identity.read(file)?.map(String::from_utf8).transpose();
        text.map_err(|_| Problem::File(format!("{name}/{file}")))
    };
    let text = |file: &str| find(file)?.ok_or_else(|| Problem::File(format!("{name}/{file}")));
    Ok(CurrentIdentity {
        certificate_pem: text(CERTIFICATE)?,
        bundle_pem: text(BUNDLE)?,
        join_root_pem: find(JOIN_ROOT)?,
        node_json: text(NODE)?,
    })
}

/// Where `current` leads: to a sibling of the form that `install` makes and nowhere else.
pub(super) fn current_name(directory: &Directory) -> Result<Option<String>, Problem> {
    let Some(target) = directory.read_link(CURRENT)? else { return Ok(None) };
    if number_of(Some(&target)) == 0 {
        return Err(Problem::Link);
    }
    Ok(Some(target))
}

/// The number of `identity-<number>`, or 0.
pub(super) fn number_of(name: Option<&str>) -> u32 {
    name.and_then(|name| name.strip_prefix(IDENTITY_PREFIX))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

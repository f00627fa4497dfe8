//! What the agent asks of others: who this machine is, the join server, the time.

use std::time::Duration;

use super::machine::MachineId;
use super::method::{Method, Way};
use super::state::{InstanceIdentity, NodeKey};
use crate::client::{ClientIdentity, JoinError, ServerTrust};
use crate::domain::{Timestamp, TrustDomain};
use crate::proto::JoinResult;

/// What the node asks the server for, and with what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// The machine that asks, for the server's log.
    pub(super) instance: &'a MachineId,
    /// How it answers the challenge.
    pub(super) way: Way,
    /// The key that the certificate is for.
    pub(super) key: &'a NodeKey,
    /// At a join the policy asked for; at a renewal that of the node's record.
    pub(super) policy: &'a str,
    /// The current certificate, at a renewal. Without one it is a join.
    pub(super) identity: Option<&'a ClientIdentity>,
    /// The join root that an earlier answer brought.
    pub(super) join_root: Option<&'a ServerTrust>,
    /// The trust domain that the server must be of, if one is known.
    pub(super) trust_domain: Option<&'a TrustDomain>,
}

/// The server's answer, and which trust domain it was of.
pub(super) struct Answer {
    pub(super) result: JoinResult,
    /// Nothing if the server came with a public certificate.
    pub(super) trust_domain: Option<TrustDomain>,
}

/// How a pause ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// As it should.
    Over,
    /// The clock says that another time went by.
    ClockJumped,
}

/// The world around the agent. One of them is real (`network`); tests have another.
pub(super) trait Outside {
    /// Which machine this is, and since when it runs.
    async fn instance(&self) -> Result<InstanceIdentity, JoinError>;
    /// The policy to join under by this method; empty if the server may choose.
    async fn policy(&self, method: Method) -> Result<String, JoinError>;
    /// One join or renewal.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, JoinError>;
    /// The time.
    fn now(&self) -> Timestamp;
    /// Waits.
    async fn pause(&self, length: Duration) -> Pause;
    /// A random number from 0 to 1.
    fn luck(&self) -> f64;
}

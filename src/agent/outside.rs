//! What the agent asks of others: the metadata service, the join server, the time.

use std::time::Duration;

use super::attester::{Ec2Attester, IdentityRole};
use super::join::random_part;
use super::machine::MachineId;
use super::state::{InstanceIdentity, NodeKey};
use crate::aws::Imds;
use crate::client::{
    ClientIdentity, Connection, Contact, Endpoint, JoinError, Request, ServerTrust,
};
use crate::clock::{Clock, Stopwatch};
use crate::domain::{Timestamp, TrustDomain};
use crate::proto::JoinResult;

/// From this difference on, the clock and the timer do not tell of the same time: the machine slept,
/// or somebody set the clock.
const JUMP: Duration = Duration::from_secs(30);

/// What the node asks the server for, and with what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// The instance that asks, for the server's log.
    pub(super) instance: &'a MachineId,
    /// The key that the certificate is for.
    pub(super) key: &'a NodeKey,
    /// At a join the policy asked for; at a renewal that of the node's record.
    pub(super) policy: &'a str,
    /// The current certificate, at a renewal. Without one it is a join.
    pub(super) identity: Option<&'a ClientIdentity>,
    /// The join root that an earlier answer brought, for nodes that came by public roots.
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

/// The world around the agent. One of them is real; tests have another.
pub(super) trait Outside {
    /// Which instance this is, and since when it runs.
    async fn instance(&self) -> Result<InstanceIdentity, JoinError>;
    /// One join or renewal.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, JoinError>;
    /// The time.
    fn now(&self) -> Timestamp;
    /// Waits.
    async fn pause(&self, length: Duration) -> Pause;
    /// A random number from 0 to 1.
    fn luck(&self) -> f64;
}

/// The real one.
pub(super) struct Network {
    pub(super) server: Endpoint,
    pub(super) trust: ServerTrust,
    pub(super) imds: Imds,
    pub(super) clock: Clock,
}

impl Outside for Network {
    async fn instance(&self) -> Result<InstanceIdentity, JoinError> {
        let session = self.imds.session().await?;
        let instance_id = session.instance_id().await?.into();
        Ok(InstanceIdentity { instance_id, epoch: session.pending_time().await })
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, JoinError> {
        let session = self.imds.session().await?;
        let document = session.rsa2048_document().await?;
        let identity_role = IdentityRole::read(&session).await;
        // What was configured holds; an earlier answer only replaces the public roots.
        let trust = match (&self.trust, ask.join_root) {
            (ServerTrust::SystemRoots, Some(join_root)) => join_root,
            (configured, _) => configured,
        };
        let connection = Connection::to(&Contact {
            endpoint: &self.server,
            trust,
            trust_domain: ask.trust_domain,
            identity: ask.identity,
        })
        .await?;
        let trust_domain = match trust {
            ServerTrust::SystemRoots => None,
            ServerTrust::Pins(_) | ServerTrust::Roots(_) => connection.trust_domain().cloned(),
        };
        let facts = format!("muster/{} instance={}", env!("CARGO_PKG_VERSION"), ask.instance);
        let public_key = ask.key.public_key();
        let request = Request { policy: ask.policy, method: "ec2", public_key, facts: &facts };
        let attester = Ec2Attester::new(document, identity_role, ask.key, &self.clock);
        let result = if ask.identity.is_some() {
            connection.renew(&request, &attester).await
        } else {
            connection.join(&request, &attester).await
        };
        let result = result.map_err(|error| attester.explain(error))?;
        Ok(Answer { result, trust_domain })
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pause(&self, length: Duration) -> Pause {
        let (watch, before) = (Stopwatch::start(), self.clock.now());
        tokio::time::sleep(length).await;
        // Timers stand still while a machine is suspended, and its clock does not.
        let after = self.clock.now();
        let by_clock = after.unix_seconds() - before.unix_seconds();
        let by_timer = i64::try_from(watch.elapsed().as_secs()).unwrap_or(i64::MAX);
        if by_clock.abs_diff(by_timer) > JUMP.as_secs() { Pause::ClockJumped } else { Pause::Over }
    }

    fn luck(&self) -> f64 {
        random_part()
    }
}

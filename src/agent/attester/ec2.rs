//! By the instance: its identity document, and a proof signed for this very connection.

use std::sync::OnceLock;

use crate::agent::join::local;
use crate::agent::state::NodeKey;
use crate::aws::{
    EndpointKind, ImdsSession, MetadataUnavailable, Service, SignedRequest, TemporaryCredentials,
};
use crate::client::{Attester, Challenged, JoinError};
use crate::clock::Clock;
use crate::domain::{Code, Lifetime, Region, Timestamp};
use crate::methods::ec2;

/// From this much on, a difference of clocks is worth a word.
const SKEW_WORTH_A_WORD: Lifetime = Lifetime::from_minutes(1);

/// What a proof is signed with.
pub(in crate::agent) struct IdentityRole {
    region: Region,
    credentials: TemporaryCredentials,
}

impl IdentityRole {
    /// Reads region and credentials.
    pub(in crate::agent) async fn read(
        session: &ImdsSession<'_>,
    ) -> Result<Self, MetadataUnavailable> {
        let credentials = session.identity_credentials().await?;
        Ok(Self { region: session.region().await?, credentials })
    }
}

/// An EC2 instance.
pub(in crate::agent) struct Ec2Attester<'a> {
    document: String,
    identity_role: Result<IdentityRole, MetadataUnavailable>,
    key: &'a NodeKey,
    clock: &'a Clock,
    server_time: OnceLock<Timestamp>,
}

impl<'a> Ec2Attester<'a> {
    /// What the metadata service said. Without the identity role no proof is offered: a policy may
    /// take the document alone.
    pub(in crate::agent) fn new(
        document: String,
        identity_role: Result<IdentityRole, MetadataUnavailable>,
        key: &'a NodeKey,
        clock: &'a Clock,
    ) -> Self {
        Self { document, identity_role, key, clock, server_time: OnceLock::new() }
    }

    /// A refusal with what only the node knows of its cause.
    pub(in crate::agent) fn explain(&self, mut error: JoinError) -> JoinError {
        if let (Code::FreshProofRequired, Err(unread)) = (error.code, &self.identity_role) {
            // The metadata service may have had a bad moment: that is no reason to give up.
            let correlation_id = error.correlation_id.take();
            error = local(unread.code(), unread);
            error.correlation_id = correlation_id;
        }
        if let Some(words) = self.clock_difference() {
            error.hint = Some(match error.hint {
                Some(hint) => format!("{hint}; {words}"),
                None => words,
            });
        }
        error
    }

    fn clock_difference(&self) -> Option<String> {
        let (own, server) = (self.clock.now(), *self.server_time.get()?);
        let (ahead, behind) = (own.since(server), server.since(own));
        if ahead > SKEW_WORTH_A_WORD {
            Some(format!("this machine's clock is {} s ahead of the server's", ahead.seconds()))
        } else if behind > SKEW_WORTH_A_WORD {
            Some(format!("this machine's clock is {} s behind the server's", behind.seconds()))
        } else {
            None
        }
    }
}

impl Attester for Ec2Attester<'_> {
    fn evidence(&self, challenged: &Challenged<'_>) -> Result<Vec<u8>, JoinError> {
        let _first = self.server_time.set(challenged.server_time);
        let Ok(IdentityRole { region, credentials }) = &self.identity_role else {
            return Ok(ec2::evidence(&self.document, None));
        };
        let kind = EndpointKind::wanted(challenged.fips_wanted, Service::Sts, region);
        // The node's own clock: a server that chose the date could collect requests for later (S3).
        let (binding, now) = (challenged.binding, self.clock.now());
        let signed = SignedRequest::sign(credentials, region, kind, binding, now)
            .map_err(|error| local(Code::MetadataUnavailable, &error))?;
        Ok(ec2::evidence(&self.document, Some((&signed, binding))))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoinError> {
        self.key.sign(message).map_err(|error| local(Code::Internal, &error))
    }
}

//! One node of the storm: a new connection, a whole join, and what the agent does when it is told
//! "not now".

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use muster::aws::{EndpointKind, SignedRequest, TemporaryCredentials};
use muster::client::{Attester, Challenged, Connection, JoinError, Request};
use muster::clock::Clock;
use muster::domain::{Class, Code, PublicKey, Region};
use muster::methods::ec2;
use muster::sim::{SimulatedInstance, Simulator};
use rcgen::PublicKeyData;

use crate::site::Server;

/// The first pause after "not now", and the longest: the agent's.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// An instance with its document, its credentials and a key.
pub(crate) struct Node {
    document: String,
    region: Region,
    credentials: Option<TemporaryCredentials>,
    key: EcdsaKeyPair,
    public_key: PublicKey,
}

/// How a join went.
pub(crate) struct Joined {
    /// From the first attempt to the certificate.
    pub(crate) took: Duration,
    /// Why it came again, each time.
    pub(crate) retried: Vec<Code>,
    pub(crate) answer: Answer,
}

/// What a node got.
pub(crate) struct Answer {
    /// How long certificate, anchor and join root are.
    others: [usize; 3],
    /// `node.json`.
    pub(crate) record: String,
}

impl Answer {
    /// How long its parts are: certificate, anchor, join root, record.
    pub(crate) fn sizes(&self) -> [usize; 4] {
        let [certificate, anchor, join_root] = self.others;
        [certificate, anchor, join_root, self.record.len()]
    }
}

impl Node {
    pub(crate) fn new(simulator: &Simulator, instance: &SimulatedInstance) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let public_key = PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der());
        let credentials = simulator.identity_credentials(&instance.instance_id);
        Self {
            document: simulator.document(instance).unwrap(),
            region: instance.region.clone(),
            credentials: credentials.map(|found| TemporaryCredentials {
                access_key_id: found.access_key_id().to_owned(),
                secret_access_key: found.secret_access_key().to_owned(),
                session_token: found.session_token().unwrap().to_owned(),
            }),
            key: key.unwrap(),
            public_key,
        }
    }

    /// Joins, and comes again for as long as it is told to.
    pub(crate) async fn join(
        self: Arc<Self>,
        server: &Server,
        with_proof: bool,
    ) -> Result<Joined, JoinError> {
        let policy = if with_proof { "proven" } else { "document" };
        let begun = tokio::time::Instant::now();
        let (mut backoff, mut retried) = (BACKOFF_FIRST, Vec::new());
        loop {
            let error = match self.attempt(server, policy, with_proof).await {
                Ok(answer) => return Ok(Joined { took: begun.elapsed(), retried, answer }),
                Err(error) => error,
            };
            let is_final = matches!(error.code.class(), Class::Denied | Class::Invalid);
            if is_final || begun.elapsed() > Duration::from_mins(2) {
                return Err(error);
            }
            retried.push(error.code);
            let jitter = backoff.mul_f64(random_part());
            tokio::time::sleep(error.retry_after.unwrap_or_default() + jitter).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One attempt under this policy.
    pub(crate) async fn attempt(
        &self,
        server: &Server,
        policy: &str,
        with_proof: bool,
    ) -> Result<Answer, JoinError> {
        let connection = Connection::open(&server.endpoint, &server.trust).await?;
        let request =
            Request { policy, method: "ec2", public_key: &self.public_key, facts: "boot=storm" };
        let result = connection.join(&request, &Evidence { node: self, with_proof }).await?;
        let others = [
            result.certificate_chain.iter().map(Vec::len).sum(),
            result.trust_bundle.iter().map(Vec::len).sum(),
            result.join_root.len(),
        ];
        Ok(Answer { others, record: result.node_record })
    }
}

impl Node {
    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    pub(crate) fn document_alone(&self) -> Vec<u8> {
        ec2::evidence(&self.document, None)
    }

    pub(crate) fn signature(&self, message: &[u8]) -> Result<Vec<u8>, JoinError> {
        let signed = self.key.sign(&SystemRandom::new(), message);
        let failed = |_| JoinError::rejected(Code::Internal, "the key does not sign");
        signed.map(|signature| signature.as_ref().to_vec()).map_err(failed)
    }
}

struct Evidence<'a> {
    node: &'a Node,
    with_proof: bool,
}

impl Attester for Evidence<'_> {
    fn evidence(&self, challenged: &Challenged<'_>) -> Result<Vec<u8>, JoinError> {
        let Node { document, region, credentials, .. } = self.node;
        let Some(credentials) = credentials.as_ref().filter(|_| self.with_proof) else {
            return Ok(self.node.document_alone());
        };
        let now = Clock::system().now();
        let (kind, binding) = (EndpointKind::Regional, challenged.binding);
        let signed = SignedRequest::sign(credentials, region, kind, binding, now)
            .map_err(|error| JoinError::rejected(Code::Internal, error.to_string()))?;
        Ok(ec2::evidence(document, Some((&signed, binding))))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoinError> {
        self.node.signature(message)
    }
}

pub(crate) fn random_part() -> f64 {
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
}

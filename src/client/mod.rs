//! The Rust client of the join protocol: one connection, one join or one renewal.

mod connect;
mod trust;

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use crate::domain::{Code, KeyBinding, PublicKey, Purpose, Timestamp, TrustDomain, pop_message};
use crate::proto::join_service_client::JoinServiceClient;
use crate::proto::node_service_client::NodeServiceClient;
use crate::proto::{
    Challenge, Evidence, GetTrustBundleRequest, JoinRequest, JoinResponse, JoinResult, JoinStart,
    RenewRequest, RenewResponse, RenewStart, join_request, join_response, renew_request,
    renew_response,
};
use connect::{Http2, connect};

pub use connect::{ClientIdentity, Contact};
pub use trust::{Endpoint, InvalidEndpoint, InvalidPin, ServerTrust, parse_pin, trust_domain_of};

/// How long TCP and TLS may take, and after that one whole join, or the trust bundle.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const JOIN_TIMEOUT: Duration = Duration::from_mins(1);
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer: a chain, anchors and a record.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Why a join did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct JoinError {
    /// The code, the server's or the client's own.
    pub code: Code,
    /// In words.
    pub message: String,
    /// What the server says of the node's evidence.
    pub hint: Option<String>,
    /// Leads an operator to the explanation.
    pub correlation_id: Option<String>,
    /// When a retry may help.
    pub retry_after: Option<Duration>,
}

impl JoinError {
    /// An error of the node itself.
    pub fn rejected(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, message)
    }

    fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, hint: None, correlation_id: None, retry_after: None }
    }
}

/// What the server asks a node to answer: it may ask for less than the node would send, never for
/// more (red team B2).
#[derive(Debug, Clone, Copy)]
pub struct Challenged<'a> {
    /// What evidence is bound to: computed by the node from its own view of the connection.
    pub binding: &'a KeyBinding,
    /// The server's clock, for saying whose is wrong.
    pub server_time: Timestamp,
    /// Whether FIPS endpoints are wanted.
    pub fips_wanted: bool,
}

/// The node's side of an answer.
pub trait Attester {
    /// The method's evidence for this challenge.
    fn evidence(&self, challenged: &Challenged<'_>) -> Result<Vec<u8>, JoinError>;
    /// The node key's signature over a message.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoinError>;
}

/// What a node asks with.
pub struct Request<'a> {
    /// The policy's name. At a join it may be empty: the server chooses the only one. At a renewal
    /// it is that of the node's record.
    pub policy: &'a str,
    /// The join method.
    pub method: &'a str,
    /// The node's key; at a renewal the next one.
    pub public_key: &'a PublicKey,
    /// Unverified text for the server's log.
    pub facts: &'a str,
}

/// An authenticated connection to a join server.
pub struct Connection {
    http2: Http2,
    origin: http::Uri,
    channel: [u8; 32],
    trust_domain: Option<TrustDomain>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects and authenticates the server; nothing of the node is sent before that.
    pub async fn open(endpoint: &Endpoint, trust: &ServerTrust) -> Result<Self, JoinError> {
        Self::to(&Contact { endpoint, trust, trust_domain: None, identity: None, source: None })
            .await
    }

    /// Likewise, with what the node knows of the server and shows to it.
    pub async fn to(contact: &Contact<'_>) -> Result<Self, JoinError> {
        let connected = timeout(CONNECT_TIMEOUT, connect(contact)).await;
        connected.unwrap_or_else(|_| {
            let silent = format!("{} did not answer", contact.endpoint);
            Err(JoinError::new(Code::ServerUnreachable, silent))
        })
    }

    /// The trust domain that the server's certificate names; none if it is a public one.
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        self.trust_domain.as_ref()
    }

    /// Joins. `attester` answers the challenge.
    pub async fn join(
        self,
        request: &Request<'_>,
        attester: &impl Attester,
    ) -> Result<JoinResult, JoinError> {
        let start = join_request::Step::Start(JoinStart {
            policy: request.policy.to_owned(),
            method: request.method.to_owned(),
            public_key: request.public_key.spki_der().to_vec(),
            facts: request.facts.to_owned(),
        });
        let mut client = JoinServiceClient::with_origin(self.http2.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        in_time(async {
            let (messages, stream) = mpsc::channel(2);
            send(&messages, JoinRequest { step: Some(start) }).await?;
            let answers = client.join(ReceiverStream::new(stream)).await;
            let answers = answers.map_err(|status| refused(&status))?.into_inner();
            self.converse(Purpose::Join, request, attester, &messages, answers).await
        })
        .await
    }

    /// Renews, over a connection on which the node has shown its certificate.
    pub async fn renew(
        self,
        request: &Request<'_>,
        attester: &impl Attester,
    ) -> Result<JoinResult, JoinError> {
        let start = renew_request::Step::Start(RenewStart {
            public_key: request.public_key.spki_der().to_vec(),
            facts: request.facts.to_owned(),
        });
        let mut client = NodeServiceClient::with_origin(self.http2.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        in_time(async {
            let (messages, stream) = mpsc::channel(2);
            send(&messages, RenewRequest { step: Some(start) }).await?;
            let answers = client.renew(ReceiverStream::new(stream)).await;
            let answers = answers.map_err(|status| refused(&status))?.into_inner();
            self.converse(Purpose::Renew, request, attester, &messages, answers).await
        })
        .await
    }

    /// Reads the node CA's trust anchors.
    pub async fn trust_bundle(&mut self) -> Result<Vec<CertificateDer<'static>>, JoinError> {
        let mut client = JoinServiceClient::with_origin(self.http2.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = timeout(BUNDLE_TIMEOUT, client.get_trust_bundle(GetTrustBundleRequest {}));
        let answer = answer.await.map_err(|_| {
            JoinError::new(Code::TimedOut, "the server did not send the trust bundle in time")
        })?;
        let bundle = answer.map_err(|status| refused(&status))?.into_inner().trust_bundle;
        Ok(bundle.into_iter().map(CertificateDer::from).collect())
    }

    /// What both streams have in common: the challenge, its answer, the result.
    async fn converse<Question: From<Evidence>, Answer: Into<Option<Answered>>>(
        &self,
        purpose: Purpose,
        request: &Request<'_>,
        attester: &impl Attester,
        messages: &mpsc::Sender<Question>,
        mut answers: Streaming<Answer>,
    ) -> Result<JoinResult, JoinError> {
        let challenge = match next(&mut answers).await? {
            Answered::Challenge(challenge) => challenge,
            Answered::Result(_) => return Err(protocol("a result came before the challenge")),
        };
        let nonce = nonce_of(&challenge)?;
        let binding = KeyBinding::new(
            purpose,
            &self.channel,
            &nonce,
            request.method,
            request.policy,
            request.public_key,
        );
        let challenged = Challenged {
            binding: &binding,
            server_time: Timestamp::from_unix_seconds(challenge.server_time),
            fips_wanted: challenge.fips_wanted,
        };
        let evidence = attester.evidence(&challenged)?;
        let pop = attester.sign(&pop_message(&binding, &evidence))?;
        let evidence = Evidence { evidence, pop, csr: Vec::new() };
        // A server that did not wait so long has closed the stream, and said why.
        let sent = send(messages, Question::from(evidence)).await;
        match next(&mut answers).await? {
            Answered::Result(result) => sent.map(|()| result),
            Answered::Challenge(_) => Err(protocol("a second challenge came")),
        }
    }
}

/// Bounds an exchange.
async fn in_time(
    exchange: impl Future<Output = Result<JoinResult, JoinError>>,
) -> Result<JoinResult, JoinError> {
    timeout(JOIN_TIMEOUT, exchange).await.unwrap_or_else(|_| {
        Err(JoinError::new(Code::TimedOut, "the server did not finish the exchange in time"))
    })
}

/// What comes on either stream.
enum Answered {
    Challenge(Challenge),
    Result(JoinResult),
}

impl From<JoinResponse> for Option<Answered> {
    fn from(response: JoinResponse) -> Self {
        response.step.map(|step| match step {
            join_response::Step::Challenge(challenge) => Answered::Challenge(challenge),
            join_response::Step::Result(result) => Answered::Result(result),
        })
    }
}

impl From<RenewResponse> for Option<Answered> {
    fn from(response: RenewResponse) -> Self {
        response.step.map(|step| match step {
            renew_response::Step::Challenge(challenge) => Answered::Challenge(challenge),
            renew_response::Step::Result(result) => Answered::Result(result),
        })
    }
}

impl From<Evidence> for JoinRequest {
    fn from(evidence: Evidence) -> Self {
        Self { step: Some(join_request::Step::Evidence(evidence)) }
    }
}

impl From<Evidence> for RenewRequest {
    fn from(evidence: Evidence) -> Self {
        Self { step: Some(renew_request::Step::Evidence(evidence)) }
    }
}

/// The nonce of a challenge that asks for no more than this node gives. What evidence is sent is the
/// node's own decision: there is nothing in a challenge that could widen it (B2, T58).
fn nonce_of(challenge: &Challenge) -> Result<[u8; 32], JoinError> {
    if challenge.csr_wanted {
        return Err(protocol("the server asks for a CSR, which this version does not make"));
    }
    let nonce = challenge.nonce.as_slice().try_into();
    nonce.map_err(|_| protocol("the nonce is not 32 bytes"))
}

async fn send<Question>(
    messages: &mpsc::Sender<Question>,
    question: Question,
) -> Result<(), JoinError> {
    let sent = messages.send(question).await;
    sent.map_err(|_| JoinError::new(Code::ServerUnreachable, "the connection was closed"))
}

async fn next<Answer: Into<Option<Answered>>>(
    answers: &mut Streaming<Answer>,
) -> Result<Answered, JoinError> {
    let answer = answers.message().await.map_err(|status| refused(&status))?;
    answer
        .and_then(Into::into)
        .ok_or_else(|| JoinError::new(Code::ServerUnreachable, "the server ended the stream"))
}

fn protocol(problem: &str) -> JoinError {
    JoinError::new(Code::MalformedRequest, problem)
}

/// The server's refusal. A status without muster's own error information is an outage: a balancer's
/// or a cut connection's word is no decision.
fn refused(status: &Status) -> JoinError {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == "muster");
    let Some(info) = info else {
        return JoinError::new(Code::ServerUnreachable, status.message());
    };
    let code = info.reason.parse().unwrap_or(Code::Internal);
    let text = |name: &str| info.metadata.get(name).map(|text| printable(text));
    JoinError {
        code,
        message: "the server refused".to_owned(),
        hint: text("hint"),
        correlation_id: text("correlation_id"),
        retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
    }
}

/// Text from outside as it may stand in a terminal.
fn printable(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    // T58: a server that asks for a token, in words that this protocol does not have, gets what
    // every server gets; one that asks for more in words that it has is refused.
    #[test]
    fn a_challenge_cannot_ask_for_more() {
        let plain = Challenge { nonce: vec![7; 32], ..Challenge::default() };
        let mut bytes = plain.encode_to_vec();
        // Field 15, a string: "token".
        bytes.extend_from_slice(b"\x7a\x05token");
        let read = Challenge::decode(bytes.as_slice()).unwrap();
        assert_eq!(read, plain);
        assert_eq!(nonce_of(&read).unwrap(), [7; 32]);
        for wrong in [
            Challenge { csr_wanted: true, ..plain.clone() },
            Challenge { nonce: vec![7; 31], ..plain.clone() },
            Challenge { nonce: vec![], ..plain },
        ] {
            assert_eq!(nonce_of(&wrong).unwrap_err().code, Code::MalformedRequest);
        }
    }
}

//! The Rust client of the join protocol: one connection, one join.

mod trust;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, version};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::StatusExt;

use crate::domain::{Code, KeyBinding, PublicKey, Purpose, Timestamp, pop_message};
use crate::proto::join_request::Step as Sent;
use crate::proto::join_response::Step as Answered;
use crate::proto::join_service_client::JoinServiceClient;
use crate::proto::{
    Challenge, Evidence, GetTrustBundleRequest, JoinRequest, JoinResult, JoinStart, channel,
    provider,
};

pub use trust::{Endpoint, InvalidEndpoint, ServerTrust};

/// How long TCP and TLS may take, and after that one whole join, or the trust bundle.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
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
    /// The policy's name; empty if the server may choose the only one.
    pub policy: &'a str,
    /// The join method.
    pub method: &'a str,
    /// The node's key.
    pub public_key: &'a PublicKey,
    /// Unverified text for the server's log.
    pub facts: &'a str,
}

/// An authenticated connection to a join server.
pub struct Connection {
    client: JoinServiceClient<Http2>,
    channel: [u8; 32],
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Connects and authenticates the server; nothing of the node is sent before that.
    pub async fn open(endpoint: &Endpoint, trust: &ServerTrust) -> Result<Self, JoinError> {
        let connected = timeout(CONNECT_TIMEOUT, connect(endpoint, trust)).await;
        connected.unwrap_or_else(|_| {
            Err(JoinError::new(Code::ServerUnreachable, format!("{endpoint} did not answer")))
        })
    }

    /// Joins. `attester` answers the challenge.
    pub async fn join(
        self,
        request: &Request<'_>,
        attester: &impl Attester,
    ) -> Result<JoinResult, JoinError> {
        timeout(JOIN_TIMEOUT, self.exchange(request, attester)).await.unwrap_or_else(|_| {
            Err(JoinError::new(Code::TimedOut, "the server did not finish the join in time"))
        })
    }

    /// Reads the node CA's trust anchors.
    pub async fn trust_bundle(&mut self) -> Result<Vec<CertificateDer<'static>>, JoinError> {
        let answer =
            timeout(BUNDLE_TIMEOUT, self.client.get_trust_bundle(GetTrustBundleRequest {}));
        let answer = answer.await.map_err(|_| {
            JoinError::new(Code::TimedOut, "the server did not send the trust bundle in time")
        })?;
        let bundle = answer.map_err(|status| refused(&status))?.into_inner().trust_bundle;
        Ok(bundle.into_iter().map(CertificateDer::from).collect())
    }

    async fn exchange(
        mut self,
        request: &Request<'_>,
        attester: &impl Attester,
    ) -> Result<JoinResult, JoinError> {
        let (messages, stream) = mpsc::channel(2);
        let start = JoinStart {
            policy: request.policy.to_owned(),
            method: request.method.to_owned(),
            public_key: request.public_key.spki_der().to_vec(),
            facts: request.facts.to_owned(),
        };
        send(&messages, Sent::Start(start)).await?;
        let stream = ReceiverStream::new(stream);
        let mut answers =
            self.client.join(stream).await.map_err(|status| refused(&status))?.into_inner();
        let challenge = match next(&mut answers).await? {
            Answered::Challenge(challenge) => challenge,
            Answered::Result(_) => return Err(protocol("a result came before the challenge")),
        };
        let nonce = nonce_of(&challenge)?;
        let binding = KeyBinding::new(
            Purpose::Join,
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
        send(&messages, Sent::Evidence(evidence)).await?;
        match next(&mut answers).await? {
            Answered::Result(result) => Ok(result),
            Answered::Challenge(_) => Err(protocol("a second challenge came")),
        }
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

async fn connect(endpoint: &Endpoint, trust: &ServerTrust) -> Result<Connection, JoinError> {
    let unreachable = |error: std::io::Error| {
        JoinError::new(Code::ServerUnreachable, format!("cannot reach {endpoint}: {error}"))
    };
    let tcp = connect_tcp(endpoint).await.map_err(unreachable)?;
    // Small messages that wait for each other: Nagle's algorithm would add 40 ms to each.
    tcp.set_nodelay(true).map_err(unreachable)?;
    let tls = TlsConnector::from(Arc::new(client_config(endpoint, trust)?))
        .connect(endpoint.server_name()?, tcp)
        .await
        .map_err(|error| handshake_error(endpoint, &error))?;
    let channel = channel(tls.get_ref().1)
        .map_err(|error| protocol(&format!("no channel binding: {error}")))?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(16 * 1024)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(|error| JoinError::new(Code::ServerUnreachable, error.to_string()))?;
    tokio::spawn(connection);
    let client = JoinServiceClient::with_origin(Http2(sender), endpoint.origin()?)
        .max_decoding_message_size(ANSWER_BYTES_MAX);
    Ok(Connection { client, channel })
}

/// Tries each address of the name for a while, so that one that swallows packets (IPv6 without a
/// route, a dead replica) does not use up the time of the others.
async fn connect_tcp(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    for address in tokio::net::lookup_host(endpoint.address()).await? {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::Error::other(format!("{address} did not answer")),
        }
    }
    Err(last)
}

fn client_config(endpoint: &Endpoint, trust: &ServerTrust) -> Result<ClientConfig, JoinError> {
    let provider = Arc::new(provider());
    let verifier = trust.verifier(endpoint, Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| protocol(&error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    // The server shows its public certificate to those who name it, and its own to the others.
    config.enable_sni = matches!(trust, ServerTrust::SystemRoots);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// One HTTP/2 connection as a service.
#[derive(Clone)]
struct Http2(SendRequest<tonic::body::Body>);

impl tower_service::Service<http::Request<tonic::body::Body>> for Http2 {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

fn handshake_error(endpoint: &Endpoint, error: &std::io::Error) -> JoinError {
    let is_about_trust = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    let code = if is_about_trust { Code::ServerUntrusted } else { Code::ServerUnreachable };
    JoinError::new(code, format!("{endpoint}: {error}"))
}

async fn send(messages: &mpsc::Sender<JoinRequest>, step: Sent) -> Result<(), JoinError> {
    let sent = messages.send(JoinRequest { step: Some(step) }).await;
    sent.map_err(|_| JoinError::new(Code::ServerUnreachable, "the connection was closed"))
}

async fn next(
    answers: &mut tonic::Streaming<crate::proto::JoinResponse>,
) -> Result<Answered, JoinError> {
    let answer = answers.message().await.map_err(|status| refused(&status))?;
    answer
        .and_then(|answer| answer.step)
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

impl Endpoint {
    fn server_name(&self) -> Result<ServerName<'static>, JoinError> {
        ServerName::try_from(self.host().to_owned())
            .map_err(|_| protocol("the server's name is neither a DNS name nor an address"))
    }

    fn origin(&self) -> Result<http::Uri, JoinError> {
        format!("https://{self}").parse().map_err(|_| protocol("the server's name is no authority"))
    }
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

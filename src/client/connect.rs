//! The connection under a join: TCP, TLS 1.3, HTTP/2, and what the server said against our
//! certificate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, version};
use tokio::io::AsyncBufReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::trust::trust_domain_of;
use super::{Connection, Endpoint, JoinError, ServerTrust, protocol};
use crate::domain::{Code, TrustDomain};
use crate::proto::{channel, provider};

/// How long each address of the server is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the server may take to look at the node's certificate; less than the whole connection.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server, and what the node knows of it and shows to it.
#[derive(Debug, Clone, Copy)]
pub struct Contact<'a> {
    /// Where the server is.
    pub endpoint: &'a Endpoint,
    /// How it is known.
    pub trust: &'a ServerTrust,
    /// The trust domain that it must be of, if the node has met it before.
    pub trust_domain: Option<&'a TrustDomain>,
    /// What the node shows, if it has a certificate.
    pub identity: Option<&'a ClientIdentity>,
    /// The address to come from; the system's choice unless given.
    pub source: Option<IpAddr>,
}

/// A node's certificate and key, for TLS. `Debug` shows neither.
pub struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key_pkcs8: Zeroizing<Vec<u8>>,
}

impl ClientIdentity {
    /// `chain` is the leaf and then its intermediates, `key_pkcs8` the DER of the leaf's key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key_pkcs8: Zeroizing<Vec<u8>>) -> Self {
        Self { chain, key_pkcs8 }
    }

    /// The leaf and then its intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdentity")
    }
}

pub(super) async fn connect(contact: &Contact<'_>) -> Result<Connection, JoinError> {
    let endpoint = contact.endpoint;
    let unreachable = |error: io::Error| {
        JoinError::new(Code::ServerUnreachable, format!("cannot reach {endpoint}: {error}"))
    };
    let tcp = connect_tcp(endpoint, contact.source).await.map_err(unreachable)?;
    // Small messages that wait for each other: Nagle's algorithm would add 40 ms to each.
    tcp.set_nodelay(true).map_err(unreachable)?;
    let mut tls = TlsConnector::from(Arc::new(client_config(contact)?))
        .connect(endpoint.server_name()?, tcp)
        .await
        .map_err(|error| handshake_error(endpoint, &error))?;
    if contact.identity.is_some() {
        hear_verdict(&mut tls).await?;
    }
    let session = tls.get_ref().1;
    let channel =
        channel(session).map_err(|error| protocol(&format!("no channel binding: {error}")))?;
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    let trust_domain = leaf.and_then(|leaf| trust_domain_of(leaf));
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(16 * 1024)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(|error| JoinError::new(Code::ServerUnreachable, error.to_string()))?;
    tokio::spawn(connection);
    Ok(Connection { http2: Http2(sender), origin: endpoint.origin()?, channel, trust_domain })
}

/// Tries each address of the name for a while, so that one that swallows packets (IPv6 without a
/// route, a dead replica) does not use up the time of the others.
async fn connect_tcp(endpoint: &Endpoint, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in tokio::net::lookup_host(endpoint.address()).await? {
        match timeout(ADDRESS_TIMEOUT, connect_from(source, address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::other(format!("{address} did not answer")),
        }
    }
    Err(last)
}

async fn connect_from(source: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

fn client_config(contact: &Contact<'_>) -> Result<ClientConfig, JoinError> {
    let provider = Arc::new(provider());
    let verifier = contact.trust.verifier(
        contact.endpoint,
        contact.trust_domain.cloned(),
        Arc::clone(&provider),
    )?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| protocol(&error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match contact.identity {
        None => config.with_no_client_auth(),
        Some(ClientIdentity { chain, key_pkcs8 }) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key_pkcs8.to_vec()));
            config.with_client_auth_cert(chain.clone(), key).map_err(|error| {
                let problem = format!("the node's own certificate cannot be shown: {error}");
                JoinError::new(Code::CertificateRequired, problem)
            })?
        }
    };
    config.resumption = rustls::client::Resumption::disabled();
    // The server shows its public certificate to those who name it, and its own to the others.
    config.enable_sni = matches!(contact.trust, ServerTrust::SystemRoots);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn handshake_error(endpoint: &Endpoint, error: &io::Error) -> JoinError {
    let is_about_trust =
        tls_error(error).is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    let code = if is_about_trust { Code::ServerUntrusted } else { Code::ServerUnreachable };
    JoinError::new(code, format!("{endpoint}: {error}"))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// One HTTP/2 connection as a service.
#[derive(Clone)]
pub(super) struct Http2(SendRequest<tonic::body::Body>);

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

/// Waits until the server has looked at the node's certificate.
///
/// In TLS 1.3 the client is done before the server looks, so a refusal comes as an alert in place of
/// the first data. In HTTP/2 the server's settings come unasked, so there is always something to read;
/// and who writes before reading may lose the alert to the reset that answers the write.
async fn hear_verdict(tls: &mut TlsStream<TcpStream>) -> Result<(), JoinError> {
    let Ok(heard) = timeout(VERDICT_TIMEOUT, tls.fill_buf()).await else {
        // It waits for our first words: then the exchange will tell.
        return Ok(());
    };
    match heard {
        Ok([]) => Err(JoinError::new(Code::ServerUnreachable, "the server closed the connection")),
        Ok(_) => Ok(()),
        Err(error) => Err(match tls_error(&error) {
            Some(rustls::Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
                let refusal =
                    format!("the server does not accept this node's certificate: {alert:?}");
                JoinError::new(Code::CertificateRequired, refusal)
            }
            _ => JoinError::new(Code::ServerUnreachable, error.to_string()),
        }),
    }
}

/// The alerts of RFC 8446, section 6.2, that a server sends when it does not take a certificate.
/// `decrypt_error` is one of them: another CA of the same name has not signed it.
fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
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

//! HTTP towards AWS: the SDK's client with roots, proxy and limits from the configuration alone.
//!
//! Nothing here reads the environment: one line of it (`AWS_ENDPOINT_URL_STS`, `AWS_CA_BUNDLE`,
//! `SSL_CERT_FILE`, `HTTPS_PROXY`) could otherwise answer "yes, that is this instance" for
//! everybody (T75).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::quote::with_causes;
use crate::domain::Timestamp;

/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest file of roots that is read.
const ROOTS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Where Debian, Fedora and their children, openSUSE and Alpine keep their roots.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How AWS is reached.
#[derive(Debug, Clone, Default)]
pub struct HttpSettings {
    /// A PEM file of roots instead of the system's.
    pub roots_file: Option<PathBuf>,
    /// A proxy for all calls, for example `http://proxy.example:3128`.
    pub proxy: Option<String>,
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableHttp(String);

/// The client; cheap to clone, with one pool of connections.
#[derive(Clone)]
pub struct AwsHttp {
    connector: SharedHttpConnector,
    roots: String,
}

/// An answer that came whole and within its limits.
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// When it was sent, by the clock of who answers.
    pub date: Option<Timestamp>,
    /// The media type, lower case, without its parameters.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// No answer, or none that is whole: an outage, never a denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody answered within the time.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The connection failed, or ended in the middle of an answer.
    #[error("{0}")]
    Broken(String),
    /// The answer is longer than any honest one.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// How long an answer may take, and how long it may be.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLimits {
    /// From the first byte sent to the last one received.
    pub time: Duration,
    /// Of the body, in bytes.
    pub bytes: usize,
}

impl AwsHttp {
    /// The client for these settings. Reads the file of roots now, and never again.
    pub fn new(settings: &HttpSettings) -> Result<Self, UnusableHttp> {
        let (roots, pem) = match &settings.roots_file {
            Some(path) => roots_of(path)?,
            None => SYSTEM_ROOTS
                .iter()
                .find_map(|path| roots_of(Path::new(path)).ok())
                .ok_or_else(no_system_roots)?,
        };
        let trust = TrustStore::empty().with_pem_certificate(pem);
        Self::with_trust(trust, roots, settings.proxy.as_deref())
    }

    /// A client that trusts no certificate at all: for a simulator on this machine.
    pub fn plain() -> Result<Self, UnusableHttp> {
        Self::with_trust(TrustStore::empty(), "none".to_owned(), None)
    }

    fn with_trust(
        trust: TrustStore,
        roots: String,
        proxy: Option<&str>,
    ) -> Result<Self, UnusableHttp> {
        let context = TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|error| UnusableHttp(format!("TLS towards AWS: {error}")))?;
        let proxy = match proxy {
            Some(url) => ProxyConfig::all(url).map_err(|error| {
                UnusableHttp(format!("aws.proxy is not a proxy's address: {error}"))
            })?,
            None => ProxyConfig::disabled(),
        };
        let limits = aws_smithy_runtime_api::client::http::HttpConnectorSettings::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .build();
        let connector = Connector::builder()
            .connector_settings(limits)
            .proxy_config(proxy)
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context)
            .build();
        Ok(Self { connector: SharedHttpConnector::new(connector), roots })
    }

    /// The same client for the SDK's own service clients.
    pub fn for_sdk(&self) -> SharedHttpClient {
        let connector = self.connector.clone();
        http_client_fn(move |_settings, _components| connector.clone())
    }

    /// Which roots are trusted, for the log.
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// Sends a request and reads its whole answer. Redirects are not followed: a 3xx is an answer
    /// like any other.
    pub async fn send(
        &self,
        request: Request<Vec<u8>>,
        limits: AnswerLimits,
    ) -> Result<Answer, NoAnswer> {
        tokio::time::timeout(limits.time, self.exchange(request, limits.bytes))
            .await
            .map_err(|_| NoAnswer::TimedOut(limits.time))?
    }

    async fn exchange(
        &self,
        request: Request<Vec<u8>>,
        bytes_max: usize,
    ) -> Result<Answer, NoAnswer> {
        let request = HttpRequest::try_from(request.map(SdkBody::from))
            .map_err(|error| NoAnswer::Broken(error.to_string()))?;
        let response = self.connector.call(request).await.map_err(|error| broken(&error))?;
        let response = response.try_into_http1x().map_err(|error| broken(&error))?;
        let status = response.status();
        let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| OffsetDateTime::parse(text, &Rfc2822).ok());
        let date = date.map(|date| Timestamp::from_unix_seconds(date.unix_timestamp()));
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default();
        let content_type = content_type.trim().to_ascii_lowercase();
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                NoAnswer::TooLong(bytes_max)
            } else {
                NoAnswer::Broken(with_causes(error.as_ref()))
            }
        })?;
        Ok(Answer { status, date, content_type, body: body.to_bytes().to_vec() })
    }
}

impl fmt::Debug for AwsHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsHttp").field("roots", &self.roots).finish_non_exhaustive()
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> NoAnswer {
    NoAnswer::Broken(with_causes(error))
}

fn no_system_roots() -> UnusableHttp {
    UnusableHttp(format!(
        "no roots for TLS towards AWS: none of {} can be read; install ca-certificates or set \
         aws.tls_roots",
        SYSTEM_ROOTS.join(", ")
    ))
}

/// The certificates of a file as PEM, without those that cannot be used: the SDK's client ends the
/// process over one of them.
fn roots_of(path: &Path) -> Result<(String, Vec<u8>), UnusableHttp> {
    use std::io::Read;
    let name = path.display();
    let mut contents = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(ROOTS_BYTES_MAX).read_to_end(&mut contents))
        .map_err(|error| UnusableHttp(format!("the roots in {name} cannot be read: {error}")))?;
    let mut pem = Vec::new();
    let mut count = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&contents).flatten() {
        if RootCertStore::empty().add(certificate.clone()).is_ok() {
            let text = BASE64.encode(&certificate);
            pem.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
            pem.extend_from_slice(text.as_bytes());
            pem.extend_from_slice(b"\n-----END CERTIFICATE-----\n");
            count += 1;
        }
    }
    if count == 0 {
        return Err(UnusableHttp(format!("{name} holds no certificate that can be a root")));
    }
    Ok((format!("{count} roots of {name}"), pem))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const LIMITS: AnswerLimits = AnswerLimits { time: Duration::from_secs(5), bytes: 1024 };

    /// A root, and a server on this machine with a certificate of it that says "yes" to everything.
    async fn server() -> (tempfile::NamedTempFile, String) {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&ca_key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), root.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(stream).await else { continue };
                let _request = tls.read(&mut [0; 4096]).await;
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nyes";
                let _gone = tls.write_all(answer.as_bytes()).await;
                let _closed = tls.shutdown().await;
            }
        });
        (file, format!("https://localhost:{port}/"))
    }

    async fn ask(settings: &HttpSettings, url: &str) -> Result<Vec<u8>, NoAnswer> {
        let request = Request::builder().uri(url).body(Vec::new()).unwrap();
        let answer = AwsHttp::new(settings).unwrap().send(request, LIMITS).await;
        answer.map(|answer| answer.body)
    }

    // S6: who AWS is, is a question of roots; only those of the settings count.
    #[tokio::test]
    async fn only_the_roots_of_the_settings_are_believed() {
        let (root, url) = server().await;
        let with = |file: Option<&Path>| HttpSettings {
            roots_file: file.map(Path::to_owned),
            ..HttpSettings::default()
        };
        assert_eq!(ask(&with(Some(root.path())), &url).await, Ok(b"yes".to_vec()));
        let (another, _) = server().await;
        for settings in [with(Some(another.path())), with(None)] {
            let refused = ask(&settings, &url).await.unwrap_err();
            assert!(matches!(refused, NoAnswer::Broken(_)), "{refused}");
        }
        let plain = AwsHttp::plain().unwrap();
        let request = Request::builder().uri(&url).body(Vec::new()).unwrap();
        assert!(plain.send(request, LIMITS).await.is_err(), "a simulation's client trusts nobody");
    }

    #[tokio::test]
    async fn a_proxy_of_the_settings_is_asked_for_a_tunnel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let length = stream.read(&mut bytes).await.unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        });
        let settings = HttpSettings { proxy: Some(proxy), ..HttpSettings::default() };
        assert!(ask(&settings, "https://sts.us-west-2.amazonaws.com/").await.is_err());
        let heard = heard.await.unwrap();
        assert!(heard.starts_with("CONNECT sts.us-west-2.amazonaws.com:443 "), "{heard}");
    }

    // I14, T49.
    #[tokio::test]
    async fn an_answer_is_bounded_in_time_and_length() {
        let (root, url) = server().await;
        let settings =
            HttpSettings { roots_file: Some(root.path().to_owned()), ..HttpSettings::default() };
        let http = AwsHttp::new(&settings).unwrap();
        let request = || Request::builder().uri(&url).body(Vec::new()).unwrap();
        let short = AnswerLimits { bytes: 2, ..LIMITS };
        assert_eq!(http.send(request(), short).await.err(), Some(NoAnswer::TooLong(2)));
        let none = AnswerLimits { time: Duration::ZERO, ..LIMITS };
        let late = http.send(request(), none).await.err();
        assert_eq!(late, Some(NoAnswer::TimedOut(Duration::ZERO)));
    }

    #[test]
    fn a_file_of_roots_has_certificates() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for wrong in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x"] {
            std::fs::write(file.path(), wrong).unwrap();
            let settings = HttpSettings {
                roots_file: Some(file.path().to_owned()),
                ..HttpSettings::default()
            };
            assert!(AwsHttp::new(&settings).is_err(), "{wrong}");
        }
    }
}

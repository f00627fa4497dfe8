//! The instance metadata service, version 2 only: a session token first, then what the instance is.
//!
//! Plain HTTP straight to the endpoint: no proxy, no redirect, no environment variable. Every
//! answer and every wait is bounded (I14).

use std::fmt;
use std::time::Duration;

use http::header::{HOST, HeaderValue};
use http::{HeaderName, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use zeroize::Zeroize;

use super::{Json, TemporaryCredentials};
use crate::domain::{Code, InstanceId, Region, Timestamp};

/// The link-local address of every instance; `[fd00:ec2::254]` is the one for IPv6.
const DEFAULT_HOST: &str = "169.254.169.254";
const TOKEN_PATH: &str = "/latest/api/token";
const DOCUMENT_PATH: &str = "/latest/dynamic/instance-identity/rsa2048";
const IDENTITY_CREDENTIALS_PATH: &str =
    "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
const PLAIN_DOCUMENT_PATH: &str = "/latest/dynamic/instance-identity/document";
const REGION_PATH: &str = "/latest/meta-data/placement/region";
const INSTANCE_ID_PATH: &str = "/latest/meta-data/instance-id";
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Long enough for one join, too short to be worth stealing.
const TOKEN_TTL_SECONDS: HeaderValue = HeaderValue::from_static("60");
/// For one request with its connection. The service is on the same host and answers in
/// milliseconds; an answer that the hop limit drops never comes.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Text that is not the address of a metadata service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `http://HOST[:PORT][/PATH]` as metadata endpoint")]
pub struct InvalidEndpoint;

/// The metadata service did not give what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MetadataUnavailable(String);

impl MetadataUnavailable {
    /// The code that it is reported under.
    pub fn code(&self) -> Code {
        Code::MetadataUnavailable
    }
}

/// Where the metadata service is.
#[derive(Debug, Clone)]
pub struct Imds {
    /// Host and port to connect to.
    address: String,
    /// The Host header.
    authority: HeaderValue,
    /// What stands before every path: empty, or the instance's path in a simulation.
    prefix: String,
    timeout: Duration,
}

impl Default for Imds {
    fn default() -> Self {
        Self {
            address: format!("{DEFAULT_HOST}:80"),
            authority: HeaderValue::from_static(DEFAULT_HOST),
            prefix: String::new(),
            timeout: TIMEOUT,
        }
    }
}

impl Imds {
    /// The service at this URL; a path is put before every path that is read.
    pub fn at(endpoint: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = endpoint.parse().map_err(|_| InvalidEndpoint)?;
        let authority = uri.authority().ok_or(InvalidEndpoint)?;
        let is_plain = uri.scheme_str() == Some("http")
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        if !is_plain {
            return Err(InvalidEndpoint);
        }
        Ok(Self {
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| InvalidEndpoint)?,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            timeout: TIMEOUT,
        })
    }

    /// Begins a session: fetches the token that every other request needs.
    pub async fn session(&self) -> Result<ImdsSession<'_>, MetadataUnavailable> {
        let request = self.request(Method::PUT, TOKEN_PATH, TOKEN_TTL, TOKEN_TTL_SECONDS)?;
        let (status, token) = self.send(request).await.map_err(|failed| {
            self.failed(&format!(
                "{failed}; if this runs in a container, the instance's metadata hop limit may be \
                 too low (HttpPutResponseHopLimit)"
            ))
        })?;
        if status != StatusCode::OK {
            return Err(self.failed(&match status {
                StatusCode::FORBIDDEN => {
                    "it is turned off for this instance (HttpEndpoint: disabled)".to_owned()
                }
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => format!(
                    "it answered {status} to the request for a session token; is it an EC2 \
                     metadata service with IMDSv2?"
                ),
                _ => format!("it answered {status} to the request for a session token"),
            }));
        }
        let mut token = HeaderValue::from_str(token.trim())
            .map_err(|_| self.failed("its session token is not text"))?;
        token.set_sensitive(true);
        Ok(ImdsSession { imds: self, token })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        name: HeaderName,
        value: HeaderValue,
    ) -> Result<Request<Empty<Bytes>>, MetadataUnavailable> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, self.authority.clone())
            .header(name, value)
            .body(Empty::new())
            .map_err(|error| self.failed(&error.to_string()))
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Result<(StatusCode, String), String> {
        match tokio::time::timeout(self.timeout, exchange(&self.address, request)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it did not answer within {} s", self.timeout.as_secs())),
        }
    }

    fn failed(&self, what: &str) -> MetadataUnavailable {
        MetadataUnavailable(format!("metadata service at {}: {what}", self.address))
    }
}

/// A session with the metadata service.
pub struct ImdsSession<'a> {
    imds: &'a Imds,
    token: HeaderValue,
}

impl ImdsSession<'_> {
    /// The identity document in the one form that is accepted: base64 of a signed message.
    pub async fn rsa2048_document(&self) -> Result<String, MetadataUnavailable> {
        self.read(DOCUMENT_PATH).await
    }

    /// The credentials of the instance identity role, which every instance has without any set-up in
    /// IAM.
    pub async fn identity_credentials(&self) -> Result<TemporaryCredentials, MetadataUnavailable> {
        let mut text = self.read(IDENTITY_CREDENTIALS_PATH).await?;
        let members = Json::parse(text.as_bytes()).ok().and_then(Json::into_object);
        text.zeroize();
        let mut members = members.unwrap_or_default();
        let mut take = |name| match members.remove(name) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        };
        let parts = (take("AccessKeyId"), take("SecretAccessKey"), take("Token"));
        let (Some(access_key_id), Some(secret_access_key), Some(session_token)) = parts else {
            let what = format!("its {IDENTITY_CREDENTIALS_PATH} holds no credentials");
            return Err(self.imds.failed(&what));
        };
        Ok(TemporaryCredentials { access_key_id, secret_access_key, session_token })
    }

    /// Which instance this is.
    pub async fn instance_id(&self) -> Result<InstanceId, MetadataUnavailable> {
        let text = self.read(INSTANCE_ID_PATH).await?;
        text.trim().parse().map_err(|error| {
            self.imds.failed(&format!("its {INSTANCE_ID_PATH} is no instance id: {error}"))
        })
    }

    /// Where the instance runs. Stand-ins for the metadata service often lack the path that says so;
    /// then the plain document does. Nobody believes it: the server reads the signed one.
    pub async fn region(&self) -> Result<Region, MetadataUnavailable> {
        let unreadable = |path| self.imds.failed(&format!("its {path} holds no region"));
        if let Ok(text) = self.read(REGION_PATH).await {
            return text.trim().parse().map_err(|_| unreadable(REGION_PATH));
        }
        let region = self.member_of_plain_document("region").await?;
        region.and_then(|region| region.parse().ok()).ok_or_else(|| unreadable(PLAIN_DOCUMENT_PATH))
    }

    /// Since when the instance runs: another time after each stop and start. Nobody believes it, the
    /// caller keeps its own books with it. Nothing if the service does not say, as stand-ins for it
    /// often do.
    pub async fn pending_time(&self) -> Option<Timestamp> {
        self.member_of_plain_document("pendingTime").await.ok()??.parse().ok()
    }

    async fn member_of_plain_document(
        &self,
        name: &str,
    ) -> Result<Option<String>, MetadataUnavailable> {
        let text = self.read(PLAIN_DOCUMENT_PATH).await?;
        let members = Json::parse(text.as_bytes()).ok().and_then(Json::into_object);
        Ok(match members.unwrap_or_default().remove(name) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        })
    }

    async fn read(&self, path: &str) -> Result<String, MetadataUnavailable> {
        let request = self.imds.request(Method::GET, path, TOKEN, self.token.clone())?;
        let (status, text) = self
            .imds
            .send(request)
            .await
            .map_err(|failed| self.imds.failed(&format!("{failed} ({path})")))?;
        match status {
            StatusCode::OK => Ok(text),
            StatusCode::UNAUTHORIZED => Err(self.imds.failed(&format!(
                "it does not accept its own session token ({path}); does something between \
                 change requests?"
            ))),
            StatusCode::NOT_FOUND => Err(self.imds.failed(&format!(
                "it has no {path}; is it the metadata service of an EC2 instance?"
            ))),
            _ => Err(self.imds.failed(&format!("it answered {status} ({path})"))),
        }
    }
}

impl fmt::Debug for ImdsSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImdsSession({})", self.imds.address)
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// One request on a connection of its own.
async fn exchange(
    address: &str,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, String), Failed> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        read(response).await
    };
    // The connection is driven beside the request and dropped with it: no task outlives the call.
    let mut connection = std::pin::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        closed = &mut connection => {
            closed?;
            answer.await
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<(StatusCode, String), Failed> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?;
    let text = String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "its answer is not text")?;
    Ok((status, text))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A service that gives these answers, one a connection, and keeps the requests.
    async fn service(
        answers: &'static [(u16, &'static str)],
    ) -> (Imds, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/i-1/", listener.local_addr().unwrap());
        let requests = tokio::spawn(async move {
            let mut requests = String::new();
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                requests.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                let mut answer = String::new();
                write!(answer, "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len())
                    .unwrap();
                write!(answer, "location: http://127.0.0.1:1/\r\n\r\n{body}").unwrap();
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
            requests
        });
        (Imds::at(&endpoint).unwrap(), requests)
    }

    #[tokio::test]
    async fn a_session_sends_its_token_and_keeps_the_path_of_its_endpoint() {
        let (imds, requests) =
            service(&[(200, "secret\n"), (200, "DOC"), (200, "i-0123abcd")]).await;
        let session = imds.session().await.unwrap();
        assert_eq!(session.rsa2048_document().await.unwrap(), "DOC");
        assert_eq!(session.instance_id().await.unwrap().as_str(), "i-0123abcd");
        assert!(!format!("{session:?}{imds:?}").contains("secret"));
        let requests = requests.await.unwrap();
        assert!(requests.starts_with("PUT /i-1/latest/api/token HTTP/1.1"), "{requests}");
        assert!(requests.contains("x-aws-ec2-metadata-token-ttl-seconds: 60"), "{requests}");
        assert!(
            requests.contains("GET /i-1/latest/dynamic/instance-identity/rsa2048"),
            "{requests}"
        );
        assert_eq!(requests.matches("x-aws-ec2-metadata-token: secret").count(), 2, "{requests}");
    }

    #[tokio::test]
    async fn the_region_is_found_without_its_own_path() {
        let (imds, _) = service(&[(200, "t"), (200, "us-west-2\n")]).await;
        let region = imds.session().await.unwrap().region().await.unwrap();
        assert_eq!(region.as_str(), "us-west-2");
        let (imds, requests) = service(&[
            (200, "t"),
            (404, ""),
            (200, r#"{"region" : "eu-west-1", "kernelId" : null}"#),
        ])
        .await;
        let region = imds.session().await.unwrap().region().await.unwrap();
        assert_eq!(region.as_str(), "eu-west-1");
        assert!(requests.await.unwrap().contains("/i-1/latest/dynamic/instance-identity/document"));
        for wrong in [&[(200, "t"), (200, "nowhere")][..], &[(200, "t"), (404, ""), (200, "{}")]] {
            let answers: &[(u16, &str)] = Box::leak(wrong.to_vec().into_boxed_slice());
            let (imds, _) = service(answers).await;
            assert!(imds.session().await.unwrap().region().await.is_err());
        }
    }

    #[tokio::test]
    async fn the_time_of_the_start_is_told_or_unknown() {
        let document = r#"{"pendingTime" : "2026-01-02T03:04:05Z", "region" : "eu-west-1"}"#;
        for (answer, expected) in [
            ((200, document), Some("2026-01-02T03:04:05Z".parse().unwrap())),
            ((200, "{}"), None),
            ((200, r#"{"pendingTime": 7}"#), None),
            ((404, ""), None),
        ] {
            let (imds, _) = service(Box::leak(Box::new([(200, "t"), answer]))).await;
            assert_eq!(imds.session().await.unwrap().pending_time().await, expected);
        }
    }

    // I10: credentials are read strictly, and an error does not repeat them.
    #[tokio::test]
    async fn credentials_are_read_or_not_repeated() {
        let good = r#"{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t"}"#;
        let (imds, _) = service(Box::leak(Box::new([(200, "t"), (200, good)]))).await;
        let found = imds.session().await.unwrap().identity_credentials().await.unwrap();
        assert_eq!((found.access_key_id.as_str(), found.session_token.as_str()), ("ASIA", "t"));
        for wrong in [
            r#"{"AccessKeyId":"ASIA","SecretAccessKey":"canary"}"#,
            r#"{"AccessKeyId":"ASIA","SecretAccessKey":"canary","Token":null}"#,
            r#"{"SecretAccessKey":"canary","SecretAccessKey":"canary","AccessKeyId":"A","Token":"t"}"#,
            "canary",
        ] {
            let (imds, _) = service(Box::leak(Box::new([(200, "t"), (200, wrong)]))).await;
            let error = imds.session().await.unwrap().identity_credentials().await.unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_refusal_says_what_to_look_at() {
        for (status, expected) in [(403, "HttpEndpoint"), (404, "IMDSv2"), (500, "500")] {
            let answers: &[(u16, &str)] = Box::leak(Box::new([(status, "")]));
            let (imds, _) = service(answers).await;
            let error = imds.session().await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.code(), Code::MetadataUnavailable);
        }
        for (status, expected) in [(401, "session token"), (404, "rsa2048"), (302, "302")] {
            let answers: &[(u16, &str)] = Box::leak(Box::new([(200, "t"), (status, "")]));
            let (imds, _) = service(answers).await;
            let session = imds.session().await.unwrap();
            let error = session.rsa2048_document().await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    // T35: an endless answer is cut off.
    #[tokio::test]
    async fn an_answer_is_bounded() {
        let body: &'static str = Box::leak("x".repeat(MAX_ANSWER_BYTES + 1).into_boxed_str());
        let answers: &[(u16, &str)] = Box::leak(Box::new([(200, body)]));
        let (imds, _) = service(answers).await;
        assert!(imds.session().await.is_err());
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_hop_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = Imds::at(&format!("http://{address}")).unwrap().session().await.unwrap_err();
        assert!(error.to_string().contains("HttpPutResponseHopLimit"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_service_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut imds = Imds::at(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        imds.timeout = Duration::ZERO;
        let error = imds.session().await.unwrap_err();
        assert!(error.to_string().contains("did not answer within"), "{error}");
    }

    #[test]
    fn endpoints_are_plain_http() {
        for (endpoint, address, prefix) in [
            ("http://169.254.169.254", "169.254.169.254:80", ""),
            ("http://[fd00:ec2::254]/", "[fd00:ec2::254]:80", ""),
            ("http://127.0.0.1:1338/i-1", "127.0.0.1:1338", "/i-1"),
        ] {
            let imds = Imds::at(endpoint).unwrap();
            assert_eq!((imds.address.as_str(), imds.prefix.as_str()), (address, prefix));
        }
        for wrong in
            ["", "127.0.0.1", "https://x/", "http://", "http://u:p@x/", "http://x/?q", "ftp://x"]
        {
            assert!(Imds::at(wrong).is_err(), "{wrong}");
        }
    }
}

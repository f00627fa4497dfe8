//! One good signed request, and every way in which a single thing about it is wrong.

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::Value;

use super::*;
use crate::sim::api;

pub(super) const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const ACCEPT: (&str, &str) = ("accept", "application/json");
const TYPE: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub(super) const BINDING: (&str, &str) = ("x-muster-key-binding", "abc");

/// A request that is signed right.
pub(super) struct Signing<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) headers: &'a [(&'static str, &'static str)],
    pub(super) host: String,
    pub(super) body: String,
    pub(super) at: Timestamp,
}

impl<'a> Signing<'a> {
    /// As a node's, answered as JSON.
    pub(super) fn new(credentials: &'a Credentials, service: &'a str, body: &str) -> Self {
        Self {
            credentials,
            region: "us-west-2",
            service,
            headers: &[ACCEPT, TYPE, BINDING],
            host: format!("{service}.us-west-2.amazonaws.com"),
            body: body.to_owned(),
            at: NOW,
        }
    }

    pub(super) fn request(&self) -> Request<Body> {
        use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
        let identity = self.credentials.clone().into();
        let time = std::time::UNIX_EPOCH
            + std::time::Duration::from_secs(self.at.unix_seconds().try_into().unwrap());
        let parameters = aws_sigv4::sign::v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let mut request = Request::post("/").header("host", &self.host);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(self.body.clone())).unwrap();
        let host = [("host", self.host.as_str())];
        let headers = self.headers.iter().copied().chain(host);
        let body = SignableBody::Bytes(self.body.as_bytes());
        let signable =
            SignableRequest::new("POST", format!("http://{}/", self.host), headers, body).unwrap();
        let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
        instructions.apply_to_request_http1x(&mut request);
        request
    }
}

pub(super) async fn text(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub(super) async fn send(simulator: &Arc<Simulator>, request: Request<Body>) -> (u16, String) {
    text(api::answer(State(simulator.clone()), request).await).await
}

/// Status and code of an answer to a request.
async fn refusal(simulator: &Arc<Simulator>, request: Request<Body>) -> (u16, String) {
    let (status, body) = send(simulator, request).await;
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
    (status, body["Error"]["Code"].as_str().unwrap_or("no error").to_owned())
}

fn instance_credentials(simulator: &Simulator) -> Credentials {
    simulator.identity_credentials(&id("i-0123456789abcdef0")).unwrap()
}

fn set(request: &mut Request<Body>, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().insert(HeaderName::from_static(name), value);
}

fn authorization(request: &Request<Body>) -> String {
    request.headers()["authorization"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_instance_says_who_it_is() {
    let simulator = simulator(&Clock::fixed(NOW));
    let credentials = instance_credentials(&simulator);
    let (status, body) = send(&simulator, Signing::new(&credentials, "sts", BODY).request()).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let result = &body["GetCallerIdentityResponse"]["GetCallerIdentityResult"];
    assert_eq!(status, 200);
    assert_eq!(result["Account"], "111122223333");
    assert_eq!(
        result["Arn"],
        "arn:aws:sts::111122223333:assumed-role/aws:ec2-instance/i-0123456789abcdef0"
    );
    assert_eq!(result["UserId"], "111122223333:aws:ec2-instance:i-0123456789abcdef0");
}

#[tokio::test]
async fn whatever_is_changed_after_signing_is_refused() {
    let simulator = simulator(&Clock::fixed(NOW));
    let credentials = instance_credentials(&simulator);
    let good = || Signing::new(&credentials, "sts", BODY).request();
    let signed = ["accept", "content-type", "host", "x-amz-date", "x-amz-security-token"];
    for name in signed.into_iter().chain([BINDING.0]) {
        let mut changed = good();
        let value = changed.headers()[name].to_str().unwrap().to_owned();
        set(&mut changed, name, &format!("{value}x"));
        let (status, body) = send(&simulator, changed).await;
        assert!(matches!(status, 400 | 403), "{name} changed: {status} {body}");

        let mut gone = good();
        gone.headers_mut().remove(name);
        let (status, body) = send(&simulator, gone).await;
        assert!(matches!(status, 400 | 403), "{name} removed: {status} {body}");

        let mut unsigned = good();
        let dropped = authorization(&unsigned)
            .replace(&format!("={name};"), "=")
            .replace(&format!(";{name}"), "");
        assert!(!dropped.contains(name));
        set(&mut unsigned, "authorization", &dropped);
        let (status, body) = send(&simulator, unsigned).await;
        assert!(matches!(status, 400 | 403), "{name} not signed: {status} {body}");

        let mut twice = good();
        let value = HeaderValue::from_str(&value).unwrap();
        twice.headers_mut().append(HeaderName::from_static(name), value);
        let (status, body) = send(&simulator, twice).await;
        assert!(matches!(status, 400 | 403), "{name} twice: {status} {body}");
    }
    for body in ["", "Action=GetCallerIdentity&Version=2011-06-15&", "Action=GetCallerIdentity"] {
        let (mut parts, _) = good().into_parts();
        parts.headers.remove("content-length");
        let request = Request::from_parts(parts, Body::from(body));
        let refused = refusal(&simulator, request).await;
        assert_eq!(refused, (403, "SignatureDoesNotMatch".to_owned()));
    }
    for (method, path) in [("GET", "/"), ("POST", "/x"), ("POST", "/?a=b")] {
        let mut request = good();
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = path.parse().unwrap();
        let refused = refusal(&simulator, request).await;
        assert_eq!(refused, (403, "SignatureDoesNotMatch".to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn the_scope_is_part_of_what_is_signed() {
    let simulator = simulator(&Clock::fixed(NOW));
    let credentials = instance_credentials(&simulator);
    let good = || Signing::new(&credentials, "sts", BODY).request();
    let right = authorization(&good());
    for (from, to) in [
        ("us-west-2", "us-west-1"),
        ("us-west-2", "cn-north-1"),
        ("/sts/", "/iam/"),
        ("/20270115/", "/20270114/"),
        ("Signature=", "Signature=0"),
        ("Credential=ASIA", "Credential=AKIA"),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        ("aws4_request", "aws4"),
        (", Signed", ", X=1, Signed"),
        ("accept;content-type", "content-type;accept"),
        ("accept;", "accept;accept;"),
    ] {
        let mut request = good();
        assert!(right.contains(from), "{right}");
        set(&mut request, "authorization", &right.replace(from, to));
        let (status, body) = send(&simulator, request).await;
        assert!(matches!(status, 400 | 403), "{from} to {to}: {status} {body}");
    }
    // Another service's answer is not to be had with a signature for it, either.
    let (status, body) = send(&simulator, Signing::new(&credentials, "ec2", BODY).request()).await;
    assert_eq!(status, 501, "{body}");
    let elsewhere = Signing {
        host: "sts.us-west-1.amazonaws.com".to_owned(),
        ..Signing::new(&credentials, "sts", BODY)
    };
    let refused = refusal(&simulator, elsewhere.request()).await;
    assert_eq!(refused, (403, "SignatureDoesNotMatch".to_owned()));
}

#[tokio::test]
async fn credentials_that_are_not_whole_are_refused() {
    let simulator = simulator(&Clock::fixed(NOW));
    let credentials = instance_credentials(&simulator);
    let own = simulator.server_credentials();
    let secret = credentials.secret_access_key();
    let token = credentials.session_token().map(str::to_owned);
    let made = |key_id: &str, secret: &str, token: Option<String>| {
        Credentials::new(key_id, secret, token, None, "test")
    };
    let key_id = credentials.access_key_id();
    for (credentials, code) in [
        (made(key_id, "wrong", token.clone()), "SignatureDoesNotMatch"),
        (made(key_id, own.secret_access_key(), token.clone()), "SignatureDoesNotMatch"),
        (made(own.access_key_id(), "wrong", None), "SignatureDoesNotMatch"),
        (made(key_id, secret, None), "InvalidClientTokenId"),
        (made(key_id, secret, Some("AAAA".to_owned())), "InvalidClientTokenId"),
        (made("ASIAQQQQQQQQQQQQQQQQ", secret, token.clone()), "InvalidClientTokenId"),
        (made("AKIAQQQQQQQQQQQQQQQQ", secret, None), "InvalidClientTokenId"),
        (made(own.access_key_id(), own.secret_access_key(), token), "InvalidClientTokenId"),
    ] {
        let request = Signing::new(&credentials, "sts", BODY).request();
        assert_eq!(refusal(&simulator, request).await, (403, code.to_owned()));
    }
    let mut unsigned = Signing::new(&credentials, "sts", BODY).request();
    unsigned.headers_mut().remove("authorization");
    let refused = refusal(&simulator, unsigned).await;
    assert_eq!(refused, (403, "MissingAuthenticationToken".to_owned()));
}

#[tokio::test]
async fn time_limits_hold_to_the_second() {
    let clock = Clock::fixed(NOW);
    let simulator = simulator(&clock);
    let credentials = instance_credentials(&simulator);
    let at =
        |at| refusal_code(&simulator, Signing { at, ..Signing::new(&credentials, "sts", BODY) });
    let window = Lifetime::from_minutes(15);
    let second = Lifetime::from_seconds(1);
    assert_eq!(at(NOW.minus(window)).await, "no error");
    assert_eq!(at(NOW.plus(window)).await, "no error");
    assert_eq!(at(NOW.minus(window).minus(second)).await, "SignatureDoesNotMatch");
    assert_eq!(at(NOW.plus(window).plus(second)).await, "SignatureDoesNotMatch");
    // Issued at the last full hour, for six hours.
    let left = NOW.unix_seconds() % 3600;
    clock.advance(Lifetime::from_seconds(u32::try_from(6 * 3600 - left - 1).unwrap()));
    assert_eq!(at(clock.now()).await, "no error");
    clock.advance(second);
    assert_eq!(at(clock.now()).await, "ExpiredToken");
}

async fn refusal_code(simulator: &Arc<Simulator>, signing: Signing<'_>) -> String {
    refusal(simulator, signing.request()).await.1
}

#[tokio::test]
async fn refusals_of_sts_are_xml_unless_json_is_asked_for() {
    let simulator = simulator(&Clock::fixed(NOW));
    let credentials = Credentials::new("AKIAQQQQQQQQQQQQQQQQ", "wrong", None, None, "test");
    let signing = Signing { headers: &[TYPE], ..Signing::new(&credentials, "sts", BODY) };
    let response = api::answer(State(simulator.clone()), signing.request()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()["content-type"], "text/xml");
    let (_, body) = text(response).await;
    assert!(body.contains("<Error><Type>Sender</Type><Code>InvalidClientTokenId</Code>"), "{body}");
}

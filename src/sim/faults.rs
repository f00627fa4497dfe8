//! Answers that no client should be taken in by, on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;

use super::Service;
use super::answer::{Answer, Refused, Style, sts_document, text};

/// How long a slow answer takes unless the fault says.
const DELAY: Duration = Duration::from_secs(30);
/// An account that nothing of a simulation has.
const STRANGER: &str = "999999999999";
const HUGE_STS: usize = 1024 * 1024;
const HUGE_EC2: usize = 20 * 1024 * 1024;
const HUGE_SSM: usize = 1024 * 1024;

/// What a service does instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It waits, does what it was asked, and answers right.
    Slow,
    /// It does what it was asked at once, and waits with its answer.
    Late,
    /// It answers 200 with a page of HTML, as a captive portal does.
    Html,
    /// It answers with two results, or each instance twice.
    TwoResults,
    /// It answers right, with 1 MiB of padding (EC2: 20 MiB).
    Huge,
    /// It says that there were too many requests.
    Throttled,
    /// It does what it was asked and closes the connection in the middle of its answer.
    CutOff,
    /// It answers 503.
    Unavailable,
    /// It answers another action, with the right answer as text inside (T1).
    OtherAction,
    /// It answers 200 with an error.
    #[serde(rename = "error_with_200")]
    ErrorWith200,
    /// It says things twice, a stranger's first (T5).
    DuplicateKeys,
    /// It answers 302 to itself.
    Redirect,
    /// It answers 200 and nothing.
    Empty,
}

/// A fault of a service, until it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What it does.
    pub kind: FaultKind,
    /// How long a slow answer takes.
    pub delay: Duration,
    /// How many requests it is for; all of them unless given.
    pub count: Option<u32>,
    /// How many of a hundred requests it strikes; all of them unless given.
    pub percent: Option<u8>,
    /// The only action that it strikes, if one is named.
    pub action: Option<&'static str>,
}

impl Fault {
    /// For every request; a slow or late answer takes 30 seconds.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, delay: DELAY, count: None, percent: None, action: None }
    }
}

/// The faults of now.
#[derive(Default)]
pub(super) struct Faults(Mutex<BTreeMap<Service, Fault>>);

impl Faults {
    pub(super) fn set(&self, service: Service, fault: Option<Fault>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault.filter(|fault| fault.count != Some(0)) {
            None => faults.remove(&service),
            Some(fault) => faults.insert(service, fault),
        };
    }

    /// The fault of the next request.
    pub(super) fn next(&self, service: Service, action: Option<&str>) -> Option<Fault> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = *faults.get(&service)?;
        let is_its_action = fault.action.is_none_or(|only| Some(only) == action);
        if !is_its_action || !fault.percent.is_none_or(strikes) {
            return None;
        }
        match fault.count {
            None => {}
            Some(0 | 1) => {
                faults.remove(&service);
            }
            Some(more) => {
                faults.insert(service, Fault { count: Some(more - 1), ..fault });
            }
        }
        Some(fault)
    }
}

/// Whether something happens that happens in so many of a hundred cases.
fn strikes(percent: u8) -> bool {
    // Without randomness it always does: a fault that was asked for is better than none.
    let random: [u8; 4] =
        rand::generate(&rand::SystemRandom::new()).map_or([0; 4], rand::Random::expose);
    u32::from_be_bytes(random) % 100 < u32::from(percent)
}

/// The answer of a service that takes no more requests.
pub(super) fn throttled(service: Service) -> Refused {
    match service {
        Service::Sts => Refused::new(400, "Throttling", "Rate exceeded"),
        Service::Ec2 => Refused::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        Service::Ssm => Refused::new(400, "ThrottlingException", "Rate exceeded"),
    }
}

impl FaultKind {
    /// Whether the service then does nothing of what it was asked.
    pub(super) fn is_refusal(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable)
    }

    /// Whether a service can have it. The others are forms of answers that SSM does not write.
    pub(super) fn suits(self, service: Service) -> bool {
        let is_form = matches!(
            self,
            Self::TwoResults | Self::OtherAction | Self::DuplicateKeys | Self::ErrorWith200
        );
        service != Service::Ssm || !is_form
    }

    /// What is sent when `right` should be.
    pub(super) fn distort(
        self,
        service: Service,
        style: Style,
        right: Answer,
        url: &str,
    ) -> Response<Body> {
        match self {
            Self::Slow | Self::Late => right.into_response(),
            Self::Html => {
                let body = "<!DOCTYPE html><html><body>Please log in.</body></html>".to_owned();
                Answer { status: StatusCode::OK, content_type: "text/html", body }.into_response()
            }
            Self::TwoResults => doubled(&right).into_response(),
            Self::Huge => padded(&right, service).into_response(),
            Self::Throttled => style.refuse(&throttled(service)).into_response(),
            Self::CutOff => cut_off(right),
            Self::Unavailable => {
                let message = "Service is unable to handle request.";
                let refused = Refused::new(503, "ServiceUnavailable", message);
                let style = if style == Style::Json { Style::Xml } else { style };
                style.refuse(&refused).into_response()
            }
            Self::OtherAction => other_action(&right, style).into_response(),
            Self::ErrorWith200 => {
                let refused = Refused::new(200, "InternalFailure", "Something went wrong.");
                style.refuse(&refused).into_response()
            }
            Self::DuplicateKeys => with_duplicates(&right).into_response(),
            Self::Redirect => redirected(url),
            Self::Empty => right.with_body(String::new()).into_response(),
        }
    }
}

/// With every result or instance twice.
fn doubled(right: &Answer) -> Answer {
    let body = &right.body;
    let identity = "\"GetCallerIdentityResult\":";
    let body = if let Some((before, after)) = body.split_once(identity) {
        let (result, rest) = after.split_once('}').unwrap_or((after, ""));
        format!("{before}{identity}[{result}}},{result}}}]{rest}")
    } else {
        let end_of_start = |name: &str| Some(body.find(&format!("<{name}>"))? + name.len() + 2);
        let twice = ["reservationSet", "GetCallerIdentityResult", "AssumeRoleResult"]
            .into_iter()
            .find_map(|name| {
                let (before, rest) = body.split_at_checked(end_of_start(name)?)?;
                let (inner, after) = rest.split_once(&format!("</{name}>"))?;
                let between = if name == "reservationSet" {
                    String::new()
                } else {
                    format!("</{name}><{name}>")
                };
                Some(format!("{before}{inner}{between}{inner}</{name}>{after}"))
            });
        twice.unwrap_or_else(|| body.clone())
    };
    right.with_body(body)
}

/// With padding that a reader has to read before it comes to the point.
fn padded(right: &Answer, service: Service) -> Answer {
    let size = match service {
        Service::Sts => HUGE_STS,
        Service::Ec2 => HUGE_EC2,
        Service::Ssm => HUGE_SSM,
    };
    let padding = "x".repeat(size);
    let body = if let Some(members) = right.body.strip_prefix('{') {
        format!("{{\"Padding\":\"{padding}\",{members}")
    } else {
        // After the start tag of the root, which has attributes or is the refusal's.
        right.body.replacen("><", &format!("><!-- {padding} --><"), 1)
    };
    right.with_body(body)
}

fn cut_off(right: Answer) -> Response<Body> {
    let (length, mut body) = (right.body.len().max(2), right.body.clone());
    body.truncate(body.floor_char_boundary(length / 2));
    // The first half has to be on its way when the connection breaks.
    let (sender, parts) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let _gone = sender.send(Ok(body)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _gone = sender.send(Err(io::Error::from(io::ErrorKind::ConnectionAborted))).await;
    });
    let mut response = right.into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() = Body::from_stream(ReceiverStream::new(parts));
    response
}

/// Another action's answer with text that its caller chose: the right identity, in both forms,
/// because readers that skip what they do not know look for either.
fn other_action(right: &Answer, style: Style) -> Answer {
    let reflected = format!("{}{}", as_xml(&right.body).unwrap_or_default(), right.body);
    match style {
        Style::Json => Answer::json(
            json!({"DecodeAuthorizationMessageResponse": {
                "DecodeAuthorizationMessageResult": {"DecodedMessage": reflected},
            }})
            .to_string(),
        ),
        Style::Xml | Style::Ec2 | Style::AwsJson => Answer::xml(sts_document(
            "DecodeAuthorizationMessage",
            &[text("DecodedMessage", reflected)],
        )),
    }
}

/// The XML of an identity in JSON.
fn as_xml(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let result = body.pointer("/GetCallerIdentityResponse/GetCallerIdentityResult")?;
    let members = ["Arn", "UserId", "Account"].map(|name| {
        text(name, result.get(name).and_then(|value| value.as_str()).unwrap_or_default())
    });
    Some(sts_document("GetCallerIdentity", &members))
}

/// With a stranger's account or image before the right one, and in JSON also beside it in lower
/// case.
fn with_duplicates(right: &Answer) -> Answer {
    let body = right
        .body
        .replacen(
            "\"Account\":",
            &format!("\"Account\":\"{STRANGER}\",\"account\":\"{STRANGER}\",\"Account\":"),
            1,
        )
        .replacen("<Account>", &format!("<Account>{STRANGER}</Account><Account>"), 1)
        .replace("<imageId>", "<imageId>ami-0fffffffffffffff0</imageId><imageId>")
        .replace("<ownerId>", &format!("<ownerId>{STRANGER}</ownerId><ownerId>"));
    right.with_body(body)
}

fn redirected(url: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    if let Ok(location) = HeaderValue::from_str(url) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

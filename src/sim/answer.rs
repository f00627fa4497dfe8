//! Answers and refusals in the forms of AWS's services, and the XML that they are made of.

use std::fmt::Display;

use aws_lc_rs::rand;
use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use quick_xml::escape::partial_escape;
use serde_json::json;

const STS_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const EC2_NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// A complete answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "application/json", body }
    }

    /// Of the JSON protocol.
    pub(super) fn aws_json(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "application/x-amz-json-1.1", body }
    }

    pub(super) fn xml(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "text/xml", body }
    }

    /// The same with another body.
    pub(super) fn with_body(&self, body: String) -> Self {
        Self { body, ..*self }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let content_type = header::HeaderValue::from_static(self.content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// A refusal, before it has a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refused {
    /// With a status of HTTP's; one that is none becomes 500.
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into() }
    }
}

/// How a service writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// STS and other services of the Query protocol.
    Xml,
    /// What STS answers to `Accept: application/json`.
    Json,
    /// EC2's own XML.
    Ec2,
    /// The JSON protocol of SSM and of most younger services.
    AwsJson,
}

impl Style {
    /// The style of a service for whoever sends these headers.
    pub(super) fn of(service: Option<&str>, headers: &HeaderMap) -> Self {
        let wants_json =
            headers.get(header::ACCEPT).is_some_and(|accept| accept == "application/json");
        match (service, wants_json) {
            (Some("ec2"), _) => Self::Ec2,
            (Some("ssm"), _) => Self::AwsJson,
            (_, true) => Self::Json,
            (_, false) => Self::Xml,
        }
    }

    /// EC2 and the JSON protocol have codes of their own for signatures (EC2 API reference, "Error
    /// codes"; SSM API reference, "Common Error Types").
    fn in_its_words(self, refused: &Refused) -> Refused {
        match (self, refused.code) {
            (Self::Ec2, "SignatureDoesNotMatch" | "InvalidClientTokenId") => {
                let message = "AWS was not able to validate the provided access credentials";
                Refused::new(401, "AuthFailure", message)
            }
            (Self::Ec2, "ExpiredToken") => {
                Refused::new(400, "RequestExpired", "Request has expired.")
            }
            (Self::AwsJson, "SignatureDoesNotMatch") => {
                Refused::new(400, "InvalidSignatureException", refused.message.clone())
            }
            (Self::AwsJson, "InvalidClientTokenId") => {
                Refused::new(400, "UnrecognizedClientException", refused.message.clone())
            }
            (Self::AwsJson, "ExpiredToken") => {
                Refused::new(400, "ExpiredTokenException", refused.message.clone())
            }
            (Self::AwsJson, "AccessDenied") => {
                Refused::new(400, "AccessDeniedException", refused.message.clone())
            }
            (_, _) => refused.clone(),
        }
    }

    /// A refusal in this style.
    pub(super) fn refuse(self, refused: &Refused) -> Answer {
        let Refused { status, code, message } = &self.in_its_words(refused);
        let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
        let answer = match self {
            Self::Json => Answer::json(
                json!({
                    "Error": {"Code": code, "Message": message, "Type": kind},
                    "RequestId": request_id(),
                })
                .to_string(),
            ),
            Self::Xml => Answer::xml(document(
                "ErrorResponse",
                STS_NAMESPACE,
                &[
                    element(
                        "Error",
                        &[text("Type", kind), text("Code", code), text("Message", message)],
                    ),
                    text("RequestId", request_id()),
                ],
            )),
            Self::AwsJson => {
                Answer::aws_json(json!({"__type": code, "message": message}).to_string())
            }
            Self::Ec2 => {
                let error = element("Error", &[text("Code", code), text("Message", message)]);
                let errors = element("Errors", &[error]);
                let content = element("Response", &[errors, text("RequestID", request_id())]);
                Answer::xml(format!("{DECLARATION}{content}"))
            }
        };
        Answer { status: *status, ..answer }
    }
}

/// The XML of an STS action's result.
pub(super) fn sts_document(action: &str, result: &[String]) -> String {
    let result = element(&format!("{action}Result"), result);
    let metadata = element("ResponseMetadata", &[text("RequestId", request_id())]);
    document(&format!("{action}Response"), STS_NAMESPACE, &[result, metadata])
}

/// The XML of an EC2 action's answer.
pub(super) fn ec2_document(action: &str, content: &[String]) -> String {
    let request = [text("requestId", request_id())];
    document(&format!("{action}Response"), EC2_NAMESPACE, &[&request, content].concat())
}

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

fn document(name: &str, namespace: &str, content: &[String]) -> String {
    format!("{DECLARATION}<{name} xmlns=\"{namespace}\">{}</{name}>", content.concat())
}

/// An element with elements in it.
pub(super) fn element(name: &str, content: &[String]) -> String {
    format!("<{name}>{}</{name}>", content.concat())
}

/// An element with text in it.
pub(super) fn text(name: &str, value: impl Display) -> String {
    format!("<{name}>{}</{name}>", partial_escape(value.to_string()))
}

/// Random, in the form of AWS's.
pub(super) fn request_id() -> String {
    let bytes: [u8; 16] =
        rand::generate(&rand::SystemRandom::new()).map(rand::Random::expose).unwrap_or_default();
    let digits = hex::encode(bytes);
    [0..8, 8..12, 12..16, 16..20, 20..32]
        .map(|range| digits.get(range).unwrap_or_default().to_owned())
        .join("-")
}

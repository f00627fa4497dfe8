//! The simulated services: one listener, on which the scope of a request's signature says whom it
//! is for. Beside them, below `/_sim/`, what tests steer and count by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use serde::Deserialize;

use super::answer::{Answer, Refused, Style};
use super::calls::known_action;
use super::faults::throttled;
use super::form::Form;
use super::scenario::{Span, tag_problem};
use super::sigv4::{Authorization, Signed, verify};
use super::{Fault, FaultKind, InstanceState, Service, Simulator, ec2, ssm, sts, upstream};
use crate::domain::{InstanceId, Timestamp};

/// The largest body that is read.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// The services and `/_sim/`; everything that no other route takes.
pub(super) fn routes(simulator: Arc<Simulator>) -> Router {
    Router::new()
        .route("/_sim/calls", get(calls))
        .route("/_sim/faults", put(set_fault))
        .route("/_sim/instances/{id}", put(change_instance))
        .fallback(answer)
        .with_state(simulator)
}

/// A request, read as far as it goes without believing anything.
struct Call {
    parts: Parts,
    body: Bytes,
    service: Option<Service>,
    form: Option<Form>,
    style: Style,
}

impl Call {
    fn new(parts: Parts, body: Bytes) -> Self {
        let scope =
            Authorization::of(&parts.headers).ok().map(|claimed| claimed.service.to_owned());
        let service = match scope.as_deref() {
            Some("sts") => Some(Service::Sts),
            Some("ec2") => Some(Service::Ec2),
            Some("ssm") => Some(Service::Ssm),
            Some(_) | None => None,
        };
        let form = Form::parse(&body);
        let style = Style::of(scope.as_deref(), &parts.headers);
        Self { parts, body, service, form, style }
    }

    fn action(&self) -> Option<&str> {
        match self.service {
            Some(Service::Ssm) => ssm::action_of(&self.parts.headers),
            Some(Service::Sts | Service::Ec2) | None => self.form.as_ref()?.get("Action"),
        }
    }

    /// Where it was sent.
    fn url(&self) -> String {
        let host = self.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        format!("http://{}{}", host.unwrap_or_default(), self.parts.uri.path())
    }
}

pub(super) async fn answer(
    State(simulator): State<Arc<Simulator>>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let call = Call::new(parts, body);
    simulator.counter.arrived(call.service, call.action());
    let signed = verify(&simulator.mint, simulator.clock.now(), &call.parts, &call.body);
    let Some(service) = call.service else {
        return match signed {
            Ok(signed) => forward(&simulator, call, &signed).await,
            Err(refused) => call.style.refuse(&refused).into_response(),
        };
    };
    if let Ok(signed) = &signed {
        simulator.counter.signed_by(service, &signed.principal.account);
    }
    tokio::time::sleep(simulator.settings.latency.of(service)).await;
    let fault = simulator.faults.next(service, call.action());
    if let Some(Fault { kind: FaultKind::Slow, delay, .. }) = fault {
        tokio::time::sleep(delay).await;
    }
    if service == Service::Ssm {
        return answer_ssm(&simulator, call, signed, fault).await;
    }
    let signed = match signed {
        Ok(signed) if !is_emulated(service, call.action()) => {
            return forward(&simulator, call, &signed).await;
        }
        signed => signed,
    };
    let right = signed
        .and_then(|signed| emulate(&simulator, &call, service, &signed))
        .unwrap_or_else(|refused| call.style.refuse(&refused));
    distorted(fault, service, call.style, right, &call.url()).await
}

/// The answer, or what a fault makes of it.
async fn distorted(
    fault: Option<Fault>,
    service: Service,
    style: Style,
    right: Answer,
    url: &str,
) -> Response<Body> {
    let Some(fault) = fault else { return right.into_response() };
    if fault.kind == FaultKind::Late {
        tokio::time::sleep(fault.delay).await;
    }
    fault.kind.distort(service, style, right, url)
}

/// SSM changes things, so a fault that is a refusal comes before anything is done.
async fn answer_ssm(
    simulator: &Simulator,
    call: Call,
    signed: Result<Signed, Refused>,
    fault: Option<Fault>,
) -> Response<Body> {
    let (style, url) = (call.style, call.url());
    let right = match signed {
        Ok(_) if fault.is_some_and(|fault| fault.kind.is_refusal()) => {
            Ok(Answer::aws_json(String::new()))
        }
        Ok(signed) => emulate_ssm(simulator, call, &signed).await,
        Err(refused) => Err(refused),
    };
    let right = right.unwrap_or_else(|refused| style.refuse(&refused));
    distorted(fault, Service::Ssm, style, right, &url).await
}

/// By the emulator behind the simulator if there is one, and otherwise here.
async fn emulate_ssm(
    simulator: &Simulator,
    call: Call,
    signed: &Signed,
) -> Result<Answer, Refused> {
    let now = simulator.clock.now();
    let account = &signed.principal.account;
    if !simulator.limits.admits(Service::Ssm, account, &signed.region, now) {
        return Err(throttled(Service::Ssm));
    }
    let action = ssm::action_of(&call.parts.headers);
    ssm::authorize(signed, action, &call.body)?;
    match action {
        Some(action) if simulator.upstream.is_none() => {
            simulator.parameters.answer(signed, action, &call.body, now)
        }
        _ => {
            let forwarded = upstream::forward(simulator.upstream, call.parts, call.body, signed);
            let (parts, body) = forwarded.await?.into_parts();
            let broken = |_| Refused::new(500, "InternalServerError", "The emulator broke off.");
            let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(broken)?;
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status: parts.status, ..Answer::aws_json(body) })
        }
    }
}

/// What the simulator answers itself. So it does what names no action: nobody is to guess one.
fn is_emulated(service: Service, action: Option<&str>) -> bool {
    match (service, action) {
        (_, None) => true,
        (Service::Sts, Some(action)) => matches!(action, "GetCallerIdentity" | "AssumeRole"),
        (Service::Ec2, Some(action)) => action == "DescribeInstances",
        (Service::Ssm, Some(_)) => false,
    }
}

fn emulate(
    simulator: &Simulator,
    call: &Call,
    service: Service,
    signed: &Signed,
) -> Result<Answer, Refused> {
    let now = simulator.clock.now();
    if !simulator.limits.admits(service, &signed.principal.account, &signed.region, now) {
        return Err(throttled(service));
    }
    let malformed = || Refused::new(400, "MalformedQueryString", "The body is not a form");
    let form = call.form.as_ref().ok_or_else(malformed)?;
    let no_action = || Refused::new(400, "MissingAction", "The request has no Action");
    let action = form.get("Action").ok_or_else(no_action)?;
    let version = match service {
        Service::Sts => "2011-06-15",
        Service::Ec2 => "2016-11-15",
        Service::Ssm => "",
    };
    if form.get("Version") != Some(version) {
        let message = format!("The simulator knows version {version} only");
        return Err(Refused::new(400, "InvalidAction", message));
    }
    match action {
        "AssumeRole" => sts::assume_role(simulator, signed, form),
        "DescribeInstances" => {
            let (answer, count) = ec2::describe_instances(simulator, signed, form)?;
            simulator.counter.described(count);
            Ok(answer)
        }
        _ => Ok(sts::get_caller_identity(signed, call.style)),
    }
}

/// What the simulator does not answer itself goes to the emulator behind it, if there is one.
async fn forward(simulator: &Simulator, call: Call, signed: &Signed) -> Response<Body> {
    let Call { parts, body, style, .. } = call;
    match upstream::forward(simulator.upstream, parts, body, signed).await {
        Ok(response) => response,
        Err(refused) => style.refuse(&refused).into_response(),
    }
}

async fn calls(State(simulator): State<Arc<Simulator>>) -> Response<Body> {
    json_answer(&simulator.calls())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultDocument {
    service: Service,
    fault: Option<FaultKind>,
    delay: Option<Span>,
    count: Option<u32>,
    percent: Option<u8>,
    action: Option<String>,
}

async fn set_fault(State(simulator): State<Arc<Simulator>>, body: Bytes) -> Response<Body> {
    let document: FaultDocument = match serde_json::from_slice(&body) {
        Ok(document) => document,
        Err(error) => return bad_request(&error.to_string()),
    };
    let action = match document.action.as_deref().map(known_action) {
        Some(None) => return bad_request("no such action"),
        Some(known) => known,
        None => None,
    };
    if document.percent.is_some_and(|percent| percent > 100) {
        return bad_request("expected at most 100 percent");
    }
    if document.fault.is_some_and(|kind| !kind.suits(document.service)) {
        return bad_request("this service does not have this fault");
    }
    let fault = document.fault.map(|kind| {
        let usual = Fault::new(kind);
        let delay: Duration = document.delay.map_or(usual.delay, |span| span.0);
        Fault { kind, delay, count: document.count, percent: document.percent, action }
    });
    simulator.set_fault(document.service, fault);
    StatusCode::NO_CONTENT.into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstanceDocument {
    /// Stops and starts it: its document gets this time.
    pending_time: Option<Timestamp>,
    state: Option<InstanceState>,
    tags: Option<BTreeMap<String, String>>,
}

async fn change_instance(
    State(simulator): State<Arc<Simulator>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response<Body> {
    let document: InstanceDocument = match serde_json::from_slice(&body) {
        Ok(document) => document,
        Err(error) => return bad_request(&error.to_string()),
    };
    if let Some(problem) = document.tags.as_ref().and_then(tag_problem) {
        return bad_request(&problem);
    }
    let is_known = id.parse::<InstanceId>().is_ok_and(|id| {
        if let Some(pending_time) = document.pending_time {
            simulator.restart(&id, pending_time);
        }
        simulator.change(&id, |record| {
            record.state = document.state.unwrap_or(record.state);
            if let Some(tags) = document.tags {
                record.tags = tags;
            }
        })
    });
    let status = if is_known { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
    status.into_response()
}

fn json_answer(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_string(value) {
        Ok(text) => Answer::json(text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn bad_request(reason: &str) -> Response<Body> {
    (StatusCode::BAD_REQUEST, reason.to_owned()).into_response()
}

//! The emulator behind the simulator, for everything that the simulator does not answer itself.
//!
//! The emulator believes any signature, so a request is forwarded only after its signature was
//! checked here, with the account of its credentials beside it.

use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::answer::Refused;
use super::credentials::PrincipalKind;
use super::sigv4::Signed;

/// By this header moto knows the account of a request.
const ACCOUNT: HeaderName = HeaderName::from_static("x-moto-account-id");
/// What stands for one connection and is not passed on.
const HOP_BY_HOP: [HeaderName; 5] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, header::TRAILER, header::UPGRADE];

/// Passes a request on, and the answer back.
pub(super) async fn forward(
    upstream: Option<SocketAddr>,
    mut parts: Parts,
    body: Bytes,
    signed: &Signed,
) -> Result<Response<Body>, Refused> {
    let Some(upstream) = upstream else {
        let message = format!(
            "The simulator answers GetCallerIdentity, AssumeRole, DescribeInstances and a few \
             actions of SSM alone, and has no --upstream to ask about this request for `{}`.",
            signed.service
        );
        return Err(Refused::new(501, "NotImplemented", message));
    };
    // moto asks no policies, and nobody gave these roles any permission; for SSM they were asked for.
    let is_powerless = match signed.principal.kind {
        PrincipalKind::InstanceRole { .. } => true,
        PrincipalKind::InstanceProfile { .. } => signed.service != "ssm",
        PrincipalKind::ServerUser | PrincipalKind::RoleSession { .. } => false,
    };
    if is_powerless {
        let message = "The role of an instance has no such permission.";
        return Err(Refused::new(403, "AccessDenied", message));
    }
    // The controls of moto itself.
    if parts.uri.path().starts_with("/moto-api") {
        return Err(Refused::new(404, "NotFound", "This is not an AWS service."));
    }
    let unavailable = || {
        Refused::new(503, "ServiceUnavailable", "The emulator behind the simulator did not answer.")
    };
    let account = HeaderValue::from_str(signed.principal.account.as_str());
    // To WSGI `x_moto_account_id` is the same header.
    let with_underscore: Vec<_> =
        parts.headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in HOP_BY_HOP.into_iter().chain(with_underscore) {
        parts.headers.remove(name);
    }
    parts.headers.insert(ACCOUNT, account.map_err(|_| unavailable())?);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let request = Request::from_parts(parts, Full::new(body));
    let response = exchange(upstream, request).await.map_err(|_| unavailable())?;
    let (mut parts, body) = response.into_parts();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// One request on a connection of its own, driven until its answer was read.
async fn exchange(
    upstream: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<hyper::body::Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(upstream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

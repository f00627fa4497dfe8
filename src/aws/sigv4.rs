//! Signature Version 4 for the requests that are made by hand, by the SDK's own signer.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SigningInstructions, SigningSettings, sign as sign_request,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;

use super::Service;
use crate::domain::{Region, Timestamp};

/// Signs `POST /` with these headers, `host` among them, and what the signer adds: date and session
/// token. Returns the headers to add, and the signature; nothing if there is no such request.
pub(super) fn sign(
    credentials: Credentials,
    region: &Region,
    service: Service,
    now: Timestamp,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<(SigningInstructions, String)> {
    let identity = Identity::from(credentials);
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region.as_str())
        .name(service.as_str())
        .time(now.to_date_time().into())
        .settings(SigningSettings::default())
        .build()
        .ok()?
        .into();
    let (_, host) = headers.iter().find(|(name, _)| *name == "host")?;
    let uri = format!("https://{host}/");
    let body = SignableBody::Bytes(body);
    let request = SignableRequest::new("POST", uri, headers.iter().copied(), body).ok()?;
    Some(sign_request(request, &parameters).ok()?.into_parts())
}

//! Checks signatures of AWS's version 4 for real: a request counts only if signing the same request
//! with the same secret gives the same signature.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::answer::Refused;
use super::credentials::{Mint, NotAccepted, Principal};
use crate::domain::{Partition, Region, Timestamp};

/// How far the date of a request may be off.
const WINDOW_SECONDS: i64 = 15 * 60;
const ALGORITHM: &str = "AWS4-HMAC-SHA256 ";
const DATE: &str = "x-amz-date";
const TOKEN: &str = "x-amz-security-token";

/// A request whose signature was right: by whom, and for where.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) principal: Principal,
    pub(super) region: Region,
    pub(super) service: String,
}

impl Signed {
    /// The partition that was called.
    pub(super) fn partition(&self) -> Partition {
        Partition::of_region(&self.region)
    }
}

/// The `Authorization` header, read strictly, and not believed.
pub(super) struct Authorization<'a> {
    key_id: &'a str,
    date: &'a str,
    region: &'a str,
    pub(super) service: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads the header.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Refused> {
        let Some(text) = only(headers, "authorization")? else {
            return Err(Refused::new(
                403,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            ));
        };
        Self::parse(text).ok_or_else(|| {
            incomplete(
                "Authorization header requires Credential, SignedHeaders and Signature, in the \
                 form and order of AWS4-HMAC-SHA256",
            )
        })
    }

    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix(ALGORITHM)?.split(',');
        let mut part = |name: &str| parts.next()?.trim_start_matches(' ').strip_prefix(name);
        let mut scope = part("Credential=")?.split('/');
        let signed_headers: Vec<&str> = part("SignedHeaders=")?.split(';').collect();
        let signature = part("Signature=")?;
        let is_complete = parts.next().is_none();
        let (key_id, date, region, service, end) =
            (scope.next()?, scope.next()?, scope.next()?, scope.next()?, scope.next()?);
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_right = is_complete
            && scope.next().is_none()
            && end == "aws4_request"
            && (16..=128).contains(&key_id.len())
            && key_id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            && date.len() == 8
            && date.bytes().all(|b| b.is_ascii_digit())
            && !service.is_empty()
            && service.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && signature.len() == 64
            && signature.bytes().all(is_hex)
            // Sorted, and so none twice: the signature is over this order.
            && signed_headers.is_sorted_by(|a, b| a < b)
            && signed_headers.iter().all(|name| is_header_name(name));
        is_right.then_some(Self { key_id, date, region, service, signed_headers, signature })
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}

/// Checks everything: form, date, credentials, signature.
pub(super) fn verify(
    mint: &Mint,
    now: Timestamp,
    request: &Parts,
    body: &[u8],
) -> Result<Signed, Refused> {
    let authorization = Authorization::of(&request.headers)?;
    for name in ["host", DATE, TOKEN] {
        let is_signed = authorization.signed_headers.contains(&name);
        let is_there = only(&request.headers, name)?.is_some();
        if (is_there || name == "host") && !is_signed {
            return Err(mismatch(format!(
                "'{name}' must be a 'SignedHeader' in the AWS Authorization."
            )));
        }
    }
    let region: Region = authorization
        .region
        .parse()
        .ok()
        .filter(|region| is_for(request, authorization.service, region))
        .ok_or_else(|| mismatch("Credential should be scoped to a valid region."))?;
    let signed_at = date(&request.headers, authorization.date, now)?;
    let token = only(&request.headers, TOKEN)?;
    let (principal, credentials) =
        mint.look_up(authorization.key_id, token, now).map_err(|reason| match reason {
            NotAccepted::Unknown => unknown(),
            NotAccepted::Expired => Refused::new(
                403,
                "ExpiredToken",
                "The security token included in the request is expired",
            ),
        })?;
    let expected = signature(&authorization, credentials, signed_at, request, body)
        .ok_or_else(|| mismatch("The signed headers are not those of the request."))?;
    verify_slices_are_equal(expected.as_bytes(), authorization.signature.as_bytes()).map_err(|_| {
        mismatch(
            "The request signature we calculated does not match the signature you provided. Check \
             your AWS Secret Access Key and signing method. Consult the service documentation for \
             details.",
        )
    })?;
    if !principal.is_known_in(Partition::of_region(&region)) {
        return Err(unknown());
    }
    Ok(Signed { principal, region, service: authorization.service.to_owned() })
}

/// Whether a host of AWS is that of the scope's region. Every other host is this listener, whatever
/// it is called.
fn is_for(request: &Parts, service: &str, region: &Region) -> bool {
    let host = request.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let mut labels = host.split('.');
    let first = labels.next().unwrap_or_default();
    let is_regional = (first == service || first.strip_suffix("-fips") == Some(service))
        && host.matches('.').count() > 2;
    !is_regional || labels.next() == Some(region.as_str())
}

/// The date of the request, if it is near and of the scope's day.
fn date(headers: &HeaderMap, scope_date: &str, now: Timestamp) -> Result<Timestamp, Refused> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let text = only(headers, DATE)?
        .ok_or_else(|| incomplete("Authorization header requires existence of 'X-Amz-Date'."))?;
    let date = PrimitiveDateTime::parse(text, format)
        .map_err(|_| incomplete("Date must be in ISO-8601 'basic format'."))?;
    let date = Timestamp::from_unix_seconds(date.assume_utc().unix_timestamp());
    if !text.starts_with(scope_date) {
        return Err(mismatch(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.",
        ));
    }
    let is_near = (date.unix_seconds() - now.unix_seconds()).abs() <= WINDOW_SECONDS;
    match (is_near, date < now) {
        (true, _) => Ok(date),
        (false, true) => {
            Err(mismatch(format!("Signature expired: {date} is now earlier than {now} - 15 min.")))
        }
        (false, false) => Err(mismatch(format!(
            "Signature not yet current: {date} is still later than {now} + 15 min."
        ))),
    }
}

/// What the signature should be. `None` if a signed header is not there, or not text.
fn signature(
    authorization: &Authorization<'_>,
    credentials: Credentials,
    signed_at: Timestamp,
    request: &Parts,
    body: &[u8],
) -> Option<String> {
    let mut headers = Vec::new();
    for name in &authorization.signed_headers {
        request.headers.get(*name)?;
        for value in request.headers.get_all(*name) {
            // The signer puts in date and token by itself, and its log would show the token.
            if *name != DATE && *name != TOKEN {
                headers.push((*name, value.to_str().ok()?));
            }
        }
    }
    let mut settings = SigningSettings::default();
    // Exactly what the caller says it signed.
    settings.excluded_headers = None;
    let identity = credentials.into();
    let since_1970 = Duration::from_secs(u64::try_from(signed_at.unix_seconds()).ok()?);
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(authorization.region)
        .name(authorization.service)
        .time(UNIX_EPOCH + since_1970)
        .settings(settings)
        .build()
        .ok()?
        .into();
    let path = request.uri.path_and_query()?.as_str();
    let signable = SignableRequest::new(
        request.method.as_str(),
        // The signed host is the header's; this one is never looked at.
        format!("http://signed.invalid{path}"),
        headers.into_iter(),
        SignableBody::Bytes(body),
    );
    Some(sign(signable.ok()?, &parameters).ok()?.signature().to_owned())
}

/// The only value of a header; two would be read differently by signer and reader.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str()).transpose();
    match (value, values.next()) {
        (Ok(value), None) => Ok(value),
        (Ok(_), Some(_)) | (Err(_), _) => {
            Err(incomplete(&format!("'{name}' must stand once, as text.")))
        }
    }
}

fn incomplete(message: &str) -> Refused {
    Refused::new(400, "IncompleteSignature", message)
}

fn mismatch(message: impl Into<String>) -> Refused {
    Refused::new(403, "SignatureDoesNotMatch", message)
}

fn unknown() -> Refused {
    Refused::new(
        403,
        "InvalidClientTokenId",
        "The security token included in the request is invalid.",
    )
}

//! The one request whose signature proves a node: its values, how a node signs it, how the server
//! rebuilds it.

use std::fmt;

use aws_credential_types::Credentials;
use http::{HeaderValue, Method, Request, Uri, header};
use time::PrimitiveDateTime;
use time::macros::format_description;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::aws::{EndpointKind, Service, host, sigv4};
use crate::domain::{KeyBinding, Region, Timestamp};

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const ACCEPT: &str = "application/json";
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";
const KEY_BINDING: &str = "x-muster-key-binding";
/// Exactly these, whatever the node says: what is not signed is not believed.
const SIGNED_HEADERS: &str =
    "accept;content-type;host;x-amz-date;x-amz-security-token;x-muster-key-binding";
const DATE_FORMAT: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// Credentials that end, as the metadata service hands them out.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TemporaryCredentials {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// The session token.
    pub session_token: String,
}

impl fmt::Debug for TemporaryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemporaryCredentials").finish_non_exhaustive()
    }
}

/// The values of a signed `GetCallerIdentity` request that differ from node to node. All that comes
/// from a node has passed a character set; nothing of it needs escaping, trimming or sorting.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRequest {
    region: Region,
    endpoint: EndpointKind,
    host: String,
    access_key_id: String,
    date: String,
    signed_at: Timestamp,
    session_token: Secret,
    signature: Secret,
}

/// Text that opens something for whoever holds it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
struct Secret(String);

/// Values that are not those of a signed request. Says which one, never what it was (I10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof's `{member}` is not {expected}")]
pub struct InvalidSignedRequest {
    /// The member that is wrong.
    pub member: &'static str,
    /// What it should have been.
    pub expected: &'static str,
}

/// A request that could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials cannot sign: {0}")]
pub struct SigningFailed(&'static str);

impl SignedRequest {
    /// Reads the values. All but `region`, which the caller knows from better evidence, are
    /// attacker-controlled.
    pub fn parse(
        region: &Region,
        endpoint: &str,
        access_key_id: &str,
        date: &str,
        session_token: &str,
        signature: &str,
    ) -> Result<Self, InvalidSignedRequest> {
        let wrong = |member, expected| InvalidSignedRequest { member, expected };
        let endpoint = match endpoint {
            "regional" => EndpointKind::Regional,
            "fips" => EndpointKind::Fips,
            _ => return Err(wrong("endpoint", "`regional` or `fips`")),
        };
        let host = host(Service::Sts, region, endpoint)
            .ok_or(wrong("endpoint", "one that the region has"))?;
        let is_key_id = (16..=128).contains(&access_key_id.len())
            && access_key_id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if !is_key_id || !access_key_id.starts_with("ASIA") {
            return Err(wrong("access_key_id", "the key id of temporary credentials"));
        }
        let signed_at = parse_date(date).ok_or(wrong("date", "a date such as 20260102T030405Z"))?;
        let is_token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        if !(1..=8192).contains(&session_token.len()) || !session_token.bytes().all(is_token) {
            return Err(wrong("session_token", "1 to 8192 characters of base64"));
        }
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if signature.len() != 64 || !signature.bytes().all(is_hex) {
            return Err(wrong("signature", "64 lower-case hexadecimal digits"));
        }
        Ok(Self {
            region: region.clone(),
            endpoint,
            host,
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            signed_at,
            session_token: Secret(session_token.to_owned()),
            signature: Secret(signature.to_owned()),
        })
    }

    /// Signs the request for this binding: the node's side.
    pub fn sign(
        credentials: &TemporaryCredentials,
        region: &Region,
        endpoint: EndpointKind,
        binding: &KeyBinding,
        now: Timestamp,
    ) -> Result<Self, SigningFailed> {
        let host = host(Service::Sts, region, endpoint)
            .ok_or(SigningFailed("the region has no such endpoint"))?;
        let date = now
            .to_date_time()
            .format(DATE_FORMAT)
            .map_err(|_| SigningFailed("the clock shows no date"))?;
        let signature = signature(credentials, region, &host, binding, now)?;
        let TemporaryCredentials { access_key_id, session_token, .. } = credentials;
        let endpoint = endpoint.as_str();
        Self::parse(region, endpoint, access_key_id, &date, session_token, &signature)
            .map_err(|_| SigningFailed("the metadata service gave something else than credentials"))
    }

    /// The region whose STS is asked.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Which kind of endpoint was signed for.
    pub fn endpoint(&self) -> EndpointKind {
        self.endpoint
    }

    /// The host that was signed.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The access key id.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// When it was signed, by the node's clock.
    pub fn signed_at(&self) -> Timestamp {
        self.signed_at
    }

    /// The same as it stands in the request.
    pub fn date(&self) -> &str {
        &self.date
    }

    /// The session token: a secret.
    pub fn session_token(&self) -> &str {
        &self.session_token.0
    }

    /// The signature: a secret for as long as the request is good.
    pub fn signature(&self) -> &str {
        &self.signature.0
    }

    /// The whole request with `binding` in it, to be sent to `uri`.
    pub(super) fn rebuild(&self, uri: &Uri, binding: &KeyBinding) -> Option<Request<Vec<u8>>> {
        let day = self.date.get(..8)?;
        let scope = format!("{}/{day}/{}/sts/aws4_request", self.access_key_id, self.region);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={SIGNED_HEADERS}, Signature={}",
            self.signature.0
        );
        Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::ACCEPT, ACCEPT)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(header::HOST, &self.host)
            .header("x-amz-date", &self.date)
            .header("x-amz-security-token", sensitive(&self.session_token.0)?)
            .header(KEY_BINDING, hex::encode(binding.as_bytes()))
            .header(header::AUTHORIZATION, sensitive(&authorization)?)
            .body(BODY.as_bytes().to_vec())
            .ok()
    }
}

impl fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequest")
            .field("host", &self.host)
            .field("date", &self.date)
            .finish_non_exhaustive()
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The signature over what `rebuild` makes.
fn signature(
    credentials: &TemporaryCredentials,
    region: &Region,
    host: &str,
    binding: &KeyBinding,
    now: Timestamp,
) -> Result<String, SigningFailed> {
    let TemporaryCredentials { access_key_id, secret_access_key, session_token } = credentials;
    let token = Some(session_token.clone());
    let credentials = Credentials::new(access_key_id, secret_access_key, token, None, "instance");
    let binding = hex::encode(binding.as_bytes());
    let headers = [
        ("accept", ACCEPT),
        ("content-type", CONTENT_TYPE),
        ("host", host),
        (KEY_BINDING, binding.as_str()),
    ];
    let signed = sigv4::sign(credentials, region, Service::Sts, now, &headers, BODY.as_bytes());
    let (_, signature) = signed.ok_or(SigningFailed("the signer refused them"))?;
    Ok(signature)
}

fn parse_date(text: &str) -> Option<Timestamp> {
    let is_plain = text.len() == 16 && text.is_ascii();
    let date = is_plain.then(|| PrimitiveDateTime::parse(text, DATE_FORMAT).ok()).flatten()?;
    Some(Timestamp::from_unix_seconds(date.assume_utc().unix_timestamp()))
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;
    use crate::domain::{PublicKey, Purpose};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn binding(nonce: u8) -> KeyBinding {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = PublicKey::from_spki_der(&pair.subject_public_key_info()).unwrap();
        KeyBinding::new(Purpose::Join, &[1; 32], &[nonce; 32], "ec2", "web", &key)
    }

    fn credentials() -> TemporaryCredentials {
        TemporaryCredentials {
            access_key_id: "ASIARTX3GSDSTI32LOY6".to_owned(),
            secret_access_key: "canary-secret".to_owned(),
            session_token: "Y2FuYXJ5LXRva2Vu".to_owned(),
        }
    }

    // The canonical request, written out once by hand: what the node signs and what the server
    // rebuilds are this and nothing else.
    #[test]
    fn the_signature_is_over_the_request_that_is_rebuilt() {
        use aws_lc_rs::digest::{SHA256, digest};
        use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
        let (region, binding) = ("us-west-2".parse().unwrap(), binding(1));
        let signed =
            SignedRequest::sign(&credentials(), &region, EndpointKind::Regional, &binding, NOW)
                .unwrap();
        let request = signed.rebuild(&Uri::from_static("https://h/"), &binding).unwrap();
        let line = |name| format!("{name}:{}\n", request.headers()[name].to_str().unwrap());
        let headers = SIGNED_HEADERS.split(';').map(line).collect::<Vec<_>>().concat();
        let payload = hex::encode(digest(&SHA256, request.body()));
        let canonical = format!("POST\n/\n\n{headers}\n{SIGNED_HEADERS}\n{payload}");
        let hash = hex::encode(digest(&SHA256, canonical.as_bytes()));
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n20270115T080000Z\n20270115/us-west-2/sts/aws4_request\n{hash}"
        );
        let time = std::time::SystemTime::from(NOW.to_date_time());
        let key = generate_signing_key("canary-secret", time, "us-west-2", "sts");
        assert_eq!(signed.signature(), calculate_signature(key, to_sign.as_bytes()));
        assert_eq!(request.headers().len(), 7, "six signed headers and the authorization");
        assert_eq!(request.body(), b"Action=GetCallerIdentity&Version=2011-06-15");
        assert_eq!(request.headers()["host"], "sts.us-west-2.amazonaws.com");
        let again = SignedRequest::sign(
            &credentials(),
            &region,
            EndpointKind::Regional,
            &self::binding(2),
            NOW,
        )
        .unwrap();
        assert_ne!(again.signature(), signed.signature(), "the binding is signed");
    }

    // I10: neither Debug of the values nor of the request shows what opens anything.
    #[test]
    fn debug_shows_no_secret() {
        let (region, binding) = ("us-west-2".parse().unwrap(), binding(1));
        let signed =
            SignedRequest::sign(&credentials(), &region, EndpointKind::Regional, &binding, NOW)
                .unwrap();
        let request = signed.rebuild(&Uri::from_static("https://h/"), &binding).unwrap();
        let shown = format!("{signed:?} {:?} {:?}", request.headers(), credentials());
        assert!(shown.contains("sts.us-west-2"), "{shown}");
        for secret in ["canary-secret", "Y2FuYXJ5LXRva2Vu", signed.signature()] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    // S1, T5, T48: every value has its characters; nothing can carry a header, a host or a path.
    #[test]
    fn values_of_other_characters_are_refused() {
        let region: Region = "us-west-2".parse().unwrap();
        let good = [
            "regional",
            "ASIARTX3GSDSTI32LOY6",
            "20270115T080000Z",
            "Y2FuYXJ5",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ];
        let parse = |values: [&str; 5]| {
            let [endpoint, id, date, token, signature] = values;
            SignedRequest::parse(&region, endpoint, id, date, token, signature)
        };
        assert!(parse(good).is_ok());
        let long = "A".repeat(8193);
        for (place, hostile) in [
            (0, &["", "Regional", "sts.evil.example", "fips\n", "global"][..]),
            (
                1,
                &[
                    "",
                    "AKIARTX3GSDSTI32LOY6",
                    "asiartx3gsdsti32loy6",
                    "ASIARTX3GSDSTI32LOY6/20270115",
                    "ASIARTX3GSDSTI32LOY6, SignedHeaders=host",
                    "ASIA\u{ff21}RTX3GSDSTI32LOY",
                    "ASIARTX3GSDSTI3",
                ],
            ),
            (
                2,
                &[
                    "",
                    "20270115T080000",
                    "20270115T080000z",
                    "20270115 080000Z",
                    "20271301T080000Z",
                    "20270115T250000Z",
                    "+2027011T080000Z",
                    "20270115T080000Z\r\n",
                    "٢٠٢٧٠١١٥T",
                ],
            ),
            (3, &["", "a b", "a\r\nx-evil: 1", "a%2F", "a-_", long.as_str()]),
            (4, &["", "0123", "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"]),
        ] {
            for value in hostile {
                let mut values = good;
                values[place] = value;
                let error = parse(values).unwrap_err();
                assert!(value.is_empty() || !error.to_string().contains(value), "{error}");
            }
        }
        let frankfurt: Region = "eu-central-1".parse().unwrap();
        let [_, id, date, token, signature] = good;
        assert!(SignedRequest::parse(&frankfurt, "fips", id, date, token, signature).is_err());
        assert!(SignedRequest::parse(&region, "fips", id, date, token, signature).is_ok());
    }
}

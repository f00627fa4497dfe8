//! The instance identity document: what an EC2 instance is, in JSON that AWS signed.
//!
//! An `IdentityDocument` exists only after its signature was verified, and holds only what stood in
//! the signed bytes or follows from the certificate (I1).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use crate::aws::{
    InvalidBer, InvalidSignedData, Json, RegionCertificates, SignedContent, message_of_text,
    verify_signed_data,
};
use crate::domain::{AccountId, Code, InstanceId, Partition, Region, Timestamp};
use crate::methods::{Rejection, Value};

/// The most bytes of input that are read: text, with room for line breaks and armour.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

/// What an operator does who sent another form.
const ENDPOINT: &str = "read /latest/dynamic/instance-identity/rsa2048 instead";

/// A verified document. As JSON it is what `muster iid verify` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityDocument {
    partition: Partition,
    account_id: AccountId,
    region: Region,
    availability_zone: Option<String>,
    instance_id: InstanceId,
    image_id: Option<String>,
    instance_type: Option<String>,
    architecture: Option<String>,
    private_ip: Option<IpAddr>,
    pending_time: Timestamp,
    signing_time: Option<Timestamp>,
    certificate_serial: String,
}

impl IdentityDocument {
    /// Verifies a document in the `rsa2048` form: base64 with any line breaks, the same between
    /// `PKCS7` or `CMS` lines, or BER. Its age is not judged. `input` is attacker-controlled.
    pub fn verify(input: &[u8], certificates: &RegionCertificates) -> Result<Self, Rejection> {
        let message = message(input)?;
        let signed = verify_signed_data(&message, certificates)
            .map_err(|error| rejection_of(&error, message.len()))?;
        Self::from_signed(&signed)
    }

    fn from_signed(message: &SignedContent<'_>) -> Result<Self, Rejection> {
        let members = Json::parse(message.content())
            .map_err(|error| content(&error.to_string()))?
            .into_object()
            .ok_or_else(|| content("it is not a JSON object"))?;
        let mut members = Members(members);
        let region: Region = members.required("region", "a region such as us-west-2")?;
        let signer = message.signer();
        if region != *signer.region() {
            let message = format!(
                "the document says {region}, and the certificate that signed it is of {}",
                signer.region()
            );
            return Err(Rejection::new(Code::DocumentRegionMismatch, message));
        }
        let availability_zone = members.identifier("availabilityZone")?;
        if availability_zone.as_ref().is_some_and(|zone| !is_zone_of(zone, &region)) {
            return Err(content("`availabilityZone` is not in `region`"));
        }
        Ok(Self {
            partition: signer.partition(),
            account_id: members.required("accountId", "a string of 12 digits")?,
            region,
            availability_zone,
            instance_id: members.required("instanceId", "`i-` and 8 or 17 hexadecimal digits")?,
            image_id: members.identifier("imageId")?,
            instance_type: members.identifier("instanceType")?,
            architecture: members.identifier("architecture")?,
            private_ip: members.optional("privateIp", "an IP address")?,
            pending_time: members.required("pendingTime", "a time such as 2026-12-31T00:00:00Z")?,
            signing_time: message.signing_time(),
            certificate_serial: signer.serial().to_owned(),
        })
    }

    /// The partition of the certificate's region.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The account that runs the instance.
    pub fn account_id(&self) -> &AccountId {
        &self.account_id
    }

    /// The region, of document and certificate.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The instance.
    pub fn instance_id(&self) -> &InstanceId {
        &self.instance_id
    }

    /// When the instance was last started.
    pub fn pending_time(&self) -> Timestamp {
        self.pending_time
    }

    /// Every member by its name in JSON, present or not.
    pub fn values(&self) -> [(&'static str, Option<Value>); 12] {
        let text = |value: &dyn ToString| Some(Value::Text(value.to_string()));
        let name = |value: &Option<String>| value.clone().map(Value::Text);
        [
            ("partition", text(&self.partition)),
            ("account_id", text(&self.account_id)),
            ("region", text(&self.region)),
            ("availability_zone", name(&self.availability_zone)),
            ("instance_id", text(&self.instance_id)),
            ("image_id", name(&self.image_id)),
            ("instance_type", name(&self.instance_type)),
            ("architecture", name(&self.architecture)),
            ("private_ip", self.private_ip.and_then(|address| text(&address))),
            ("pending_time", Some(Value::Time(self.pending_time))),
            ("signing_time", self.signing_time.map(Value::Time)),
            ("certificate_serial", name(&Some(self.certificate_serial.clone()))),
        ]
    }
}

/// The signed message inside of text or bytes.
fn message(input: &[u8]) -> Result<Vec<u8>, Rejection> {
    if input.len() > MAX_DOCUMENT_BYTES {
        return Err(reject(Code::DocumentTooLarge, "the document is longer than 64 KiB"));
    }
    // BER of any signed message holds bytes above 127, and no text form does.
    let Some(text) = std::str::from_utf8(input).ok().filter(|text| text.is_ascii()) else {
        return Ok(input.to_vec());
    };
    if text.trim_start().starts_with('{') {
        return Err(unsupported("this is the bare document without its signature"));
    }
    message_of_text(text).map_err(|error| reject(Code::DocumentMalformed, &error.to_string()))
}

/// An RSA signature alone has the length of its key: 1024 bits at the `signature` path.
fn is_bare_signature(length: usize) -> bool {
    matches!(length, 128 | 256)
}

fn rejection_of(error: &InvalidSignedData, length: usize) -> Rejection {
    let code = match error {
        InvalidSignedData::Encoding(_) | InvalidSignedData::Structure(_)
            if is_bare_signature(length) =>
        {
            return unsupported("this is a bare RSA signature, the `signature` form");
        }
        InvalidSignedData::Dsa => {
            return unsupported("this is signed with DSA, the `pkcs7` form");
        }
        InvalidSignedData::Encoding(InvalidBer::TooLarge) => Code::DocumentTooLarge,
        InvalidSignedData::Encoding(_) | InvalidSignedData::Structure(_) => Code::DocumentMalformed,
        InvalidSignedData::SignerUnknown { .. } => Code::DocumentSignerUnknown,
        InvalidSignedData::Signature { .. } => Code::DocumentSignatureInvalid,
        InvalidSignedData::Digest => Code::DocumentDigestMismatch,
    };
    reject(code, &error.to_string())
}

fn unsupported(what: &str) -> Rejection {
    let message = format!("{what}; {ENDPOINT}");
    let hint = Some(ENDPOINT.to_owned());
    Rejection { hint, ..Rejection::new(Code::DocumentFormUnsupported, message) }
}

fn content(what: &str) -> Rejection {
    reject(Code::DocumentContentInvalid, &format!("the signed content: {what}"))
}

fn reject(code: Code, message: &str) -> Rejection {
    Rejection::new(code, message)
}

/// Whether a zone's name is the region's and more: `us-west-2a`, `us-west-2-lax-1a`.
fn is_zone_of(zone: &str, region: &Region) -> bool {
    zone.strip_prefix(region.as_str())
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
}

/// The members of the document. Messages name a member and never quote its value (I10). Members
/// that are not asked for are ignored: AWS adds new ones. `null` is absent.
struct Members(BTreeMap<String, Json>);

impl Members {
    fn optional<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Rejection> {
        let value = match self.0.remove(name) {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::Text(text)) => text.parse().ok(),
            Some(Json::Bool(_) | Json::Number | Json::List(_) | Json::Object(_)) => None,
        };
        value.map(Some).ok_or_else(|| content(&format!("`{name}` is not {expected}")))
    }

    fn required<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<T, Rejection> {
        self.optional(name, expected)?
            .ok_or_else(|| content(&format!("`{name}` is missing; it has to be {expected}")))
    }

    /// A name such as `ami-0123456789abcdef0` or `m7i-flex.large`.
    fn identifier(&mut self, name: &str) -> Result<Option<String>, Rejection> {
        let expected = "a name of at most 64 letters, digits, `.`, `_` and `-`";
        Ok(self.optional::<Identifier>(name, expected)?.map(|Identifier(text)| text))
    }
}

struct Identifier(String);

impl FromStr for Identifier {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_name = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if is_name { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

//! Signed messages as AWS makes them: CMS `SignedData` (RFC 5652) with attached content, one signer
//! and no certificate.
//!
//! The signer is looked up among the pinned certificates; certificates inside a message are not
//! even parsed (T7). Content comes from the bytes that the signature covers and from nowhere else
//! (I1). Only what is needed for that is read, and attributes only after their signature verified.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged};
use spki::AlgorithmIdentifierRef;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use super::ber::{self, InvalidBer};
use super::regions::{RegionCertificate, RegionCertificates, SignerName};
use crate::domain::Timestamp;

/// The most bytes of a message that are read.
pub const MAX_SIGNED_DATA_BYTES: usize = ber::MAX_BYTES;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");
const ALGORITHM_PROTECTION: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.52");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_WITH_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
/// The algorithms of the `pkcs7` form: DSA, alone and with SHA-1 or SHA-256.
const DSA: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.2.840.10040.4.1"),
    ObjectIdentifier::new_unwrap("1.2.840.10040.4.3"),
    ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.2"),
];

/// A message that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignedData {
    /// The encoding is not BER within bounds.
    #[error(transparent)]
    Encoding(#[from] InvalidBer),
    /// The encoding holds something else than a signed message of AWS's shape.
    #[error("{0}")]
    Structure(&'static str),
    /// Signed with DSA: the `pkcs7` form.
    #[error("the message is signed with DSA")]
    Dsa,
    /// No pinned certificate has this issuer and serial.
    #[error(
        "no known region certificate has the serial {serial} and the issuer that the message names"
    )]
    SignerUnknown {
        /// The serial that the message names, as upper-case hexadecimal.
        serial: String,
    },
    /// The signature is not the signer's over the signed attributes.
    #[error("the signature does not verify with the certificate of {region}")]
    Signature {
        /// The region of the certificate that the message names.
        region: String,
    },
    /// The content is not what was signed.
    #[error("the content does not have the signed digest")]
    Digest,
}

/// Content whose signature by a pinned certificate was verified.
pub struct SignedContent<'c> {
    content: Vec<u8>,
    signing_time: Option<Timestamp>,
    signer: &'c RegionCertificate,
}

impl<'c> SignedContent<'c> {
    /// The bytes that were signed.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// When the signer says that it signed.
    pub fn signing_time(&self) -> Option<Timestamp> {
        self.signing_time
    }

    /// Whose signature it is.
    pub fn signer(&self) -> &'c RegionCertificate {
        self.signer
    }
}

impl fmt::Debug for SignedContent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedContent({} bytes, {:?})", self.content.len(), self.signer)
    }
}

/// Verifies a message against the pinned certificates. `ber` is attacker-controlled.
///
/// The signature is checked before the digest, so that a changed attribute and a changed content
/// are told apart.
pub fn verify_signed_data<'c>(
    ber: &[u8],
    certificates: &'c RegionCertificates,
) -> Result<SignedContent<'c>, InvalidSignedData> {
    let der = ber::to_der(ber)?;
    let message = SignedData::parse(&der)?;
    let signer_info = &message.signer_info;
    message.check_algorithms()?;
    let signer = certificates.find(&signer_info.signer).ok_or_else(|| {
        InvalidSignedData::SignerUnknown { serial: signer_info.signer.serial_text() }
    })?;
    if !signer.has_signed(&signer_info.signed_attributes_der()?, signer_info.signature) {
        return Err(InvalidSignedData::Signature { region: signer.region().to_string() });
    }
    let attributes = Attributes::parse(signer_info)?;
    if attributes.message_digest != digest(&SHA256, message.content).as_ref() {
        return Err(InvalidSignedData::Digest);
    }
    let signing_time = attributes.signing_time;
    Ok(SignedContent { content: message.content.to_vec(), signing_time, signer })
}

/// The parts of a `ContentInfo` with `SignedData` (RFC 5652 sections 3 and 5.1) that are used.
struct SignedData<'a> {
    digest_algorithms: Vec<AnyRef<'a>>,
    content: &'a [u8],
    signer_info: SignerInfo<'a>,
}

/// The outer layer: digest algorithms, the content if there is any, the set of `SignerInfo`.
type Parts<'a> = (Vec<AnyRef<'a>>, Option<&'a [u8]>, AnyRef<'a>);

impl<'a> SignedData<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, InvalidSignedData> {
        let (digest_algorithms, content, signer_infos) =
            Self::parts(der).map_err(because("it is no SignedData"))?;
        let content =
            content.ok_or(InvalidSignedData::Structure("it has no content, or other than data"))?;
        let signer_info = only_element(signer_infos)
            .ok_or(InvalidSignedData::Structure("it does not have exactly one SignerInfo"))?;
        let signer_info = SignerInfo::parse(signer_info)
            .map_err(because("its SignerInfo is not as AWS makes them"))?;
        Ok(Self { digest_algorithms, content, signer_info })
    }

    fn parts(der: &'a [u8]) -> der::Result<Parts<'a>> {
        let mut content_info = open(AnyRef::from_der(der)?, Tag::Sequence)?;
        let content_type: ObjectIdentifier = content_info.decode()?;
        if content_type != SIGNED_DATA {
            return Err(Tag::ObjectIdentifier.value_error());
        }
        let explicit = required_context(&mut content_info, TagNumber::N0)?;
        end(&content_info)?;
        let mut signed_data = open(AnyRef::from_der(explicit.value())?, Tag::Sequence)?;
        // Version 3 is for messages with attribute certificates (RFC 5652 section 5.1).
        expect_version(&mut signed_data, &[1, 3])?;
        let digest_algorithms = elements(open(signed_data.decode()?, Tag::Set)?)?;
        let mut encapsulated = open(signed_data.decode()?, Tag::Sequence)?;
        let content_type: ObjectIdentifier = encapsulated.decode()?;
        let content = match optional_context(&mut encapsulated, TagNumber::N0)? {
            Some(explicit) => Some(OctetStringRef::from_der(explicit.value())?.as_bytes()),
            None => None,
        };
        end(&encapsulated)?;
        let _ignored_certificates = optional_context(&mut signed_data, TagNumber::N0)?;
        let _ignored_revocations = optional_context(&mut signed_data, TagNumber::N1)?;
        let signer_infos = signed_data.decode()?;
        end(&signed_data)?;
        let content = content.filter(|bytes| content_type == DATA && !bytes.is_empty());
        Ok((digest_algorithms, content, signer_infos))
    }

    /// One pair of algorithms is allowed: the one that fits the pinned RSA-2048 keys.
    fn check_algorithms(&self) -> Result<(), InvalidSignedData> {
        let SignerInfo { digest_algorithm, signature_algorithm, .. } = &self.signer_info;
        if DSA.contains(&signature_algorithm.oid) {
            return Err(InvalidSignedData::Dsa);
        }
        let is_sha_256 = |algorithm: &AlgorithmIdentifierRef<'_>| {
            is_without_parameters(algorithm) && algorithm.oid == SHA_256
        };
        let is_allowed = is_sha_256(digest_algorithm)
            && self
                .digest_algorithms
                .iter()
                .any(|any| any.decode_as().is_ok_and(|a| is_sha_256(&a)))
            && is_without_parameters(signature_algorithm)
            && [RSA, RSA_WITH_SHA_256].contains(&signature_algorithm.oid);
        if is_allowed { Ok(()) } else { structure("its algorithms are not RSA with SHA-256") }
    }
}

/// A `SignerInfo` (RFC 5652 section 5.3) that names its signer by issuer and serial.
struct SignerInfo<'a> {
    signer: SignerName,
    digest_algorithm: AlgorithmIdentifierRef<'a>,
    signed_attributes: &'a [u8],
    signature_algorithm: AlgorithmIdentifierRef<'a>,
    signature: &'a [u8],
}

impl<'a> SignerInfo<'a> {
    fn parse(element: AnyRef<'a>) -> der::Result<Self> {
        let mut fields = open(element, Tag::Sequence)?;
        expect_version(&mut fields, &[1])?;
        let mut name = open(fields.decode()?, Tag::Sequence)?;
        let issuer = name.tlv_bytes()?.to_vec();
        let serial: SerialNumber = name.decode()?;
        end(&name)?;
        let signer = SignerName { issuer, serial: serial.as_bytes().to_vec() };
        let digest_algorithm = fields.decode()?;
        let signed_attributes = required_context(&mut fields, TagNumber::N0)?.value();
        let signature_algorithm = fields.decode()?;
        let signature = fields.decode::<OctetStringRef<'a>>()?.as_bytes();
        let _ignored_unsigned_attributes = optional_context(&mut fields, TagNumber::N1)?;
        end(&fields)?;
        Ok(Self { signer, digest_algorithm, signed_attributes, signature_algorithm, signature })
    }

    /// What the signature is over: the attributes as a DER `SET OF` with its own tag instead of
    /// `[0]` (RFC 5652 section 5.4), sorted by their encodings (X.690 section 11.6).
    fn signed_attributes_der(&self) -> Result<Vec<u8>, InvalidSignedData> {
        let encode = || {
            let attributes = self.attributes()?;
            let encodings: der::Result<Vec<_>> = attributes.iter().map(Encode::to_der).collect();
            let mut encodings = encodings?;
            encodings.sort_unstable();
            AnyRef::new(Tag::Set, &encodings.concat())?.to_der()
        };
        encode().map_err(because("its signed attributes are not a set"))
    }

    fn attributes(&self) -> der::Result<Vec<AnyRef<'a>>> {
        elements(SliceReader::new(self.signed_attributes)?)
    }
}

/// The signed attributes that mean something here; others are ignored.
struct Attributes<'a> {
    message_digest: &'a [u8],
    signing_time: Option<Timestamp>,
}

impl<'a> Attributes<'a> {
    fn parse(signer_info: &SignerInfo<'a>) -> Result<Self, InvalidSignedData> {
        let parse = || -> der::Result<Vec<Attribute<'a>>> {
            signer_info.attributes()?.into_iter().map(attribute).collect()
        };
        let all = parse().map_err(because("its signed attributes are not attributes"))?;
        let content_type = single(&all, CONTENT_TYPE)?
            .and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
        if content_type != Some(DATA) {
            return structure("its signed content type is missing or not data");
        }
        let message_digest = single(&all, MESSAGE_DIGEST)?
            .and_then(|value| value.decode_as::<OctetStringRef<'a>>().ok())
            .ok_or(InvalidSignedData::Structure("its signed message digest is missing"))?
            .as_bytes();
        if let Some(value) = single(&all, ALGORITHM_PROTECTION)?
            && !protects(value, signer_info).unwrap_or(false)
        {
            return structure("its algorithms are not those of CMSAlgorithmProtection");
        }
        let signing_time = single(&all, SIGNING_TIME)?
            .map(timestamp)
            .transpose()
            .map_err(because("its signing time is not a time"))?;
        Ok(Self { message_digest, signing_time })
    }
}

type Attribute<'a> = (ObjectIdentifier, Vec<AnyRef<'a>>);

fn attribute(element: AnyRef<'_>) -> der::Result<Attribute<'_>> {
    let mut fields = open(element, Tag::Sequence)?;
    let kind = fields.decode()?;
    let values = elements(open(fields.decode()?, Tag::Set)?)?;
    end(&fields)?;
    Ok((kind, values))
}

/// The value of an attribute that may stand once, with one value (RFC 5652 sections 11.1 to 11.3).
fn single<'a>(
    attributes: &[Attribute<'a>],
    kind: ObjectIdentifier,
) -> Result<Option<AnyRef<'a>>, InvalidSignedData> {
    let mut found = attributes.iter().filter(|(oid, _)| *oid == kind);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some((_, values)), None) => match values.as_slice() {
            [value] => Ok(Some(*value)),
            _ => structure("a signed attribute does not have exactly one value"),
        },
        (Some(_), Some(_)) => structure("a signed attribute stands twice"),
    }
}

/// Whether `CMSAlgorithmProtection` (RFC 6211 section 2) names the algorithms of the signer.
/// Absent parameters and NULL are the same algorithm (RFC 5754 section 2).
fn protects(value: AnyRef<'_>, signer_info: &SignerInfo<'_>) -> der::Result<bool> {
    let mut fields = open(value, Tag::Sequence)?;
    let digest_algorithm: AlgorithmIdentifierRef<'_> = fields.decode()?;
    let signature_algorithm = required_context(&mut fields, TagNumber::N1)?;
    end(&fields)?;
    let mut signature_fields = SliceReader::new(signature_algorithm.value())?;
    let signature_algorithm = AlgorithmIdentifierRef {
        oid: signature_fields.decode()?,
        parameters: optional(&mut signature_fields)?,
    };
    end(&signature_fields)?;
    Ok(is_without_parameters(&digest_algorithm)
        && digest_algorithm.oid == signer_info.digest_algorithm.oid
        && is_without_parameters(&signature_algorithm)
        && signature_algorithm.oid == signer_info.signature_algorithm.oid)
}

fn is_without_parameters(algorithm: &AlgorithmIdentifierRef<'_>) -> bool {
    algorithm.parameters.is_none_or(AnyRef::is_null)
}

/// `UTCTime` or `GeneralizedTime` (RFC 5652 section 11.3).
fn timestamp(value: AnyRef<'_>) -> der::Result<Timestamp> {
    let seconds = Time::from_der(&value.to_der()?)?.to_unix_duration().as_secs();
    Ok(Timestamp::from_unix_seconds(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

fn because(what: &'static str) -> impl FnOnce(der::Error) -> InvalidSignedData {
    move |_| InvalidSignedData::Structure(what)
}

fn structure<T>(what: &'static str) -> Result<T, InvalidSignedData> {
    Err(InvalidSignedData::Structure(what))
}

fn expect_version(reader: &mut SliceReader<'_>, allowed: &[u8]) -> der::Result<()> {
    let version: u8 = reader.decode()?;
    if allowed.contains(&version) { Ok(()) } else { Err(Tag::Integer.value_error()) }
}

/// The inside of an element of this tag.
fn open(element: AnyRef<'_>, tag: Tag) -> der::Result<SliceReader<'_>> {
    element.tag().assert_eq(tag)?;
    SliceReader::new(element.value())
}

fn end(reader: &SliceReader<'_>) -> der::Result<()> {
    reader.clone().finish(())
}

fn elements(mut reader: SliceReader<'_>) -> der::Result<Vec<AnyRef<'_>>> {
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(reader.decode()?);
    }
    Ok(found)
}

fn only_element(set: AnyRef<'_>) -> Option<AnyRef<'_>> {
    let elements = open(set, Tag::Set).and_then(elements).ok()?;
    match elements.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

fn optional<'a>(reader: &mut SliceReader<'a>) -> der::Result<Option<AnyRef<'a>>> {
    if reader.is_finished() { Ok(None) } else { reader.decode().map(Some) }
}

/// The element with this context-specific, constructed tag, if it is next.
fn optional_context<'a>(
    reader: &mut SliceReader<'a>,
    number: TagNumber,
) -> der::Result<Option<AnyRef<'a>>> {
    let wanted = Tag::ContextSpecific { constructed: true, number };
    if !reader.is_finished() && reader.peek_tag()? == wanted {
        reader.decode().map(Some)
    } else {
        Ok(None)
    }
}

fn required_context<'a>(
    reader: &mut SliceReader<'a>,
    number: TagNumber,
) -> der::Result<AnyRef<'a>> {
    optional_context(reader, number)?
        .ok_or_else(|| Tag::ContextSpecific { constructed: true, number }.value_error())
}

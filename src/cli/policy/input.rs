//! What `explain` is given: claims, and what EC2 would say of the instance. Strict JSON: an unknown
//! or repeated member is an error, because an explanation of something else is worse than none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};

use super::Failure;
use crate::cli::input;
use crate::domain::{Code, Timestamp};
use crate::methods::ec2::{IdentityDocument, MAX_DOCUMENT_BYTES};
use crate::methods::{ClaimValues, InstanceFacts, Provenance, Value};

/// The method whose claims these are.
pub(super) const METHOD: &str = "ec2";
/// More than the claims or facts of any instance.
const MAX_BYTES: usize = 64 * 1024;

/// A node as it was given.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) values: ClaimValues,
    pub(super) epoch: Timestamp,
}

/// The flat object that `muster iid verify` prints.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClaimsDocument {
    partition: Option<String>,
    account_id: Option<String>,
    region: Option<String>,
    availability_zone: Option<String>,
    instance_id: Option<String>,
    image_id: Option<String>,
    instance_type: Option<String>,
    architecture: Option<String>,
    private_ip: Option<String>,
    pending_time: Option<Timestamp>,
    signing_time: Option<Timestamp>,
    certificate_serial: Option<String>,
}

/// Reads claims that are taken as if they were verified.
pub(super) fn claims_of_json(file: &Path) -> Result<Node, Failure> {
    Ok(node(json(file)?))
}

fn node(document: ClaimsDocument) -> Node {
    let mut values = ClaimValues::default();
    for (name, text) in [
        ("partition", document.partition),
        ("account_id", document.account_id),
        ("region", document.region),
        ("availability_zone", document.availability_zone),
        ("instance_id", document.instance_id),
        ("image_id", document.image_id),
        ("instance_type", document.instance_type),
        ("architecture", document.architecture),
        ("private_ip", document.private_ip),
        ("certificate_serial", document.certificate_serial),
    ] {
        if let Some(text) = text {
            values.insert(name, Value::Text(text), Provenance::Proven);
        }
    }
    let times = [("pending_time", document.pending_time), ("signing_time", document.signing_time)];
    for (name, time) in times {
        if let Some(time) = time {
            values.insert(name, Value::Time(time), Provenance::Proven);
        }
    }
    // A document that does not say when it was made is as old as can be.
    let epoch = document.pending_time.unwrap_or(Timestamp::from_unix_seconds(0));
    Node { values, epoch }
}

/// Verifies an identity document and takes its claims.
pub(super) fn claims_of_document(file: &Path, certificates: &[PathBuf]) -> Result<Node, Failure> {
    let certificates = input::certificates(certificates)?;
    let contents = input::read(file, MAX_DOCUMENT_BYTES)?;
    let document = IdentityDocument::verify(&contents, &certificates)?;
    let mut values = ClaimValues::default();
    for (name, value) in document.values() {
        if let Some(value) = value {
            values.insert(name, value, Provenance::Proven);
        }
    }
    Ok(Node { values, epoch: document.pending_time() })
}

/// The flag parser asks for one of the two; this is for a reader who sees that it did not.
pub(super) fn nothing_given() -> Failure {
    Failure::new(Code::ClaimsInvalid, "neither --document nor --claims was given")
}

/// What EC2 would say: a member that is missing was not read, one that is null is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InstanceDocument {
    state: Said<String>,
    instance_profile: Said<String>,
    tags: Said<Tags>,
    vpc: Said<String>,
    subnet: Said<String>,
    security_groups: Said<Vec<String>>,
    auto_scaling_group: Said<String>,
    launch_time: Said<Timestamp>,
    imds: Said<MetadataOptions>,
}

/// A member that tells "nothing was said" from "there is none".
#[derive(Debug, Default)]
enum Said<T> {
    #[default]
    Nothing,
    None,
    Some(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Said<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(from)?.map_or(Self::None, Self::Some))
    }
}

impl<T> Said<T> {
    fn map<U>(self, with: impl Fn(T) -> U) -> Said<U> {
        match self {
            Self::Nothing => Said::Nothing,
            Self::None => Said::None,
            Self::Some(value) => Said::Some(with(value)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetadataOptions {
    v2_only: bool,
    hop_limit: u32,
}

/// A map that refuses repeated keys, which serde's own maps overwrite.
#[derive(Debug)]
struct Tags(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct TagsVisitor;
        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = Tags;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tag names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tags, A::Error> {
                let mut tags = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if tags.insert(name, value).is_some() {
                        return Err(A::Error::custom("a tag stands twice"));
                    }
                }
                Ok(Tags(tags))
            }
        }
        from.deserialize_map(TagsVisitor)
    }
}

/// Reads what EC2 would say of the instance.
pub(super) fn instance_of_json(file: &Path) -> Result<InstanceFacts, Failure> {
    let document: InstanceDocument = json(file)?;
    let imds = |imds: MetadataOptions| Value::MetadataOptions {
        v2_only: imds.v2_only,
        hop_limit: imds.hop_limit,
    };
    let facts = [
        ("state", document.state.map(Value::Text)),
        ("instance_profile", document.instance_profile.map(Value::Text)),
        ("tags", document.tags.map(|tags| Value::Tags(tags.0))),
        ("vpc", document.vpc.map(Value::Text)),
        ("subnet", document.subnet.map(Value::Text)),
        ("security_groups", document.security_groups.map(Value::List)),
        ("auto_scaling_group", document.auto_scaling_group.map(Value::Text)),
        ("launch_time", document.launch_time.map(Value::Time)),
        ("imds", document.imds.map(imds)),
    ];
    let mut known = InstanceFacts::new();
    for (name, said) in facts {
        match said {
            Said::Nothing => {}
            Said::None => drop(known.insert(name, None)),
            Said::Some(value) => drop(known.insert(name, Some(value))),
        }
    }
    Ok(known)
}

fn json<T: DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let invalid = |why: &dyn fmt::Display| {
        Failure::new(Code::ClaimsInvalid, format!("`{}`: {why}", file.display()))
    };
    let bytes = input::read(file, MAX_BYTES)?;
    // serde would take a list for an object whose members stand in order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid(&"expected one JSON object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| invalid(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_claims(text: &str) -> Result<Node, Failure> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        claims_of_json(file.path())
    }

    fn read_instance(text: &str) -> Result<InstanceFacts, Failure> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        instance_of_json(file.path())
    }

    // I11: unknown and repeated members are refused.
    #[test]
    fn claims_are_strict_json() {
        for wrong in [
            r#"{"account": "111122223333"}"#,
            r#"{"account_id": "111122223333", "account_id": "444455556666"}"#,
            r#"{"account_id": 111122223333}"#,
            r#"{"pending_time": "yesterday"}"#,
            "{} {}",
            "[]",
            "",
        ] {
            assert_eq!(read_claims(wrong).unwrap_err().code, Code::ClaimsInvalid, "{wrong}");
        }
        assert_eq!(read_claims(r#"{"account_id": null}"#).unwrap().values, ClaimValues::default());
    }

    #[test]
    fn a_document_without_a_time_is_as_old_as_can_be() {
        assert_eq!(read_claims("{}").unwrap().epoch, Timestamp::from_unix_seconds(0));
    }

    #[test]
    fn the_instance_is_strict_json_too() {
        for wrong in [
            r#"{"tags": {"A": "1", "A": "2"}}"#,
            r#"{"tags": {"A": null}}"#,
            r#"{"imds": {"v2_only": true}}"#,
            r#"{"profile": "web"}"#,
        ] {
            assert_eq!(read_instance(wrong).unwrap_err().code, Code::ClaimsInvalid, "{wrong}");
        }
        let facts = read_instance(r#"{"imds": {"v2_only": true, "hop_limit": 1}, "vpc": null}"#);
        let imds = Value::MetadataOptions { v2_only: true, hop_limit: 1 };
        assert_eq!(facts.unwrap(), BTreeMap::from([("imds", Some(imds)), ("vpc", None)]));
    }
}

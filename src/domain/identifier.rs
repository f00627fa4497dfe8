//! Names that muster itself gives: policies, nodes, serials, correlation ids, subjects.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::spiffe::is_path_segment;
use super::text_form;

/// Text that is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct InvalidIdentifier {
    /// What the text should have been.
    pub expected: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $type:ident, $expected:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $type {
            type Err = InvalidIdentifier;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidIdentifier { expected: $expected })
                }
            }
        }
        text_form!($type);
    };
}

/// Lower-case letters, digits and hyphens, a letter first and no hyphen last, at most 63.
fn is_label(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

identifier!(
    /// The `metadata.name` of a policy, account set or deny list. It becomes part of SPIFFE IDs,
    /// and it holds a letter, so that it is never mistaken for an account number.
    PolicyName,
    "a name of lower-case letters, digits and hyphens that starts with a letter, at most 63 long",
    is_label
);
identifier!(
    /// The public name of a join token.
    TokenName,
    "a name of lower-case letters, digits and hyphens that starts with a letter, at most 63 long",
    is_label
);
identifier!(
    /// The name of a node that a join token is bound to. Names that begin with `k-` are those of
    /// nodes without one, made of their keys; those that begin with `i-` are of instances.
    NodeName,
    "a name of lower-case letters, digits and hyphens that starts with a letter, but not with `k-` or \
     `i-`, at most 63 long",
    |text| is_label(text) && !text.starts_with("k-") && !text.starts_with("i-")
);
identifier!(
    /// The lower-case hexadecimal SHA-256 of a loaded policy set.
    PolicyHash,
    "64 lower-case hexadecimal digits",
    |text| digest_from_hex(text).is_ok()
);
identifier!(
    /// A node's name in this installation: a function of its subject and slot.
    NodeId,
    "a node id such as n-0123456789abcdef0123",
    |text| {
        text.strip_prefix("n-").is_some_and(|digits| {
            digits.len() == 20
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    }
);
identifier!(
    /// One per attempt. Its first letter tells where the explanation is kept: `a` an admission,
    /// `s` a security event, `k` a refusal of a known account (all in the audit log), `n` noise (in
    /// memory only).
    CorrelationId,
    "a correlation id such as a-0123456789abcdef0123",
    |text| {
        text.split_once('-').is_some_and(|(class, digits)| {
            matches!(class, "a" | "s" | "k" | "n")
                && digits.len() == 20
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    }
);

impl PolicyHash {
    /// From the digest itself.
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(hex::encode(digest))
    }
}

impl CorrelationId {
    /// An id of class `a`, `s`, `k` or `n` from ten random bytes.
    pub fn new(class: char, random: [u8; 10]) -> Self {
        Self(format!("{class}-{}", hex::encode(random)))
    }
}

/// A certificate serial of 16 bytes, the first between 0x40 and 0x7f: positive, of one length, with
/// 126 random bits (CA/Browser baseline requirements ask for 64). Written as upper-case
/// hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// From random bytes.
    pub fn from_random(mut random: [u8; 16]) -> Self {
        if let Some(first) = random.first_mut() {
            *first = (*first & 0x3f) | 0x40;
        }
        Self(random)
    }

    /// The big-endian bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl FromStr for Serial {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: InvalidIdentifier =
            InvalidIdentifier { expected: "a serial of 32 upper-case hexadecimal digits" };
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| EXPECTED)?;
        let serial = Self(bytes);
        if serial.to_string() == text && Self::from_random(bytes) == serial {
            Ok(serial)
        } else {
            Err(EXPECTED)
        }
    }
}

text_form!(Serial);

/// What a join method proved the attester to be: a kind, and named segments from the outermost
/// inwards. For an EC2 instance the kind is `instance` and the segments are `partition`,
/// `account_id`, `region`, `instance_id`.
///
/// It is the key of the enrollment and the tail of the SPIFFE ID, so every segment is a SPIFFE
/// path segment and an identifier that nobody can choose (I6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "SubjectDocument", into = "SubjectDocument")]
pub struct Subject {
    kind: String,
    segments: Vec<(String, String)>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDocument {
    kind: String,
    segments: Vec<(String, String)>,
}

impl Subject {
    /// A subject of 1 to 8 segments; refused if one of them is no path segment.
    pub fn new<N: Into<String>, V: Into<String>>(
        kind: &str,
        segments: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, InvalidIdentifier> {
        let segments: Vec<(String, String)> =
            segments.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let is_valid = is_path_segment(kind)
            && (1..=8).contains(&segments.len())
            && segments.iter().all(|(name, value)| is_path_segment(name) && is_path_segment(value));
        if is_valid {
            Ok(Self { kind: kind.to_owned(), segments })
        } else {
            Err(InvalidIdentifier { expected: "a subject of one to eight path segments" })
        }
    }

    /// The kind, for example `instance`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The segment of this name.
    pub fn segment(&self, name: &str) -> Option<&str> {
        self.segments.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The values, from the outermost inwards.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|(_, value)| value.as_str())
    }

    /// The innermost value: the certificate's common name.
    pub fn name(&self) -> &str {
        self.segments.last().map_or("", |(_, value)| value)
    }

    /// `kind/outermost/…/innermost`: unique, because no part can hold a slash.
    pub fn path(&self) -> String {
        let mut path = self.kind.clone();
        for value in self.values() {
            path.push('/');
            path.push_str(value);
        }
        path
    }

    /// The node id of this subject's slot.
    pub fn node_id(&self, slot: &str) -> NodeId {
        let mut hash = Context::new(&SHA256);
        hash.update(b"muster/node-id/v1\0");
        hash.update(self.path().as_bytes());
        hash.update(b"\0");
        hash.update(slot.as_bytes());
        let digits: String = hex::encode(hash.finish().as_ref()).chars().take(20).collect();
        NodeId(format!("n-{digits}"))
    }
}

impl From<Subject> for SubjectDocument {
    fn from(subject: Subject) -> Self {
        Self { kind: subject.kind, segments: subject.segments }
    }
}

impl TryFrom<SubjectDocument> for Subject {
    type Error = InvalidIdentifier;

    fn try_from(document: SubjectDocument) -> Result<Self, Self::Error> {
        Self::new(&document.kind, document.segments)
    }
}

pub(super) fn digest_from_hex(text: &str) -> Result<[u8; 32], InvalidIdentifier> {
    const EXPECTED: InvalidIdentifier =
        InvalidIdentifier { expected: "64 lower-case hexadecimal digits" };
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| EXPECTED)?;
    if hex::encode(bytes) == text { Ok(bytes) } else { Err(EXPECTED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_name_is_a_dns_label_with_a_letter_first() {
        assert!("web-2".parse::<PolicyName>().is_ok());
        for wrong in ["", "2web", "Web", "web_", "web-", "a/b", "..", "111122223333", "wéb"] {
            assert!(wrong.parse::<PolicyName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_serial_is_positive_and_of_one_length() {
        for random in [[0; 16], [0xff; 16]] {
            let serial = Serial::from_random(random);
            assert!((0x40..0x80).contains(&serial.as_bytes()[0]));
            assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }
        assert!("00".repeat(16).parse::<Serial>().is_err());
        assert!("ab".repeat(16).parse::<Serial>().is_err());
    }

    // T10: nothing that steers a path becomes part of a subject.
    #[test]
    fn a_subject_holds_path_segments_only() {
        let subject =
            |id: &str| Subject::new("instance", [("partition", "aws"), ("instance_id", id)]);
        assert_eq!(subject("i-1").unwrap().path(), "instance/aws/i-1");
        for hostile in ["", "..", "a/b", "a\nb", "%2e"] {
            assert!(subject(hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn slots_of_one_subject_are_two_nodes() {
        let subject = Subject::new("instance", [("instance_id", "i-1")]).unwrap();
        assert_ne!(subject.node_id("default"), subject.node_id("sidecar"));
        assert!(subject.node_id("default").as_str().parse::<NodeId>().is_ok());
    }
}

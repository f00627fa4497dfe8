//! Trust domains and SPIFFE IDs, as the SPIFFE-ID specification (sections 2.1 to 2.4) has them.

use std::fmt;
use std::str::FromStr;

use super::text_form;

/// Text that is not a trust domain or a SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct InvalidSpiffeId {
    /// What the text should have been.
    pub expected: &'static str,
}

/// The root of all names: lower-case letters, digits, dots, hyphens, underscores, at most 255.
/// The grammar allows underscores; dots and length are as the specification bounds them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identity of the join listener, the only one that an agent accepts as a server (I16).
    pub fn server_id(&self) -> SpiffeId {
        SpiffeId(format!("spiffe://{}/muster/server", self.0))
    }

    /// An identity below this trust domain.
    ///
    /// Each segment must be one or more of `[A-Za-z0-9._-]` and neither `.` nor `..`: text of
    /// another kind can never become part of a path (T10).
    pub fn id<'a>(
        &self,
        segments: impl IntoIterator<Item = &'a str>,
    ) -> Result<SpiffeId, InvalidSpiffeId> {
        let mut text = format!("spiffe://{}", self.0);
        for segment in segments {
            if !is_path_segment(segment) {
                return Err(InvalidSpiffeId {
                    expected: "path segments of letters, digits, `.`, `_` and `-`",
                });
            }
            text.push('/');
            text.push_str(segment);
        }
        if text.len() > SpiffeId::MAX_BYTES {
            return Err(InvalidSpiffeId { expected: "a SPIFFE ID of at most 2,048 bytes" });
        }
        Ok(SpiffeId(text))
    }
}

/// Whether text may stand between two slashes of a SPIFFE ID.
pub(crate) fn is_path_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_valid = !text.is_empty()
            && text.len() <= 255
            && !text.starts_with(['.', '-'])
            && !text.ends_with(['.', '-'])
            && !text.contains("..")
            && text.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
            });
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSpiffeId { expected: "a trust domain such as prod.example.org" })
        }
    }
}

text_form!(TrustDomain);

/// A SPIFFE ID: `spiffe://<trust domain>/<path>`, at most 2,048 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId(String);

impl SpiffeId {
    const MAX_BYTES: usize = 2048;

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is below `/muster/` or the bare trust domain: never a node's, whatever a policy
    /// says.
    pub fn is_reserved(&self) -> bool {
        let path = self.0.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
        path.is_none_or(|(_, path)| path == "muster" || path.starts_with("muster/"))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: InvalidSpiffeId =
            InvalidSpiffeId { expected: "a SPIFFE ID such as spiffe://prod.example.org/node/a" };
        let rest = text.strip_prefix("spiffe://").ok_or(EXPECTED)?;
        let (domain, path) = rest.split_once('/').ok_or(EXPECTED)?;
        domain.parse::<TrustDomain>()?.id(path.split('/'))
    }
}

text_form!(SpiffeId);

#[cfg(test)]
mod tests {
    use super::*;

    // T10: text that steers a path cannot become one.
    #[test]
    fn text_that_steers_a_path_is_no_segment() {
        let domain: TrustDomain = "prod.example.org".parse().unwrap();
        let long = "a".repeat(300);
        let hostile = [
            "",
            ".",
            "..",
            "../../admin",
            "a/b",
            "a%2fb",
            "a\0",
            "a\r\n",
            "а",
            "a*",
            "a+b",
            "a,b",
            &long,
        ];
        for segment in hostile {
            assert!(domain.id(["node", segment]).is_err(), "{segment:?}");
        }
        assert_eq!(
            domain.id(["node", "i-1"]).unwrap().as_str(),
            "spiffe://prod.example.org/node/i-1"
        );
    }

    #[test]
    fn the_servers_own_paths_are_reserved() {
        let domain: TrustDomain = "prod.example.org".parse().unwrap();
        assert!(domain.server_id().is_reserved());
        assert!(domain.id(["muster"]).unwrap().is_reserved());
        assert!(domain.id([]).unwrap().is_reserved());
        assert!(!domain.id(["node", "muster"]).unwrap().is_reserved());
        assert!(!domain.id(["musters"]).unwrap().is_reserved());
    }

    #[test]
    fn a_trust_domain_is_a_lower_case_name() {
        for wrong in ["", "Prod.example.org", "a b", "a/b", "a:1", ".a", "a.", "a..b", "spiffe://a"]
        {
            assert!(wrong.parse::<TrustDomain>().is_err(), "{wrong}");
        }
    }
}

//! Join tokens. A token has a public name and a secret, an Ed25519 seed that never crosses the wire:
//! the server keeps the public key, and the node signs with the seed (red team B2, T34).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Lifetime, NodeName, PolicyName, Timestamp, TokenName};

/// What the text of every token begins with.
const PREFIX: &str = "muster-token-1";
/// The longest text of a token: prefix, name, digits.
const TEXT_BYTES_MAX: usize = 192;
const SEED_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// Text that is no token. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: {0}")]
pub struct InvalidToken(&'static str);

/// A public key that is not 32 bytes in lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hexadecimal digits")]
pub struct InvalidTokenKey;

/// A token as whoever joins with it holds it. Wiped from memory when it is dropped; no `Debug`.
///
/// Its text is `muster-token-1.<name>.<72 lower-case hexadecimal digits>`: the seed and the first
/// four bytes of a SHA-256 over name and seed. There is one spelling of it; any other is refused
/// before anybody is asked.
pub struct TokenSecret {
    name: TokenName,
    seed: Zeroizing<[u8; SEED_BYTES]>,
    key: Ed25519KeyPair,
}

impl TokenSecret {
    /// The token of this seed, which must be random.
    pub fn from_seed(
        name: TokenName,
        seed: Zeroizing<[u8; SEED_BYTES]>,
    ) -> Result<Self, InvalidToken> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .map_err(|_| InvalidToken("its seed makes no key"))?;
        Ok(Self { name, seed, key })
    }

    /// Reads a token. White space around it is not part of it; nothing else is forgiven.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim_ascii();
        if text.len() > TEXT_BYTES_MAX {
            return Err(InvalidToken("it is too long"));
        }
        let mut parts = text.split('.');
        let (prefix, name, digits) = (parts.next(), parts.next(), parts.next());
        let (Some(PREFIX), Some(name), Some(digits), None) = (prefix, name, digits, parts.next())
        else {
            return Err(InvalidToken("it is not `muster-token-1.<name>.<digits>`"));
        };
        let name: TokenName = name.parse().map_err(|_| InvalidToken("its name is none"))?;
        let mut bytes = Zeroizing::new([0; SEED_BYTES + CHECKSUM_BYTES]);
        let is_hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_hex || hex::decode_to_slice(digits, bytes.as_mut_slice()).is_err() {
            return Err(InvalidToken("its secret is not 72 lower-case hexadecimal digits"));
        }
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        let (written, checked) = bytes.split_at(SEED_BYTES);
        seed.copy_from_slice(written);
        if checksum(&name, &seed) != checked {
            return Err(InvalidToken("its checksum does not fit: a character is wrong or missing"));
        }
        Self::from_seed(name, seed)
    }

    /// The public name.
    pub fn name(&self) -> &TokenName {
        &self.name
    }

    /// What the server keeps.
    pub fn public_key(&self) -> TokenKey {
        let mut key = [0; SEED_BYTES];
        key.copy_from_slice(self.key.public_key().as_ref());
        TokenKey(key)
    }

    /// The secret as text: for the node that is to have it, and nobody else.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; SEED_BYTES + CHECKSUM_BYTES]);
        let (seed, sum) = bytes.split_at_mut(SEED_BYTES);
        seed.copy_from_slice(self.seed.as_slice());
        sum.copy_from_slice(&checksum(&self.name, &self.seed));
        let digits = Zeroizing::new(hex::encode(bytes.as_slice()));
        Zeroizing::new(format!("{PREFIX}.{}.{}", self.name, digits.as_str()))
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.key.sign(message).as_ref());
        signature
    }
}

fn checksum(name: &TokenName, seed: &[u8; SEED_BYTES]) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Context::new(&SHA256);
    hash.update(b"muster/token-text/v1\0");
    hash.update(name.as_str().as_bytes());
    hash.update(b"\0");
    hash.update(seed);
    let mut sum = [0; CHECKSUM_BYTES];
    for (to, from) in sum.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    sum
}

/// The public key of a token, Ed25519; 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey([u8; SEED_BYTES]);

impl TokenKey {
    /// Whether `signature` over `message` is by the token of this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::str::FromStr for TokenKey {
    type Err = InvalidTokenKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut key = [0; SEED_BYTES];
        let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut key) {
            Ok(()) if is_lower => Ok(Self(key)),
            Ok(()) | Err(_) => Err(InvalidTokenKey),
        }
    }
}

super::text_form!(TokenKey);

/// A token as the server keeps it. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its public name.
    pub name: TokenName,
    /// What its holder signs with.
    pub public_key: TokenKey,
    /// The only policy that it joins under.
    pub policy: PolicyName,
    /// The node that it is for; without one each key that joins with it is a node of its own.
    pub node: Option<NodeName>,
    /// From where it may be used; from anywhere, if empty.
    pub cidrs: Vec<IpNet>,
    /// What rules can ask for.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub description: Option<String>,
    /// From when on.
    pub created_at: Timestamp,
    /// Until when; for ever, if none.
    pub expires_at: Option<Timestamp>,
    /// How many nodes may join with it; any number, if none.
    pub max_uses: Option<u32>,
    /// Who made it.
    pub origin: TokenOrigin,
}

/// Who made a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenOrigin {
    /// Somebody at the server's socket.
    Operator {
        /// For example `uid 0 (login 1000)`.
        by: String,
    },
    /// The server's file of static tokens.
    Static,
    /// A publication of the policy set.
    Publication {
        /// Its name.
        publication: PolicyName,
        /// Its target, for example `aws/us-west-2/111122223333`.
        target: String,
    },
}

impl Token {
    /// How long it lives in all; nothing if for ever.
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.expires_at.map(|end| end.since(self.created_at))
    }

    /// Whether a node that was judged by `other` would be judged the same by this, but for its end and
    /// the number of its uses.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let Self { expires_at, max_uses, .. } = self.clone();
        Self { expires_at, max_uses, ..other.clone() } == *self
    }

    /// Whether it has ended.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }

    /// Whether it may be used from there. An address that is not known is nowhere.
    pub fn may_come_from(&self, source: Option<IpAddr>) -> bool {
        let is_in = |address: IpAddr| self.cidrs.iter().any(|network| network.contains(&address));
        self.cidrs.is_empty() || source.map(|address| address.to_canonical()).is_some_and(is_in)
    }
}

/// Whether a network is written as what it is: by its first address, and an IPv4 one as such. Sources
/// are compared as IPv4 wherever they can be, so one that is mapped into IPv6 would match nobody, and in
/// a prohibition that is nobody prohibited.
pub fn is_plain_network(network: &IpNet) -> bool {
    let is_mapped = match network {
        IpNet::V4(_) => false,
        IpNet::V6(network) => network.addr().to_ipv4_mapped().is_some(),
    };
    *network == network.trunc() && !is_mapped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> TokenSecret {
        TokenSecret::from_seed("web-1".parse().unwrap(), Zeroizing::new([7; 32])).unwrap()
    }

    #[test]
    fn a_token_comes_back_as_it_went() {
        let text = secret().to_text();
        let read = TokenSecret::parse(&format!("  {}\n", text.as_str())).ok().unwrap();
        assert_eq!(read.name(), secret().name());
        assert_eq!(read.public_key(), secret().public_key());
        let signature = read.sign(b"message");
        assert!(secret().public_key().verifies(b"message", &signature));
        assert!(!secret().public_key().verifies(b"another", &signature));
    }

    // T34: there is one spelling of a token. Every other is refused, so none can count as new.
    #[test]
    fn another_spelling_is_no_token() {
        let text = secret().to_text().to_string();
        let (head, digits) = text.rsplit_once('.').unwrap();
        for wrong in [
            text.to_uppercase(),
            format!("{head}.{}", digits.to_uppercase()),
            text.replace("web-1", "Web-1"),
            text.replace("web-1", "web-2"),
            text.replace("web-1", "web-１"),
            text.replace('.', " ."),
            format!("{head}. {digits}"),
            format!("{head}.{digits}\u{a0}"),
            format!("{text}="),
            format!("{text}."),
            format!("{head}.{}", &digits[..70]),
            format!("{head}.{digits}00"),
            format!("muster-token-2.web-1.{digits}"),
            String::new(),
            "a".repeat(500),
        ] {
            let error = TokenSecret::parse(&wrong).err().expect(&wrong);
            assert!(!error.to_string().contains("0707"), "{error}");
        }
    }

    #[test]
    fn a_source_is_in_a_network_or_it_is_not() {
        let token = |cidrs: &[&str]| Token {
            name: "a".parse().unwrap(),
            public_key: secret().public_key(),
            policy: "web".parse().unwrap(),
            node: None,
            cidrs: cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            labels: BTreeMap::new(),
            description: None,
            created_at: Timestamp::from_unix_seconds(1),
            expires_at: None,
            max_uses: None,
            origin: TokenOrigin::Static,
        };
        let here = Some("::ffff:10.1.2.3".parse().unwrap());
        assert!(token(&[]).may_come_from(None));
        assert!(token(&["10.0.0.0/8"]).may_come_from(here));
        assert!(!token(&["10.2.0.0/16", "fd00::/8"]).may_come_from(here));
        assert!(!token(&["10.0.0.0/8"]).may_come_from(None));
    }

    proptest! {
        // A single wrong character is found before anybody is asked.
        #[test]
        fn a_wrong_digit_is_found(at in 0_usize..72, with in 0_u8..16) {
            let text = secret().to_text().to_string();
            let start = text.len() - 72;
            let digit = char::from_digit(u32::from(with), 16).unwrap();
            let mut changed = text.clone();
            changed.replace_range(start + at..=start + at, &digit.to_string());
            prop_assert_eq!(TokenSecret::parse(&changed).is_ok(), changed == text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,300}") {
            let _read = TokenSecret::parse(&text).is_ok();
        }
    }
}

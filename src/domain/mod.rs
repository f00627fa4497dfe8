//! The vocabulary of the crate: validated names, times, codes. No I/O, no clock, no policy.
//!
//! Every type here is parsed once, at the edge; a value of the type is a value of the right form.

mod binding;
mod cloud;
mod code;
mod identifier;
mod json_text;
mod key;
mod network;
mod spiffe;
mod timestamp;
mod token;

pub use binding::{KeyBinding, Purpose, pop_message};
pub use cloud::{AccountId, InstanceId, InvalidCloudName, Partition, Region};
pub use code::{Class, Code};
pub use identifier::{
    CorrelationId, InvalidIdentifier, NodeId, NodeName, PolicyHash, PolicyName, Serial, Subject,
    TokenName,
};
pub use json_text::JsonText;
pub use key::{InvalidPublicKey, KeyDigest, PublicKey};
pub use network::Network;
pub use spiffe::{InvalidSpiffeId, SpiffeId, TrustDomain};
pub use timestamp::{InvalidTime, Lifetime, Timestamp};
pub use token::{
    InvalidToken, InvalidTokenKey, Token, TokenKey, TokenOrigin, TokenSecret, is_plain_network,
};

use serde::{Deserialize, Deserializer};

/// Implements `Display`, `FromStr`-based `Deserialize` and string `Serialize` for a newtype whose
/// text form is its only form.
macro_rules! text_form {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                super::from_text(from)
            }
        }
    };
}
use text_form;

fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

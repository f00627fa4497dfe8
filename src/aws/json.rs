//! Strict JSON from strangers: no duplicate keys at any depth, bounded nesting, and errors that
//! say where, never what (I10).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How deep objects and lists may nest (T35).
const MAX_DEPTH: usize = 16;

/// A JSON value. Numbers are kept only as being numbers: no reader here needs one.
#[derive(Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Some number.
    Number,
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object, each key once.
    Object(BTreeMap<String, Json>),
}

/// Bytes that are not one value of strict JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}, column {column}: not strict JSON (UTF-8 without byte order mark, each key once, at most 16 deep)"
)]
pub struct InvalidJson {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1; 0 before the first character.
    pub column: usize,
}

impl Json {
    /// Reads one value and nothing after it. `bytes` is attacker-controlled and bounded by the
    /// caller.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidJson> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        Strict { depth: 0 }
            .deserialize(&mut deserializer)
            .and_then(|value| deserializer.end().map(|()| value))
            // The parser's own message may quote the input, so only its position is kept.
            .map_err(|error| InvalidJson { line: error.line(), column: error.column() })
    }

    /// The members, if this is an object.
    pub fn into_object(self) -> Option<BTreeMap<String, Self>> {
        match self {
            Self::Object(members) => Some(members),
            Self::Null | Self::Bool(_) | Self::Number | Self::Text(_) | Self::List(_) => None,
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        })
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH {
            Ok(Self { depth: self.depth + 1 })
        } else {
            Err(E::custom("too deep"))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let inner = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let inner = self.deeper()?;
        let mut members = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            // Two readers of one document must not see two values (T43).
            if members.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_any_white_space() {
        let members =
            Json::parse(b" {\"a\" :\n null, \"b\": [\"x\", 1, -1, 1.5, true]}\n").unwrap();
        let members = members.into_object().unwrap();
        assert_eq!(members["a"], Json::Null);
        let Json::List(list) = &members["b"] else { panic!("not a list") };
        assert_eq!(list[0], Json::Text("x".to_owned()));
        assert_eq!(list[1..4], [Json::Number, Json::Number, Json::Number]);
    }

    // T43: what a lenient parser would let pass.
    #[test]
    fn lenient_json_is_refused() {
        for hostile in [
            &b""[..],
            b"{\"a\":1,\"a\":1}",
            b"{\"a\":{\"b\":1,\"b\":2}}",
            b"[{\"a\":1,\"\\u0061\":2}]",
            b"\xef\xbb\xbf{}",
            b"{\"a\":NaN}",
            b"{\"a\":Infinity}",
            b"{\"a\":01}",
            b"{\"a\":1,}",
            b"{a:1}",
            b"{'a':1}",
            b"{} {}",
            b"{}x",
            b"{/**/}",
            b"\"\xff\"",
            b"\"\\ud800\"",
            b"\"a\nb\"",
        ] {
            assert!(Json::parse(hostile).is_err(), "{}", String::from_utf8_lossy(hostile));
        }
    }

    // T35: nesting is bounded, on the boundary.
    #[test]
    fn nesting_ends_at_sixteen() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Json::parse(nested(16).as_bytes()).is_ok());
        assert!(Json::parse(nested(17).as_bytes()).is_err());
        assert!(Json::parse("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn an_error_does_not_quote_its_input() {
        let error = Json::parse(b"{\"a\":\"canary\" \"canary\"}").unwrap_err();
        assert!(!error.to_string().contains("canary"));
    }
}

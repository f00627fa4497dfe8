//! The evidence of the `token` method: a name and a signature, or nothing at all.

use crate::aws::Json;
use crate::domain::{Code, KeyBinding, TokenName, TokenSecret};
use crate::methods::Rejection;

/// The most bytes of evidence that are read.
pub const MAX_EVIDENCE_BYTES: usize = 1024;

/// The evidence for this stream: by a token, or by the node's key alone.
pub fn evidence(token: Option<&TokenSecret>, binding: &KeyBinding) -> Vec<u8> {
    let members = token.map_or_else(
        || serde_json::json!({}),
        |token| {
            let signature = token.sign(&signed_message(binding));
            serde_json::json!({"token": token.name(), "signature": hex::encode(signature)})
        },
    );
    members.to_string().into_bytes()
}

/// What a token signs.
pub(super) fn signed_message(binding: &KeyBinding) -> Vec<u8> {
    let mut message = b"muster/token/v1\0".to_vec();
    message.extend_from_slice(binding.as_bytes());
    message
}

/// Evidence in parsed form; nothing of it is verified.
pub(super) struct Evidence {
    /// Nothing in the empty form.
    pub(super) signed: Option<SignedName>,
}

/// A token's name, and a signature that should be by it.
pub(super) struct SignedName {
    pub(super) name: TokenName,
    pub(super) signature: [u8; 64],
}

impl Evidence {
    /// Reads evidence, which is attacker-controlled.
    pub(super) fn parse(evidence: &[u8]) -> Result<Self, Rejection> {
        if evidence.len() > MAX_EVIDENCE_BYTES {
            return Err(malformed("the evidence is longer than 1 KiB"));
        }
        let members = Json::parse(evidence).ok().and_then(Json::into_object);
        let mut members = members.ok_or_else(|| malformed("the evidence is no JSON object"))?;
        let (name, signature) = (members.remove("token"), members.remove("signature"));
        let signed = match (name, signature, members.is_empty()) {
            (None, None, true) => None,
            (Some(Json::Text(name)), Some(Json::Text(signature)), true) => {
                Some(SignedName::parse(&name, &signature)?)
            }
            _ => return Err(malformed("the evidence is not `token` and `signature`, or nothing")),
        };
        Ok(Self { signed })
    }
}

impl SignedName {
    fn parse(name: &str, digits: &str) -> Result<Self, Rejection> {
        let name = name.parse().map_err(|_| malformed("`token` is no name of a token"))?;
        let mut signature = [0; 64];
        let is_lower = !digits.bytes().any(|b| b.is_ascii_uppercase());
        match hex::decode_to_slice(digits, &mut signature) {
            Ok(()) if is_lower => Ok(Self { name, signature }),
            Ok(()) | Err(_) => {
                Err(malformed("`signature` is not 128 lower-case hexadecimal digits"))
            }
        }
    }
}

/// It never repeats what was sent: somebody may have sent a secret.
fn malformed(what: &str) -> Rejection {
    Rejection::new(Code::MalformedRequest, what)
}

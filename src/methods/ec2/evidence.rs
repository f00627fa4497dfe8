//! The evidence of the `ec2` method: a small JSON envelope around the document and the proof.

use std::collections::BTreeMap;
use std::fmt;

use crate::aws::{InvalidSignedRequest, Json, SignedRequest};
use crate::domain::{Code, KeyBinding, Region};
use crate::methods::Rejection;

/// The most bytes of evidence that are read.
pub const MAX_EVIDENCE_BYTES: usize = 16 * 1024;

/// The evidence for a document as the metadata service answered it, with the proof for this stream.
pub fn evidence(document: &str, proof: Option<(&SignedRequest, &KeyBinding)>) -> Vec<u8> {
    let mut envelope = serde_json::json!({ "document": document });
    if let (Some((signed, binding)), Some(members)) = (proof, envelope.as_object_mut()) {
        let proof = serde_json::json!({
            "region": signed.region().as_str(),
            "endpoint": signed.endpoint().as_str(),
            "access_key_id": signed.access_key_id(),
            "date": signed.date(),
            "session_token": signed.session_token(),
            "signature": signed.signature(),
            "key_binding": hex::encode(binding.as_bytes()),
        });
        members.insert("proof".to_owned(), proof);
    }
    envelope.to_string().into_bytes()
}

/// Evidence in parsed form; nothing of it is verified.
pub(super) struct Evidence {
    pub(super) document: String,
    proof: Option<BTreeMap<String, Json>>,
}

/// A fresh proof in parsed form.
pub(super) struct OfferedProof {
    pub(super) signed: SignedRequest,
    /// What the node says it signed: compared with the server's own and never used.
    pub(super) key_binding: String,
}

impl Evidence {
    /// Reads evidence, which is attacker-controlled.
    pub(super) fn parse(evidence: &[u8]) -> Result<Self, Rejection> {
        if evidence.len() > MAX_EVIDENCE_BYTES {
            return Err(rejection(Code::DocumentTooLarge, "the evidence is longer than 16 KiB"));
        }
        let members = Json::parse(evidence).ok().and_then(Json::into_object);
        let mut members = members.unwrap_or_default();
        let document = members.remove("document");
        let proof = members.remove("proof").map(Json::into_object);
        match (document, proof, members.is_empty()) {
            (Some(Json::Text(document)), None, true) => Ok(Self { document, proof: None }),
            (Some(Json::Text(document)), Some(Some(proof)), true) => {
                Ok(Self { document, proof: Some(proof) })
            }
            _ => Err(rejection(
                Code::MalformedRequest,
                "the evidence is not a JSON object with the string `document` and, beside it, at \
                 most the object `proof`",
            )),
        }
    }

    /// The proof that was offered, if one was. `region` is the verified document's: no other STS is
    /// asked.
    pub(super) fn into_proof(self, region: &Region) -> Result<Option<OfferedProof>, Rejection> {
        let Some(mut members) = self.proof else { return Ok(None) };
        let mut text = |name: &'static str| match members.remove(name) {
            Some(Json::Text(text)) => Ok(text),
            _ => Err(malformed(format_args!("it has no string `{name}`"))),
        };
        let said_region = text("region")?;
        let endpoint = text("endpoint")?;
        let access_key_id = text("access_key_id")?;
        let date = text("date")?;
        let session_token = text("session_token")?;
        let signature = text("signature")?;
        let key_binding = text("key_binding")?;
        if !members.is_empty() {
            return Err(malformed(format_args!("it has members that no proof has")));
        }
        if said_region != region.as_str() {
            return Err(malformed(format_args!("it is for another region than the document")));
        }
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if key_binding.len() != 64 || !key_binding.bytes().all(is_hex) {
            return Err(malformed(format_args!("`key_binding` is not 64 hexadecimal digits")));
        }
        let signed = SignedRequest::parse(
            region,
            &endpoint,
            &access_key_id,
            &date,
            &session_token,
            &signature,
        )
        .map_err(|error: InvalidSignedRequest| malformed(format_args!("{error}")))?;
        Ok(Some(OfferedProof { signed, key_binding }))
    }
}

fn malformed(what: fmt::Arguments<'_>) -> Rejection {
    let hint = format!("the proof cannot be read: {what}");
    Rejection { hint: Some(hint.clone()), ..Rejection::new(Code::ProofMalformed, hint) }
}

fn rejection(code: Code, message: &str) -> Rejection {
    Rejection::new(code, message)
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;
    use crate::aws::{EndpointKind, TemporaryCredentials};
    use crate::domain::{PublicKey, Purpose, Timestamp};

    fn region() -> Region {
        "us-west-2".parse().unwrap()
    }

    fn with_proof() -> (serde_json::Value, KeyBinding) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = PublicKey::from_spki_der(&pair.subject_public_key_info()).unwrap();
        let binding = KeyBinding::new(Purpose::Join, &[1; 32], &[2; 32], "ec2", "web", &key);
        let credentials = TemporaryCredentials {
            access_key_id: "ASIARTX3GSDSTI32LOY6".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: "dG9rZW4=".to_owned(),
        };
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let (region, kind) = (region(), EndpointKind::Regional);
        let signed = SignedRequest::sign(&credentials, &region, kind, &binding, now).unwrap();
        let bytes = evidence("doc", Some((&signed, &binding)));
        (serde_json::from_slice(&bytes).unwrap(), binding)
    }

    fn proof_of(value: &serde_json::Value) -> Result<Option<OfferedProof>, Rejection> {
        Evidence::parse(value.to_string().as_bytes()).unwrap().into_proof(&region())
    }

    #[test]
    fn evidence_holds_the_document_as_it_was_answered() {
        let text = "MIAG\nCSqG\"\\\u{e9}";
        let read = Evidence::parse(&evidence(text, None)).unwrap();
        assert_eq!(read.document, text);
        assert!(read.into_proof(&region()).unwrap().is_none());
    }

    #[test]
    fn a_proof_comes_back_as_it_went() {
        let (value, binding) = with_proof();
        let proof = proof_of(&value).unwrap().unwrap();
        assert_eq!(proof.key_binding, hex::encode(binding.as_bytes()));
        assert_eq!(proof.signed.host(), "sts.us-west-2.amazonaws.com");
        assert_eq!(proof.signed.date(), "20270115T080000Z");
    }

    // T1, T5, T48: seven strings, each in its form, none beside them.
    #[test]
    fn a_proof_of_any_other_form_is_refused() {
        let (good, _) = with_proof();
        let names: Vec<String> = good["proof"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 7);
        for name in &names {
            for wrong in [serde_json::json!(null), serde_json::json!(1), serde_json::json!("\r\n")]
            {
                let mut value = good.clone();
                value["proof"][name] = wrong;
                assert_eq!(proof_of(&value).err().unwrap().code, Code::ProofMalformed, "{name}");
            }
            let mut value = good.clone();
            value["proof"].as_object_mut().unwrap().remove(name);
            assert_eq!(proof_of(&value).err().unwrap().code, Code::ProofMalformed, "{name}");
        }
        for (name, wrong) in [
            ("host", "sts.evil.example"),
            ("headers", "host"),
            ("Region", "us-west-2"),
            ("region", "eu-central-1"),
            ("region", "us-west-2.evil.example"),
            ("endpoint", "global"),
        ] {
            let mut value = good.clone();
            value["proof"][name] = wrong.into();
            assert_eq!(proof_of(&value).err().unwrap().code, Code::ProofMalformed, "{name}");
        }
    }

    // T6, T17, T35, T43: one document, nothing unknown beside it, within bounds.
    #[test]
    fn evidence_of_any_other_form_is_refused() {
        for hostile in [
            &b""[..],
            b"{}",
            b"[\"x\"]",
            b"\"x\"",
            b"{\"document\":null}",
            b"{\"document\":1}",
            b"{\"document\":[\"x\"]}",
            b"{\"document\":\"x\",\"document\":\"y\"}",
            b"{\"document\":\"x\",\"accountId\":\"111122223333\"}",
            b"{\"document\":\"x\",\"proof\":null}",
            b"{\"document\":\"x\",\"proof\":\"y\"}",
            b"{\"document\":\"x\",\"proof\":[]}",
            b"{\"document\":\"x\",\"proof\":{\"a\":\"b\",\"a\":\"c\"}}",
            b"{\"Document\":\"x\"}",
            b"{\"document\":\"x\"}{}",
        ] {
            let rejection = Evidence::parse(hostile).err().unwrap();
            assert_eq!(rejection.code, Code::MalformedRequest);
        }
    }

    #[test]
    fn evidence_is_bounded_on_the_byte() {
        let envelope = evidence("", None).len();
        let full = evidence(&"x".repeat(MAX_EVIDENCE_BYTES - envelope), None);
        assert!(Evidence::parse(&full).is_ok());
        let longer = evidence(&"x".repeat(MAX_EVIDENCE_BYTES - envelope + 1), None);
        assert_eq!(Evidence::parse(&longer).err().unwrap().code, Code::DocumentTooLarge);
    }
}

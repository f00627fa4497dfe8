//! The evidence of the `ec2` method: a small JSON envelope around the document.

use crate::aws::Json;
use crate::domain::Code;
use crate::methods::Rejection;

/// The most bytes of evidence that are read.
pub const MAX_EVIDENCE_BYTES: usize = 16 * 1024;

/// The evidence for a document as the metadata service answered it.
pub fn evidence(document: &str) -> Vec<u8> {
    serde_json::json!({ "document": document }).to_string().into_bytes()
}

/// The document inside of evidence. `evidence` is attacker-controlled.
pub(super) fn document(evidence: &[u8]) -> Result<String, Rejection> {
    if evidence.len() > MAX_EVIDENCE_BYTES {
        return Err(rejection(Code::DocumentTooLarge, "the evidence is longer than 16 KiB"));
    }
    let members = Json::parse(evidence).ok().and_then(Json::into_object);
    let mut members = members.unwrap_or_default();
    match (members.remove("document"), members.is_empty()) {
        (Some(Json::Text(document)), true) => Ok(document),
        _ => Err(rejection(
            Code::MalformedRequest,
            "the evidence is not a JSON object with the one member `document`, a string",
        )),
    }
}

fn rejection(code: Code, message: &str) -> Rejection {
    Rejection { code, message: message.to_owned(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_holds_the_document_as_it_was_answered() {
        let text = "MIAG\nCSqG\"\\\u{e9}";
        assert_eq!(document(&evidence(text)).unwrap(), text);
    }

    // T6, T17, T35, T43: one document, nothing beside it, within bounds.
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
            b"{\"Document\":\"x\"}",
            b"{\"document\":\"x\"}{}",
        ] {
            let rejection = document(hostile).unwrap_err();
            assert_eq!(rejection.code, Code::MalformedRequest);
        }
    }

    #[test]
    fn evidence_is_bounded_on_the_byte() {
        let envelope = evidence("").len();
        assert!(document(&evidence(&"x".repeat(MAX_EVIDENCE_BYTES - envelope))).is_ok());
        let longer = evidence(&"x".repeat(MAX_EVIDENCE_BYTES - envelope + 1));
        assert_eq!(document(&longer).unwrap_err().code, Code::DocumentTooLarge);
    }
}

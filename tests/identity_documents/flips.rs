//! Every single-bit flip of a message: what was changed decides the answer, and what is still
//! accepted says the same.

use std::ops::Range;

use muster::aws::RegionCertificates;
use muster::domain::Code;
use muster::methods::ec2::IdentityDocument;

use crate::forge::*;

/// Where the parts of a message stand.
struct Layout {
    content: Range<usize>,
    attributes: Range<usize>,
    signature: Range<usize>,
}

fn find(message: &[u8], part: &[u8]) -> Range<usize> {
    let start = message.windows(part.len()).position(|window| window == part).unwrap();
    start..start + part.len()
}

/// Flips every bit and checks each answer. Returns how many flips were accepted.
pub(crate) fn every_flip(message: &[u8], trusted: &RegionCertificates, content: &[u8]) -> usize {
    let content = find(message, content);
    // The last element but for the ends of three indefinite ones.
    let signature = message.len() - 6 - 256..message.len() - 6;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &message[content.clone()]);
    let layout = Layout { attributes: find(message, digest.as_ref()), content, signature };
    let original = IdentityDocument::verify(message, trusted).unwrap();
    let mut accepted = 0;
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut flipped = message.to_vec();
            flipped[at] ^= 1 << bit;
            let answer = IdentityDocument::verify(&flipped, trusted).map_err(|error| error.code);
            let expected = layout.expected(at);
            match answer {
                Ok(document) => {
                    assert_eq!(document, original, "byte {at}, bit {bit}");
                    assert_eq!(expected, None, "byte {at}, bit {bit} was accepted");
                    accepted += 1;
                }
                Err(code) => {
                    assert!(expected.is_none_or(|e| e == code), "byte {at}, bit {bit}: {code}");
                }
            }
        }
    }
    accepted
}

impl Layout {
    fn expected(&self, at: usize) -> Option<Code> {
        if self.content.contains(&at) {
            Some(Code::DocumentDigestMismatch)
        } else if self.attributes.contains(&at) || self.signature.contains(&at) {
            Some(Code::DocumentSignatureInvalid)
        } else {
            None
        }
    }
}

// T19: some bytes of a message are not signed, so the bytes of a message identify nothing.
#[test]
fn a_flip_is_refused_for_what_it_changed_or_changes_nothing() {
    let message = AWS.message(DOCUMENT);
    let accepted = every_flip(&message, &AWS.trusted, DOCUMENT.as_bytes());
    assert!(accepted > 0, "the reason not to key by a message's bytes");
}

#[test]
fn a_flip_in_any_value_of_an_attribute_is_a_signature_mismatch() {
    let message = AWS.message(DOCUMENT);
    let values: [&[u8]; 4] = [DATA, b"261002030408Z", RSA_SHA_256, SHA_256];
    let start = find(&message, CONTENT_TYPE).start;
    for value in values {
        let at = find(&message[start..], value);
        // The first two bytes of an object identifier are its tag and length.
        for byte in at.start + 2..at.end {
            for bit in 0..8 {
                let mut flipped = message.clone();
                flipped[start + byte] ^= 1 << bit;
                let answer = IdentityDocument::verify(&flipped, &AWS.trusted);
                assert_eq!(answer.unwrap_err().code, Code::DocumentSignatureInvalid);
            }
        }
    }
}

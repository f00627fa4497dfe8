//! Messages that no signer of AWS makes. Each starts from one that is accepted and changes one
//! thing, so that it is refused for that thing alone.

use std::process::Command;

use muster::domain::Code;
use muster::methods::ec2::IdentityDocument;

use crate::forge::*;

fn verify(message: &[u8]) -> Result<IdentityDocument, Code> {
    IdentityDocument::verify(message, &AWS.trusted).map_err(|rejection| rejection.code)
}

fn refused(change: impl FnOnce(&mut Parts)) -> Code {
    verify(&AWS.forged(DOCUMENT, change)).expect_err("the forgery was accepted")
}

fn set_attributes(parts: &mut Parts, attributes: Vec<Vec<u8>>) {
    parts.attributes = Some(attributes);
}

/// The usual attributes with one replaced.
fn replacing(index: usize, attribute: Vec<u8>) -> Vec<Vec<u8>> {
    let mut all = attributes(DOCUMENT.as_bytes());
    all[index] = attribute;
    all
}

#[test]
fn the_baseline_is_accepted() {
    let document = verify(&AWS.message(DOCUMENT)).unwrap();
    assert_eq!(document.account_id().as_str(), "111122223333");
}

// T42: no SignerInfo, two of them.
#[test]
fn a_message_has_exactly_one_signer() {
    assert_eq!(refused(|parts| parts.signers = 0), Code::DocumentMalformed);
    assert_eq!(refused(|parts| parts.signers = 2), Code::DocumentMalformed);
}

// T42: without signed attributes the signature would be over the content itself.
#[test]
fn signed_attributes_are_required() {
    assert_eq!(refused(|parts| parts.attributes = None), Code::DocumentMalformed);
}

// T42: messageDigest and contentType missing, duplicated, with no or two values.
#[test]
fn message_digest_and_content_type_stand_exactly_once() {
    let usual = || attributes(DOCUMENT.as_bytes());
    let digest = || digest_attribute(DOCUMENT.as_bytes());
    for (name, changed) in [
        ("no digest", usual()[..3].to_vec()),
        ("no content type", usual()[1..].to_vec()),
        ("two digests", [usual(), vec![digest_attribute(b"other")]].concat()),
        ("the digest twice", [usual(), vec![digest()]].concat()),
        ("two content types", [usual(), vec![attribute(CONTENT_TYPE, &[SIGNED_DATA])]].concat()),
        ("no value", replacing(3, attribute(MESSAGE_DIGEST, &[]))),
        ("two values", replacing(3, attribute(MESSAGE_DIGEST, &[b"\x04\x01a", b"\x04\x01b"]))),
        ("a digest that is no octet string", replacing(3, attribute(MESSAGE_DIGEST, &[NULL]))),
        ("content type null", replacing(0, attribute(CONTENT_TYPE, &[NULL]))),
        ("no attributes at all", vec![]),
    ] {
        assert_eq!(
            refused(|parts| set_attributes(parts, changed)),
            Code::DocumentMalformed,
            "{name}"
        );
    }
}

// T42: contentType other than data, in the attributes or around the content.
#[test]
fn the_content_is_data() {
    let other = replacing(0, attribute(CONTENT_TYPE, &[SIGNED_DATA]));
    assert_eq!(refused(|parts| set_attributes(parts, other)), Code::DocumentMalformed);
    assert_eq!(refused(|parts| parts.content_type = SIGNED_DATA.to_vec()), Code::DocumentMalformed);
}

// T42: the content is inside and not empty; a detached or empty one is nothing to read.
#[test]
fn content_that_is_detached_or_empty_is_refused() {
    assert_eq!(refused(|parts| parts.content = None), Code::DocumentMalformed);
    let empty = |parts: &mut Parts| {
        parts.content = Some(Vec::new());
        parts.attributes = Some(attributes(b""));
    };
    assert_eq!(refused(empty), Code::DocumentMalformed);
}

// RFC 5652 sections 5.1 and 5.3: bytes that are not signed say what they have to, too.
#[test]
fn versions_and_digest_algorithms_outside_are_checked() {
    let message = AWS.message(DOCUMENT);
    // The versions stand before the set of digest algorithms and before the signer's name.
    let at = |part: &[u8]| message.windows(part.len()).position(|window| window == part).unwrap();
    let digests = at(&element(0x31, &[&algorithm(SHA_256)]));
    for (byte, value) in
        [(digests - 1, 0), (digests - 1, 2), (at(&AWS.name) - 1, 3), (digests + 14, 2)]
    {
        let mut changed = message.clone();
        changed[byte] = value;
        assert_eq!(verify(&changed), Err(Code::DocumentMalformed), "{byte}");
    }
}

// T42: digest MD5, and every other algorithm than the one that fits the pinned keys.
#[test]
fn one_pair_of_algorithms_is_allowed() {
    for digest in [MD5, SHA_1, SHA_512, RSA] {
        let code = refused(|parts| parts.digest_algorithm = algorithm(digest));
        assert_eq!(code, Code::DocumentMalformed, "{digest:x?}");
    }
    for signature in [RSA_SHA_1, RSA_PSS, SHA_256] {
        let code = refused(|parts| parts.signature_algorithm = algorithm(signature));
        assert_eq!(code, Code::DocumentMalformed, "{signature:x?}");
    }
    let with_parameters = element(0x30, &[SHA_256, b"\x02\x01\x01"]);
    let code = refused(|parts| parts.digest_algorithm = with_parameters);
    assert_eq!(code, Code::DocumentMalformed);
}

#[test]
fn parameters_of_a_digest_may_be_null_or_absent_and_the_signature_named_either_way() {
    let absent = AWS.forged(DOCUMENT, |parts| {
        parts.digest_algorithm = element(0x30, &[SHA_256]);
        parts.signature_algorithm = element(0x30, &[RSA_SHA_256]);
    });
    assert!(verify(&absent).is_ok());
    let plain_rsa = AWS.forged(DOCUMENT, |parts| {
        parts.signature_algorithm = algorithm(RSA);
        parts.attributes.as_mut().unwrap().remove(2);
    });
    assert!(verify(&plain_rsa).is_ok());
}

// RFC 6211: the algorithms outside are those that were signed.
#[test]
fn algorithm_protection_is_compared_when_present() {
    let protection = |digest, signature| {
        let value = element(0x30, &[&algorithm(digest), &element(0xa1, &[signature, NULL])]);
        replacing(2, attribute(PROTECTION, &[&value]))
    };
    let no_signature = element(0x30, &[&algorithm(SHA_256)]);
    let no_signature = replacing(2, attribute(PROTECTION, &[&no_signature]));
    for changed in [
        protection(SHA_1, RSA_SHA_256),
        protection(SHA_256, RSA_SHA_1),
        protection(SHA_256, RSA),
        no_signature,
        replacing(2, attribute(PROTECTION, &[NULL])),
    ] {
        assert_eq!(refused(|parts| set_attributes(parts, changed)), Code::DocumentMalformed);
    }
    let same = protection(SHA_256, RSA_SHA_256);
    assert!(verify(&AWS.forged(DOCUMENT, |parts| set_attributes(parts, same))).is_ok());
}

#[test]
fn other_signed_attributes_are_ignored() {
    let capabilities = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0f";
    let more = [attributes(DOCUMENT.as_bytes()), vec![attribute(capabilities, &[NULL])]].concat();
    assert!(verify(&AWS.forged(DOCUMENT, |parts| set_attributes(parts, more))).is_ok());
}

// RFC 5652 section 5.4: the signature is over the DER encoding, whatever order was sent.
#[test]
fn signed_attributes_may_come_in_any_order() {
    let backwards = AWS.forged(DOCUMENT, |parts| parts.attributes.as_mut().unwrap().reverse());
    assert!(verify(&backwards).is_ok());
}

#[test]
fn a_signing_time_is_optional_and_a_time() {
    let mut without = attributes(DOCUMENT.as_bytes());
    without.remove(1);
    let document = verify(&AWS.forged(DOCUMENT, |parts| set_attributes(parts, without))).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap()["signing_time"], serde_json::Value::Null);

    let general = replacing(1, attribute(SIGNING_TIME, &[b"\x18\x0f20510102030405Z"]));
    let document = verify(&AWS.forged(DOCUMENT, |parts| set_attributes(parts, general))).unwrap();
    assert_eq!(serde_json::to_value(&document).unwrap()["signing_time"], "2051-01-02T03:04:05Z");

    let wrong = replacing(1, attribute(SIGNING_TIME, &[b"\x17\x0d269902030405Z"]));
    assert_eq!(refused(|parts| set_attributes(parts, wrong)), Code::DocumentMalformed);
}

// T7: certificates inside a message mean nothing, whatever they are and however they are ordered.
#[test]
fn embedded_certificates_are_never_trusted() {
    let bags = [
        ATTACKER.certificate.clone(),
        [AWS.certificate.clone(), ATTACKER.certificate.clone()].concat(),
        [ATTACKER.certificate.clone(), AWS.certificate.clone()].concat(),
    ];
    for bag in bags {
        let bag = element(0xa0, &[&bag]);
        let named = ATTACKER.forged(DOCUMENT, |parts| parts.extra = bag.clone());
        assert_eq!(verify(&named), Err(Code::DocumentSignerUnknown));
        let borrowed = ATTACKER.forged(DOCUMENT, |parts| {
            parts.extra = bag.clone();
            parts.name = AWS.name.clone();
        });
        assert_eq!(verify(&borrowed), Err(Code::DocumentSignatureInvalid));
        let genuine = AWS.forged(DOCUMENT, |parts| parts.extra = bag);
        assert!(verify(&genuine).is_ok());
    }
    // Not even looked at: what is no certificate does no harm either.
    let garbage = AWS.forged(DOCUMENT, |parts| parts.extra = element(0xa0, &[NULL]));
    assert!(verify(&garbage).is_ok());
}

// T7: the signer is named by issuer and serial, and by nothing else.
#[test]
fn a_signer_named_by_key_identifier_is_refused() {
    let code = refused(|parts| parts.name = element(0x80, &[&[7; 20]]));
    assert_eq!(code, Code::DocumentMalformed);
}

// T6: what is signed decides; the attacker's own document stays the attacker's.
#[test]
fn content_from_elsewhere_is_refused() {
    let victim = DOCUMENT.replace("i-0123456789abcdef0", "i-0fffffffffffffff0");
    let swapped = AWS.forged(DOCUMENT, |parts| parts.content = Some(victim.into_bytes()));
    assert_eq!(verify(&swapped), Err(Code::DocumentDigestMismatch));
}

// T42: trailing bytes after the message or inside of its parts.
#[test]
fn trailing_bytes_are_refused() {
    let message = AWS.message(DOCUMENT);
    assert_eq!(verify(&[&message[..], &[0]].concat()), Err(Code::DocumentMalformed));
    assert_eq!(verify(&[&message[..], &message].concat()), Err(Code::DocumentMalformed));
    assert_eq!(refused(|parts| parts.extra = NULL.to_vec()), Code::DocumentMalformed);
    let twice = element(0xa0, &[NULL]).repeat(2);
    assert_eq!(refused(|parts| parts.extra = twice), Code::DocumentMalformed);
}

// T42: BER nested 1,000 deep is refused by depth, before anything else is done with it.
#[test]
fn deep_nesting_is_refused() {
    let deep = [0x30, 0x80].repeat(1_000);
    assert_eq!(verify(&deep), Err(Code::DocumentMalformed));
}

// T35: a message of more than 16 KiB, a text of more than 64 KiB.
#[test]
fn sizes_are_bounded() {
    let large = DOCUMENT.replace('\n', &"\n".repeat(1_100));
    assert_eq!(verify(&AWS.message(&large)), Err(Code::DocumentTooLarge));
    let blanks = vec![b' '; 64 * 1024 + 1];
    assert_eq!(verify(&blanks), Err(Code::DocumentTooLarge));
}

// T42: a padding with room for garbage (Bleichenbacher 2006) is no signature. The block is made
// with the pinned private key, so only the check of the padding can refuse it; that a key with an
// exponent of 3 is never pinned at all is tested beside the loader.
#[test]
fn a_forged_padding_is_no_signature() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("key.pem"), AWS.key.serialize_pem()).unwrap();
    let mut sorted = attributes(DOCUMENT.as_bytes());
    sorted.sort();
    let signed = element(0x31, &[&sorted.concat()]);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &signed);
    let info = element(0x30, &[&algorithm(SHA_256), &element(0x04, &[hash.as_ref()])]);
    let whole = [&[0, 1][..], &vec![0xff; 253 - info.len()], &[0], &info].concat();
    let short = [&[0, 1][..], &[0xff; 8], &[0], &info].concat();
    let garbage = [short.clone(), vec![0xaa; 256 - short.len()]].concat();
    let raw = |block: &[u8]| {
        std::fs::write(path("block"), block).unwrap();
        let output = Command::new("openssl")
            .args(["pkeyutl", "-decrypt", "-pkeyopt", "rsa_padding_mode:none", "-inkey"])
            .arg(path("key.pem"))
            .arg("-in")
            .arg(path("block"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        AWS.forged(DOCUMENT, |parts| parts.signature = Some(output.stdout))
    };
    assert!(verify(&raw(&whole)).is_ok());
    assert_eq!(verify(&raw(&garbage)), Err(Code::DocumentSignatureInvalid));
}

#[test]
fn signatures_of_other_lengths_are_refused() {
    for length in [0, 1, 128, 255, 257] {
        let code = refused(|parts| parts.signature = Some(vec![1; length]));
        assert_eq!(code, Code::DocumentSignatureInvalid, "{length}");
    }
}

// The two other forms of the metadata service, and the unsigned document, name the right path.
#[test]
fn other_forms_are_refused_with_the_path_to_use() {
    use base64::Engine;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let dsa = AWS.forged(DOCUMENT, |parts| parts.signature_algorithm = algorithm(DSA_SHA_1));
    let starts_like_ber = [&[0x30][..], &[0x80; 127]].concat();
    for input in [
        encode(&[7; 128]).into_bytes(),
        encode(&[0xd0; 256]).into_bytes(),
        encode(&starts_like_ber).into_bytes(),
        vec![0xd0; 128],
        dsa,
        DOCUMENT.as_bytes().to_vec(),
    ] {
        let rejection = IdentityDocument::verify(&input, &AWS.trusted).unwrap_err();
        assert_eq!(rejection.code, Code::DocumentFormUnsupported);
        let path = "/latest/dynamic/instance-identity/rsa2048";
        assert!(rejection.message.contains(path), "{}", rejection.message);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    // T18: whatever the bytes, there is an answer.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2000)) {
        proptest::prop_assert!(verify(&bytes).is_err());
    }

    // T18: empty sequences, odd tags and lengths inside a message that is otherwise whole.
    #[test]
    fn any_change_of_a_few_bytes_is_answered(
        changes in proptest::collection::vec((0_usize..1_000, proptest::num::u8::ANY), 1..4),
        cut in 0_usize..1_200,
    ) {
        let mut message = AWS.message(DOCUMENT);
        for (at, byte) in changes {
            message[at] = byte;
        }
        if let Ok(document) = verify(&message) {
            proptest::prop_assert_eq!(document, verify(&AWS.message(DOCUMENT)).unwrap());
        }
        message.truncate(cut);
        proptest::prop_assert!(verify(&message).is_err() || cut >= message.len());
    }
}

//! What stands in the signed JSON. All of it is signed by a pinned key here: only the reading of
//! the content is left to refuse.

use muster::aws::RegionCertificates;
use muster::domain::{Code, Partition};
use muster::methods::ec2::IdentityDocument;
use serde_json::{Value, json};

use crate::forge::*;

fn verify(content: &str) -> Result<IdentityDocument, muster::methods::Rejection> {
    IdentityDocument::verify(&AWS.message(content), &AWS.trusted)
}

fn with(from: &str, to: &str) -> String {
    assert!(DOCUMENT.contains(from), "{from}");
    DOCUMENT.replace(from, to)
}

#[test]
fn the_members_are_read_under_their_own_names() {
    let document = serde_json::to_value(verify(DOCUMENT).unwrap()).unwrap();
    assert_eq!(
        document,
        json!({
            "partition": "aws",
            "account_id": "111122223333",
            "region": "us-west-2",
            "availability_zone": "us-west-2a",
            "instance_id": "i-0123456789abcdef0",
            "image_id": "ami-0123456789abcdef0",
            "instance_type": "t3.micro",
            "architecture": "x86_64",
            "private_ip": "10.0.0.209",
            "pending_time": "2026-10-02T03:04:05Z",
            "signing_time": "2026-10-02T03:04:08Z",
            "certificate_serial": "2A",
        })
    );
}

#[test]
fn absent_members_and_null_are_the_same_and_new_members_are_ignored() {
    let null = with("\"t3.micro\"", "null");
    let absent = with("  \"instanceType\" : \"t3.micro\",\n", "");
    assert_eq!(verify(&null).unwrap(), verify(&absent).unwrap());
    let document = serde_json::to_value(verify(&null).unwrap()).unwrap();
    assert_eq!(document["instance_type"], Value::Null);
    let more = with("{\n", "{\"futureMember\":{\"a\":[1,2,{}]},\n");
    assert_eq!(verify(&more).unwrap(), verify(DOCUMENT).unwrap());
}

#[test]
fn any_white_space_is_accepted() {
    let dense: String = DOCUMENT.split_whitespace().collect();
    assert_eq!(verify(&dense).unwrap(), verify(DOCUMENT).unwrap());
    let lines = DOCUMENT.replace('\n', "\r\n\t ");
    assert_eq!(verify(&lines).unwrap(), verify(DOCUMENT).unwrap());
}

// T43: duplicates, numbers for strings, blanks, byte order marks, NaN.
#[test]
fn content_that_two_readers_could_read_differently_is_refused() {
    let account = "\"accountId\" : \"111122223333\"";
    for content in [
        with(account, "\"accountId\" : \"111122223333\", \"accountId\" : \"444455556666\""),
        with(account, "\"accountId\" : \"111122223333\", \"account\\u0049d\" : \"444455556666\""),
        with("{\n", "{\"x\":{\"a\":1,\"a\":1},\n"),
        with(account, "\"accountId\" : 111122223333"),
        with(account, "\"accountId\" : \" 111122223333\""),
        with(account, "\"accountId\" : \"11112222333\""),
        with(account, "\"accountId\" : \"1111222233334\""),
        with(account, "\"accountId\" : [\"111122223333\"]"),
        with(account, "\"accountId\" : null"),
        with(account, "\"accountId\" : \"\u{661}11122223333\""),
        with(account, "\"accountID\" : \"111122223333\""),
        format!("\u{feff}{DOCUMENT}"),
        with("\"kernelId\" : null", "\"kernelId\" : NaN"),
        format!("{DOCUMENT}{DOCUMENT}"),
        format!("[{DOCUMENT}]"),
        "null".to_owned(),
        with("i-0123456789abcdef0", "i-0123456789ABCDEF0"),
        with("i-0123456789abcdef0", "i-0123456789abcdef0/../x"),
        with("2026-10-02T03:04:05Z", "2026-10-02T03:04:05"),
        with("2026-10-02T03:04:05Z", "2026-10-02T03:04:05+01:00"),
        with("\"2026-10-02T03:04:05Z\"", "1790910245"),
        with("10.0.0.209", "10.0.0.209 "),
        with("10.0.0.209", "010.0.0.209"),
        with("10.0.0.209", "evil.example"),
        with("\"t3.micro\"", "{\"a\":1}"),
        with("t3.micro", "t3 micro"),
        with("t3.micro", ""),
        with("t3.micro", &"x".repeat(65)),
    ] {
        let rejection = verify(&content).expect_err(&content);
        assert_eq!(rejection.code, Code::DocumentContentInvalid, "{content}");
    }
}

// T43: the key of one region does not speak for another.
#[test]
fn the_region_is_that_of_the_certificate() {
    let other = DOCUMENT.replace("us-west-2", "us-east-1");
    assert_eq!(verify(&other).unwrap_err().code, Code::DocumentRegionMismatch);
    let longer = DOCUMENT.replace("us-west-2", "us-west-21");
    assert_eq!(verify(&longer).unwrap_err().code, Code::DocumentRegionMismatch);
}

#[test]
fn the_availability_zone_is_in_the_region() {
    for zone in ["us-west-2a", "us-west-2-lax-1a", "us-west-2-wl1-las-wlz-1"] {
        assert!(verify(&with("us-west-2a", zone)).is_ok(), "{zone}");
    }
    for zone in ["us-east-1a", "us-west-2", "us-west-21a", "us-west-2 a", "xus-west-2a"] {
        let rejection = verify(&with("us-west-2a", zone)).unwrap_err();
        assert_eq!(rejection.code, Code::DocumentContentInvalid, "{zone}");
    }
}

// T44: the same twelve digits in another partition are another account.
#[test]
fn the_partition_is_that_of_the_certificates_region() {
    for (region, partition) in [
        ("cn-north-1", Partition::China),
        ("us-gov-west-1", Partition::GovCloud),
        ("eusc-de-east-1", Partition::EuropeanSovereign),
    ] {
        let signer = Forge::new("Amazon stand-in", region);
        let claiming_aws = with("{\n", "{\"partition\" : \"aws\",\n");
        let content = claiming_aws.replace("us-west-2", region);
        let document =
            IdentityDocument::verify(&signer.message(&content), &signer.trusted).unwrap();
        assert_eq!(document.partition(), partition);
        let stolen = IdentityDocument::verify(&signer.message(DOCUMENT), &signer.trusted);
        assert_eq!(stolen.unwrap_err().code, Code::DocumentRegionMismatch);
    }
}

// T22, I10: no message quotes the document, and Debug does not hold it.
#[test]
fn refusals_do_not_quote_the_document() {
    const CANARY: &str = "CANARY-7f3a";
    for (from, to) in [
        ("111122223333", CANARY.to_owned()),
        ("\"region\" : \"us-west-2\"", format!("\"region\" : \"{CANARY}\"")),
        ("us-west-2a", format!("{CANARY} ")),
        ("i-0123456789abcdef0", CANARY.to_owned()),
        ("2026-10-02T03:04:05Z", CANARY.to_owned()),
        ("10.0.0.209", CANARY.to_owned()),
        ("t3.micro", format!("{CANARY} ")),
        ("\"accountId\"", format!("\"{CANARY}\" \"{CANARY}\"")),
        ("\"accountId\"", format!("\"{CANARY}\":1, \"{CANARY}\":1, \"accountId\"")),
    ] {
        let rejection = verify(&with(from, &to)).unwrap_err();
        assert!(!format!("{rejection:?} {rejection}").contains(CANARY), "{rejection:?}");
    }
    let content = with("{\n", &format!("{{\"{CANARY}\":\"{CANARY}\",\n"));
    let message = AWS.message(&content);
    let signed = muster::aws::verify_signed_data(&message, &AWS.trusted).unwrap();
    assert!(!format!("{signed:?}").contains(CANARY));
    let text = String::from_utf8(message[..40].iter().map(|b| b & 0x7f).collect()).unwrap();
    let rejection = IdentityDocument::verify(text.as_bytes(), &AWS.trusted).unwrap_err();
    assert!(!format!("{rejection:?}").contains(&text));
}

#[test]
fn every_text_form_of_a_document_is_the_same_document() {
    use base64::Engine;
    let message = AWS.message(DOCUMENT);
    let dense = base64::engine::general_purpose::STANDARD.encode(&message);
    let lines: Vec<&str> =
        dense.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let expected = IdentityDocument::verify(&message, &AWS.trusted).unwrap();
    for text in [
        dense.clone(),
        lines.join("\n"),
        lines.join("\r\n") + "\r\n",
        format!("\n  {}\n", lines.join("\n   ")),
        format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", lines.join("\n")),
        format!("-----BEGIN CMS-----\n{dense}\n-----END CMS-----"),
    ] {
        let document = IdentityDocument::verify(text.as_bytes(), &AWS.trusted).unwrap();
        assert_eq!(document, expected);
    }
    for text in [
        String::new(),
        " \n".to_owned(),
        dense[..dense.len() - 5].to_owned(),
        format!("{dense}!"),
        format!("-----BEGIN PKCS7-----\n{dense}\n"),
        format!("-----BEGIN PKCS7-----\n{dense}\n-----END PKCS7-----\nmore"),
        format!("-----BEGIN CERTIFICATE-----\n{dense}\n-----END CERTIFICATE-----\n"),
        format!("-----BEGIN CMS-----\n{dense}\n-----END CMS-----\n").repeat(2),
    ] {
        let rejection = IdentityDocument::verify(text.as_bytes(), &AWS.trusted).unwrap_err();
        assert_eq!(rejection.code, Code::DocumentMalformed, "{text}");
    }
}

#[test]
fn without_its_certificate_a_document_is_of_nobody() {
    let embedded = RegionCertificates::embedded();
    let rejection = IdentityDocument::verify(&AWS.message(DOCUMENT), &embedded).unwrap_err();
    assert_eq!(rejection.code, Code::DocumentSignerUnknown);
}

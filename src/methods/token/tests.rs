//! The token method without a server: what it takes for evidence, and for whose.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::domain::{KeyBinding, KeyDigest, Lifetime, TokenOrigin, TokenSecret};
use crate::methods::Remembered;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn secret(seed: u8) -> TokenSecret {
    TokenSecret::from_seed("web-1".parse().unwrap(), Zeroizing::new([seed; 32])).unwrap()
}

fn token() -> Token {
    Token {
        name: "web-1".parse().unwrap(),
        public_key: secret(1).public_key(),
        policy: "web".parse().unwrap(),
        node: None,
        cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        labels: BTreeMap::new(),
        description: None,
        created_at: NOW.minus(Lifetime::from_minutes(1)),
        expires_at: Some(NOW.plus(Lifetime::from_minutes(29))),
        max_uses: Some(1),
        origin: TokenOrigin::Static,
    }
}

fn key(byte: u8) -> (KeyDigest, KeyBinding) {
    use rcgen::PublicKeyData;
    let pair = rcgen::KeyPair::generate().unwrap();
    let spki = pair.subject_public_key_info();
    let key = crate::domain::PublicKey::from_spki_der(&spki).unwrap();
    let purpose = crate::domain::Purpose::Join;
    (key.digest(), KeyBinding::new(purpose, &[byte; 32], &[2; 32], "token", "web", &key))
}

/// What comes of a token's evidence for one stream, shown on another if `replayed`.
fn outcome(
    on_record: Option<Token>,
    by: &TokenSecret,
    source: Option<&str>,
    at: Timestamp,
    replayed: bool,
) -> Result<Claims, Code> {
    let ((key, binding), (_, other)) = (key(1), key(2));
    let evidence = evidence(Some(by), &binding);
    let remembered = Remembered { token: on_record, node: None };
    let source = source.map(|text| text.parse::<IpAddr>().unwrap());
    let binding = if replayed { &other } else { &binding };
    let presented =
        Presented { evidence: &evidence, binding, key, remembered: &remembered, source, now: at };
    ByToken.verify(&presented).map_err(|rejection| rejection.code)
}

#[test]
fn a_good_token_says_which_node_it_is() {
    let claims =
        outcome(Some(token()), &secret(1), Some("10.1.2.3"), NOW, false).expect("accepted");
    assert!(claims.subject().name().starts_with("k-"));
    assert_eq!(claims.epoch(), token().created_at);
    assert_eq!(claims.values().proven_text("source_address"), Some("10.1.2.3"));
    assert_eq!(claims.token(), Some(&token()));
    let bound = Token { node: Some("db-1".parse().unwrap()), ..token() };
    let claims = outcome(Some(bound), &secret(1), Some("10.1.2.3"), NOW, false).unwrap();
    assert_eq!(claims.subject().path(), "node/db-1");
}

// B2: the signature is of one connection, challenge and key, so a captured join is worth nothing.
#[test]
fn what_is_wrong_with_a_token_is_refused() {
    let here = Some("10.1.2.3");
    let end = token().expires_at.unwrap();
    for (on_record, by, source, at, replayed, expected) in [
        (Some(token()), secret(1), here, NOW, true, Code::TokenUnknown),
        (Some(token()), secret(2), here, NOW, false, Code::TokenUnknown),
        (None, secret(1), here, NOW, false, Code::TokenUnknown),
        (Some(token()), secret(1), here, end, false, Code::TokenExpired),
        (Some(token()), secret(1), Some("11.1.2.3"), NOW, false, Code::TokenNotFromHere),
        (Some(token()), secret(1), None, NOW, false, Code::TokenNotFromHere),
    ] {
        let refused = outcome(on_record, &by, source, at, replayed).expect_err("refused");
        assert_eq!(refused, expected);
    }
}

#[test]
fn without_end_or_limit_there_is_no_claim_that_a_rule_could_like() {
    let forever = Token { expires_at: None, max_uses: None, ..token() };
    let claims = outcome(Some(forever), &secret(1), Some("10.1.2.3"), NOW, false).unwrap();
    assert_eq!(claims.values().get("token_lifetime"), None);
    assert_eq!(claims.values().get("token_max_uses"), None);
}

#[test]
fn hostile_evidence_is_refused_and_never_repeated() {
    let canary = "canary".repeat(20);
    let long = format!("{{\"token\":\"{}\"}}", "a".repeat(2000));
    for hostile in [
        "",
        "[]",
        "null",
        "{\"token\":\"web-1\"}",
        "{\"signature\":\"00\"}",
        "{\"token\":\"web-1\",\"signature\":7}",
        "{\"token\":\"WEB-1\",\"signature\":\"00\"}",
        "{\"token\":\"web-1\",\"token\":\"web-2\",\"signature\":\"00\"}",
        "{\"extra\":1}",
        &format!("{{\"token\":\"web-1\",\"signature\":\"{}\"}}", "A".repeat(128)),
        &format!("{{\"token\":\"{canary}\",\"signature\":\"{canary}\"}}"),
        &long,
    ] {
        let rejection = ByToken.token_named(hostile.as_bytes()).expect_err(hostile);
        assert_eq!(rejection.code, Code::MalformedRequest, "{hostile}");
        assert!(!rejection.message.contains("canary"));
    }
}

proptest! {
    #[test]
    fn any_evidence_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _read = ByToken.token_named(&bytes).is_ok();
    }
}

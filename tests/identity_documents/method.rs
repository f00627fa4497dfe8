//! The `ec2` method from outside: evidence in, claims out.

use muster::aws::RegionCertificates;
use muster::domain::{Code, KeyBinding, Lifetime, PublicKey, Purpose, Timestamp};
use muster::methods::ec2::{Ec2, evidence};
use muster::methods::{
    Claims, FactsNeeded, Instance, JoinMethod, LookUp, Presented, Proof, Provenance, Rejection,
    Remembered, Value, gather,
};
use rcgen::{KeyPair, PublicKeyData};

use crate::forge::*;

fn method() -> Ec2 {
    Ec2::new(sources(RegionCertificates::only_directory(AWS.directory.path()).unwrap()))
}

fn binding() -> KeyBinding {
    let key = KeyPair::generate().unwrap();
    let key = PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap();
    KeyBinding::new(Purpose::Join, &[1; 32], &[2; 32], "ec2", "web", &key)
}

fn pending() -> Timestamp {
    "2026-10-02T03:04:05Z".parse().unwrap()
}

fn text(message: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(message)
}

fn verify(evidence: &[u8], now: Timestamp) -> Result<Claims, Rejection> {
    method().verify(&presented(evidence, &binding(), &Remembered::default(), now))
}

fn presented<'a>(
    evidence: &'a [u8],
    binding: &'a KeyBinding,
    remembered: &'a Remembered,
    now: Timestamp,
) -> Presented<'a> {
    let key = "0".repeat(64).parse().unwrap();
    Presented { evidence, binding, key, remembered, source: None, now }
}

fn claims(message: &[u8]) -> Claims {
    verify(&evidence(&text(message), None), pending()).unwrap()
}

// T26: every claim stands in the signed bytes, and is marked so.
#[test]
fn all_claims_are_proven() {
    let claims = claims(&AWS.message(DOCUMENT));
    assert_eq!(claims.method(), "ec2");
    assert_eq!(claims.subject().path(), "instance/aws/111122223333/us-west-2/i-0123456789abcdef0");
    assert_eq!(claims.epoch(), pending());
    assert!(claims.values().iter().all(|(_, claim)| claim.provenance == Provenance::Proven));
    assert_eq!(claims.values().proven_text("image_id"), Some("ami-0123456789abcdef0"));
    let pending_time = &claims.values().get("pending_time").unwrap().value;
    assert_eq!(*pending_time, Value::Time(pending()));
}

#[test]
fn an_absent_member_is_no_claim() {
    let claims = claims(&AWS.message(&DOCUMENT.replace("\"t3.micro\"", "null")));
    assert_eq!(claims.values().get("instance_type"), None);
}

// T19: two different blobs of one document are one subject at one epoch; nothing else is a key.
#[test]
fn unsigned_bytes_change_neither_subject_nor_epoch() {
    let first = claims(&AWS.message(DOCUMENT));
    let unsigned = element(0xa0, &[&ATTACKER.certificate]);
    let second = claims(&AWS.forged(DOCUMENT, |parts| parts.extra = unsigned));
    assert_eq!(first.subject(), second.subject());
    assert_eq!(first.epoch(), second.epoch());
    assert_eq!(first.values(), second.values());
}

// T6, T26: a second document or a field beside the signed one is refused, not weighed.
#[test]
fn nothing_is_read_beside_the_document() {
    let document = text(&AWS.message(DOCUMENT));
    for member in ["\"region\":\"us-east-1\"", "\"plain\":\"{}\"", "\"document\":\"x\""] {
        let evidence = format!("{{\"document\":\"{document}\",{member}}}");
        let rejection = verify(evidence.as_bytes(), pending()).unwrap_err();
        assert_eq!(rejection.code, Code::MalformedRequest, "{member}");
    }
}

// T43: on the boundary, and both clocks are named.
#[test]
fn a_document_from_the_future_is_refused() {
    let evidence = evidence(&text(&AWS.message(DOCUMENT)), None);
    let minute = pending().minus(Lifetime::from_seconds(60));
    assert!(verify(&evidence, minute).is_ok());
    let earlier = pending().minus(Lifetime::from_seconds(61));
    let rejection = verify(&evidence, earlier).unwrap_err();
    assert_eq!(rejection.code, Code::DocumentFromFuture);
    for clock in ["2026-10-02T03:04:05Z", "2026-10-02T03:03:04Z"] {
        assert!(rejection.message.contains(clock), "{}", rejection.message);
        assert!(rejection.hint.as_ref().unwrap().contains(clock));
    }
}

// The age of a document is for policy to judge.
#[test]
fn an_old_document_is_verified_all_the_same() {
    let evidence = evidence(&text(&AWS.message(DOCUMENT)), None);
    assert!(verify(&evidence, pending().plus(Lifetime::from_days(3_000))).is_ok());
}

// D2: a document alone never makes anybody ask EC2, whatever the policy says.
#[tokio::test]
async fn without_a_proof_nobody_is_asked() {
    let evidence = evidence(&text(&AWS.message(DOCUMENT)), None);
    let (binding, now) = (binding(), pending());
    let nothing = Remembered::default();
    let presented = presented(&evidence, &binding, &nothing, now);
    let method = method();
    let claims = method.verify(&presented).unwrap();
    for proof_required in [true, false] {
        let needed = FactsNeeded { proof_required, look_up: LookUp::Own };
        let facts = gather(&method, &claims, &presented, &needed).await.unwrap();
        assert_eq!(facts.values().proof, Proof::NotOffered);
        assert!(matches!(facts.values().instance, Instance::NotRead(_)));
    }
}

proptest::proptest! {
    // T18, T35: any evidence is answered, and none is echoed.
    #[test]
    fn any_evidence_is_answered(evidence in "\\PC{0,200}") {
        let rejection = verify(evidence.as_bytes(), pending()).unwrap_err();
        proptest::prop_assert_eq!(rejection.code, Code::MalformedRequest);
    }
}

//! The fresh proof: what it admits, and everything that looks like one.

use muster::audit::Class;
use muster::domain::{Class as Kind, Code, Lifetime, Purpose};
use muster::policy::Strength;
use muster::sim::{Fault, FaultKind, Service};

use crate::cloud::{Cloud, OTHER_WORKER, Proposal, STRANGER, WORKER};

#[tokio::test]
async fn a_node_that_proves_itself_joins() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let admission = cloud.admitted(&node, "proven").await;
    assert_eq!(admission.enrollment.strength, Strength::Proof);
    assert_eq!(cloud.calls(), (1, 0));
    // The same key again: proven again, and the same certificate.
    let again = cloud.admitted(&node, "proven").await;
    assert_eq!(again.chain, admission.chain);
    assert_eq!(cloud.calls(), (2, 0));
    assert_eq!(cloud.statistics.sts.calls(), 2);
    assert!(cloud.statistics.sts.last_success().is_some());
}

// A document alone is worthless under a policy that asks for the proof.
#[tokio::test]
async fn a_document_without_a_proof_is_refused() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    for policy in ["proven", "seen"] {
        assert_eq!(cloud.world.refused(&node, policy).await, Code::FreshProofRequired);
    }
    assert_eq!(cloud.calls(), (0, 0));
}

// T63, the half of joining: a copied key without the proof gets nothing, not even what the honest
// node has already got.
#[tokio::test]
async fn a_copied_key_without_a_proof_is_refused() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let admission = cloud.admitted(&node, "proven").await;
    assert_eq!(cloud.world.refused(&node, "proven").await, Code::FreshProofRequired);
    let mut elsewhere = cloud.honest(&node, "proven");
    elsewhere.credentials = cloud.credentials(OTHER_WORKER);
    assert_eq!(cloud.refused(&node, &elsewhere).await.code, Code::ProofDisproven);
    assert_eq!(cloud.admitted(&node, "proven").await.chain, admission.chain);
}

type Change = fn(&Cloud, &mut Proposal);

/// A proof that was made for something else.
const ELSEWHERE: &[(&str, Change)] = &[
    ("another nonce", |_, proof| proof.nonce = [9; 32]),
    ("another connection", |_, proof| proof.channel = [9; 32]),
    ("another key", |cloud, proof| proof.signed_key = cloud.node(WORKER).public_key()),
    ("another policy", |_, proof| proof.signed_policy = "seen".into()),
    // T79: a login, or a renewal, is no join.
    ("renewal", |_, proof| proof.purpose = Purpose::Renew),
    ("login", |_, proof| proof.purpose = Purpose::Login),
];

// T47: an honest mismatch is found before STS is asked, a lie by STS. Each has a code of its own.
#[tokio::test]
async fn a_proof_for_something_else_is_refused() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    for (number, (what, change)) in (0_u8..).zip(ELSEWHERE) {
        let mut proposal = cloud.honest(&node, "proven");
        // From another network each: the budget is for another test.
        proposal.source = [10, 0, number, 1].into();
        change(&cloud, &mut proposal);
        let before = cloud.calls();
        let refusal = cloud.refused(&node, &proposal).await;
        assert_eq!(cloud.world.code_of(&refusal).await, Code::ProofBindingMismatch, "{what}");
        assert_eq!((refusal.code, cloud.calls()), (Code::ProofBindingMismatch, before), "{what}");

        proposal.says_what_the_server_wants = true;
        let refusal = cloud.refused(&node, &proposal).await;
        assert_eq!(refusal.code, Code::ProofSignatureRejected, "{what}");
        assert_eq!(cloud.calls(), (before.0 + 1, 0), "{what}");
        assert_eq!(refusal.code.class(), Kind::Denied);
    }
    // None of them harmed the honest node.
    cloud.admitted(&node, "proven").await;
}

// T66: a denial and no outage; and a security event, because both halves are genuine.
#[tokio::test]
async fn the_proof_of_another_instance_is_refused() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let mut proposal = cloud.honest(&node, "proven");
    proposal.credentials = cloud.credentials(OTHER_WORKER);
    let refusal = cloud.refused(&node, &proposal).await;
    assert_eq!((refusal.code, refusal.code.class()), (Code::ProofDisproven, Kind::Denied));
    assert_eq!((refusal.retry_after_seconds, cloud.calls()), (None, (1, 0)));
    assert_eq!(cloud.world.records(Class::Security).await.len(), 1);

    // Of another account: the access key id tells, and STS is not asked (D3).
    proposal.credentials = cloud.credentials(STRANGER);
    assert_eq!(cloud.refused(&node, &proposal).await.code, Code::ProofOtherAccount);
    assert_eq!(cloud.calls(), (1, 0));
    assert_eq!(cloud.world.records(Class::Security).await.len(), 1, "text alone rings no bell");
    // T68: a key id that was made up to name the right account costs one call and admits nothing.
    proposal.credentials.access_key_id = cloud.credentials(WORKER).access_key_id.clone();
    assert_eq!(cloud.refused(&node, &proposal).await.code, Code::ProofSignatureRejected);
    assert_eq!(cloud.calls(), (2, 0));
    cloud.admitted(&node, "proven").await;
}

// I3, T23: the allow-list before the cloud, and the proof before the instance.
#[tokio::test]
async fn a_stranger_costs_no_call_and_a_garbage_proof_no_look() {
    let cloud = Cloud::new().await;
    let stranger = cloud.node(STRANGER);
    for policy in ["proven", "seen", "document", "nothing"] {
        let refusal = cloud.refused(&stranger, &cloud.honest(&stranger, policy)).await;
        assert_eq!(refusal.code, Code::NotAdmitted);
    }
    assert_eq!(cloud.calls(), (0, 0));
    let node = cloud.node(WORKER);
    let mut garbage = cloud.honest(&node, "seen");
    garbage.credentials.secret_access_key = "garbage".into();
    assert_eq!(cloud.refused(&node, &garbage).await.code, Code::ProofSignatureRejected);
    // The same again: remembered for a minute, so not even STS is asked.
    assert_eq!(cloud.refused(&node, &garbage).await.code, Code::ProofSignatureRejected);
    assert_eq!(cloud.calls(), (1, 0));
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_named() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let now = cloud.world.clock.now();
    for (at, code) in [
        (now.plus(Lifetime::from_minutes(5)), None),
        (now.minus(Lifetime::from_minutes(5)), None),
        (now.plus(Lifetime::from_seconds(301)), Some(Code::ProofDateSkewed)),
        (now.minus(Lifetime::from_seconds(301)), Some(Code::ProofDateSkewed)),
    ] {
        let mut proposal = cloud.honest(&node, "proven");
        proposal.signed_at = at;
        let answer = cloud.send(&node, &proposal).await;
        assert_eq!(answer.as_ref().err().map(|refusal| refusal.code), code, "{at}");
        if let Err(refusal) = answer {
            assert_eq!(refusal.code.class(), Kind::Stale);
            let hint = refusal.hint.unwrap();
            assert!(hint.contains(&at.to_string()) && hint.contains(&now.to_string()), "{hint}");
        }
    }
    assert_eq!(cloud.calls(), (2, 0));
}

#[tokio::test]
async fn credentials_that_ended_are_stale() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let old = cloud.honest(&node, "proven");
    cloud.later(Lifetime::from_hours(8));
    let mut proposal = cloud.honest(&node, "proven");
    proposal.credentials = old.credentials;
    let refusal = cloud.refused(&node, &proposal).await;
    assert_eq!((refusal.code.class(), refusal.code), (Kind::Stale, Code::ProofCredentialsExpired));
    cloud.admitted(&node, "proven").await;
}

/// Everything that STS, or something in its place, may answer instead.
const FAULTS: &[(FaultKind, Code)] = &[
    (FaultKind::Html, Code::StsUnavailable),
    (FaultKind::TwoResults, Code::StsUnavailable),
    (FaultKind::Huge, Code::StsUnavailable),
    (FaultKind::Throttled, Code::StsThrottled),
    (FaultKind::CutOff, Code::StsUnavailable),
    (FaultKind::Unavailable, Code::StsUnavailable),
    (FaultKind::OtherAction, Code::StsUnavailable),
    (FaultKind::ErrorWith200, Code::StsUnavailable),
    (FaultKind::DuplicateKeys, Code::StsUnavailable),
    (FaultKind::Redirect, Code::StsUnavailable),
    (FaultKind::Empty, Code::StsUnavailable),
    (FaultKind::Slow, Code::StsUnavailable),
];

// T1, T5, T49: an outage, named, and never an admission. Where no proof is required the document
// decides, and the record says that the proof was not checked.
#[tokio::test]
async fn whatever_sts_answers_instead_admits_nobody() {
    let cloud = Cloud::new().await;
    for (number, (kind, code)) in (0_u8..).zip(FAULTS) {
        cloud.simulator.set_fault(Service::Sts, Some(Fault::new(*kind)));
        let node = cloud.node(WORKER);
        let mut proposal = cloud.honest(&node, "proven");
        proposal.source = [10, 0, number, 1].into();
        let refusal = cloud.refused(&node, &proposal).await;
        assert_eq!(refusal.code, *code, "{kind:?}");
        assert!(matches!(code.class(), Kind::Throttled | Kind::Unavailable), "{kind:?}");
        assert!(refusal.retry_after_seconds.is_some(), "{kind:?}");
    }
    let node = cloud.node(OTHER_WORKER);
    let admission = cloud.admitted(&node, "document").await;
    assert_eq!(admission.enrollment.strength, Strength::Document);
    let records = cloud.world.records(Class::Admission).await;
    let facts = &records.first().unwrap().record.detail["facts"];
    assert!(facts["proof"]["not_checked"].as_str().unwrap().contains("STS"), "{facts}");

    cloud.simulator.set_fault(Service::Sts, None);
    cloud.admitted(&cloud.node(WORKER), "proven").await;
}

// P7: an offered proof that fails refuses even where none is required.
#[tokio::test]
async fn a_false_proof_refuses_where_none_is_required() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let mut proposal = cloud.honest(&node, "document");
    proposal.credentials = cloud.credentials(OTHER_WORKER);
    assert_eq!(cloud.refused(&node, &proposal).await.code, Code::ProofDisproven);
    assert_eq!(cloud.admitted(&node, "document").await.enrollment.strength, Strength::Proof);
}

// K10: better evidence displaces a copied document, once; never the other way.
#[tokio::test]
async fn a_proof_displaces_an_enrollment_by_a_document_alone() {
    let cloud = Cloud::new().await;
    let thief = cloud.node(WORKER);
    cloud.world.admitted(&thief, "document").await;
    let honest = cloud.node(WORKER);
    let admission = cloud.admitted(&honest, "document").await;
    assert_eq!(admission.enrollment.strength, Strength::Proof);
    // A security event with both keys: somebody had a copy.
    let events = cloud.world.records(Class::Security).await;
    let detail = &events.first().expect("an event").record.detail;
    assert_eq!(detail["bound_key"], thief.public_key().digest().to_string());
    assert_eq!(detail["key"], honest.public_key().digest().to_string());
    assert_eq!(cloud.world.refused(&thief, "document").await, Code::CloneSuspected);
    // Another proof with another key is a conflict: both could read the metadata.
    let second = cloud.node(WORKER);
    let refusal = cloud.refused(&second, &cloud.honest(&second, "document")).await;
    assert_eq!(refusal.code, Code::EnrollmentConflict);
}

// I17, K4, T67: only evidence that stands rings the bell. Old documents are in many hands.
#[tokio::test]
async fn a_conflict_is_one_only_with_a_good_proof() {
    let cloud = Cloud::new().await;
    cloud.admitted(&cloud.node(WORKER), "seen").await;
    let before = cloud.calls();
    let security = cloud.world.records(Class::Security).await.len();
    let other = cloud.node(WORKER);
    let mut garbage = cloud.honest(&other, "seen");
    garbage.credentials.secret_access_key = "garbage".into();
    assert_eq!(cloud.refused(&other, &garbage).await.code, Code::ProofSignatureRejected);
    assert_eq!(cloud.world.refused(&other, "seen").await, Code::FreshProofRequired);
    assert_eq!(cloud.world.records(Class::Security).await.len(), security);

    let refusal = cloud.refused(&other, &cloud.honest(&other, "seen")).await;
    assert_eq!(refusal.code, Code::EnrollmentConflict);
    assert_eq!(cloud.world.records(Class::Security).await.len(), security + 1);
    // D2: STS told the thief from noise, and nothing that EC2 says would have helped.
    assert_eq!(cloud.calls(), (before.0 + 2, before.1));
}

// I14, D2: six failures a minute from one network; the honest node elsewhere does not notice.
#[tokio::test]
async fn failed_proofs_have_a_budget() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    for number in 0..10_u8 {
        let mut garbage = cloud.honest(&node, "proven");
        garbage.credentials.secret_access_key = format!("garbage{number}");
        let code = cloud.refused(&node, &garbage).await.code;
        // Six, and one of the trickle.
        let expected = if number < 7 { Code::ProofSignatureRejected } else { Code::ProofThrottled };
        assert_eq!(code, expected, "{number}");
    }
    assert_eq!(cloud.calls(), (7, 0));
    // Its neighbour in the network is not shut out by it.
    let mut neighbour = cloud.honest(&node, "seen");
    neighbour.source = [192, 0, 2, 8].into();
    assert!(cloud.send(&node, &neighbour).await.is_ok());
    let mut proposal = cloud.honest(&node, "proven");
    proposal.source = [198, 51, 100, 7].into();
    assert!(cloud.send(&node, &proposal).await.is_ok());
}

// Many at once are counted like many in a row: one leaked document is no lever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_with_one_document_has_the_budget_of_one() {
    let cloud = std::sync::Arc::new(Cloud::new().await);
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..300 {
        let cloud = std::sync::Arc::clone(&cloud);
        crowd.spawn(async move {
            let node = cloud.node(WORKER);
            let mut garbage = cloud.honest(&node, "proven");
            garbage.credentials.secret_access_key = format!("garbage{number}");
            cloud.refused(&node, &garbage).await.code
        });
    }
    while let Some(code) = crowd.join_next().await {
        let code = code.unwrap();
        assert!(matches!(code, Code::ProofSignatureRejected | Code::ProofThrottled), "{code}");
    }
    let (sts, ec2) = cloud.calls();
    assert!(sts <= 8 && ec2 == 0, "{sts} calls of STS, {ec2} of EC2");
}

// What STS refused once is refused again without asking, in words that ring no bell: the same values
// with another stream's binding are not what STS judged.
#[tokio::test]
async fn a_replayed_proof_of_another_instance_is_one_event() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let mut proposal = cloud.honest(&node, "proven");
    proposal.credentials = cloud.credentials(OTHER_WORKER);
    assert_eq!(cloud.refused(&node, &proposal).await.code, Code::ProofDisproven);
    for _ in 0..20 {
        let code = cloud.refused(&node, &proposal).await.code;
        assert_eq!(code, Code::ProofSignatureRejected);
    }
    assert_eq!(cloud.calls(), (1, 0));
    assert_eq!(cloud.world.records(Class::Security).await.len(), 1);
}

// K10: an hour without STS does not make an enrollment one that a thief's proof displaces.
#[tokio::test]
async fn the_strength_of_an_enrollment_never_falls() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let first = cloud.admitted(&node, "document").await;
    cloud.simulator.set_fault(Service::Sts, Some(Fault::new(FaultKind::Unavailable)));
    let again = cloud.admitted(&node, "document").await;
    assert_eq!((again.enrollment.strength, &again.chain), (Strength::Proof, &first.chain));
    cloud.later(Lifetime::from_hours(5));
    let renewed = cloud.admitted(&node, "document").await;
    assert_ne!(renewed.chain, first.chain);
    assert_eq!(renewed.enrollment.strength, Strength::Proof);
    cloud.simulator.set_fault(Service::Sts, None);
    let thief = cloud.node(WORKER);
    let refusal = cloud.refused(&thief, &cloud.honest(&thief, "document")).await;
    assert_eq!(refusal.code, Code::EnrollmentConflict);
}

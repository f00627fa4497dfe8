//! A node stays joined: two-phase, everything checked again, and what shows that there are two of it.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use muster::audit::Class;
use muster::aws::{EndpointKind, SignedRequest};
use muster::domain::{Code, KeyBinding, Lifetime, PublicKey, Purpose, pop_message};
use muster::join::{Admission, Refusal, Renewal};
use muster::methods::ec2;
use muster::registry::{Change, LockTarget, PresentedCertificate};
use muster::sim::{InstanceRecord, InstanceState};
use rcgen::{KeyPair, PublicKeyData, SigningKey};

use crate::cloud::{Cloud, OTHER_WORKER, POLICIES, WORKER};
use crate::world::Node;

const CHANNEL: [u8; 32] = [1; 32];
const NONCE: [u8; 32] = [2; 32];

/// The certificate that an admission brought, as a node shows it.
pub(crate) fn shown(admission: &Admission) -> PresentedCertificate {
    PresentedCertificate {
        serial: admission.order.serial,
        fingerprint: hex::encode(digest(&SHA256, &admission.chain[0])),
    }
}

pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// Whose credentials sign the fresh proof.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    None,
    By(&'a str),
    /// One that was made for a join.
    ForAJoin(&'a str),
}

impl Cloud {
    pub(crate) fn renewal(
        &self,
        node: &Node,
        certificate: &PresentedCertificate,
        policy: &str,
        key: &KeyPair,
        proof: Proof<'_>,
    ) -> Renewal {
        let public_key = PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap();
        let bound =
            |purpose| KeyBinding::new(purpose, &CHANNEL, &NONCE, "ec2", policy, &public_key);
        let wanted = bound(Purpose::Renew);
        let sign = |id: &str, binding: &KeyBinding| {
            let region = &node.instance.region;
            let kind = EndpointKind::Regional;
            let now = self.world.clock.now();
            SignedRequest::sign(&self.credentials(id), region, kind, binding, now).unwrap()
        };
        let evidence = match proof {
            Proof::None => ec2::evidence(&node.document, None),
            Proof::By(id) => ec2::evidence(&node.document, Some((&sign(id, &wanted), &wanted))),
            Proof::ForAJoin(id) => {
                let join = bound(Purpose::Join);
                ec2::evidence(&node.document, Some((&sign(id, &join), &join)))
            }
        };
        let pop = key.sign(&pop_message(&wanted, &evidence)).unwrap();
        Renewal {
            certificate: certificate.clone(),
            public_key,
            facts: "test".to_owned(),
            channel: CHANNEL,
            nonce: NONCE,
            evidence,
            pop,
            source: [192, 0, 2, 7].into(),
        }
    }

    /// An honest renewal over the certificate of `last`.
    pub(crate) async fn renew(
        &self,
        node: &Node,
        last: &Admission,
        key: &KeyPair,
    ) -> Result<Admission, Refusal> {
        let (id, policy) = (node.instance.instance_id.as_str(), &last.enrollment.policy);
        let renewal = self.renewal(node, &shown(last), policy, key, Proof::By(id));
        self.world.joins.renew(renewal).await
    }

    pub(crate) async fn renewed(&self, node: &Node, last: &Admission, key: &KeyPair) -> Admission {
        self.renew(node, last, key).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// The code on record of a renewal that is refused.
    pub(crate) async fn renewal_refused(
        &self,
        node: &Node,
        last: &Admission,
        key: &KeyPair,
        proof: Proof<'_>,
    ) -> Code {
        let policy = &last.enrollment.policy;
        let renewal = self.renewal(node, &shown(last), policy, key, proof);
        let refusal = self.world.joins.renew(renewal).await.expect_err("must be refused");
        self.world.code_of(&refusal).await
    }

    pub(crate) async fn is_locked(&self) -> bool {
        !self.world.registry.locks().await.unwrap().is_empty()
    }

    pub(crate) async fn security_events(&self) -> Vec<Option<Code>> {
        let events = self.world.records(Class::Security).await;
        events.into_iter().map(|event| event.record.code).collect()
    }
}

pub(crate) async fn joined(policy: &str) -> (Cloud, Node, Admission) {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let admission = cloud.admitted(&node, policy).await;
    (cloud, node, admission)
}

#[tokio::test]
async fn each_renewal_is_for_a_new_key_and_everything_is_asked_again() {
    let (cloud, node, first) = joined("seen").await;
    let mut last = first;
    for number in 1..=3 {
        cloud.later(Lifetime::from_hours(8));
        let (before, key) = (cloud.calls(), new_key());
        let renewed = cloud.renewed(&node, &last, &key).await;
        assert_ne!(renewed.order.serial, last.order.serial);
        assert_eq!(renewed.order.public_key.spki_der(), key.subject_public_key_info());
        assert!(renewed.order.not_after > last.order.not_after);
        assert_eq!(renewed.enrollment.node_id, last.enrollment.node_id);
        assert!(cloud.calls().0 > before.0, "STS is asked in renewal {number}");
        assert!(cloud.calls().1 > before.1, "EC2 is asked in renewal {number}");
        last = renewed;
    }
    assert!(cloud.security_events().await.is_empty());
}

// I5, T64: the reply is lost three times; the node asks with the same new key over the same
// certificate and gets the same answer.
#[tokio::test]
async fn a_lost_reply_gives_the_same_certificate_again() {
    let (cloud, node, first) = joined("proven").await;
    cloud.later(Lifetime::from_hours(8));
    let key = new_key();
    let renewed = cloud.renewed(&node, &first, &key).await;
    for _ in 0..3 {
        let again = cloud.renewed(&node, &first, &key).await;
        assert_eq!(again.chain, renewed.chain);
    }
    // And the first use of it puts it in the place of the other.
    let third = cloud.renewed(&node, &renewed, &new_key()).await;
    let enrollment = cloud.world.enrollment(&third).await;
    assert_eq!(enrollment.current.order.serial, renewed.order.serial);
    assert_eq!(enrollment.next.unwrap().order.serial, third.order.serial);
    assert!(cloud.security_events().await.is_empty());
    assert!(!cloud.is_locked().await);
}

// A reply that was lost for so long that the certificate in it is old: the same key, a fresh one.
#[tokio::test]
async fn a_stored_renewal_is_not_repeated_when_it_is_old() {
    let (cloud, node, first) = joined("proven").await;
    let key = new_key();
    let renewed = cloud.renewed(&node, &first, &key).await;
    cloud.later(Lifetime::from_hours(5));
    let again = cloud.renewed(&node, &first, &key).await;
    assert_ne!(again.order.serial, renewed.order.serial);
    assert_eq!(again.order.public_key, renewed.order.public_key);
    // The one that was lost is kept in mind until it ends, so that a lock reaches it.
    let superseded = cloud.world.enrollment(&again).await.superseded;
    let serials: Vec<_> = superseded.iter().map(|one| one.serial).collect();
    assert_eq!(serials, [renewed.order.serial]);
    assert!(!cloud.is_locked().await);
}

// T63, N1: a copied key renews nothing without the instance's own word; T79: nor with a proof for
// something else.
#[tokio::test]
async fn a_copied_key_without_a_proof_renews_nothing() {
    let (cloud, node, first) = joined("proven").await;
    let key = new_key();
    for (proof, code) in [
        (Proof::None, Code::FreshProofRequired),
        (Proof::By(OTHER_WORKER), Code::ProofDisproven),
        (Proof::ForAJoin(WORKER), Code::ProofBindingMismatch),
    ] {
        assert_eq!(cloud.renewal_refused(&node, &first, &key, proof).await, code);
    }
    // And nothing of it is in the honest node's way.
    cloud.renewed(&node, &first, &new_key()).await;
    assert!(!cloud.is_locked().await);
}

// T16, T28, T56: the certificate of one node with the evidence of another.
#[tokio::test]
async fn a_certificate_renews_its_own_node_alone() {
    let (cloud, node, first) = joined("proven").await;
    let other = cloud.node(OTHER_WORKER);
    let others = cloud.admitted(&other, "proven").await;
    let code = cloud.renewal_refused(&other, &first, &new_key(), Proof::By(OTHER_WORKER)).await;
    assert_eq!(code, Code::CloneSuspected);
    assert_eq!(cloud.security_events().await, [Some(Code::CloneSuspected)]);
    let event = &cloud.world.records(Class::Security).await[0].record;
    let message = event.detail["message"].as_str().unwrap();
    assert!(message.contains("came with the evidence of"), "{message}");
    // Neither node has lost anything.
    cloud.renewed(&node, &first, &new_key()).await;
    cloud.renewed(&other, &others, &new_key()).await;
}

// T27: all of the certificate counts, not its serial.
#[tokio::test]
async fn another_certificate_of_the_same_serial_is_not_the_nodes() {
    let (cloud, node, first) = joined("proven").await;
    let forged = PresentedCertificate { fingerprint: "0".repeat(64), ..shown(&first) };
    let forgery = || cloud.renewal(&node, &forged, "proven", &new_key(), Proof::By(WORKER));
    let refusal = cloud.world.joins.renew(forgery()).await.unwrap_err();
    assert_eq!(refusal.code, Code::CloneSuspected);
    // Nor when that serial is an earlier one, of a key that is still in use.
    cloud.later(Lifetime::from_hours(5));
    let again = cloud.admitted(&node, "proven").await;
    assert_ne!(again.order.serial, first.order.serial);
    let refusal = cloud.world.joins.renew(forgery()).await.unwrap_err();
    assert_eq!(refusal.code, Code::CloneSuspected);
}

#[tokio::test]
async fn a_certificate_that_is_not_on_record_is_a_security_event() {
    let (cloud, node, first) = joined("proven").await;
    let serial = muster::domain::Serial::from_random([9; 16]);
    let unknown = PresentedCertificate { serial, ..shown(&first) };
    let renewal = cloud.renewal(&node, &unknown, "proven", &new_key(), Proof::By(WORKER));
    let refusal = cloud.world.joins.renew(renewal).await.unwrap_err();
    assert_eq!(refusal.code, Code::NodeUnknown);
    assert_eq!(cloud.security_events().await, [Some(Code::NodeUnknown)]);
}

// T56 with a proof: the one that proves itself goes on, the other key never does, nobody is locked.
#[tokio::test]
async fn of_two_new_keys_the_one_with_the_proof_goes_on() {
    let (cloud, node, first) = joined("proven").await;
    let (thief, honest) = (new_key(), new_key());
    let stolen = cloud.renewed(&node, &first, &thief).await;
    let renewed = cloud.renewed(&node, &first, &honest).await;
    assert_eq!(cloud.security_events().await, [None], "one event, of an admission");
    let event = &cloud.world.records(Class::Security).await[0].record;
    assert_eq!(event.detail["change"], "outrun");
    assert_eq!(event.detail["bound_key"], stolen.order.public_key.digest().to_string());
    // The outrun certificate is worth nothing from now on.
    let revoked = cloud.world.registry.revoked(cloud.world.clock.now()).await.unwrap();
    assert_eq!(revoked.keys().collect::<Vec<_>>(), [&stolen.order.serial]);
    let code = cloud.renewal_refused(&node, &stolen, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::CloneSuspected);
    let code = cloud.renewal_refused(&node, &first, &thief, Proof::By(WORKER)).await;
    assert_eq!(code, Code::KeyInUse);
    assert!(!cloud.is_locked().await);
    cloud.renewed(&node, &renewed, &new_key()).await;
}

// T56 without a proof method: nobody can tell them apart, so that node alone is locked, and a person
// decides.
#[tokio::test]
async fn without_a_proof_a_second_new_key_locks_the_node_and_nobody_else() {
    let (cloud, node, first) = joined("document").await;
    let other = cloud.node(OTHER_WORKER);
    let others = cloud.admitted(&other, "document").await;
    let plain = |key: &KeyPair| cloud.renewal(&node, &shown(&first), "document", key, Proof::None);
    let renewed = cloud.world.joins.renew(plain(&new_key())).await.unwrap();
    let refusal = cloud.world.joins.renew(plain(&new_key())).await.unwrap_err();
    assert_eq!(cloud.world.code_of(&refusal).await, Code::CloneSuspected);
    assert!(cloud.is_locked().await);
    // Both are out, by renewal and by join; and both are on the revocation list.
    let renewal = cloud.renewal(&node, &shown(&renewed), "document", &new_key(), Proof::None);
    let refusal = cloud.world.joins.renew(renewal).await.unwrap_err();
    assert_eq!(cloud.world.code_of(&refusal).await, Code::Locked);
    assert_eq!(refusal.code, Code::NotAdmitted, "a node is not told of locks");
    assert_eq!(cloud.world.refused(&node, "document").await, Code::Locked);
    let revoked = cloud.world.registry.revoked(cloud.world.clock.now()).await.unwrap();
    assert!(revoked.contains_key(&first.order.serial));
    assert!(revoked.contains_key(&renewed.order.serial));
    assert!(!revoked.contains_key(&others.order.serial));
    cloud.renewed(&other, &others, &new_key()).await;
    // The operator has looked: the node goes on where it was.
    let target = LockTarget::Node(first.enrollment.node_id.clone());
    cloud.world.registry.unlock(&[target], |_| Ok(vec![])).await.unwrap();
    cloud.renewed(&node, &renewed, &new_key()).await;
}

// A certificate that was given up shows a copy, or a snapshot that was restored.
#[tokio::test]
async fn a_certificate_that_was_given_up_is_a_clone_signal() {
    let by_itself = Proof::By(WORKER);
    for (policy, proof, locks) in [
        ("proven", by_itself, false),
        ("document", by_itself, false),
        ("document", Proof::None, true),
    ] {
        let (cloud, node, first) = joined(policy).await;
        let second = cloud.renewed(&node, &first, &new_key()).await;
        let third = cloud.renewed(&node, &second, &new_key()).await;
        let before = cloud.calls();
        let code = cloud.renewal_refused(&node, &first, &new_key(), proof).await;
        assert_eq!(code, Code::CloneSuspected);
        assert_eq!(cloud.is_locked().await, locks, "{policy}");
        if policy == "proven" {
            assert_eq!(cloud.calls(), before, "what a proof could not change asks for none");
        }
        let goes_on = cloud.renew(&node, &third, &new_key()).await;
        assert_eq!(goes_on.is_ok(), !locks, "{policy}");
    }
}

// N3: after a take-over, `forget`, or a later run, the old certificate renews nothing.
#[tokio::test]
async fn a_renewal_asks_the_enrollment() {
    let (cloud, node, first) = joined("proven").await;
    cloud.world.forget(&first).await;
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::NodeUnknown);
    let revoked = cloud.world.registry.revoked(cloud.world.clock.now()).await.unwrap();
    assert!(revoked.contains_key(&first.order.serial), "a forgotten certificate is revoked");

    let (cloud, node, first) = joined("proven").await;
    cloud.world.allow_rejoin(&first).await;
    let taker = node.copied();
    cloud.admitted(&taker, "proven").await;
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::CloneSuspected);
}

// I8, T51: the policy of now decides, and the age of the document is judged at joins alone.
#[tokio::test]
async fn a_policy_without_the_account_ends_the_renewals() {
    let (cloud, node, first) = joined("document").await;
    cloud.later(Lifetime::from_hours(30));
    let second = cloud.renewed(&node, &first, &new_key()).await;
    cloud.world.restart_with(&POLICIES.replace("111122223333", "444455556666"));
    let code = cloud.renewal_refused(&node, &second, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::PolicyNoMatch);
    cloud.world.restart_with(&POLICIES.replace("name: document,", "name: renamed,"));
    let code = cloud.renewal_refused(&node, &second, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::PolicyUnknown);
    cloud.world.restart_with(POLICIES);
    cloud.renewed(&node, &second, &new_key()).await;
}

// A renewal never shortens what a join would have been asked: a machine that stops gets none.
#[tokio::test]
async fn an_instance_that_does_not_run_renews_nothing() {
    let (cloud, node, first) = joined("seen").await;
    let stops = |record: &mut InstanceRecord| record.state = InstanceState::ShuttingDown;
    assert!(cloud.simulator.change(&WORKER.parse().unwrap(), stops));
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::InstanceNotRunning);
}

#[tokio::test]
async fn a_renewal_for_the_key_in_use_or_of_somebody_else_is_refused() {
    let (cloud, node, first) = joined("proven").await;
    let code = cloud.renewal_refused(&node, &first, &node.key, Proof::By(WORKER)).await;
    assert_eq!(code, Code::KeyInUse);
    let other = cloud.node(OTHER_WORKER);
    cloud.admitted(&other, "proven").await;
    let code = cloud.renewal_refused(&node, &first, &other.key, Proof::By(WORKER)).await;
    assert_eq!(code, Code::KeyInUse);
}

// The next key is the node's too: a join with it is a join of the same node (design, "Enrollments").
#[tokio::test]
async fn a_join_with_the_next_key_promotes_it() {
    let (cloud, mut node, first) = joined("proven").await;
    let key = new_key();
    let renewed = cloud.renewed(&node, &first, &key).await;
    node.key = key;
    let joined = cloud.admitted(&node, "proven").await;
    assert_eq!(joined.chain, renewed.chain, "the certificate that was never received");
    let enrollment = cloud.world.enrollment(&joined).await;
    assert_eq!(enrollment.current.order.serial, renewed.order.serial);
    assert!(enrollment.next.is_none());
    // The key before it is given up.
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::CloneSuspected);
    assert!(cloud.security_events().await.iter().all(Option::is_some));
}

// A join with the key in use gives up a next one that nobody has shown.
#[tokio::test]
async fn a_join_with_the_key_in_use_drops_the_next_one() {
    let (cloud, node, first) = joined("proven").await;
    let key = new_key();
    cloud.renewed(&node, &first, &key).await;
    cloud.later(Lifetime::from_hours(13));
    let joined = cloud.admitted(&node, "proven").await;
    assert!(cloud.world.enrollment(&joined).await.next.is_none());
    // The agent is told to make another key, and not that it has a copy of somebody's.
    let own = cloud.renewal(&node, &shown(&joined), "proven", &key, Proof::By(WORKER));
    let refusal = cloud.world.joins.renew(own).await.unwrap_err();
    assert_eq!(refusal.recorded, Code::KeyInUse);
    assert!(refusal.hint.unwrap().contains("was given up"));
    let other = cloud.node(OTHER_WORKER);
    let others = cloud.admitted(&other, "proven").await;
    let theirs = cloud.renewal(&other, &shown(&others), "proven", &key, Proof::By(OTHER_WORKER));
    let refusal = cloud.world.joins.renew(theirs).await.unwrap_err();
    assert_eq!(refusal.recorded, Code::KeyInUse);
    assert!(refusal.hint.unwrap().contains("another instance"));
    cloud.renewed(&node, &joined, &new_key()).await;
    assert!(!cloud.is_locked().await);
}

// K11: a node that slept and started again renews with the document of its later run.
#[tokio::test]
async fn a_later_run_renews_and_raises_the_epoch() {
    let (cloud, node, first) = joined("proven").await;
    let later = cloud.world.clock.now().plus(Lifetime::from_hours(1));
    cloud.later(Lifetime::from_hours(2));
    let mut started = node.started_at(later);
    started.document = cloud.simulator.document(&started.instance).unwrap();
    let renewed = cloud.renewed(&started, &first, &new_key()).await;
    assert_eq!(renewed.enrollment.epoch, later);
    // The document of before is refused from now on, whoever shows it.
    let code = cloud.renewal_refused(&node, &renewed, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::EpochStale);
}

// T76 beside T64: one renewal on many streams at once is one order and one certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_renewal_on_many_streams_at_once_gives_one_certificate() {
    let (cloud, node, first) = joined("document").await;
    let cloud = Arc::new(cloud);
    let key = new_key();
    let streams: Vec<_> = (0..8)
        .map(|_| {
            let cloud = Arc::clone(&cloud);
            let renewal = cloud.renewal(&node, &shown(&first), "document", &key, Proof::None);
            tokio::spawn(async move { cloud.world.joins.renew(renewal).await.unwrap() })
        })
        .collect();
    let mut chains = Vec::new();
    for stream in streams {
        chains.push(stream.await.unwrap().chain);
    }
    chains.dedup();
    assert_eq!(chains.len(), 1);
    assert!(cloud.security_events().await.is_empty());
}

// K5, K7: the policy may let a node back in whose key is honestly gone: by a proof, after a silence,
// so many times.
#[tokio::test]
async fn a_policy_may_let_a_silent_node_back_in() {
    let rejoin = "{fresh_proof: required, look_up: none, rejoin: {when_silent: 30m, limit: 1}}";
    let policies = POLICIES.replacen("{fresh_proof: required, look_up: none}", rejoin, 1);
    let (cloud, node, first) = joined("proven").await;
    cloud.world.restart_with(&policies);
    let replaced = node.copied();
    let (cloud, thief) = (&cloud, node.copied());
    let refused = || async {
        let refusal = cloud.refused(&thief, &cloud.honest(&thief, "proven")).await;
        cloud.world.code_of(&refusal).await
    };
    // The renewal is due after 8 h; until half an hour later the holder may be alive.
    cloud.later(Lifetime::from_minutes(8 * 60 + 30));
    assert_eq!(refused().await, Code::EnrollmentConflict);
    cloud.later(Lifetime::from_seconds(1));
    let back = cloud.admitted(&replaced, "proven").await;
    assert_eq!(back.enrollment.rejoins, 1);
    let events = cloud.world.records(Class::Security).await;
    let event = &events.last().unwrap().record;
    assert_eq!(event.detail["change"], Change::Rejoin.as_str());
    assert_eq!(event.detail["bound_key"], first.order.public_key.digest().to_string());
    // The limit is for the run: no renewal gives it back, and a later start does.
    let renewed = cloud.renewed(&replaced, &back, &new_key()).await;
    assert_eq!(renewed.enrollment.rejoins, 1);
    cloud.later(Lifetime::from_hours(9));
    assert_eq!(refused().await, Code::EnrollmentConflict);
    let mut started = replaced.started_at(cloud.world.clock.now());
    started.document = cloud.simulator.document(&started.instance).unwrap();
    assert_eq!(cloud.admitted(&started, "proven").await.enrollment.rejoins, 0);
}

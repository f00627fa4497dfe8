//! Who may bind an instance: one enrollment, one key.

use muster::audit::Class;
use muster::domain::{Code, Lifetime};
use muster::registry::Change;

use super::world::{ALLOWED, DENIED_IMAGE, Node, STRANGER, World, serial, start_of_story, stores};

// I5, T21: a lost reply never locks out.
#[tokio::test]
async fn the_same_key_asking_again_gets_the_same_certificate() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let first = world.admitted(&node, "web").await;
    let again = world.admitted(&node, "web").await;
    assert_eq!(first.chain, again.chain);
    assert_eq!(world.records(Class::Admission).await.len(), 3, "join, issue, join");
}

// T22, T19: the document is a bearer paper; whoever copies it gets nothing.
#[tokio::test]
async fn a_copied_document_is_refused_and_is_a_security_event() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    world.admitted(&node, "web").await;
    let thief = node.copied();
    assert_eq!(world.refused(&thief, "web").await, Code::EnrollmentConflict);
    let events = world.records(Class::Security).await;
    let detail = &events[0].record.detail;
    assert_eq!(detail["key"], thief.public_key().digest().to_string());
    assert_eq!(detail["bound_key"], node.public_key().digest().to_string());
    assert_eq!(detail["bound_from"], "192.0.2.7");
}

// I17: whoever was first, the other one's key is all that shows a theft; nothing else that is wrong
// with his attempt may hide it.
#[tokio::test]
async fn another_key_is_a_security_event_even_if_the_document_is_too_old() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    world.admitted(&node, "web").await;
    world.clock.advance(Lifetime::from_hours(25));
    let refusal = world.join(&node.copied(), "web").await.unwrap_err();
    assert_eq!(refusal.code, Code::EnrollmentConflict);
    assert!(!refusal.hint.unwrap().contains("old"), "policy is not probed by it");
    let events = world.records(Class::Security).await;
    assert!(events[0].record.detail["message"].as_str().unwrap().contains("besides, the document"));
    // The bound key itself is told the age.
    assert_eq!(world.refused(&node, "web").await, Code::DocumentTooOld);
}

// T19: wrapper bytes of the document are nobody's signature; they never make it a new one.
#[tokio::test]
async fn another_wrapping_of_one_document_is_no_new_instance() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    world.admitted(&node, "web").await;
    let mut thief = node.copied();
    thief.document = thief.document.lines().collect::<String>();
    assert_ne!(thief.document, node.document);
    assert_eq!(world.refused(&thief, "web").await, Code::EnrollmentConflict);
}

// T24, T45, acceptance 7: 64 keys at once, one certificate, 63 conflicts on record; every store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_keys_at_once_one_wins() {
    for (name, store, _keep) in stores() {
        let world = std::sync::Arc::new(World::on(store));
        let node = Node::new(ALLOWED, 1);
        let racers: Vec<_> = (0..64)
            .map(|_| {
                let (world, racer) = (std::sync::Arc::clone(&world), node.copied());
                tokio::spawn(async move { world.join(&racer, "web").await.map(|_| racer) })
            })
            .collect();
        let mut winners = Vec::new();
        for racer in racers {
            winners.extend(racer.await.unwrap().ok());
        }
        assert_eq!(winners.len(), 1, "{name}");
        let conflicts = world.records(Class::Security).await;
        assert_eq!(conflicts.len(), 63, "{name}");
        let first = world.admitted(&winners[0], "web").await;
        let again = world.admitted(&winners[0], "web").await;
        assert_eq!(serial(&first), serial(&again), "{name}");
    }
}

// X3: two streams of one key at one moment are no conflict with oneself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_on_many_streams_at_once_gets_one_certificate() {
    for (name, store, _keep) in stores() {
        let world = std::sync::Arc::new(World::on(store));
        let node = std::sync::Arc::new(Node::new(ALLOWED, 1));
        let streams: Vec<_> = (0..16)
            .map(|_| {
                let (world, node) = (std::sync::Arc::clone(&world), std::sync::Arc::clone(&node));
                tokio::spawn(async move { world.admitted(&node, "web").await })
            })
            .collect();
        let mut chains = Vec::new();
        for stream in streams {
            chains.push(stream.await.unwrap().chain);
        }
        chains.dedup();
        assert_eq!(chains.len(), 1, "{name}");
        assert!(world.records(Class::Security).await.is_empty(), "{name}");
    }
}

// T60, I4: the policy is a field of the enrollment, not part of its key.
#[tokio::test]
async fn another_policy_does_not_make_another_enrollment() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    world.admitted(&node, "web").await;
    assert_eq!(world.refused(&node.copied(), "batch").await, Code::EnrollmentConflict);
}

#[tokio::test]
async fn the_same_key_may_move_to_another_policy_and_the_old_serial_is_superseded() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let web = world.admitted(&node, "web").await;
    let batch = world.admitted(&node, "batch").await;
    assert_ne!(serial(&web), serial(&batch));
    let enrollment = world.enrollment(&batch).await;
    assert_eq!(enrollment.policy, "batch");
    assert_eq!(enrollment.superseded[0].serial, serial(&web));
}

// T61, I4: epochs never go back.
#[tokio::test]
async fn an_older_document_after_a_newer_one_is_refused_whoever_asks() {
    let world = World::new();
    let old = Node::new(ALLOWED, 1);
    let new = old.started_at(start_of_story().minus(Lifetime::from_minutes(1)));
    world.admitted(&new, "web").await;
    assert_eq!(world.refused(&old, "web").await, Code::EpochStale);
    let old_run_same_key = old.copied().with_key_of(&new);
    assert_eq!(world.refused(&old_run_same_key, "web").await, Code::EpochStale);
}

// T61: not after `forget` either.
#[tokio::test]
async fn forgetting_keeps_the_floor() {
    let world = World::new();
    let old = Node::new(ALLOWED, 1);
    let new = old.started_at(start_of_story().minus(Lifetime::from_minutes(1)));
    let admission = world.admitted(&new, "web").await;
    world.forget(&admission).await;
    assert_eq!(world.refused(&old, "web").await, Code::EpochStale);
    let other_key = new.copied();
    world.admitted(&other_key, "web").await;
    assert_eq!(world.refused(&new, "web").await, Code::CloneSuspected);
}

#[tokio::test]
async fn a_forgotten_enrollment_may_be_bound_anew_for_an_hour_only() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let admission = world.admitted(&node, "web").await;
    world.forget(&admission).await;
    world.clock.advance(Lifetime::from_minutes(61));
    assert_eq!(world.refused(&node.copied(), "web").await, Code::EnrollmentConflict);
    // Later a grant helps, and so does a later run.
    world.allow_rejoin(&admission).await;
    world.admitted(&node.copied(), "web").await;
    let restarted = node.started_at(world.clock.now());
    world.admitted(&restarted, "web").await;
}

#[tokio::test]
async fn another_key_may_bind_a_later_run_and_the_old_key_is_never_valid_again() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let first = world.admitted(&node, "web").await;
    let restarted = node.started_at(start_of_story().minus(Lifetime::from_minutes(1)));
    let second = world.admitted(&restarted, "web").await;
    let enrollment = world.enrollment(&second).await;
    let revoked = world.registry.revoked(world.clock.now()).await.unwrap();
    assert_eq!(revoked.into_keys().collect::<Vec<_>>(), [serial(&first)]);
    assert_eq!(enrollment.key(), restarted.public_key().digest());
    // The old key with the new document: retired keys stay taken.
    let old_key = restarted.copied().with_key_of(&node);
    assert_eq!(world.refused(&old_key, "web").await, Code::CloneSuspected);
}

#[tokio::test]
async fn the_same_key_in_a_later_run_goes_on() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    world.admitted(&node, "web").await;
    let woken = node.started_at(start_of_story()).with_key_of(&node);
    let admission = world.admitted(&woken, "web").await;
    assert_eq!(world.enrollment(&admission).await.floor, start_of_story());
}

// T62: a key that two machines share shows at once.
#[tokio::test]
async fn a_cloned_key_is_seen_whichever_instance_shows_it() {
    let world = World::new();
    let golden = Node::new(ALLOWED, 1);
    world.admitted(&golden, "web").await;
    for number in 2..52 {
        let clone = Node::new(ALLOWED, number).with_key_of(&golden);
        assert_eq!(world.refused(&clone, "web").await, Code::KeyInUse);
        world.admitted(&Node::new(ALLOWED, number), "web").await;
    }
    assert_eq!(world.records(Class::Security).await.len(), 50);
}

#[tokio::test]
async fn an_operator_can_allow_one_rejoin_and_no_more() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let admission = world.admitted(&node, "web").await;
    world.allow_rejoin(&admission).await;
    let reinstalled = node.copied();
    world.admitted(&reinstalled, "web").await;
    assert_eq!(world.refused(&node.copied(), "web").await, Code::EnrollmentConflict);
    assert_eq!(world.refused(&node, "web").await, Code::CloneSuspected);
}

#[tokio::test]
async fn an_allowed_rejoin_ends() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let admission = world.admitted(&node, "web").await;
    world.allow_rejoin(&admission).await;
    world.clock.advance(Lifetime::from_minutes(61));
    assert_eq!(world.refused(&node.copied(), "web").await, Code::EnrollmentConflict);
}

#[tokio::test]
async fn an_allowed_rejoin_waives_the_documents_age_once() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let admission = world.admitted(&node, "web").await;
    world.clock.advance(Lifetime::from_hours(25));
    assert_eq!(world.refused(&node, "web").await, Code::DocumentTooOld);
    world.allow_rejoin(&admission).await;
    world.admitted(&node, "web").await;
    // The hour of the grant is not over; its one use is.
    world.clock.advance(Lifetime::from_minutes(1));
    assert_eq!(world.refused(&node, "web").await, Code::DocumentTooOld);
}

// A grant for a machine that lost its key is not used up by one that did not.
#[tokio::test]
async fn the_bound_key_does_not_use_a_grant_up() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let admission = world.admitted(&node, "web").await;
    world.allow_rejoin(&admission).await;
    world.admitted(&node, "web").await;
    world.admitted(&node.copied(), "web").await;
}

#[tokio::test]
async fn a_document_is_refused_when_it_is_older_than_the_policy_takes() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    world.clock.advance(Lifetime::from_minutes(45));
    world.admitted(&node, "batch").await;
    world.clock.advance(Lifetime::from_minutes(20));
    let refusal = world.join(&node, "batch").await.unwrap_err();
    assert_eq!(refusal.code, Code::NotAdmitted);
    assert!(refusal.hint.as_deref().unwrap().contains("67 min"), "{refusal:?}");
    assert_eq!(world.code_of(&refusal).await, Code::DocumentTooOld);
}

#[tokio::test]
async fn a_stranger_is_told_nothing_and_leaves_nothing_in_the_store() {
    let world = World::new();
    let refusal = world.join(&Node::new(STRANGER, 1), "web").await.unwrap_err();
    assert_eq!(refusal.code, Code::NotAdmitted);
    assert_eq!(refusal.hint, None);
    assert_eq!(world.code_of(&refusal).await, Code::PolicyNoMatch);
    assert!(world.store.logs().await.unwrap().is_empty());
    assert!(world.store.scan("", None, 10).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_deny_list_holds_under_every_policy() {
    let world = World::new();
    let mut instance = Node::new(ALLOWED, 1).instance;
    instance.image_id = DENIED_IMAGE.to_owned();
    let node = Node::of(instance);
    for policy in ["web", "batch", "proven"] {
        assert_eq!(world.refused(&node, policy).await, Code::PolicyDenied, "{policy}");
    }
}

#[tokio::test]
async fn a_policy_that_requires_the_proof_refuses_with_a_code_of_its_own() {
    let world = World::new();
    let refusal = world.join(&Node::new(ALLOWED, 1), "proven").await.unwrap_err();
    assert_eq!(refusal.code, Code::FreshProofRequired);
}

#[tokio::test]
async fn a_node_that_names_no_policy_needs_exactly_one() {
    let world = World::new();
    assert_eq!(world.refused(&Node::new(ALLOWED, 1), "").await, Code::PolicyAmbiguous);
    assert_eq!(world.refused(&Node::new(ALLOWED, 1), "nosuch").await, Code::PolicyUnknown);
}

#[tokio::test]
async fn what_a_join_changed_stands_in_its_record() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let admission = world.admitted(&node, "web").await;
    let records = world.records(Class::Admission).await;
    let join = &records[0].record;
    assert_eq!(join.detail["change"], Change::Enroll.as_str());
    assert_eq!(join.serial, Some(serial(&admission)));
    assert_eq!(join.account_id.as_deref(), Some(ALLOWED));
    assert_eq!(join.correlation_id.as_ref(), Some(&admission.correlation_id));
    assert!(join.detail["claims"].is_object() && join.detail["facts"].is_object());
    assert_eq!(records[1].record.detail["sha256"].as_str().unwrap().len(), 64);
}

//! Stored answers and changed circumstances, and bindings that do not fit.

use muster::domain::{Code, Lifetime};
use muster::join::{InvalidStart, Start};

use super::world::{ALLOWED, Node, POLICIES, World, serial};

// T73, I15: a stored answer is decided anew.
#[tokio::test]
async fn a_stored_answer_is_not_repeated_after_the_policy_changed() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    world.admitted(&node, "web").await;
    world.restart_with(&POLICIES.replace("\"111122223333\"", "\"444455556666\""));
    assert_eq!(world.refused(&node, "web").await, Code::PolicyNoMatch);
}

// T73: another life, another order.
#[tokio::test]
async fn a_stored_answer_is_not_repeated_when_the_policy_gives_another_certificate() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let first = world.admitted(&node, "web").await;
    world.restart_with(&POLICIES.replace("ttl: 12h, dns_names", "ttl: 1h, dns_names"));
    let second = world.admitted(&node, "web").await;
    assert_ne!(serial(&first), serial(&second));
    let order = &second.order;
    assert_eq!(order.not_after, world.clock.now().plus(Lifetime::from_hours(1)));
}

// T73, I15: whatever the policy says otherwise now, even if no certificate shows it.
#[tokio::test]
async fn a_stored_answer_is_not_repeated_when_any_part_of_it_would_be_another() {
    for (was, is) in [
        ("roles: [node]", "roles: [node, cache]"),
        ("labels: {tier: web}", "labels: {tier: shop}"),
        ("{instance_id}.web.internal.example", "{instance_id}.shop.internal.example"),
    ] {
        let world = World::new();
        let node = Node::new(ALLOWED, 1);
        let first = world.admitted(&node, "web").await;
        world.restart_with(&POLICIES.replacen(was, is, 1));
        let second = world.admitted(&node, "web").await;
        assert_ne!(serial(&first), serial(&second), "{is}");
        let third = world.admitted(&node, "web").await;
        assert_eq!(serial(&second), serial(&third), "{is}");
    }
}

// T73: near its end it is not handed out again.
#[tokio::test]
async fn a_stored_answer_is_not_repeated_when_a_third_of_its_life_is_gone() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let first = world.admitted(&node, "web").await;
    // It lives 12 h from now on, and began a minute ago.
    world.clock.advance(Lifetime::from_seconds((12 * 3600 + 60) / 3 - 61));
    assert_eq!(serial(&world.admitted(&node, "web").await), serial(&first));
    world.clock.advance(Lifetime::from_seconds(1));
    assert_ne!(serial(&world.admitted(&node, "web").await), serial(&first));
}

// T59: nonce and name of another server's connection are worthless here.
#[tokio::test]
async fn a_relayed_proof_does_not_fit_this_connection() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let mut relayed = node.attempt("web");
    relayed.channel = [9; 32];
    assert_eq!(world.joins.admit(&relayed).await.unwrap_err().code, Code::PossessionNotProven);
    let mut another_nonce = node.attempt("web");
    another_nonce.nonce = [9; 32];
    assert_eq!(
        world.joins.admit(&another_nonce).await.unwrap_err().code,
        Code::PossessionNotProven
    );
    let mut redirected = node.attempt("web");
    redirected.start.policy = "batch".to_owned();
    assert_eq!(world.joins.admit(&redirected).await.unwrap_err().code, Code::PossessionNotProven);
    let mut swapped = node.attempt("web");
    swapped.evidence = Node::new(ALLOWED, 2).attempt("web").evidence;
    assert_eq!(world.joins.admit(&swapped).await.unwrap_err().code, Code::PossessionNotProven);
    let mut stolen = node.attempt("web");
    stolen.start.public_key = node.copied().public_key();
    assert_eq!(world.joins.admit(&stolen).await.unwrap_err().code, Code::PossessionNotProven);
}

// T15: a method that does not exist has no way round.
#[tokio::test]
async fn an_unknown_method_is_refused() {
    let world = World::new();
    let mut attempt = Node::new(ALLOWED, 1).attempt("web");
    attempt.start.method = "dice".to_owned();
    assert_eq!(world.joins.admit(&attempt).await.unwrap_err().code, Code::UnknownMethod);
}

// T26: what the node says of itself is for the log and for nothing else.
#[tokio::test]
async fn facts_beside_the_document_change_nothing() {
    let world = World::new();
    let node = Node::new(super::world::STRANGER, 1);
    let mut attempt = node.attempt("web");
    attempt.start.facts = format!("account={ALLOWED}");
    assert_eq!(world.joins.admit(&attempt).await.unwrap_err().code, Code::NotAdmitted);
}

// T35, T17: the first message is bounded in every part.
#[tokio::test]
async fn a_first_message_of_the_wrong_form_is_refused() {
    let key = Node::new(ALLOWED, 1).public_key().spki_der().to_vec();
    let long = "a".repeat(64);
    for (policy, method, facts) in [
        ("we/b", "ec2", ""),
        ("web", "EC2", ""),
        (long.as_str(), "ec2", ""),
        ("web", long.as_str(), ""),
        ("web", "ec2", "line\nfeed"),
        ("web", "ec2", "\u{1b}[2J"),
        ("web", "ec2", &"x".repeat(1025)),
    ] {
        let parsed = Start::parse(policy, method, &key, facts);
        assert!(matches!(parsed, Err(InvalidStart::Malformed(_))), "{policy:?} {method:?}");
    }
    assert!(matches!(Start::parse("web", "ec2", b"key", ""), Err(InvalidStart::PublicKey(_))));
    let (longest, full) = ("a".repeat(63), "x".repeat(1024));
    assert!(Start::parse(&longest, &longest, &key, &full).is_ok());
}

// T17: evidence and signature are bounded too, to the byte, and before anybody looks into them.
#[tokio::test]
async fn evidence_and_signature_may_be_as_long_as_their_bounds_and_no_longer() {
    let world = World::new();
    for (evidence, signature, code) in [
        (16 * 1024, 1024, Code::PossessionNotProven),
        (16 * 1024 + 1, 1024, Code::MalformedRequest),
        (16 * 1024, 1025, Code::MalformedRequest),
    ] {
        let mut attempt = Node::new(ALLOWED, 1).attempt("web");
        attempt.evidence = vec![b'x'; evidence];
        attempt.pop = vec![0; signature];
        let refusal = world.joins.admit(&attempt).await.unwrap_err();
        assert_eq!(refusal.recorded, code, "{evidence} {signature}");
    }
}

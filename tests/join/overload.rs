//! More to do than can be done: whose evidence is verified first, who waits for others, and what
//! those are told who have to go (I14, T67).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster::audit::Class;
use muster::domain::Code;
use muster::join::Refusal;
use muster::turns::{Reason, Showing};
use tokio::task::JoinSet;

use crate::world::{ALLOWED, Node, POLICIES, STRANGER, World};

const CROWD: [u8; 4] = [192, 0, 2, 7];
const FLEET: [u8; 4] = [198, 51, 100, 7];
const OTHER_ALLOWED: &str = "444455556666";
const STRANGERS: usize = 200;
const NODES: u64 = 5;

/// How many strangers were answered before the last node of the fleet was admitted. The strangers
/// came first, with good documents of an account that no policy names.
async fn strangers_before_the_fleet(crowd: IpAddr, fleet: IpAddr) -> usize {
    let world = Arc::new(World::new());
    for _ in 0..50 {
        world.joins.turns.note(crowd, Showing::Worthless);
    }
    let answered = Arc::new(AtomicUsize::new(0));
    let stranger = Node::new(STRANGER, 1);
    let nodes: Vec<_> = (1..=NODES).map(|number| Node::new(ALLOWED, number)).collect();
    let mut tasks = JoinSet::new();
    for _ in 0..STRANGERS {
        let mut attempt = stranger.attempt("web");
        attempt.source = crowd;
        let (world, answered) = (Arc::clone(&world), Arc::clone(&answered));
        tasks.spawn(async move {
            let refusal = world.joins.admit(&attempt).await.unwrap_err();
            assert_eq!(refusal.recorded, Code::PolicyNoMatch);
            answered.fetch_add(1, Ordering::SeqCst);
            0
        });
    }
    for node in nodes {
        let mut attempt = node.attempt("web");
        attempt.source = fleet;
        let (world, answered) = (Arc::clone(&world), Arc::clone(&answered));
        tasks.spawn(async move {
            world.joins.admit(&attempt).await.unwrap();
            answered.load(Ordering::SeqCst)
        });
    }
    let before = tasks.join_all().await.into_iter().max().unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), STRANGERS, "strangers have their answers too");
    before
}

// D6: one thread, so that without turns everybody would be judged in the order of arrival.
#[tokio::test]
async fn strangers_documents_are_not_judged_first_for_having_come_first() {
    let before = strangers_before_the_fleet(CROWD.into(), FLEET.into()).await;
    eprintln!("{before} of {STRANGERS} strangers came before the last of {NODES} nodes");
    assert!(before < STRANGERS / 4, "{before}");
}

// A fleet behind the crowd's own gateway has no share of its own, and nobody is kept out for it.
#[tokio::test]
async fn nodes_of_the_crowds_own_network_join_too() {
    let before = strangers_before_the_fleet(CROWD.into(), CROWD.into()).await;
    assert!(before <= STRANGERS);
}

fn assert_sent_away(refusal: &Refusal) {
    assert_eq!(refusal.code, Code::Overloaded);
    let seconds = refusal.retry_after_seconds.unwrap();
    assert!((2..=60).contains(&seconds), "{seconds}");
    assert_eq!(refusal.hint, None, "who else is here is nobody's business");
}

// An account behind a service that does not answer has many places, and leaves some.
#[tokio::test(start_paused = true)]
async fn one_accounts_crowd_does_not_take_every_place() {
    let world = World::new();
    let more = format!("{{id: \"{ALLOWED}\", name: shop-prod, owner: \"shop\"}}");
    let both = format!("{more}, {{id: \"{OTHER_ALLOWED}\", name: other, owner: \"shop\"}}");
    world.restart_with(&POLICIES.replace(&more, &both));
    let places = &world.joins.places;
    let mut held = Vec::new();
    while let Ok(place) = places.place(format!("aws/{ALLOWED}")).await {
        held.push(place);
    }
    assert!(held.len() > 300, "{}", held.len());

    let refusal = world.join(&Node::new(ALLOWED, 1), "web").await.unwrap_err();
    assert_sent_away(&refusal);
    world.admitted(&Node::new(OTHER_ALLOWED, 2), "web").await;
    // Whoever is sent away costs no write, whatever account he is of.
    assert!(world.records(Class::Known).await.is_empty());
    let id = refusal.correlation_id.unwrap();
    assert!(world.joins.audit.recall(&id).is_some(), "it is explained from memory");
    drop(held);
    world.admitted(&Node::new(ALLOWED, 1), "web").await;
    assert_eq!(places.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_gets_no_turn_in_time_is_sent_away() {
    let world = World::new();
    let turns = Arc::clone(&world.joins.turns);
    let held = [turns.turn(CROWD.into()).await.unwrap(), turns.turn(CROWD.into()).await.unwrap()];
    assert_sent_away(&world.join(&Node::new(ALLOWED, 1), "web").await.unwrap_err());
    assert_eq!(turns.sent_away(Reason::Waited), 1);
    drop(held);
    world.admitted(&Node::new(ALLOWED, 1), "web").await;
}

// Evidence costs the node a look at its metadata and us a verification: both are spared.
#[tokio::test]
async fn whoever_would_not_be_judged_in_time_is_told_before_he_is_challenged() {
    let world = World::new();
    let (joins, turns) = (&world.joins, Arc::clone(&world.joins.turns));
    assert_eq!(joins.refuse_early("join", CROWD.into()).await, None);
    let slow = turns.turn(CROWD.into()).await.unwrap();
    std::thread::sleep(Duration::from_millis(400));
    drop(slow);
    let _held = [turns.turn(CROWD.into()).await.unwrap(), turns.turn(CROWD.into()).await.unwrap()];
    let mut crowd = JoinSet::new();
    for _ in 0..900 {
        let turns = Arc::clone(&turns);
        crowd.spawn(async move { turns.turn(CROWD.into()).await.map(drop) });
    }
    while turns.waiting() < 900 {
        tokio::task::yield_now().await;
    }
    assert_sent_away(&joins.refuse_early("join", CROWD.into()).await.unwrap());
    assert_eq!(joins.refuse_early("join", FLEET.into()).await, None, "others do not wait for them");
    assert!(world.records(Class::Noise).await.is_empty(), "no write for each");
}

use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;

use super::world::{
    Asked, Fate, START, World, certified_key, instance, joined, next_turn, started,
};
use crate::agent::daemon::{Agent, Event, Wish};
use crate::agent::method::{Method, MethodList};
use crate::agent::plan::Step;
use crate::agent::state::{LockedState, status};
use crate::domain::{Code, Lifetime};

fn steps(asked: &[Asked]) -> Vec<Step> {
    asked.iter().map(|one| one.step).collect()
}

fn only_ec2() -> MethodList {
    MethodList::only(Method::Ec2)
}

fn last_error(world: &World) -> Option<Code> {
    status(&world.state()).unwrap().agent.last_error.map(|error| error.code)
}

#[tokio::test]
async fn a_node_joins_and_then_renews_with_a_new_key_each_time() {
    let world = World::new();
    let mut agent = joined(&world).await;
    assert_eq!(agent.next().at, START.plus(Lifetime::from_hours(8)));
    let mut keys = vec![certified_key(&world)];
    for _ in 0..3 {
        next_turn(&world, &mut agent).await;
        let asked = world.take_asked();
        assert_eq!(steps(&asked), [Step::Renew]);
        assert_eq!(asked[0].policy, "web-now", "the policy of node.json");
        assert_eq!(certified_key(&world), asked[0].key);
        assert!(!keys.contains(&asked[0].key));
        keys.push(asked[0].key);
    }
}

// I5
#[tokio::test]
async fn a_lost_reply_is_asked_for_again_with_the_same_key() {
    let world = World::new();
    let mut agent = joined(&world).await;
    world.next_are(&[Fate::ReplyLost; 3]);
    for _ in 0..4 {
        next_turn(&world, &mut agent).await;
    }
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Renew; 4]);
    assert!(asked.iter().all(|one| one.key == asked[0].key));
    assert_eq!(certified_key(&world), asked[0].key);
    assert_eq!(last_error(&world), None);
}

// I5: killed while the answer is on its way, at a join and at a renewal, again and again.
#[tokio::test]
async fn a_killed_agent_asks_with_the_same_key() {
    let world = World::new();
    world.next_are(&[Fate::NodeDies; 2]);
    for _ in 0..2 {
        let mut agent = started(&world).await;
        tokio::select! {
            biased;
            () = agent.turn() => panic!("the answer came"),
            () = tokio::task::yield_now() => {}
        }
    }
    let mut agent = joined_after_deaths(&world).await;
    next_turn(&world, &mut agent).await;
    world.take_asked();
    drop(agent);

    world.next_are(&[Fate::NodeDies; 2]);
    world.clock.advance(Lifetime::from_hours(9));
    for _ in 0..2 {
        let mut agent = started(&world).await;
        tokio::select! {
            biased;
            () = agent.turn() => panic!("the answer came"),
            () = tokio::task::yield_now() => {}
        }
    }
    let mut agent = started(&world).await;
    agent.turn().await;
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Renew; 3]);
    assert!(asked.iter().all(|one| one.key == asked[0].key));
    assert_eq!(certified_key(&world), asked[0].key);
}

async fn joined_after_deaths(world: &Rc<World>) -> Agent<'static, Rc<World>> {
    let mut agent = started(world).await;
    agent.turn().await;
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Join; 3]);
    assert!(asked.iter().all(|one| one.key == asked[0].key));
    agent
}

#[tokio::test]
async fn a_restart_asks_nothing_while_the_certificate_is_young() {
    let world = World::new();
    drop(joined(&world).await);
    let before = world.current();
    world.clock.advance(Lifetime::from_hours(1));
    let agent = started(&world).await;
    assert_eq!((world.take_asked(), world.current()), (Vec::new(), before));
    assert_eq!(agent.next().at, START.plus(Lifetime::from_hours(8)));
}

#[tokio::test]
async fn a_copied_disk_and_a_restarted_machine_begin_afresh() {
    let world = World::new();
    drop(joined(&world).await);
    let first = certified_key(&world);
    for other in [instance(2, 0), instance(2, 5)] {
        world.forget();
        *world.instance.borrow_mut() = other;
        drop(joined(&world).await);
        assert_ne!(certified_key(&world), first);
    }
}

// K11
#[tokio::test]
async fn a_machine_that_wakes_up_in_another_epoch_renews_at_once_with_what_it_has() {
    let world = World::new();
    let ready = Mutex::new(0);
    let tell = |event: &Event<'_>| {
        if matches!(event, Event::Ready(_)) {
            *ready.lock().unwrap() += 1;
        }
    };
    let (wish, wishes) = mpsc::channel(1);
    let locked = LockedState::take(&world.state()).unwrap();
    let mut agent = Agent::new(Rc::clone(&world), only_ec2(), Vec::new(), locked, &tell);
    let hibernates = async {
        while world.asked.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        *world.instance.borrow_mut() = instance(1, 1);
        world.jumps.set(true);
        while world.asked.borrow().len() < 2 {
            tokio::task::yield_now().await;
        }
        wish.send(Wish::Stop).await.unwrap();
    };
    tokio::join!(agent.run(wishes), hibernates);
    drop(agent);

    let slept: Duration = world.pauses.borrow().iter().sum();
    assert!(slept < Duration::from_hours(1), "it did not wait for the renewal: {slept:?}");
    assert_eq!(steps(&world.take_asked()), [Step::Join, Step::Renew]);
    assert_eq!(*ready.lock().unwrap(), 1, "ready is said once");
    // The stamp has followed: a restart keeps the state.
    drop(started(&world).await);
    assert!(world.state().join("current").exists());
}

#[tokio::test]
async fn a_refused_renewal_is_followed_by_a_join_under_the_configured_policy() {
    let world = World::new();
    let mut agent = joined(&world).await;
    let key = certified_key(&world);
    world.next_are(&[Fate::Refused(Code::NotAdmitted)]);
    next_turn(&world, &mut agent).await;
    assert_eq!(last_error(&world), Some(Code::NotAdmitted));
    next_turn(&world, &mut agent).await;
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Renew, Step::Join]);
    assert_eq!((asked[1].key, asked[1].policy.as_str()), (key, "web"), "with the current key");
    assert!(!world.state().join("pending").exists(), "the server has forgotten that key too");
    assert_eq!(last_error(&world), None);
}

#[tokio::test]
async fn a_node_that_stays_refused_keeps_its_certificate_and_takes_turns_rarely() {
    let world = World::new();
    let mut agent = joined(&world).await;
    let before = world.current();
    world.luck.set(1.0);
    world.next_are(&[Fate::Refused(Code::NotAdmitted); 12]);
    for _ in 0..12 {
        next_turn(&world, &mut agent).await;
    }
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Renew, Step::Join].repeat(6));
    let keys: std::collections::BTreeSet<_> = asked.iter().map(|one| one.key).collect();
    assert_eq!(keys.len(), 2, "one pending key, and the current one");
    assert_eq!(world.current(), before);
    let pause = agent.next().at.since(world.clock.now());
    assert_eq!(pause, Lifetime::from_minutes(10));
}

#[tokio::test]
async fn an_ended_certificate_is_followed_by_a_join_with_the_same_key() {
    let world = World::new();
    drop(joined(&world).await);
    let key = certified_key(&world);
    world.clock.advance(Lifetime::from_hours(13));
    let mut agent = started(&world).await;
    agent.turn().await;
    let asked = world.take_asked();
    assert_eq!((steps(&asked), asked[0].key), (vec![Step::Join], key));
}

#[tokio::test]
async fn a_forgotten_node_joins_with_one_fresh_key_however_often_the_reply_is_lost() {
    let world = World::new();
    let mut agent = joined(&world).await;
    let lost = certified_key(&world);
    world.forget();
    next_turn(&world, &mut agent).await;
    assert_eq!(last_error(&world), Some(Code::NodeUnknown));
    world.next_are(&[Fate::ReplyLost; 2]);
    next_turn(&world, &mut agent).await;
    drop(agent);
    let mut agent = started(&world).await;
    agent.turn().await;
    next_turn(&world, &mut agent).await;
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Renew, Step::Join, Step::Join, Step::Join]);
    assert!(asked[1].key != lost && asked[1].key != asked[0].key, "a key that is new");
    assert!(asked[1..].iter().all(|one| one.key == asked[1].key), "and stays the same");
    assert_eq!(certified_key(&world), asked[1].key);
}

#[tokio::test]
async fn a_suspected_clone_makes_one_fresh_key_and_leaves_it_to_the_server() {
    let world = World::new();
    let mut agent = joined(&world).await;
    world.next_are(&[Fate::Refused(Code::CloneSuspected); 4]);
    for _ in 0..4 {
        next_turn(&world, &mut agent).await;
    }
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Renew, Step::Join, Step::Join, Step::Join]);
    assert!(asked[1..].iter().all(|one| one.key == asked[1].key));
}

#[tokio::test]
async fn a_next_key_that_is_taken_is_replaced() {
    let world = World::new();
    let mut agent = joined(&world).await;
    world.next_are(&[Fate::Refused(Code::KeyInUse)]);
    next_turn(&world, &mut agent).await;
    next_turn(&world, &mut agent).await;
    let asked = world.take_asked();
    assert_eq!(steps(&asked), [Step::Renew, Step::Renew]);
    assert_ne!(asked[0].key, asked[1].key);
    assert_eq!(certified_key(&world), asked[1].key);
}

#[tokio::test]
async fn what_the_server_asks_to_wait_is_waited_even_in_a_hurry() {
    let world = World::new();
    world.next_are(&[Fate::Busy(Duration::from_secs(100))]);
    let (wish, wishes) = mpsc::channel(1);
    let locked = LockedState::take(&world.state()).unwrap();
    let mut agent = Agent::new(Rc::clone(&world), only_ec2(), Vec::new(), locked, &|_| {});
    let hurries = async {
        while world.asked.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        wish.send(Wish::RenewNow).await.unwrap();
        while world.asked.borrow().len() < 2 {
            tokio::task::yield_now().await;
        }
        wish.send(Wish::Stop).await.unwrap();
    };
    tokio::join!(agent.run(wishes), hurries);
    let slept: Duration = world.pauses.borrow().iter().take(2).sum();
    assert!(slept >= Duration::from_secs(100), "{slept:?}");
}

#[tokio::test]
async fn a_server_of_another_trust_domain_is_refused_later() {
    let world = World::new();
    let mut agent = joined(&world).await;
    let before = world.current();
    *world.trust_domain.borrow_mut() = "evil.example.org".to_owned();
    next_turn(&world, &mut agent).await;
    assert_eq!(last_error(&world), Some(Code::ServerUntrusted));
    assert_eq!(world.current(), before);
    next_turn(&world, &mut agent).await;
    assert_eq!(steps(&world.take_asked()), [Step::Renew; 2], "no join follows");
}

#[tokio::test]
async fn without_a_metadata_service_nobody_is_asked_and_nothing_is_lost() {
    let world = World::new();
    drop(joined(&world).await);
    let before = world.current();
    world.is_mute.set(true);
    let mut agent = started(&world).await;
    for _ in 0..5 {
        next_turn(&world, &mut agent).await;
    }
    assert_eq!(last_error(&world), Some(Code::MetadataUnavailable));
    assert_eq!((world.take_asked(), world.current()), (Vec::new(), before));
    world.is_mute.set(false);
    next_turn(&world, &mut agent).await;
    assert_eq!(agent.next().at, START.plus(Lifetime::from_hours(8)));
}

// A failed reload is in the books, and the next renewal comes as if nothing had happened.
#[tokio::test]
async fn a_reload_command_that_fails_is_shown_and_keeps_nobody() {
    let world = World::new();
    let (wish, wishes) = mpsc::channel(1);
    let locked = LockedState::take(&world.state()).unwrap();
    let command = vec!["false".to_owned()];
    let mut agent = Agent::new(Rc::clone(&world), only_ec2(), command, locked, &|_| {});
    let watches = async {
        while status(&world.state()).unwrap().agent.reload.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while world.asked.borrow().len() < 3 {
            tokio::task::yield_now().await;
        }
        wish.send(Wish::Stop).await.unwrap();
    };
    tokio::join!(agent.run(wishes), watches);
    let reload = status(&world.state()).unwrap().agent.reload.unwrap();
    assert!(reload.error.unwrap().contains("exit status: 1"));
    assert_eq!(last_error(&world), None);
}

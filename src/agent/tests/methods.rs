//! A list of methods: what moves on, what does not, and what a node of a token does later.

use std::rc::Rc;

use super::world::{Asked, Fate, World, certified_key, joined, next_turn, started};
use crate::agent::method::{Method, MethodList, Way};
use crate::agent::plan::Step;
use crate::agent::state::{LastError, status};
use crate::domain::{Code, Lifetime};

fn with(methods: &[Method]) -> Rc<World> {
    let world = World::new();
    *world.methods.borrow_mut() = MethodList::new(methods.to_vec()).unwrap();
    world
}

fn ways(asked: &[Asked]) -> Vec<Way> {
    asked.iter().map(|one| one.way).collect()
}

fn last_error(world: &World) -> Option<LastError> {
    status(&world.state()).unwrap().agent.last_error
}

#[tokio::test]
async fn a_denial_moves_on_in_the_order_of_the_list_and_in_the_same_turn() {
    use Method::{Ec2, Token};
    for (list, expected) in
        [([Ec2, Token], [Way::Ec2, Way::Token]), ([Token, Ec2], [Way::Token, Way::Ec2])]
    {
        let world = with(&list);
        world.next_are(&[Fate::Refused(Code::NotAdmitted)]);
        let mut agent = started(&world).await;
        agent.turn().await;
        let asked = world.take_asked();
        assert_eq!(ways(&asked), expected);
        assert_eq!(asked[0].key, asked[1].key, "one key for all methods");
        assert_eq!(certified_key(&world), asked[1].key);
        assert_eq!(last_error(&world), None);
        assert_eq!(world.current().record().unwrap().method, list[1]);
    }
}

// The engineer at 3 a.m. sees both.
#[tokio::test]
async fn the_last_error_is_reported_with_those_before_it() {
    let world = with(&[Method::Ec2, Method::Token]);
    world.next_are(&[Fate::Refused(Code::NotAdmitted), Fate::Refused(Code::TokenExpired)]);
    let mut agent = started(&world).await;
    agent.turn().await;
    let error = last_error(&world).unwrap();
    assert_eq!((error.code, error.method.as_deref()), (Code::TokenExpired, Some("token")));
    let [earlier] = error.earlier.as_slice() else { panic!("{error:?}") };
    assert_eq!((earlier.code, earlier.method.as_str()), (Code::NotAdmitted, "ec2"));
}

#[tokio::test]
async fn an_outage_ends_the_attempt_and_the_next_one_begins_at_the_top() {
    for code in [
        Code::ServerUnreachable,
        Code::StsThrottled,
        Code::ChallengeExpired,
        Code::MetadataUnavailable,
    ] {
        let world = with(&[Method::Ec2, Method::Token]);
        world.next_are(&[Fate::Refused(code)]);
        let mut agent = started(&world).await;
        agent.turn().await;
        assert_eq!(ways(&world.take_asked()), [Way::Ec2], "{code}");
        assert_eq!(last_error(&world).unwrap().code, code);
        next_turn(&world, &mut agent).await;
        assert_eq!(ways(&world.take_asked()), [Way::Ec2], "{code}");
    }
}

// An outage of the second method is not forgotten for the denial of the first.
#[tokio::test]
async fn a_throttled_source_is_tried_again_from_the_top() {
    let world = with(&[Method::Ec2, Method::Token]);
    let denied = Fate::Refused(Code::NotAdmitted);
    world.next_are(&[denied, Fate::Refused(Code::TokenSourceUnavailable), denied]);
    world.luck.set(1.0);
    let mut agent = started(&world).await;
    agent.turn().await;
    let pause = agent.next().at.since(world.clock.now());
    assert!(pause <= Lifetime::from_seconds(1), "as after an outage: {pause:?}");
    next_turn(&world, &mut agent).await;
    let expected = [Way::Ec2, Way::Token, Way::Ec2, Way::Token];
    assert_eq!(ways(&world.take_asked()), expected);
    assert_eq!(last_error(&world), None);
}

// B2: a server that is not trusted, or that answers with somebody else's certificate, gets no token.
#[tokio::test]
async fn what_is_wrong_with_the_server_or_the_disk_never_moves_on() {
    for code in [Code::ServerUntrusted, Code::ResultRejected, Code::StateUnusable] {
        let world = with(&[Method::Ec2, Method::Token]);
        world.next_are(&[Fate::Refused(code); 3]);
        let mut agent = started(&world).await;
        for _ in 0..3 {
            next_turn(&world, &mut agent).await;
        }
        assert_eq!(ways(&world.take_asked()), [Way::Ec2; 3], "{code}");
        assert_eq!(last_error(&world).unwrap().earlier, []);
    }
}

// T58: whatever the server says, for days, an agent of one method keeps to it.
#[tokio::test]
async fn an_agent_of_ec2_alone_never_uses_a_token() {
    let world = with(&[Method::Ec2]);
    let mut agent = joined(&world).await;
    for code in Code::ALL {
        world.next_are(&[Fate::Refused(*code)]);
        next_turn(&world, &mut agent).await;
    }
    world.clock.advance(Lifetime::from_hours(13));
    for code in Code::ALL {
        world.next_are(&[Fate::Refused(*code)]);
        next_turn(&world, &mut agent).await;
    }
    let asked = world.take_asked();
    assert_eq!(asked.len(), 2 * Code::ALL.len());
    assert!(asked.iter().all(|one| one.way == Way::Ec2), "{asked:?}");
}

#[tokio::test]
async fn a_node_renews_by_the_method_of_its_record() {
    let world = with(&[Method::Token]);
    let mut agent = joined(&world).await;
    assert_eq!(world.current().record().unwrap().method, Method::Token);
    // The list is another one now: the key binding holds the method, so the record decides.
    drop(agent);
    *world.methods.borrow_mut() = MethodList::only(Method::Ec2);
    agent = started(&world).await;
    for _ in 0..2 {
        next_turn(&world, &mut agent).await;
    }
    let asked = world.take_asked();
    assert_eq!(ways(&asked), [Way::KeyAlone; 2], "no token is read");
    assert!(asked.iter().all(|one| one.step == Step::Renew && one.policy == "web-now"));
}

#[tokio::test]
async fn an_outage_at_a_renewal_reads_no_token() {
    let world = with(&[Method::Token]);
    let mut agent = joined(&world).await;
    world.next_are(&[Fate::Refused(Code::ServerUnreachable); 3]);
    for _ in 0..4 {
        next_turn(&world, &mut agent).await;
    }
    assert_eq!(ways(&world.take_asked()), [Way::KeyAlone; 4]);
}

#[tokio::test]
async fn a_node_whose_certificate_has_ended_comes_back_with_its_key_first() {
    let world = with(&[Method::Token]);
    drop(joined(&world).await);
    let key = certified_key(&world);
    world.clock.advance(Lifetime::from_hours(13));
    let mut agent = started(&world).await;
    agent.turn().await;
    let asked = world.take_asked();
    assert_eq!((ways(&asked), asked[0].key), (vec![Way::KeyAlone], key));
    assert_eq!((asked[0].step, asked[0].policy.as_str()), (Step::Join, "web-now"));
}

#[tokio::test]
async fn a_node_that_may_not_come_back_joins_with_its_token_in_the_same_turn() {
    let world = with(&[Method::Ec2, Method::Token]);
    world.next_are(&[Fate::Refused(Code::NotAdmitted)]);
    let mut agent = started(&world).await;
    agent.turn().await;
    world.take_asked();
    world.clock.advance(Lifetime::from_hours(13));
    // An outage of coming back reads no token.
    world.next_are(&[Fate::Refused(Code::ServerUnreachable)]);
    agent.turn().await;
    assert_eq!(ways(&world.take_asked()), [Way::KeyAlone]);
    let denied = Fate::Refused(Code::NotAdmitted);
    world.next_are(&[denied, denied]);
    next_turn(&world, &mut agent).await;
    let asked = world.take_asked();
    assert_eq!(ways(&asked), [Way::KeyAlone, Way::Ec2, Way::Token]);
    assert_eq!(last_error(&world), None);
}

// I5: the reply of a renewal was lost and the node went off. The server may have made the certificate of
// the key that it asked with, and then that key comes back, and the one before it does not.
#[tokio::test]
async fn a_node_comes_back_with_the_key_of_an_unanswered_renewal_before_its_own() {
    let world = with(&[Method::Token]);
    let mut agent = joined(&world).await;
    let own = certified_key(&world);
    world.next_are(&[Fate::Refused(Code::ServerUnreachable)]);
    next_turn(&world, &mut agent).await;
    let asked_with = world.take_asked()[0].key;
    world.clock.advance(Lifetime::from_hours(13));
    world.next_are(&[Fate::Refused(Code::TokenUnknown)]);
    next_turn(&world, &mut agent).await;
    let asked = world.take_asked();
    assert_eq!(ways(&asked), [Way::NextKeyAlone, Way::KeyAlone]);
    assert_eq!([&asked[0].key, &asked[1].key], [&asked_with, &own]);
}

// A key that one method's answer gives up is not asked with by another for ever.
#[tokio::test]
async fn a_key_that_is_taken_is_replaced_whichever_method_said_so() {
    let world = with(&[Method::Ec2, Method::Token]);
    world.next_are(&[Fate::Refused(Code::KeyInUse), Fate::Refused(Code::TokenExpired)]);
    let mut agent = started(&world).await;
    agent.turn().await;
    next_turn(&world, &mut agent).await;
    let asked = world.take_asked();
    assert_eq!(ways(&asked), [Way::Ec2, Way::Token, Way::Ec2]);
    assert_ne!(asked[0].key, asked[2].key);
}

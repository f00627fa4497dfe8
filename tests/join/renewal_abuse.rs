//! What a renewal must survive, and what somebody with one good certificate must not gain: found by
//! looking at the whole with the eyes of an attacker.

use std::sync::Arc;

use muster::domain::{Code, Lifetime, Serial};
use muster::join::Admission;
use muster::policy::Strength;
use muster::registry::{Change, LockTarget};
use muster::store::Store;

use crate::cloud::{Cloud, POLICIES, SCENARIO, WORKER};
use crate::hooked::Hooked;
use crate::locks::place;
use crate::renewal::{Proof, joined, new_key, shown};
use crate::world::policy_set;

impl Cloud {
    async fn revoked(&self) -> Vec<Serial> {
        let now = self.world.clock.now();
        self.world.registry.revoked(now).await.unwrap().into_keys().collect()
    }
}

fn serials<'a>(admissions: impl IntoIterator<Item = &'a Admission>) -> Vec<Serial> {
    let mut serials: Vec<_> = admissions.into_iter().map(|one| one.order.serial).collect();
    serials.sort();
    serials
}

// I5: the reply to a join with the same key was lost, so the node still shows the certificate before
// it. That is no copy: its key is the node's.
#[tokio::test]
async fn a_lost_reply_to_a_join_is_no_clone_signal() {
    for policy in ["proven", "document"] {
        let (cloud, node, first) = joined(policy).await;
        cloud.later(Lifetime::from_hours(5));
        let lost = cloud.admitted(&node, policy).await;
        assert_ne!(lost.order.serial, first.order.serial, "a new order");
        let renewed = cloud.renewed(&node, &first, &new_key()).await;
        cloud.renewed(&node, &renewed, &new_key()).await;
        assert!(cloud.security_events().await.is_empty(), "{policy}");
        assert!(!cloud.is_locked().await, "{policy}");
    }
}

// A locked policy is not left by joining under another one, and what came by it stays revoked.
#[tokio::test]
async fn a_lock_of_a_policy_holds_what_came_by_it() {
    let (cloud, node, first) = joined("proven").await;
    place(&cloud.world, LockTarget::Policy("proven".parse().unwrap()), None).await;
    let refusal = cloud.refused(&node, &cloud.honest(&node, "document")).await;
    assert_eq!(cloud.world.code_of(&refusal).await, Code::Locked);
    assert_eq!(cloud.revoked().await, [first.order.serial]);

    // One that had left before the lock came keeps what it has now; what came by the policy goes.
    let (cloud, node, first) = joined("proven").await;
    let second = cloud.admitted(&node, "document").await;
    place(&cloud.world, LockTarget::Policy("proven".parse().unwrap()), None).await;
    assert_eq!(cloud.revoked().await, [first.order.serial]);
    assert_eq!(cloud.admitted(&node, "document").await.chain, second.chain);
}

// Every certificate that a take-over or an operator ends is revoked, those before the last as well.
#[tokio::test]
async fn whatever_is_alive_is_revoked_with_the_node() {
    let (cloud, node, first) = joined("proven").await;
    let second = cloud.renewed(&node, &first, &new_key()).await;
    let third = cloud.renewed(&node, &second, &new_key()).await;
    let fourth = cloud.renewed(&node, &third, &new_key()).await;
    let all = serials([&first, &second, &third, &fourth]);
    place(&cloud.world, LockTarget::Node(first.enrollment.node_id.clone()), None).await;
    assert_eq!(cloud.revoked().await, all);
    let target = LockTarget::Node(first.enrollment.node_id.clone());
    cloud.world.registry.unlock(&[target], |_| Ok(vec![])).await.unwrap();
    assert_eq!(cloud.revoked().await, []);
    cloud.world.forget(&first).await;
    assert_eq!(cloud.revoked().await, all);

    // K10: a thief joined with a copy of the document and asked twice; the node's proof displaces
    // both of his certificates.
    let cloud = Cloud::new().await;
    let (honest, thief) = (cloud.node(WORKER), cloud.node(WORKER));
    let stolen = cloud.world.admitted(&thief, "document").await;
    cloud.later(Lifetime::from_hours(5));
    let stolen_again = cloud.world.admitted(&thief, "document").await;
    let back = cloud.admitted(&honest, "document").await;
    assert_eq!(cloud.revoked().await, serials([&stolen, &stolen_again]));
    assert!(cloud.world.enrollment(&back).await.superseded.is_empty());
}

// A lock reaches a certificate that outlives the ones after it.
#[tokio::test]
async fn a_long_certificate_behind_a_short_one_is_revoked() {
    let short = POLICIES.replace(
        "document_ttl: 24h, look_up: none}",
        "document_ttl: 24h, look_up: none}\n  certificate: {ttl: 1h}",
    );
    let (cloud, node, first) = joined("proven").await;
    cloud.world.restart_with(&short);
    cloud.admitted(&node, "document").await;
    cloud.later(Lifetime::from_hours(2));
    place(&cloud.world, LockTarget::Node(first.enrollment.node_id.clone()), None).await;
    assert_eq!(cloud.revoked().await, [first.order.serial]);
}

// Nobody collects certificates without end: what is alive can all be named, and revoked.
#[tokio::test]
async fn certificates_of_one_node_have_a_bound() {
    let (cloud, node, first) = joined("document").await;
    let mut all = vec![first];
    let refused = loop {
        let last = all.last().unwrap();
        let renewal = cloud.renewal(&node, &shown(last), "document", &new_key(), Proof::None);
        match cloud.world.joins.renew(renewal).await {
            Ok(renewed) => all.push(renewed),
            Err(refusal) => break refusal,
        }
        assert!(all.len() < 100, "there is no bound");
    };
    assert_eq!(refused.code, Code::TooManyCertificates);
    assert!(refused.retry_after_seconds.is_some());
    place(&cloud.world, LockTarget::Instance(WORKER.parse().unwrap()), None).await;
    assert_eq!(cloud.revoked().await, serials(&all));
    // When they have ended it goes on.
    let target = LockTarget::Instance(WORKER.parse().unwrap());
    cloud.world.registry.unlock(&[target], |_| Ok(vec![])).await.unwrap();
    cloud.later(Lifetime::from_hours(11));
    let (last, key) = (all.last().unwrap(), new_key());
    assert_eq!(
        cloud.renewal_refused(&node, last, &key, Proof::None).await,
        Code::TooManyCertificates
    );
    cloud.later(Lifetime::from_hours(1));
    let renewal = cloud.renewal(&node, &shown(last), "document", &key, Proof::None);
    let renewed = cloud.world.joins.renew(renewal).await.unwrap();
    // What has ended is kept in mind no longer; the one that this one follows has just been given up.
    assert_eq!(cloud.world.enrollment(&renewed).await.superseded.len(), 1);
}

// K10 after a renewal: a key that came without a proof is displaced by the node's, whatever the key
// before it had shown.
#[tokio::test]
async fn a_renewal_without_a_proof_has_no_proof_to_inherit() {
    let (cloud, node, first) = joined("document").await;
    assert_eq!(first.enrollment.strength, Strength::Proof);
    let renew = |last: Admission| {
        let renewal = cloud.renewal(&node, &shown(&last), "document", &new_key(), Proof::None);
        async { cloud.world.joins.renew(renewal).await.unwrap() }
    };
    let stolen = renew(first).await;
    let stolen = renew(stolen).await;
    assert_eq!(stolen.enrollment.strength, Strength::Document);
    let back = cloud.admitted(&node.copied(), "document").await;
    assert_eq!(back.enrollment.strength, Strength::Proof);
    let events = cloud.world.records(muster::audit::Class::Security).await;
    assert_eq!(events.last().unwrap().record.detail["change"], Change::Displace.as_str());
}

// K10: what a key has shown counts in its own run, and no more once an operator has forgotten it.
#[tokio::test]
async fn a_proof_of_before_is_none_of_now() {
    let (cloud, node, first) = joined("document").await;
    assert_eq!(first.enrollment.strength, Strength::Proof);
    cloud.world.forget(&first).await;
    let bound = cloud.world.admitted(&node, "document").await;
    assert_eq!(bound.enrollment.strength, Strength::Document);

    let (cloud, node, first) = joined("document").await;
    assert_eq!(first.enrollment.strength, Strength::Proof);
    let mut started = node.started_at(cloud.world.clock.now()).with_key_of(&node);
    started.document = cloud.simulator.document(&started.instance).unwrap();
    let woken = cloud.world.admitted(&started, "document").await;
    assert_eq!(woken.enrollment.strength, Strength::Document);
}

// A node names its policy; it may not choose one that lets it put out the holder under another.
#[tokio::test]
async fn the_rejoin_of_another_policy_puts_nobody_out() {
    let rejoin = "{fresh_proof: required, look_up: none, rejoin: {when_silent: 1m, limit: 9}}";
    let lax = POLICIES.replacen("{fresh_proof: required, look_up: none}", rejoin, 1);
    let lax = lax.replace("name: proven,", "name: lax,");
    let strict = POLICIES.split("---").next().unwrap();
    let (cloud, node, _) = joined("proven").await;
    cloud.world.restart_with(&format!("{strict}---{lax}"));
    cloud.later(Lifetime::from_hours(9));
    let taker = node.copied();
    let refusal = cloud.refused(&taker, &cloud.honest(&taker, "lax")).await;
    assert_eq!(cloud.world.code_of(&refusal).await, Code::EnrollmentConflict);
}

// A renewal is for a new key, over the next certificate as well.
#[tokio::test]
async fn the_next_key_is_no_new_one() {
    let (cloud, node, first) = joined("proven").await;
    let key = new_key();
    let renewed = cloud.renewed(&node, &first, &key).await;
    let code = cloud.renewal_refused(&node, &renewed, &key, Proof::By(WORKER)).await;
    assert_eq!(code, Code::KeyInUse);
}

// A lock with an end does not shorten one without.
#[tokio::test]
async fn a_shorter_lock_lets_nobody_out() {
    let (cloud, node, first) = joined("proven").await;
    let target = LockTarget::Node(first.enrollment.node_id.clone());
    let since = cloud.world.clock.now();
    place(&cloud.world, target.clone(), None).await;
    cloud.later(Lifetime::from_minutes(1));
    let until = cloud.world.clock.now().plus(Lifetime::from_minutes(5));
    place(&cloud.world, target, Some(until)).await;
    assert_eq!(cloud.world.registry.locks().await.unwrap()[0].since, since, "nor is it younger");
    cloud.later(Lifetime::from_minutes(6));
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::Locked);
}

// N5: a set that is exchanged while a node is judged decides anew; nothing is recorded by the old
// one.
#[tokio::test]
async fn a_policy_set_that_changes_meanwhile_decides_anew() {
    let store = Arc::new(Hooked::default());
    let cloud = Cloud::on(Arc::clone(&store) as Arc<dyn Store>, SCENARIO, POLICIES).await;
    let node = cloud.node(WORKER);
    let exchange = || {
        let joins = Arc::clone(&cloud.world.joins);
        let other = policy_set(&POLICIES.replace("111122223333", "444455556666"));
        *store.before_reading.lock().unwrap() =
            Some(Box::new(move || joins.exchange_policies(other)));
    };
    exchange();
    let refusal = cloud.refused(&node, &cloud.honest(&node, "proven")).await;
    assert_eq!(refusal.code, Code::PolicySetChanged);
    let (nodes, _) = cloud.world.registry.list(None, 10, |_| true).await.unwrap();
    assert!(nodes.is_empty(), "nothing was recorded");

    cloud.world.joins.exchange_policies(policy_set(POLICIES));
    let first = cloud.admitted(&node, "proven").await;
    exchange();
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::PolicySetChanged);
}

// T53, N10: a clock that jumps back issues nothing, and says so.
#[tokio::test]
async fn a_clock_that_jumped_back_issues_nothing() {
    let (cloud, node, first) = joined("proven").await;
    cloud.world.clock.turn_back(Lifetime::from_seconds(600));
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::ServerClockWrong);
    let refusal = cloud.refused(&node, &cloud.honest(&node, "proven")).await;
    assert_eq!(refusal.code, Code::ServerClockWrong);
    // A correction by seconds is none.
    cloud.world.clock.advance(Lifetime::from_seconds(560));
    cloud.renewed(&node, &first, &new_key()).await;
}

// T53: the latest time outlives the process.
#[tokio::test]
async fn the_latest_time_is_on_record_and_never_falls() {
    let (cloud, ..) = joined("proven").await;
    let (registry, now) = (&cloud.world.registry, cloud.world.clock.now());
    registry.keep_time(now).await.unwrap();
    registry.keep_time(now.minus(Lifetime::from_hours(1))).await.unwrap();
    assert_eq!(registry.latest_time().await.unwrap(), Some(now));
}

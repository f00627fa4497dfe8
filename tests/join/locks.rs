//! Locks hold joins and renewals, whenever they are placed.

use std::sync::Arc;

use muster::audit::Class;
use muster::domain::{Code, Lifetime, Serial, Timestamp};
use muster::registry::{Lock, LockTarget, Registry};
use muster::store::{MemoryStore, Store};

use tokio::task::JoinSet;

use crate::cloud::{Cloud, OTHER_WORKER, POLICIES, SCENARIO, WORKER};
use crate::hooked::Hooked;
use crate::renewal::{Proof, joined, new_key};
use crate::world::World;

// T72, N5: a lock that is placed between decide and commit wins: no certificate, no order.
#[tokio::test]
async fn a_lock_between_decide_and_commit_wins() {
    let store = Arc::new(Hooked::default());
    let cloud = Cloud::on(Arc::clone(&store) as Arc<dyn Store>, SCENARIO, POLICIES).await;
    let (node, other) = (cloud.node(WORKER), cloud.node(OTHER_WORKER));
    let first = cloud.admitted(&node, "proven").await;
    let arm = || {
        let target = LockTarget::Policy("proven".parse().unwrap());
        let since = cloud.world.clock.now();
        let lock = Lock { target, reason: "test".to_owned(), since, until: None };
        store.before_commit(async move |store| {
            Registry::new(store).lock(&[lock], || Ok(vec![])).await.unwrap();
        });
    };
    arm();
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::Locked);
    assert!(cloud.world.enrollment(&first).await.next.is_none());
    let target = LockTarget::Policy("proven".parse().unwrap());
    cloud.world.registry.unlock(&[target], |_| Ok(vec![])).await.unwrap();
    arm();
    let refusal = cloud.refused(&other, &cloud.honest(&other, "proven")).await;
    assert_eq!(cloud.world.code_of(&refusal).await, Code::Locked);
    let (nodes, _) = cloud.world.registry.list(None, 10, |_| true).await.unwrap();
    assert_eq!(nodes.len(), 1, "the other node was never enrolled");
}

#[tokio::test]
async fn every_kind_of_lock_holds_joins_and_renewals() {
    let (cloud, node, first) = joined("proven").await;
    let enrollment = &first.enrollment;
    for target in [
        LockTarget::Node(enrollment.node_id.clone()),
        LockTarget::Instance(WORKER.parse().unwrap()),
        LockTarget::Account {
            partition: "aws".parse().unwrap(),
            account: "111122223333".parse().unwrap(),
        },
        LockTarget::Policy("proven".parse().unwrap()),
        LockTarget::Serial(first.order.serial),
    ] {
        assert!(target.holds(enrollment), "{target}: as operators are told");
        let until = cloud.world.clock.now().plus(Lifetime::from_minutes(5));
        place(&cloud.world, target.clone(), Some(until)).await;
        let before = cloud.calls();
        let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
        assert_eq!(code, Code::Locked, "{target}");
        let refusal = cloud.refused(&node, &cloud.honest(&node, "proven")).await;
        assert_eq!(cloud.world.code_of(&refusal).await, Code::Locked, "{target}");
        assert_eq!(refusal.hint, None, "{target}: what a lock says is for the operator");
        assert_eq!(cloud.calls(), before, "{target}: nobody is asked");
        let now = cloud.world.clock.now();
        let revoked = cloud.world.registry.revoked(now).await.unwrap();
        assert!(revoked.contains_key(&first.order.serial), "{target}");
        // It ends by itself, and then it is no condition of anything.
        cloud.later(Lifetime::from_minutes(6));
        let now = cloud.world.clock.now();
        assert!(cloud.world.registry.revoked(now).await.unwrap().is_empty(), "{target}");
        assert_eq!(cloud.admitted(&node, "proven").await.chain, first.chain, "{target}");
    }
    // K4: documents are in many hands, so only whoever has a certificate rings the bell.
    let events = cloud.world.records(Class::Security).await;
    assert_eq!(events.len(), 5, "the renewals alone");
    for event in events {
        assert_eq!(event.record.node_id.as_ref(), Some(&enrollment.node_id));
        assert_eq!(event.record.detail["presented"], first.order.serial.to_string());
    }
}

#[tokio::test]
async fn a_lock_of_somebody_else_holds_nobody() {
    let (cloud, node, first) = joined("proven").await;
    let other = cloud.node(OTHER_WORKER);
    let others = cloud.admitted(&other, "document").await;
    let account = |partition: &str, account: &str| LockTarget::Account {
        partition: partition.parse().unwrap(),
        account: account.parse().unwrap(),
    };
    for target in [
        LockTarget::Node(others.enrollment.node_id.clone()),
        LockTarget::Instance(OTHER_WORKER.parse().unwrap()),
        account("aws", "444455556666"),
        account("aws-cn", "111122223333"),
        LockTarget::Policy("document".parse().unwrap()),
        LockTarget::Serial(Serial::from_random([9; 16])),
    ] {
        assert!(!target.holds(&first.enrollment), "{target}: as operators are told");
        place(&cloud.world, target.clone(), None).await;
        let revoked = cloud.world.registry.revoked(cloud.world.clock.now()).await.unwrap();
        assert!(!revoked.contains_key(&first.order.serial), "{target}");
    }
    cloud.renewed(&node, &first, &new_key()).await;
}

// A clone signal and an operator may lock one node at the same time: the longer lock stays.
#[tokio::test]
async fn a_lock_that_is_placed_meanwhile_is_not_shortened() {
    let store = Arc::new(Hooked::default());
    let registry = Registry::new(Arc::clone(&store) as Arc<dyn Store>);
    let since = Timestamp::from_unix_seconds(1_800_000_000);
    let (target, reason) = (LockTarget::Instance(WORKER.parse().unwrap()), "test".to_owned());
    let for_ever = Lock { target, reason, since, until: None };
    let short = Lock { until: Some(since.plus(Lifetime::from_minutes(5))), ..for_ever.clone() };
    store.before_commit(async move |store| {
        Registry::new(store).lock(&[for_ever], || Ok(vec![])).await.unwrap();
    });
    registry.lock(&[short], || Ok(vec![])).await.unwrap();
    assert_eq!(registry.locks().await.unwrap()[0].until, None);
}

// T56. A crowd with one certificate is one clone: each of its signals is on record, and none fails because
// of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_places_one_lock_and_nobody_fails() {
    let registry = Arc::new(Registry::new(Arc::new(MemoryStore::new())));
    let target = LockTarget::Instance(WORKER.parse().unwrap());
    let since = Timestamp::from_unix_seconds(1_800_000_000);
    let lock = Lock { target, reason: "clone signal".to_owned(), since, until: None };
    let mut placing = JoinSet::new();
    for later in 0..256 {
        let (registry, lock) = (Arc::clone(&registry), lock.clone());
        let lock = Lock { since: since.plus(Lifetime::from_seconds(later)), ..lock };
        placing.spawn(async move { registry.lock(&[lock], || Ok(vec![])).await });
    }
    assert!(placing.join_all().await.iter().all(Result::is_ok));
    assert_eq!(registry.locks().await.unwrap().len(), 1);
}

// The last word in the log is what is so: a lock that is lifted meanwhile is placed anew.
#[tokio::test]
async fn a_lock_that_is_lifted_meanwhile_is_placed_anew() {
    let store = Arc::new(Hooked::default());
    let registry = Registry::new(Arc::clone(&store) as Arc<dyn Store>);
    let since = Timestamp::from_unix_seconds(1_800_000_000);
    let target = LockTarget::Instance(WORKER.parse().unwrap());
    let lock = Lock { target: target.clone(), reason: "test".to_owned(), since, until: None };
    registry.lock(std::slice::from_ref(&lock), || Ok(vec![])).await.unwrap();
    store.before_commit(async move |store| {
        let lifted = Registry::new(store).unlock(&[target], |_| Ok(vec![])).await.unwrap();
        assert_eq!(lifted.len(), 1);
    });
    registry.lock(std::slice::from_ref(&lock), || Ok(vec![])).await.unwrap();
    assert_eq!(registry.locks().await.unwrap(), [lock]);
}

pub(crate) async fn place(world: &World, target: LockTarget, until: Option<Timestamp>) {
    let lock = Lock { target, reason: "test".to_owned(), since: world.clock.now(), until };
    world.registry.lock(&[lock], || Ok(vec![])).await.unwrap();
}

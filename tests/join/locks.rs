//! Locks hold joins and renewals, whenever they are placed.

use std::sync::Arc;

use muster::domain::{Code, Lifetime, Timestamp};
use muster::registry::{Lock, LockTarget};
use muster::store::Store;

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
        *store.lock_before_commit.lock().unwrap() = Some(lock);
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
        let until = cloud.world.clock.now().plus(Lifetime::from_minutes(5));
        place(&cloud.world, target.clone(), Some(until)).await;
        let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
        assert_eq!(code, Code::Locked, "{target}");
        let refusal = cloud.refused(&node, &cloud.honest(&node, "proven")).await;
        assert_eq!(cloud.world.code_of(&refusal).await, Code::Locked, "{target}");
        let now = cloud.world.clock.now();
        let revoked = cloud.world.registry.revoked(now).await.unwrap();
        assert!(revoked.contains_key(&first.order.serial), "{target}");
        // It ends by itself, and then it is no condition of anything.
        cloud.later(Lifetime::from_minutes(6));
        let now = cloud.world.clock.now();
        assert!(cloud.world.registry.revoked(now).await.unwrap().is_empty(), "{target}");
        assert_eq!(cloud.admitted(&node, "proven").await.chain, first.chain, "{target}");
    }
}

pub(crate) async fn place(world: &World, target: LockTarget, until: Option<Timestamp>) {
    let lock = Lock { target, reason: "test".to_owned(), since: world.clock.now(), until };
    world.registry.lock(&[lock], || Ok(vec![])).await.unwrap();
}

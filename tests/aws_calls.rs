//! Looks at instances against a simulator that checks every signature, role and external id.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use muster::aws::{
    AwsHttp, CallFailed, CallStatistics, Ec2Client, Endpoints, Failure, HttpSettings,
    InstanceDescription, LookUpBy, OwnCredentials, Place, Service,
};
use muster::clock::Clock;
use muster::domain::{InstanceId, Lifetime, Partition, Timestamp};
use muster::sim::{self, Scenario, Simulator};
use tokio::net::TcpListener;

const SERVER: &str = "999900001111";
const A: &str = "111122223333";
const B: &str = "444455556666";
const CLOUD: &str = r#"
session_life = "15m"

[server]
account = "999900001111"

[[instances]]
account = "999900001111"
region = "us-west-2"
id = "i-00000000000000001"
tags = {Name = "a <b> & c"}
instance_profile = "web"

[[roles]]
account = "111122223333"
name = "verifier"
external_id = "for-a"

[[roles]]
account = "444455556666"
name = "verifier"
"#;

struct World {
    simulator: Arc<Simulator>,
    client: Ec2Client,
    clock: Clock,
}

impl World {
    /// The cloud above, and `count` instances in `A`.
    async fn start(count: usize) -> Self {
        let clock = Clock::fixed(Timestamp::from_unix_seconds(1_800_000_000));
        let mut text = CLOUD.to_owned();
        for (account, n) in (0..count).map(|n| (A, n)).chain([(B, 90_000)]) {
            let id = id(n + 16);
            write!(
                text,
                "[[instances]]\naccount = '{account}'\nregion = 'us-west-2'\nid = '{id}'\n"
            )
            .unwrap();
        }
        let scenario = Scenario::parse(&text).unwrap();
        let simulator = Arc::new(Simulator::new(&scenario, clock.clone()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(sim::serve(simulator.clone(), listener, std::future::pending()));
        let directory = tempfile::tempdir().unwrap();
        simulator.write(directory.path(), address).unwrap();
        let own =
            OwnCredentials::of_file(&directory.path().join("server-credentials.json")).unwrap();
        let mut endpoints = Endpoints::new(false);
        for service in [Service::Sts, Service::Ec2] {
            endpoints.replace(service, None, &format!("http://{address}"), true).unwrap();
        }
        let client = Ec2Client::new(
            http(),
            endpoints,
            own,
            clock.clone(),
            Arc::new(CallStatistics::default()),
        );
        Self { simulator, client, clock }
    }

    async fn look(
        &self,
        account: &str,
        external_id: Option<&str>,
        instance: InstanceId,
    ) -> Result<Option<InstanceDescription>, CallFailed> {
        let by = LookUpBy::Role {
            arn: format!("arn:aws:iam::{account}:role/verifier"),
            external_id: external_id.map(str::to_owned),
        };
        // Started long ago, so that an unknown instance is unknown at once.
        let started = self.clock.now().minus(Lifetime::from_hours(1));
        self.client.describe(&place(account), &by, &instance, started).await
    }

    fn assumed(&self) -> u64 {
        self.simulator.calls().sts.get("AssumeRole").copied().unwrap_or_default()
    }
}

/// A client with a root that signed nothing: the simulator speaks plain HTTP.
fn http() -> AwsHttp {
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.pem()).unwrap();
    let settings = HttpSettings { roots_file: Some(file.path().to_owned()), proxy: None };
    AwsHttp::new(&settings).unwrap()
}

fn id(n: usize) -> InstanceId {
    format!("i-{n:017x}").parse().unwrap()
}

fn place(account: &str) -> Place {
    Place {
        partition: Partition::Aws,
        account: account.parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
    }
}

#[tokio::test]
async fn the_servers_own_credentials_see_its_own_account() {
    let world = World::start(0).await;
    let long_ago = world.clock.now().minus(Lifetime::from_hours(1));
    let found = world.client.describe(&place(SERVER), &LookUpBy::Own, &id(1), long_ago).await;
    let found = found.unwrap().unwrap();
    assert_eq!(found.owner_id.as_str(), SERVER);
    assert_eq!(found.tags["Name"], "a <b> & c");
    assert!(found.instance_profile_arn.unwrap().ends_with(":instance-profile/web"));
    assert!(found.metadata_options.unwrap().v2_only);
    assert_eq!(world.assumed(), 0);
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_and_not_without() {
    let world = World::start(1).await;
    for wrong in [None, Some("for-b")] {
        let refused = world.look(A, wrong, id(16)).await.unwrap_err();
        assert_eq!((refused.service, refused.kind), (Service::Sts, Failure::Forbidden));
        assert!(refused.detail.contains("role/verifier"), "{refused}");
    }
    let found = world.look(A, Some("for-a"), id(16)).await.unwrap().unwrap();
    assert_eq!(found.owner_id.as_str(), A);
    // T77: the session that is there now is not for others.
    assert_eq!(world.look(A, None, id(16)).await.unwrap_err().kind, Failure::Forbidden);
    let found = world.look(B, None, id(90_016)).await.unwrap().unwrap();
    assert_eq!(found.owner_id.as_str(), B);
}

#[tokio::test]
async fn three_unknown_among_450_fail_alone() {
    let world = World::start(447).await;
    let unknown = BTreeSet::from([3, 210, 449]);
    let asked = (0..450_usize).scan(16, |next, n| {
        let is_unknown = unknown.contains(&n);
        let id = id(if is_unknown { 70_000 + n } else { *next });
        *next += usize::from(!is_unknown);
        Some((id, !is_unknown))
    });
    let world = Arc::new(world);
    let mut tasks = tokio::task::JoinSet::new();
    for (id, is_known) in asked {
        let world = world.clone();
        tasks.spawn(async move {
            let found = world.look(A, Some("for-a"), id.clone()).await.unwrap();
            assert_eq!(found.map(|found| found.instance_id), is_known.then_some(id));
        });
    }
    tasks.join_all().await;
    assert_eq!(world.assumed(), 1);
    let calls = world.simulator.calls();
    assert!(calls.ec2["DescribeInstances"] <= 3 + 2 * 3, "{calls:?}");
}

#[tokio::test]
async fn sessions_are_renewed_when_they_end() {
    let world = World::start(1).await;
    for _ in 0..3 {
        assert!(world.look(A, Some("for-a"), id(16)).await.unwrap().is_some());
        assert!(world.look(A, Some("for-a"), id(16)).await.unwrap().is_some());
        world.clock.advance(Lifetime::from_minutes(15));
    }
    assert_eq!(world.assumed(), 3);
}

// I12, T3, T4: the same role name in two accounts, in both orders and at once. Who asks with the other
// account's session sees nothing.
#[tokio::test]
async fn the_same_role_name_in_two_accounts() {
    let (in_a, in_b) = ((A, Some("for-a"), 16), (B, None, 90_016));
    for order in [[in_a, in_b], [in_b, in_a]] {
        let world = World::start(1).await;
        for (account, external_id, n) in order.into_iter().chain(order) {
            let found = world.look(account, external_id, id(n)).await.unwrap().unwrap();
            assert_eq!(found.owner_id.as_str(), account);
        }
        assert_eq!(world.assumed(), 2);
    }
    let world = Arc::new(World::start(1).await);
    let mut tasks = tokio::task::JoinSet::new();
    for (account, external_id, n) in [in_a, in_b].repeat(50) {
        let world = world.clone();
        tasks.spawn(async move {
            let found = world.look(account, external_id, id(n)).await.unwrap().unwrap();
            assert_eq!(found.owner_id.as_str(), account);
        });
    }
    tasks.join_all().await;
    assert_eq!(world.assumed(), 2);
    // An instance of B is not there for who looks in A.
    assert_eq!(world.look(A, Some("for-a"), id(90_016)).await, Ok(None));
}

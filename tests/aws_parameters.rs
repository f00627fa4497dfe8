//! Parameters of SSM through muster's own client, against a simulator that checks every signature,
//! role and session policy.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use muster::aws::{
    AwsHttp, CallStatistics, Endpoints, Failure, OwnCredentials, PutParameter, Service, Ssm,
    SsmAccess, SsmRole,
};
use muster::clock::Clock;
use muster::domain::{Partition, Timestamp};
use muster::sim::{self, Fault, FaultKind, Scenario, Simulator};
use tokio::net::TcpListener;

const SERVER: &str = "111122223333";
const OTHER: &str = "444455556666";
const CLOUD: &str = r#"
[server]
account = "111122223333"

[[instances]]
account = "111122223333"
region = "us-west-2"

[[roles]]
account = "444455556666"
name = "muster-publisher"
external_id = "for-muster"

[limits.ssm]
bucket = 1000
refill = 1000
"#;
const TOKEN: &str = "/muster/test/web/token";

struct World {
    simulator: Arc<Simulator>,
    ssm: Ssm,
    statistics: Arc<CallStatistics>,
}

impl World {
    async fn start() -> Self {
        let clock = Clock::fixed(Timestamp::from_unix_seconds(1_800_000_000));
        let scenario = Scenario::parse(CLOUD).unwrap();
        let simulator = Arc::new(Simulator::new(&scenario, clock.clone()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(sim::serve(simulator.clone(), listener, std::future::pending()));
        let directory = tempfile::tempdir().unwrap();
        simulator.write(directory.path(), address).unwrap();
        let own =
            OwnCredentials::of_file(&directory.path().join("server-credentials.json")).unwrap();
        let mut endpoints = Endpoints::new(false);
        for service in [Service::Sts, Service::Ssm] {
            endpoints.replace(service, None, &format!("http://{address}"), true).unwrap();
        }
        let statistics = Arc::new(CallStatistics::default());
        let http = AwsHttp::plain().unwrap();
        let ssm = Ssm::new(http, endpoints, own, clock, statistics.clone());
        Self { simulator, ssm, statistics }
    }

    async fn put(&self, access: &SsmAccess, name: &str, value: &str) -> Result<i64, Failure> {
        let tags = BTreeMap::from([("Owner".to_owned(), "platform".to_owned())]);
        let parameter = PutParameter {
            name,
            value,
            is_secure: true,
            kms_key: Some("alias/muster"),
            tags: &tags,
            description: "a token",
        };
        self.ssm.put(access, &parameter).await.map_err(|failed| {
            assert!(!failed.to_string().contains("canary"), "{failed}");
            failed.kind
        })
    }

    async fn value(&self, access: &SsmAccess, name: &str) -> Option<String> {
        let found = self.ssm.get(access, &[name], true).await.unwrap();
        found.into_iter().next().map(|parameter| parameter.value.as_str().to_owned())
    }
}

fn own() -> SsmAccess {
    SsmAccess { region: "us-west-2".parse().unwrap(), role: None }
}

fn role(external_id: Option<&str>, names: &[&str]) -> SsmAccess {
    let role = SsmRole {
        partition: Partition::Aws,
        account: OTHER.parse().unwrap(),
        arn: format!("arn:aws:iam::{OTHER}:role/muster-publisher"),
        external_id: external_id.map(str::to_owned),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    SsmAccess { role: Some(role), ..own() }
}

#[tokio::test]
async fn a_parameter_is_written_read_listed_and_deleted() {
    let world = World::start().await;
    assert_eq!(world.put(&own(), TOKEN, "canary-1").await, Ok(1));
    assert_eq!(world.put(&own(), TOKEN, "canary-2").await, Ok(2));
    let found = world.ssm.get(&own(), &[TOKEN, "/muster/none"], true).await.unwrap();
    let [token] = &found[..] else { panic!("one is there") };
    assert_eq!((token.value.as_str(), token.version), ("canary-2", 2));
    assert_eq!(token.arn, format!("arn:aws:ssm:us-west-2:{SERVER}:parameter{TOKEN}"));
    let sealed = world.ssm.get(&own(), &[TOKEN], false).await.unwrap();
    assert!(sealed.iter().all(|parameter| !parameter.value.contains("canary")));
    for n in 0..12 {
        assert_eq!(world.put(&own(), &format!("/muster/test/more/{n}"), "v").await, Ok(1));
    }
    let names = world.ssm.names_below(&own().region, "/muster/test", true).await.unwrap();
    assert_eq!((names.len(), names.last().map(String::as_str)), (13, Some(TOKEN)));
    assert_eq!(world.ssm.delete(&own(), TOKEN).await, Ok(true));
    assert_eq!(world.ssm.delete(&own(), TOKEN).await, Ok(false));
    assert_eq!(world.value(&own(), TOKEN).await, None);
    let calls = world.simulator.calls();
    assert_eq!(calls.ssm["AddTagsToResource"], 14);
    assert_eq!(world.statistics.ssm.calls(), calls.ssm.values().sum::<u64>());
    assert_eq!(world.statistics.ssm.failed(), 0);
}

// I12: the session of a role may do what it was asked for, in its account, and nothing beside it.
#[tokio::test]
async fn a_session_touches_the_parameters_that_it_is_for() {
    let world = World::start().await;
    let web = role(Some("for-muster"), &["/muster/test/web/*"]);
    let db = role(Some("for-muster"), &["/muster/test/db/token"]);
    assert_eq!(world.put(&own(), TOKEN, "canary-own").await, Ok(1));
    assert_eq!(world.put(&web, TOKEN, "canary-web").await, Ok(1));
    assert_eq!(world.value(&web, TOKEN).await.as_deref(), Some("canary-web"));
    assert_eq!(world.value(&own(), TOKEN).await.as_deref(), Some("canary-own"));
    // The same role, asked for something else: never on the session that is held.
    assert_eq!(world.put(&db, TOKEN, "canary").await, Err(Failure::Forbidden));
    assert_eq!(world.put(&db, "/muster/test/db/token", "canary").await, Ok(1));
    assert_eq!(world.put(&web, "/muster/test/db/token", "x").await, Err(Failure::Forbidden));
    assert_eq!(world.simulator.calls().sts["AssumeRole"], 2);
    // T77: without the external id there is no session, held or new.
    let without = role(None, &["/muster/test/web/*"]);
    assert_eq!(world.put(&without, TOKEN, "x").await, Err(Failure::Forbidden));
}

#[tokio::test]
async fn a_role_of_another_account_or_partition_is_not_assumed() {
    let world = World::start().await;
    let good = || role(Some("for-muster"), &[TOKEN]);
    let mut account = good();
    account.role.as_mut().unwrap().account = SERVER.parse().unwrap();
    let elsewhere = SsmAccess { region: "cn-north-1".parse().unwrap(), ..good() };
    let nothing = role(Some("for-muster"), &[]);
    for (access, kind) in [
        (account, Failure::Forbidden),
        (elsewhere, Failure::Forbidden),
        (nothing, Failure::Unavailable),
    ] {
        assert_eq!(world.put(&access, TOKEN, "v").await, Err(kind), "{access:?}");
    }
    assert_eq!(world.simulator.calls().sts.get("AssumeRole"), None);
}

#[tokio::test]
async fn failures_tell_what_helps_and_no_value() {
    let world = World::start().await;
    for (kind, expected) in [
        (FaultKind::Throttled, Failure::Throttled),
        (FaultKind::Unavailable, Failure::Unavailable),
        (FaultKind::CutOff, Failure::Unavailable),
        (FaultKind::Html, Failure::Unavailable),
        (FaultKind::Redirect, Failure::Unavailable),
        (FaultKind::Empty, Failure::Unavailable),
        (FaultKind::Huge, Failure::Unavailable),
    ] {
        world.simulator.set_fault(sim::Service::Ssm, Some(Fault::new(kind)));
        let before = world.statistics.ssm.calls();
        assert_eq!(world.put(&own(), TOKEN, "canary").await.err(), Some(expected), "{kind:?}");
        let found = world.ssm.get(&own(), &[TOKEN], true).await;
        assert_eq!(found.err().map(|failed| failed.kind), Some(expected), "{kind:?}");
        assert_eq!(world.statistics.ssm.calls(), before + 2, "nothing is repeated: {kind:?}");
    }
}

// I14.
#[tokio::test]
async fn a_call_takes_at_most_five_seconds() {
    let world = World::start().await;
    world.simulator.set_fault(sim::Service::Ssm, Some(Fault::new(FaultKind::Late)));
    let access = own();
    let asked = world.put(&access, TOKEN, "canary");
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), asked).await.unwrap();
    assert_eq!(answer, Err(Failure::Unavailable));
    world.simulator.set_fault(sim::Service::Ssm, None);
    let done = world.value(&own(), TOKEN).await;
    assert_eq!(done.as_deref(), Some("canary"), "the answer was late, not the deed");
}

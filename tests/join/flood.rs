//! Old documents are in many hands. A thousand of them with made-up proofs, in a second.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster::audit::Class;
use muster::domain::{Class as Kind, Code};
use tokio::task::JoinSet;

use crate::cloud::{Cloud, POLICIES, WORKER};
use crate::world::Node;

const STRANGERS: u8 = 250;

/// A thousand instances of the allowed account whose documents leaked long ago, and an honest one.
fn scenario() -> String {
    format!(
        r#"
[server]
account = "555566667777"
[latency]
sts = "20ms"
[[instances]]
id = "{WORKER}"
account = "111122223333"
region = "us-west-2"
tags = {{Tier = "web"}}
[[instances]]
account = "111122223333"
region = "us-west-2"
count = 1000
pending_time = "2024-02-03T04:05:06Z"
[[roles]]
account = "111122223333"
name = "muster-verifier"
external_id = "muster-example"
"#
    )
}

struct Flood {
    cloud: Arc<Cloud>,
    crowd: JoinSet<Code>,
    began: Instant,
}

/// Starts a thousand joins with garbage proofs, from four networks.
async fn flood() -> Flood {
    let cloud = Arc::new(Cloud::of(&scenario(), POLICIES).await);
    let instances = cloud.simulator.instances();
    let strangers: Vec<Node> = instances
        .into_iter()
        .filter(|instance| instance.instance_id.as_str() != WORKER)
        .map(|instance| cloud.node(instance.instance_id.as_str()))
        .collect();
    assert_eq!(strangers.len(), 1000);
    let mut crowd = JoinSet::new();
    let began = Instant::now();
    for (number, node) in (0_u32..).zip(strangers) {
        let [_, _, network, host] = number.to_be_bytes();
        let mut garbage = cloud.honest(&node, "seen");
        garbage.credentials.secret_access_key = "garbage".into();
        garbage.source = IpAddr::from([192, 0, network, host % STRANGERS]);
        let cloud = Arc::clone(&cloud);
        crowd.spawn(async move { cloud.refused(&node, &garbage).await.code });
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    Flood { cloud, crowd, began }
}

impl Flood {
    /// Waits until everybody has an answer; none is an admission, and EC2 was never asked.
    async fn ends(mut self, ec2_calls: u64) {
        let mut answers = std::collections::BTreeMap::new();
        while let Some(code) = self.crowd.join_next().await {
            *answers.entry(code.unwrap().to_string()).or_insert(0) += 1;
        }
        let (sts, ec2) = self.cloud.calls();
        eprintln!("{answers:?}, STS {sts}, EC2 {ec2}, {:?}", self.began.elapsed());
        for code in answers.keys() {
            let code: Code = code.parse().unwrap();
            let not_now = matches!(code, Code::ProofThrottled | Code::Overloaded);
            assert!(not_now || code == Code::ProofSignatureRejected, "{code}");
            assert!(matches!(code.class(), Kind::Denied | Kind::Throttled));
        }
        assert_eq!(ec2, ec2_calls, "a garbage proof never causes a look");
        assert!(sts <= 1001 + 1, "at most one call each, and the honest node's");
        assert_eq!(self.cloud.world.records(Class::Security).await.len(), 0);
    }
}

// T67: the honest node of that account joins meanwhile, from another network …
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_node_joins_during_a_flood_of_garbage() {
    let flood = flood().await;
    let node = flood.cloud.node(WORKER);
    let mut honest = flood.cloud.honest(&node, "seen");
    honest.source = [198, 51, 100, 7].into();
    let answer = flood.cloud.send(&node, &honest).await;
    assert!(answer.is_ok(), "{answer:?}");
    flood.ends(1).await;
}

// … and from behind the same address, at the latest when it asks again, as every agent does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_node_behind_the_same_address_joins_too() {
    let flood = flood().await;
    let node = flood.cloud.node(WORKER);
    let mut honest = flood.cloud.honest(&node, "seen");
    honest.source = [192, 0, 1, 7].into();
    let mut tries = 1;
    while let Err(refusal) = flood.cloud.send(&node, &honest).await {
        assert!(matches!(refusal.code, Code::ProofThrottled | Code::Overloaded), "{refusal:?}");
        tries += 1;
        assert!(tries < 10, "still throttled");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    flood.ends(1).await;
}

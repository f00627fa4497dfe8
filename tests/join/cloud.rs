//! A server that asks a simulated AWS, and nodes that can prove themselves to it.

use std::net::IpAddr;
use std::sync::Arc;

use aws_credential_types::Credentials;
use muster::aws::{
    AwsHttp, CallStatistics, Ec2Client, EndpointKind, Endpoints, OwnCredentials, Service as Asked,
    SignedRequest, Sts, TemporaryCredentials,
};
use muster::ca::BuiltinCa;
use muster::clock::Clock;
use muster::domain::{KeyBinding, Lifetime, PublicKey, Purpose, Timestamp, pop_message};
use muster::join::{Admission, Attempt, Refusal, Start};
use muster::methods::{Sources, ec2};
use muster::sim::{self, Calls, Scenario, Simulator};
use muster::store::{MemoryStore, Store};
use rcgen::{PublicKeyData, SigningKey};
use tokio::net::TcpListener;

use crate::world::{Node, World, certificates_of, start_of_story};

/// The server's own account, two accounts with nodes, and one that nobody lists.
pub(crate) const SCENARIO: &str = r#"
[server]
account = "555566667777"

[[instances]]
id = "i-0a000000000000001"
account = "111122223333"
region = "us-west-2"
pending_time = "2026-11-20T11:58:00Z"
instance_profile = "web-1"
auto_scaling_group = "web-asg"
tags = {Tier = "web"}

[[instances]]
id = "i-0a000000000000002"
account = "111122223333"
region = "us-west-2"
pending_time = "2026-11-20T11:58:00Z"
tags = {Tier = "web"}

[[instances]]
id = "i-0b000000000000001"
account = "999988887777"
region = "us-west-2"
pending_time = "2026-11-20T11:58:00Z"

[[roles]]
account = "111122223333"
name = "muster-verifier"
external_id = "muster-example"
"#;

/// One policy that asks for the proof, one for the instance too, one for the document alone.
pub(crate) const POLICIES: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: proven, description: "the proof", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow: [{name: all, accounts: [production], regions: [us-west-2]}]
  ec2: {fresh_proof: required, look_up: none}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: seen, description: "the proof and a look", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow:
    - name: web
      accounts: [production]
      regions: [us-west-2]
      tags: {Tier: web}
      imds: {v2_only: true}
  deny: [{name: quarantined, tags: {Quarantine: present}}]
  ec2:
    fresh_proof: required
    look_up: {role: "arn:{partition}:iam::{account}:role/muster-verifier", external_id: muster-example}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: document, description: "the document alone", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow: [{name: all, accounts: [production], regions: [us-west-2]}]
  ec2: {fresh_proof: not_required, document_ttl: 24h, look_up: none}
---
apiVersion: muster/v1
kind: AccountSet
metadata: {name: production, owner: "platform"}
spec: {partition: aws, accounts: [{id: "111122223333"}]}
"#;

pub(crate) const WORKER: &str = "i-0a000000000000001";
pub(crate) const OTHER_WORKER: &str = "i-0a000000000000002";
pub(crate) const STRANGER: &str = "i-0b000000000000001";

pub(crate) struct Cloud {
    pub(crate) world: World,
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) statistics: Arc<CallStatistics>,
}

impl Cloud {
    pub(crate) async fn new() -> Self {
        Self::of(SCENARIO, POLICIES).await
    }

    pub(crate) async fn of(scenario: &str, policies: &str) -> Self {
        Self::on(Arc::new(MemoryStore::new()), scenario, policies).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>, scenario: &str, policies: &str) -> Self {
        let clock = Clock::fixed(start_of_story());
        let scenario = Scenario::parse(scenario).unwrap();
        let simulator = Arc::new(Simulator::new(&scenario, clock.clone()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(sim::serve(Arc::clone(&simulator), listener, std::future::pending()));

        let mut endpoints = Endpoints::default();
        for service in [Asked::Sts, Asked::Ec2] {
            endpoints.replace(service, None, &format!("http://{address}"), true).unwrap();
        }
        let statistics = Arc::new(CallStatistics::default());
        let http = AwsHttp::plain().unwrap();
        let calls = Arc::clone(&statistics);
        let sts = Sts::new(http.clone(), endpoints.clone(), clock.clone(), calls.clone());
        let own = simulator.server_credentials();
        let own = OwnCredentials::fixed(own.access_key_id(), own.secret_access_key(), None);
        let ec2 = Ec2Client::new(http, endpoints, own, clock.clone(), calls);
        let sources = Sources { certificates: certificates_of(&simulator).into(), sts, ec2 };
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().to_owned();
        let world = World::in_directory(
            store,
            policies,
            |node_ca| Arc::new(BuiltinCa::new(node_ca)),
            &sources,
            clock,
            &path,
            Some(keep),
        );
        Self { world, simulator, statistics }
    }

    /// A simulated machine with a key of its own.
    pub(crate) fn node(&self, id: &str) -> Node {
        let instances = self.simulator.instances();
        let instance = instances.into_iter().find(|one| one.instance_id.as_str() == id).unwrap();
        let document = self.simulator.document(&instance).unwrap();
        Node { instance, document, key: rcgen::KeyPair::generate().unwrap() }
    }

    pub(crate) fn credentials(&self, id: &str) -> TemporaryCredentials {
        let found = self.simulator.identity_credentials(&id.parse().unwrap()).unwrap();
        temporary(&found)
    }

    /// What the node would honestly send.
    pub(crate) fn honest(&self, node: &Node, policy: &str) -> Proposal {
        Proposal {
            policy: policy.to_owned(),
            document: node.document.clone(),
            public_key: node.public_key(),
            credentials: self.credentials(node.instance.instance_id.as_str()),
            purpose: Purpose::Join,
            channel: [1; 32],
            nonce: [2; 32],
            signed_policy: policy.to_owned(),
            signed_key: node.public_key(),
            signed_at: self.world.clock.now(),
            says_what_the_server_wants: false,
            source: [192, 0, 2, 7].into(),
        }
    }

    /// Sends it, with the node key's signature over this very connection and evidence.
    pub(crate) async fn send(
        &self,
        node: &Node,
        proposal: &Proposal,
    ) -> Result<Admission, Refusal> {
        self.world.joins.admit(&proposal.attempt(node)).await
    }

    pub(crate) async fn admitted(&self, node: &Node, policy: &str) -> Admission {
        let answer = self.send(node, &self.honest(node, policy)).await;
        answer.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    pub(crate) async fn refused(&self, node: &Node, proposal: &Proposal) -> Refusal {
        self.send(node, proposal).await.expect_err("must be refused")
    }

    /// Calls of STS and EC2 until now.
    pub(crate) fn calls(&self) -> (u64, u64) {
        let Calls { sts, ec2, .. } = self.simulator.calls();
        (sts.values().sum(), ec2.values().sum())
    }

    pub(crate) fn later(&self, by: Lifetime) {
        self.world.clock.advance(by);
    }
}

pub(crate) fn temporary(credentials: &Credentials) -> TemporaryCredentials {
    TemporaryCredentials {
        access_key_id: credentials.access_key_id().to_owned(),
        secret_access_key: credentials.secret_access_key().to_owned(),
        session_token: credentials.session_token().unwrap().to_owned(),
    }
}

/// A join in parts, so that any one of them can be another's.
#[derive(Clone)]
pub(crate) struct Proposal {
    pub(crate) policy: String,
    pub(crate) document: String,
    pub(crate) public_key: PublicKey,
    pub(crate) credentials: TemporaryCredentials,
    pub(crate) purpose: Purpose,
    pub(crate) channel: [u8; 32],
    pub(crate) nonce: [u8; 32],
    pub(crate) signed_policy: String,
    pub(crate) signed_key: PublicKey,
    pub(crate) signed_at: Timestamp,
    /// The seventh field is a lie: what the server will compute, not what was signed.
    pub(crate) says_what_the_server_wants: bool,
    pub(crate) source: IpAddr,
}

/// What this connection and challenge really are.
const CHANNEL: [u8; 32] = [1; 32];
const NONCE: [u8; 32] = [2; 32];

impl Proposal {
    fn attempt(&self, node: &Node) -> Attempt {
        let (policy, key) = (self.policy.as_str(), &self.public_key);
        let wanted = KeyBinding::new(Purpose::Join, &CHANNEL, &NONCE, "ec2", policy, key);
        let signed_binding = KeyBinding::new(
            self.purpose,
            &self.channel,
            &self.nonce,
            "ec2",
            &self.signed_policy,
            &self.signed_key,
        );
        let region = &node.instance.region;
        let signed = SignedRequest::sign(
            &self.credentials,
            region,
            EndpointKind::Regional,
            &signed_binding,
            self.signed_at,
        )
        .unwrap();
        let said = if self.says_what_the_server_wants { &wanted } else { &signed_binding };
        let evidence = ec2::evidence(&self.document, Some((&signed, said)));
        let spki = node.key.subject_public_key_info();
        let start = Start::parse(&self.policy, "ec2", &spki, "test").unwrap();
        let pop = node.key.sign(&pop_message(&wanted, &evidence)).unwrap();
        Attempt { start, channel: CHANNEL, nonce: NONCE, evidence, pop, source: self.source }
    }
}

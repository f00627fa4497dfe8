//! A server without its listeners, and nodes that join it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, OnceLock, RwLock};

use muster::audit::{self, Audit, Class, Entry, Query};
use muster::aws::{
    AwsHttp, CallStatistics, Ec2Client, Endpoints, OwnCredentials, RegionCertificates, Service, Sts,
};
use muster::ca::{Authorities, Authority, BuiltinCa, CertificateAuthority};
use muster::clock::Clock;
use muster::domain::{
    Code, KeyBinding, Lifetime, PublicKey, Purpose, Serial, Timestamp, TrustDomain, pop_message,
};
use muster::join::{Admission, Attempt, JoinService, Refusal, Start, TimeGuard};
use muster::methods::{self, Sources, ec2};
use muster::policy::{self, PolicyFile, PolicySet, Vocabulary};
use muster::registry::{Enrollment, Registry};
use muster::sim::{InstanceRecord, Scenario, SimulatedInstance, Simulator};
use muster::store::{MemoryStore, SqliteStore, Store};
use muster::turns::{Places, Turns};
use rcgen::{KeyPair, PublicKeyData, SigningKey};

pub(crate) const ALLOWED: &str = "111122223333";
pub(crate) const STRANGER: &str = "999988887777";
pub(crate) const DENIED_IMAGE: &str = "ami-0bbbbbbbbbbbbbbb1";

/// Two policies that admit the same account, one with a longer life, and a deny list.
pub(crate) const POLICIES: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: "web tier", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow:
    - {name: production, accounts: [production], regions: [us-east-1, us-west-2]}
  ec2: {fresh_proof: not_required, document_ttl: 24h, look_up: none}
  certificate: {ttl: 12h, dns_names: ["{instance_id}.web.internal.example"], labels: {tier: web}}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: batch, description: "batch tier", owner: "platform"}
spec:
  method: ec2
  roles: [node, batch]
  allow:
    - {name: production, accounts: [production], regions: [us-east-1, us-west-2]}
  ec2: {fresh_proof: not_required, document_ttl: 1h, look_up: none}
  certificate: {ttl: 6h}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: proven, description: "asks for the proof", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow:
    - {name: production, accounts: [production], regions: [us-east-1, us-west-2]}
  ec2: {fresh_proof: required, look_up: none}
---
apiVersion: muster/v1
kind: AccountSet
metadata: {name: production, owner: "platform"}
spec:
  partition: aws
  accounts: [{id: "111122223333", name: shop-prod, owner: "shop"}]
---
apiVersion: muster/v1
kind: DenyList
metadata: {name: quarantine, owner: "security"}
spec:
  deny: [{name: bad-image, images: [ami-0bbbbbbbbbbbbbbb1], reason: "SEC-881"}]
"#;

pub(crate) struct World {
    pub(crate) joins: Arc<JoinService>,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    _keep: Option<tempfile::TempDir>,
}

/// The stores that a story is told on.
pub(crate) fn stores() -> Vec<(&'static str, Arc<dyn Store>, tempfile::TempDir)> {
    let keep = || tempfile::tempdir().unwrap();
    let directory = keep();
    let sqlite = SqliteStore::open(&directory.path().join("muster.db")).unwrap();
    vec![
        ("memory", Arc::new(MemoryStore::new()) as Arc<dyn Store>, keep()),
        ("sqlite", Arc::new(sqlite), directory),
    ]
}

/// For simulators that are not served.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

/// One simulator for all stories: its key takes long to make and is never the point.
pub(crate) fn simulator() -> &'static Simulator {
    static SIMULATOR: OnceLock<Simulator> = OnceLock::new();
    SIMULATOR.get_or_init(|| {
        let clock = Clock::fixed(start_of_story());
        Simulator::new(&Scenario::default(), clock).unwrap()
    })
}

pub(crate) fn start_of_story() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

/// The certificates of the simulator, at which nobody is asked: these nodes offer no proof.
pub(crate) fn certificates_of(simulator: &Simulator) -> RegionCertificates {
    let directory = tempfile::tempdir().unwrap();
    let written = simulator.write(directory.path(), NOWHERE).unwrap();
    RegionCertificates::only_directory(&written).unwrap()
}

/// Nobody is there to ask.
pub(crate) fn sources(certificates: RegionCertificates, clock: &Clock) -> Sources {
    let mut nowhere = Endpoints::default();
    nowhere.replace(Service::Sts, None, "http://127.0.0.1:9", true).unwrap();
    let (http, calls) = (AwsHttp::plain().unwrap(), Arc::<CallStatistics>::default());
    let sts = Sts::new(http.clone(), nowhere.clone(), clock.clone(), calls.clone());
    let nobody = OwnCredentials::fixed("AKIA", "nobody", None);
    let ec2 = Ec2Client::new(http, nowhere, nobody, clock.clone(), calls);
    Sources { certificates: certificates.into(), sts, ec2 }
}

pub(crate) fn policy_set(text: &str) -> Arc<PolicySet> {
    let file = PolicyFile { name: "policies.yaml".to_owned(), text: text.to_owned() };
    let vocabulary = Vocabulary {
        methods: methods::ALL,
        regions: RegionCertificates::embedded().known_regions().clone(),
    };
    let loaded = policy::load(&[file], &vocabulary, None);
    loaded.set.unwrap_or_else(|| panic!("{:?}", loaded.findings))
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        Self::with(store, POLICIES, |node_ca| Arc::new(BuiltinCa::new(node_ca)))
    }

    pub(crate) fn with(
        store: Arc<dyn Store>,
        policies: &str,
        authority: impl Fn(Arc<Authority>) -> Arc<dyn CertificateAuthority>,
    ) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let (clock, path) = (Clock::fixed(start_of_story()), keep.path().to_owned());
        let sources = sources(certificates_of(simulator()), &clock);
        Self::in_directory(store, policies, authority, &sources, clock, &path, Some(keep))
    }

    /// A server whose authorities live in a directory that outlasts it.
    pub(crate) fn in_directory(
        store: Arc<dyn Store>,
        policies: &str,
        authority: impl Fn(Arc<Authority>) -> Arc<dyn CertificateAuthority>,
        sources: &Sources,
        clock: Clock,
        path: &Path,
        keep: Option<tempfile::TempDir>,
    ) -> Self {
        let domain: TrustDomain = "prod.example.org".parse().unwrap();
        let authorities = Authorities::open_or_create(path, &domain, None, clock.now()).unwrap();
        let node_ca = Authority::node_ca(path, &domain, None, clock.now()).unwrap();
        let registry = Registry::new(Arc::clone(&store));
        let joins = Arc::new(JoinService {
            clock: clock.clone(),
            time_guard: TimeGuard::new(clock.now()),
            methods: methods::build(sources),
            policies: RwLock::new(policy_set(policies)),
            registry: registry.clone(),
            audit: Arc::new(Audit::new(Arc::clone(&store), clock.clone()).unwrap()),
            authority: authority(Arc::new(node_ca)),
            trust_domain: domain,
            reserved_names: vec!["muster.internal.example".to_owned()],
            join_root: authorities.join_root.certificate().clone(),
            turns: Arc::new(Turns::new(2, 1000)),
            places: Arc::new(Places::default()),
        });
        Self { joins, clock, store, registry, _keep: keep }
    }

    /// The same server after a restart with other policies: nothing is left but the store.
    pub(crate) fn restart_with(&self, policies: &str) {
        *self.joins.policies.write().unwrap() = policy_set(policies);
    }

    pub(crate) async fn admitted(&self, node: &Node, policy: &str) -> Admission {
        self.join(node, policy).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    pub(crate) async fn refused(&self, node: &Node, policy: &str) -> Code {
        let refusal = self.join(node, policy).await.expect_err("the node must be refused");
        // What the node is told is coarser; the record has the code that counts.
        self.code_of(&refusal).await
    }

    pub(crate) async fn code_of(&self, refusal: &Refusal) -> Code {
        let id = refusal.correlation_id.clone().expect("every refusal has a correlation id");
        if let Some(record) = self.joins.audit.recall(&id) {
            return record.code.unwrap();
        }
        let query = Query { correlation_id: Some(id), ..Query::default() };
        let found = audit::first(self.store.as_ref(), &query, 1).await.unwrap();
        found[0].record.code.unwrap()
    }

    pub(crate) async fn join(&self, node: &Node, policy: &str) -> Result<Admission, Refusal> {
        self.joins.admit(&node.attempt(policy)).await
    }

    pub(crate) async fn records(&self, class: Class) -> Vec<Entry> {
        let query = Query { class: Some(class), ..Query::default() };
        audit::first(self.store.as_ref(), &query, usize::MAX).await.unwrap()
    }

    pub(crate) async fn enrollment(&self, admission: &Admission) -> Enrollment {
        self.registry.find(&admission.enrollment.node_id).await.unwrap().unwrap()
    }

    pub(crate) async fn forget(&self, admission: &Admission) {
        let (id, now) = (&admission.enrollment.node_id, self.clock.now());
        let audit = |_: &Enrollment| self.append("forget");
        self.registry.forget(id, "test", now, audit).await.unwrap().unwrap();
    }

    pub(crate) async fn allow_rejoin(&self, admission: &Admission) {
        let (id, now) = (&admission.enrollment.node_id, self.clock.now());
        let until = now.plus(Lifetime::from_hours(1));
        let audit = |_: &Enrollment| self.append("allow-rejoin");
        self.registry.allow_rejoin(id, until, "test", now, audit).await.unwrap().unwrap();
    }

    fn append(&self, kind: &str) -> Result<muster::store::Append, muster::store::StoreUnavailable> {
        let now = self.clock.now();
        let record = audit::Record::new(now, Class::Security, kind, audit::Outcome::Done);
        self.joins.audit.append(&record)
    }
}

/// A machine: an instance, its document, and its key.
pub(crate) struct Node {
    pub(crate) instance: SimulatedInstance,
    pub(crate) document: String,
    pub(crate) key: KeyPair,
}

impl Node {
    /// The instance with this number in an account, started when the story begins.
    pub(crate) fn new(account: &str, number: u64) -> Self {
        Self::of(SimulatedInstance {
            account_id: account.parse().unwrap(),
            region: "us-west-2".parse().unwrap(),
            instance_id: format!("i-{number:017x}").parse().unwrap(),
            image_id: "ami-0fa9e1f64142cde17".to_owned(),
            instance_type: "t3.medium".to_owned(),
            private_ip: [10, 0, 0, 7].into(),
            pending_time: start_of_story().minus(Lifetime::from_minutes(2)),
            hop_limit: 1,
            document_of: None,
            has_identity_role: true,
            record: InstanceRecord::default(),
        })
    }

    pub(crate) fn of(instance: SimulatedInstance) -> Self {
        let document = simulator().document(&instance).unwrap();
        Self { instance, document, key: KeyPair::generate().unwrap() }
    }

    /// The same instance after a stop and start, with a key of its own.
    pub(crate) fn started_at(&self, pending_time: Timestamp) -> Self {
        Self::of(SimulatedInstance { pending_time, ..self.instance.clone() })
    }

    /// Somebody who copied the document, with another key.
    pub(crate) fn copied(&self) -> Self {
        Self {
            instance: self.instance.clone(),
            document: self.document.clone(),
            key: KeyPair::generate().unwrap(),
        }
    }

    /// Another machine that was cloned with this one's key.
    pub(crate) fn with_key_of(mut self, other: &Self) -> Self {
        self.key = KeyPair::try_from(other.key.serialize_der()).unwrap();
        self
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from_spki_der(&self.key.subject_public_key_info()).unwrap()
    }

    pub(crate) fn attempt(&self, policy: &str) -> Attempt {
        let key = self.key.subject_public_key_info();
        let start = Start::parse(policy, "ec2", &key, "test").unwrap();
        let evidence = ec2::evidence(&self.document, None);
        let (channel, nonce) = ([1; 32], [2; 32]);
        let binding =
            KeyBinding::new(Purpose::Join, &channel, &nonce, "ec2", policy, &start.public_key);
        let pop = self.key.sign(&pop_message(&binding, &evidence)).unwrap();
        Attempt { start, channel, nonce, evidence, pop, source: [192, 0, 2, 7].into() }
    }
}

pub(crate) fn serial(admission: &Admission) -> Serial {
    admission.order.serial
}

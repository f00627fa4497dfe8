//! A world of one instance and one server. The server keeps the rules of renewal: over the current
//! certificate it makes one next key, the first use of which promotes it; a second one is a clone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use serde_json::json;

use crate::agent::daemon::{Agent, Event};
use crate::agent::method::{Method, MethodList, Way};
use crate::agent::outside::{Answer, Ask, Outside, Pause};
use crate::agent::plan::Step;
use crate::agent::state::{CurrentIdentity, InstanceIdentity, LockedState, status};
use crate::client::JoinError;
use crate::clock::Clock;
use crate::domain::{Code, KeyDigest, Lifetime, Timestamp};
use crate::proto::JoinResult;

pub(super) const START: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
pub(super) const LIFE: Lifetime = Lifetime::from_hours(12);

/// What becomes of one question.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// The server does its work, and the answer is lost.
    ReplyLost,
    /// The server does its work, and the node dies before it hears of it.
    NodeDies,
    /// The server refuses.
    Refused(Code),
    /// The server asks to wait.
    Busy(Duration),
}

/// One question that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) step: Step,
    pub(super) way: Way,
    pub(super) key: KeyDigest,
    pub(super) policy: String,
}

pub(super) struct World {
    pub(super) clock: Clock,
    /// The methods of the agent's configuration.
    pub(super) methods: RefCell<MethodList>,
    pub(super) instance: RefCell<InstanceIdentity>,
    pub(super) fates: RefCell<VecDeque<Fate>>,
    pub(super) asked: RefCell<Vec<Asked>>,
    /// The metadata service does not answer.
    pub(super) is_mute: Cell<bool>,
    /// The next pause ends with a jump of the clock.
    pub(super) jumps: Cell<bool>,
    pub(super) pauses: RefCell<Vec<Duration>>,
    pub(super) luck: Cell<f64>,
    pub(super) trust_domain: RefCell<String>,
    current: Cell<Option<KeyDigest>>,
    next: Cell<Option<KeyDigest>>,
    serial: Cell<u64>,
    ca: Issuer<'static, KeyPair>,
    ca_der: Vec<u8>,
    directory: tempfile::TempDir,
}

impl World {
    pub(super) fn new() -> Rc<Self> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "node CA");
        let key = KeyPair::generate().unwrap();
        let ca_der = params.self_signed(&key).unwrap().der().to_vec();
        Rc::new(Self {
            clock: Clock::fixed(START),
            methods: RefCell::new(MethodList::only(Method::Ec2)),
            instance: RefCell::new(instance(1, 0)),
            fates: RefCell::default(),
            asked: RefCell::default(),
            is_mute: Cell::new(false),
            jumps: Cell::new(false),
            pauses: RefCell::default(),
            luck: Cell::new(0.5),
            trust_domain: RefCell::new("prod.example.org".to_owned()),
            current: Cell::new(None),
            next: Cell::new(None),
            serial: Cell::new(0),
            ca: Issuer::new(params, key),
            ca_der,
            directory: tempfile::tempdir().unwrap(),
        })
    }

    pub(super) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(super) fn current(&self) -> CurrentIdentity {
        status(&self.state()).unwrap().current.unwrap()
    }

    /// These become of the next questions.
    pub(super) fn next_are(&self, fates: &[Fate]) {
        self.fates.borrow_mut().extend(fates);
    }

    /// What was asked since the last time that somebody looked.
    pub(super) fn take_asked(&self) -> Vec<Asked> {
        self.asked.take()
    }

    /// An operator forgets the node.
    pub(super) fn forget(&self) {
        self.current.set(None);
        self.next.set(None);
    }

    fn decide(&self, ask: &Ask<'_>) -> Result<(), Code> {
        let key = ask.key.public_key().digest();
        let Some(identity) = ask.identity else {
            if self.current.get().is_some_and(|current| current != key)
                && self.next.get() != Some(key)
            {
                return Err(Code::EnrollmentConflict);
            }
            self.current.set(Some(key));
            self.next.set(None);
            return Ok(());
        };
        let shown = key_of(&identity.chain()[0]);
        if self.next.get() == Some(shown) {
            self.current.set(Some(shown));
            self.next.set(None);
        }
        match (self.current.get(), self.next.get()) {
            (Some(current), _) if current == key => Err(Code::KeyInUse),
            (Some(current), next) if current == shown && next.is_none_or(|next| next == key) => {
                self.next.set(Some(key));
                Ok(())
            }
            (None, _) => Err(Code::NodeUnknown),
            _ => Err(Code::CloneSuspected),
        }
    }

    fn issue(&self, ask: &Ask<'_>) -> JoinResult {
        self.serial.set(self.serial.get() + 1);
        let id = format!("spiffe://{}/node/ec2/web", self.trust_domain.borrow());
        let (not_before, not_after) = (self.clock.now(), self.clock.now().plus(LIFE));
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) =
            (not_before.to_date_time(), not_after.to_date_time());
        let key = SubjectPublicKeyInfo::from_der(ask.key.public_key().spki_der()).unwrap();
        let leaf = params.signed_by(&key, &self.ca).unwrap();
        let record = json!({
            "node_id": "n-1", "spiffe_id": id, "policy": "web-now",
            "method": ask.way.method(),
            "serial": format!("{:02X}", self.serial.get()),
            "not_before": not_before, "not_after": not_after,
            "renew_after": not_before.plus(LIFE.fraction(2, 3)),
        });
        JoinResult {
            certificate_chain: vec![leaf.der().to_vec()],
            trust_bundle: vec![self.ca_der.clone()],
            join_root: self.ca_der.clone(),
            node_record: record.to_string(),
            ..JoinResult::default()
        }
    }
}

pub(super) fn instance(number: u32, epoch_hours: u32) -> InstanceIdentity {
    InstanceIdentity {
        instance_id: format!("i-{number:017x}").parse().unwrap(),
        epoch: Some(START.plus(Lifetime::from_hours(epoch_hours))),
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> KeyDigest {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    KeyDigest::of_spki(parsed.public_key().raw)
}

/// The key of the node's current certificate.
pub(super) fn certified_key(world: &World) -> KeyDigest {
    key_of(&world.current().chain()[0])
}

impl Outside for Rc<World> {
    async fn instance(&self) -> Result<InstanceIdentity, JoinError> {
        if self.is_mute.get() {
            return Err(JoinError::rejected(Code::MetadataUnavailable, "nobody there"));
        }
        Ok(self.instance.borrow().clone())
    }

    async fn policy(&self, _method: Method) -> Result<String, JoinError> {
        Ok("web".to_owned())
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, JoinError> {
        let step = if ask.identity.is_some() { Step::Renew } else { Step::Join };
        let (key, policy) = (ask.key.public_key().digest(), ask.policy.to_owned());
        self.asked.borrow_mut().push(Asked { step, way: ask.way, key, policy });
        let domain: crate::domain::TrustDomain = self.trust_domain.borrow().parse().unwrap();
        if ask.trust_domain.is_some_and(|known| *known != domain) {
            return Err(JoinError::rejected(Code::ServerUntrusted, "another trust domain"));
        }
        let fate = self.fates.borrow_mut().pop_front();
        match fate {
            Some(Fate::Refused(code)) => return Err(JoinError::rejected(code, "refused")),
            Some(Fate::Busy(retry_after)) => {
                let error = JoinError::rejected(Code::Overloaded, "too much");
                return Err(JoinError { retry_after: Some(retry_after), ..error });
            }
            None | Some(Fate::ReplyLost | Fate::NodeDies) => {}
        }
        self.decide(ask).map_err(|code| JoinError::rejected(code, "refused"))?;
        let result = self.issue(ask);
        match fate {
            Some(Fate::ReplyLost) => {
                Err(JoinError::rejected(Code::ServerUnreachable, "the connection was closed"))
            }
            Some(Fate::NodeDies) => std::future::pending().await,
            None | Some(Fate::Refused(_) | Fate::Busy(_)) => {
                Ok(Answer { result, trust_domain: Some(domain) })
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pause(&self, length: Duration) -> Pause {
        self.pauses.borrow_mut().push(length);
        self.clock.advance(Lifetime::from_seconds(u32::try_from(length.as_secs()).unwrap()));
        tokio::task::yield_now().await;
        if self.jumps.take() { Pause::ClockJumped } else { Pause::Over }
    }

    fn luck(&self) -> f64 {
        self.luck.get()
    }
}

fn nobody_listens(_: &Event<'_>) {}

/// An agent that has just started and knows whose state it has.
pub(super) async fn started(world: &Rc<World>) -> Agent<'static, Rc<World>> {
    let locked = LockedState::take(&world.state()).unwrap();
    let methods = world.methods.borrow().clone();
    let mut agent = Agent::new(Rc::clone(world), methods, Vec::new(), locked, &nobody_listens);
    agent.turn().await;
    agent
}

/// Lets the time come for the next attempt, and makes it.
pub(super) async fn next_turn(world: &Rc<World>, agent: &mut Agent<'static, Rc<World>>) {
    let wait = agent.next().at.since(world.clock.now()).seconds();
    world.clock.advance(Lifetime::from_seconds(u32::try_from(wait).unwrap()));
    agent.turn().await;
}

/// A node that has joined.
pub(super) async fn joined(world: &Rc<World>) -> Agent<'static, Rc<World>> {
    let mut agent = started(world).await;
    agent.turn().await;
    assert_eq!(world.take_asked().len(), 1);
    agent
}

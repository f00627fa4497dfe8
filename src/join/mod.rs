//! The life of a join: verify, match, gather, decide, record, issue, remember. One direction, no
//! way back; each step takes a value that only the step before it can make.

mod attempt;
mod refusal;
mod remember;
mod renewal;
mod time_guard;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tracing::{Instrument, info_span};

use crate::audit::{self, Audit, Class, Outcome};
use crate::ca::{CertificateAuthority, IssueError};
use crate::clock::Clock;
use crate::domain::{
    Code, CorrelationId, KeyBinding, PolicyName, Purpose, Serial, Subject, Timestamp, TrustDomain,
};
use crate::methods::{self, Basis, JoinMethod, LookUp, Presented, Remembered};
use crate::policy::{DEFAULT_SLOT, Order, OrderRequest, PolicySet};
use crate::registry::{Asking, Change, Enrollment, RecordError, Recorded, Registry};
use crate::store::StoreUnavailable;
use crate::turns::{Overloaded, Place, Places, Turn, Turns};

pub use attempt::{Attempt, InvalidStart, Start};
pub use refusal::Refusal;
use refusal::{Stop, Trace};
pub use renewal::Renewal;
pub use time_guard::TimeGuard;

/// How long a CA backend may take.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything that a join needs. Wiring puts it together; this module decides the order of steps.
pub struct JoinService {
    /// The only source of time.
    pub clock: Clock,
    /// Whether that can be right.
    pub time_guard: TimeGuard,
    /// The join methods of this build.
    pub methods: Vec<Arc<dyn JoinMethod>>,
    /// The policy set in force; exchanged as a whole.
    pub policies: RwLock<Arc<PolicySet>>,
    /// What is remembered.
    pub registry: Registry,
    /// What is written down.
    pub audit: Arc<Audit>,
    /// What signs.
    pub authority: Arc<dyn CertificateAuthority>,
    /// The root of all names.
    pub trust_domain: TrustDomain,
    /// DNS names that no node may get: the server's own.
    pub reserved_names: Vec<String>,
    /// The root that nodes demand of the listener from now on.
    pub join_root: CertificateDer<'static>,
    /// Whose evidence is verified when.
    pub turns: Arc<Turns>,
    /// How many joins wait for others, and of whom.
    pub places: Arc<Places>,
}

/// What an admitted node gets.
#[derive(Debug)]
pub struct Admission {
    /// The certificate, leaf first, DER.
    pub chain: Vec<Vec<u8>>,
    /// The node CA's trust anchors, DER.
    pub trust_bundle: Vec<CertificateDer<'static>>,
    /// The join root, DER.
    pub join_root: CertificateDer<'static>,
    /// The enrollment as it stands.
    pub enrollment: Enrollment,
    /// The order that the certificate fulfils.
    pub order: Order,
    /// Leads to the audit record.
    pub correlation_id: CorrelationId,
}

impl JoinService {
    /// The policy set in force.
    pub fn policies(&self) -> Arc<PolicySet> {
        Arc::clone(&self.policies.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another set in force: from here on every decision is by it.
    pub fn exchange_policies(&self, policies: Arc<PolicySet>) {
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies;
    }

    /// Admits a node, or refuses it and writes down why.
    pub async fn admit(&self, attempt: &Attempt) -> Result<Admission, Refusal> {
        let policies = self.policies();
        let mut trace = Trace::new("join", attempt, &policies, self.clock.now());
        match self.run(attempt, &policies, &mut trace).await {
            Ok(admission) => Ok(admission),
            Err(stop) => Err(refusal::write(&self.audit, stop, trace, &policies).await),
        }
    }

    /// Refuses what never became an attempt: a message that cannot be read, a stream that is too
    /// slow, too many at once. Such a refusal has a correlation id like any other.
    pub async fn refuse_unread(
        &self,
        kind: &'static str,
        code: Code,
        hint: Option<String>,
        source: IpAddr,
    ) -> Refusal {
        refusal::write_unread(&self.audit, kind, code, hint, source, self.clock.now()).await
    }

    /// Refuses whoever would not be judged in time, before he is asked for evidence.
    pub async fn refuse_early(&self, kind: &'static str, source: IpAddr) -> Option<Refusal> {
        let overloaded = self.turns.expect(source).err()?;
        let mut refusal = self.refuse_unread(kind, Code::Overloaded, None, source).await;
        refusal.retry_after_seconds = Some(overloaded.retry_after_seconds);
        Some(refusal)
    }

    async fn run(
        &self,
        attempt: &Attempt,
        policies: &Arc<PolicySet>,
        trace: &mut Trace,
    ) -> Result<Admission, Stop> {
        let now = self.time_guard.check(trace.now())?;
        let start = &attempt.start;
        let method = self.method(&start.method).ok_or(Stop::UnknownMethod)?;
        let binding = KeyBinding::new(
            Purpose::Join,
            &attempt.channel,
            &attempt.nonce,
            &start.method,
            &start.policy,
            &start.public_key,
        );

        let key = start.public_key.digest();
        let (turn, remembered) = self.hear(attempt, method.as_ref(), &binding).await?;
        let presented = Presented {
            evidence: &attempt.evidence,
            binding: &binding,
            key,
            remembered: &remembered,
            source: Some(attempt.source),
            now,
        };

        // 1 verify: local.
        let claims = method.verify(&presented)?;
        trace.verified(&claims);

        // 2 match: the allow-list before the cloud (I3).
        let candidates = policies.candidates(&start.policy, claims, now)?;
        trace.matched(candidates.policy().as_str());
        let _place = self.place(turn, candidates.claims().subject(), candidates.policy()).await?;

        // 3 gather: what is on record first, then the proof, then the instance.
        let (subject, epoch) = (candidates.claims().subject().clone(), candidates.claims().epoch());
        let (policy, token) = (candidates.policy(), candidates.claims().token());
        let view = self.registry.view(&subject, DEFAULT_SLOT, key, policy, token).await?;
        if let (Basis::Key(_), Some(node)) = (candidates.claims().basis(), view.enrollment()) {
            trace.held_by(node);
        }
        view.refuse_early(&subject, DEFAULT_SLOT, epoch, now)?;
        let mut needed = candidates.needed().clone();
        if view.is_settled_against(key, epoch, now) {
            needed.look_up = LookUp::None;
        }
        let facts = methods::gather(method.as_ref(), candidates.claims(), &presented, &needed)
            .instrument(info_span!("gather"))
            .await?;
        trace.gathered(&facts);

        // 4 decide.
        let waives_age = view.has_grant(now);
        let request = self.order_request(attempt, DEFAULT_SLOT, waives_age)?;
        let approval = candidates.decide(&facts, request, now).map_err(|denial| {
            // Another key for a bound run is a security event whatever else is wrong (I17): it may
            // be all that the honest node can show of a theft. But only if the evidence stands:
            // old documents are in many hands, and whoever has one must not ring the bell (K4).
            let conflict = view.other_key(key, epoch, &denial.message, now);
            match conflict.filter(|_| facts.values().proof.stands(needed.proof_required)) {
                Some(conflict) => Stop::Conflict(conflict),
                None => Stop::Denied(denial),
            }
        })?;
        let relies_on_grant = waives_age && approval.age_was_waived();

        // 5 record: enrollment, order and audit record in one transaction (I9).
        self.refuse_changed_set(policies)?;
        self.time_guard.check_apart()?;
        let correlation_id = self.audit.correlation_id(Class::Admission)?;
        let asking = Asking::Join { relies_on_grant };
        let recorded = self
            .registry
            .record(&approval, asking, view, &trace.source, now, |recording| {
                let records = trace.admission(&recording, &correlation_id);
                records.iter().map(|record| self.audit.append(record)).collect()
            })
            .instrument(info_span!("record"))
            .await;
        let recorded = match recorded {
            Ok(recorded) => recorded,
            Err(error) => return Err(self.keep_floor(error, &subject, now).await),
        };

        self.complete(&recorded, correlation_id).await
    }

    /// 6 issue and 7 remember: durable before the reply leaves.
    async fn complete(
        &self,
        recorded: &Recorded,
        correlation_id: CorrelationId,
    ) -> Result<Admission, Stop> {
        let chain = match (recorded.change(), recorded.issue().chain()) {
            (Change::Repeat | Change::RepeatNext, Some(chain)) => chain,
            _ => self.issue(recorded, &correlation_id).await?,
        };
        Ok(Admission {
            chain,
            trust_bundle: self.authority.trust_anchors().await?.0,
            join_root: self.join_root.clone(),
            enrollment: recorded.enrollment().clone(),
            order: recorded.order().clone(),
            correlation_id,
        })
    }

    /// A set that was exchanged since step 2 decides anew: what it took away ends now (N5).
    fn refuse_changed_set(&self, decided_by: &PolicySet) -> Result<(), Stop> {
        if self.policies().hash() == decided_by.hash() {
            Ok(())
        } else {
            Err(Stop::PolicySetChanged)
        }
    }

    /// A later start that the cloud told of raises the floor on record, so that the old document does
    /// not get in by a policy that does not look (K2).
    async fn keep_floor(&self, error: RecordError, subject: &Subject, now: Timestamp) -> Stop {
        let RecordError::Conflict(conflict) = error else { return error.into() };
        if let Some(floor) = conflict.floor {
            let node = subject.node_id(DEFAULT_SLOT);
            let audit =
                |enrollment: &Enrollment| self.audit.append(&floor_record(enrollment, floor, now));
            if let Err(unavailable) = self.registry.raise_floor(&node, floor, now, audit).await {
                return unavailable.into();
            }
        }
        conflict.into()
    }

    async fn issue(
        &self,
        recorded: &Recorded,
        correlation_id: &CorrelationId,
    ) -> Result<Vec<Vec<u8>>, Stop> {
        let issued = tokio::time::timeout(ISSUE_TIMEOUT, self.authority.issue(recorded))
            .instrument(info_span!("issue"))
            .await
            .map_err(|_| IssueError::Unavailable("no answer in time".to_owned()))??;
        let anchors = self.authority.trust_anchors().await?;
        let certificate = crate::ca::check(recorded, issued, &anchors)?;
        let chain: Vec<Vec<u8>> = certificate.chain().iter().map(|der| der.to_vec()).collect();
        let fingerprint = certificate.fingerprint();
        self.registry
            .remember(recorded, &chain, fingerprint, |enrollment| {
                let (order, now) = (recorded.order(), self.clock.now());
                let record = issued_record(enrollment, order, fingerprint, correlation_id, now);
                self.audit.append(&record)
            })
            .instrument(info_span!("remember"))
            .await
            .map_err(Stop::from)
    }

    /// Before 1: a stranger's evidence takes as long to verify as anybody's, so it has its turn (D6).
    /// The node must hold the key before anything else is looked at.
    async fn hear(
        &self,
        attempt: &Attempt,
        method: &dyn JoinMethod,
        binding: &KeyBinding,
    ) -> Result<(Turn, Remembered), Stop> {
        let turn = self.turns.turn(attempt.source).await?;
        attempt.check_possession(binding)?;
        let recalled = remember::at_join(&self.registry, method, attempt);
        let (turn, remembered) = turn.aside(recalled).await?;
        Ok((turn, remembered?))
    }

    /// After 2: the turn for a place among those who wait for others. It is of the account that the
    /// evidence shows, or of the policy where evidence shows none.
    async fn place(
        &self,
        turn: Turn,
        subject: &Subject,
        policy: &PolicyName,
    ) -> Result<Place, Overloaded> {
        drop(turn);
        let owner = match (subject.segment("partition"), subject.segment("account_id")) {
            (Some(partition), Some(account)) => format!("{partition}/{account}"),
            _ => policy.to_string(),
        };
        self.places.place(owner).await
    }

    fn method(&self, name: &str) -> Option<&Arc<dyn JoinMethod>> {
        self.methods.iter().find(|method| method.declaration().name == name)
    }

    fn order_request(
        &self,
        attempt: &Attempt,
        slot: &str,
        waives_age: bool,
    ) -> Result<OrderRequest, StoreUnavailable> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| StoreUnavailable("no random bytes".to_owned()))?;
        Ok(OrderRequest {
            serial: Serial::from_random(random),
            public_key: attempt.start.public_key.clone(),
            trust_domain: self.trust_domain.clone(),
            issuer: self.authority.issuer(),
            slot: slot.to_owned(),
            age_waived: waives_age,
            reserved_names: self.reserved_names.clone(),
        })
    }
}

fn floor_record(enrollment: &Enrollment, floor: Timestamp, now: Timestamp) -> audit::Record {
    let mut record = audit::Record::new(now, Class::Security, "floor", Outcome::Done);
    record.account_id = enrollment.subject.segment("account_id").map(str::to_owned);
    record.instance_id = enrollment.subject.segment("instance_id").map(str::to_owned);
    record.node_id = Some(enrollment.node_id.clone());
    record.with("floor", floor.to_string())
}

fn issued_record(
    enrollment: &Enrollment,
    order: &Order,
    fingerprint: &str,
    correlation_id: &CorrelationId,
    now: Timestamp,
) -> audit::Record {
    let mut record = audit::Record::new(now, Class::Admission, "issue", Outcome::Done);
    record.correlation_id = Some(correlation_id.clone());
    record.policy = Some(enrollment.policy.clone());
    record.account_id = enrollment.subject.segment("account_id").map(str::to_owned);
    record.instance_id = enrollment.subject.segment("instance_id").map(str::to_owned);
    record.node_id = Some(enrollment.node_id.clone());
    record.serial = Some(order.serial);
    record.with("sha256", fingerprint)
}

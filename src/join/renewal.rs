//! The life of a renewal: the steps of a join, over the certificate that the node has. Everything is
//! checked again (I8), and the certificate is the counter (red team N2).

use std::net::IpAddr;
use std::sync::Arc;

use tracing::{Instrument, error, info_span, warn};

use super::attempt::{Attempt, Start};
use super::refusal::{self, Refusal, Stop, Trace};
use super::{Admission, JoinService, remember};
use crate::audit::Class;
use crate::domain::{Code, KeyBinding, PublicKey, Purpose};
use crate::methods::{self, FactsNeeded, JoinMethod, LookUp, Presented, Proof};
use crate::policy::{Candidates, PolicySet, Strength};
use crate::registry::{
    Asking, Conflict, Enrollment, Lock, LockTarget, PresentedCertificate, RecordError,
};

/// Everything that one stream of a renewal brought.
pub struct Renewal {
    /// The certificate that the connection was authenticated with.
    pub certificate: PresentedCertificate,
    /// The next key.
    pub public_key: PublicKey,
    /// What the node says of itself: for the log, never for a decision.
    pub facts: String,
    /// This connection's RFC 9266 `tls-exporter` value.
    pub channel: [u8; 32],
    /// This stream's challenge.
    pub nonce: [u8; 32],
    /// The method's evidence, as sent.
    pub evidence: Vec<u8>,
    /// The next key's signature.
    pub pop: Vec<u8>,
    /// The peer's address, for the log and for budgets.
    pub source: IpAddr,
}

impl JoinService {
    /// Renews a node's certificate, or refuses and writes down why.
    pub async fn renew(&self, renewal: Renewal) -> Result<Admission, Refusal> {
        let policies = self.policies();
        let holder = self.registry.holder(renewal.certificate.serial).await;
        let Renewal { certificate, public_key, facts, channel, nonce, evidence, pop, source } =
            renewal;
        // Method and policy are the enrollment's: a renewal cannot change them.
        let (policy, method) = match &holder {
            Ok(Some(holder)) => (holder.policy.clone(), holder.method.clone()),
            Ok(None) | Err(_) => (String::new(), String::new()),
        };
        let start = Start { policy, method, public_key, facts };
        let attempt = Attempt { start, channel, nonce, evidence, pop, source };
        let mut trace = Trace::new("renew", &attempt, &policies, self.clock.now());
        trace.presented(&certificate);
        let outcome = match holder {
            Ok(Some(holder)) => {
                trace.held_by(&holder);
                self.run_renewal(&attempt, &certificate, &holder, &policies, &mut trace).await
            }
            Ok(None) => Err(Stop::Conflict(Conflict::unknown_certificate())),
            Err(unavailable) => Err(unavailable.into()),
        };
        match outcome {
            Ok(admission) => Ok(admission),
            Err(stop) => Err(refusal::write(&self.audit, stop, trace, &policies).await),
        }
    }

    async fn run_renewal(
        &self,
        attempt: &Attempt,
        certificate: &PresentedCertificate,
        holder: &Enrollment,
        policies: &Arc<PolicySet>,
        trace: &mut Trace,
    ) -> Result<Admission, Stop> {
        let now = self.time_guard.check(trace.now())?;
        let start = &attempt.start;
        let method = self.method(&start.method).ok_or(Stop::UnknownMethod)?;
        let binding = KeyBinding::new(
            Purpose::Renew,
            &attempt.channel,
            &attempt.nonce,
            &start.method,
            &start.policy,
            &start.public_key,
        );
        let turn = self.turns.turn(attempt.source).await?;
        attempt.check_possession(&binding)?;
        let remembered = remember::at_renewal(holder, method.as_ref())?;
        let key = start.public_key.digest();
        let presented = Presented {
            evidence: &attempt.evidence,
            binding: &binding,
            key,
            remembered: &remembered,
            source: Some(attempt.source),
            now,
        };

        // 1 verify, and the evidence must be of the node that the certificate names (T16, T28).
        let claims = method.verify(&presented)?;
        if *claims.subject() != holder.subject {
            return Err(Stop::Conflict(Conflict::other_instance(holder, claims.subject())));
        }
        trace.verified(&claims);

        // 2 match, by the policy of now.
        let candidates = policies.candidates(&start.policy, claims, now)?;
        let _place = self.place(turn, &holder.subject, candidates.policy()).await?;

        // 3 gather: what is on record first, then the proof, then the instance.
        let (subject, epoch) = (&holder.subject, candidates.claims().epoch());
        let needed = candidates.needed().clone();
        let policy = candidates.policy();
        let view = self.registry.view(subject, &holder.slot, key, policy, None).await?;
        let early = view.refuse_renewal_early(subject, &holder.slot, certificate, key, epoch, now);
        if let Err(conflict) = early {
            let is_clone = conflict.code == Code::CloneSuspected;
            let locks =
                is_clone && !self.needs_no_lock(method.as_ref(), &candidates, &presented).await?;
            return Err(self.lock_clone(conflict, locks, holder, trace).await);
        }
        let facts = methods::gather(method.as_ref(), candidates.claims(), &presented, &needed)
            .instrument(info_span!("gather"))
            .await?;
        trace.gathered(&facts);

        // 4 decide. The document's age is judged at joins: this one has joined.
        let request = self.order_request(attempt, &holder.slot, true)?;
        let approval = candidates.decide(&facts, request, now)?;

        // 5 record: the next order and the audit record in one transaction (I9).
        self.refuse_changed_set(policies)?;
        self.time_guard.check_apart()?;
        let correlation_id = self.audit.correlation_id(Class::Admission)?;
        let asking = Asking::Renewal(certificate);
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
            Err(RecordError::Conflict(conflict)) if conflict.code == Code::CloneSuspected => {
                let is_unproven = approval.strength() != Strength::Proof;
                return Err(self.lock_clone(conflict, is_unproven, holder, trace).await);
            }
            Err(error) => return Err(self.keep_floor(error, subject, now).await),
        };
        self.complete(&recorded, correlation_id).await
    }

    /// Whether whoever shows a certificate that was given up is the node itself, restored from a
    /// snapshot: then nobody is locked. Where a proof is required nobody is, whoever it is, so nobody
    /// is asked.
    async fn needs_no_lock(
        &self,
        method: &dyn JoinMethod,
        candidates: &Candidates,
        presented: &Presented<'_>,
    ) -> Result<bool, Stop> {
        if candidates.needed().proof_required {
            return Ok(true);
        }
        let needed = FactsNeeded { proof_required: false, look_up: LookUp::None };
        let facts = methods::gather(method, candidates.claims(), presented, &needed).await?;
        Ok(facts.values().proof == Proof::Proven)
    }

    /// Where nobody has to prove anything, two of one node cannot be told apart: that node alone is
    /// locked, never its policy or account (T56).
    async fn lock_clone(
        &self,
        conflict: Box<Conflict>,
        is_unproven: bool,
        holder: &Enrollment,
        trace: &Trace,
    ) -> Stop {
        if conflict.code == Code::CloneSuspected && is_unproven && !conflict.is_put_out {
            let lock = Lock {
                target: LockTarget::Node(holder.node_id.clone()),
                reason: format!("clone signal: {}", conflict.message),
                since: trace.now(),
                until: None,
            };
            let record = trace.locked(&lock.reason);
            let audit = || Ok(vec![self.audit.append(&record)?]);
            if let Err(unavailable) = self.registry.lock(std::slice::from_ref(&lock), audit).await {
                error!(node = %holder.node_id, error = %unavailable, "a clone was not locked");
                return unavailable.into();
            }
            warn!(node = %holder.node_id, "a clone signal has locked this node");
        }
        Stop::Conflict(conflict)
    }
}

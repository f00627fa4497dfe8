//! What becomes of a join that stops: a class, a record, and what the node is told.

use std::net::IpAddr;

use serde_json::Value;
use tracing::{debug, error, info, warn};

use super::Attempt;
use crate::audit::{Audit, Class, Outcome, Record};
use crate::ca::{IssueError, Nonconforming};
use crate::domain::{
    self, Code, CorrelationId, KeyDigest, NodeId, PolicyHash, Serial, Timestamp, TokenName,
};
use crate::methods::{Claims, Facts, Rejection, SourceUnavailable};
use crate::policy::{Denial, PolicySet};
use crate::registry::{Change, Conflict, Enrollment, PresentedCertificate, RecordError, Recording};
use crate::store::StoreUnavailable;
use crate::turns::Overloaded;

/// How long a node waits after an outage, in seconds, before its own jitter.
const RETRY_AFTER_SECONDS: u32 = 5;

/// Why a join stopped, by the step that stopped it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("the join method is not known")]
    UnknownMethod,
    #[error("evidence or signature are longer than they can be")]
    Oversized,
    #[error("the node key's signature does not fit this connection, challenge and evidence")]
    NotPossessed,
    #[error("the server's clock says {now}, and it has seen {latest}")]
    ServerClock { now: Timestamp, latest: Timestamp },
    #[error("the server's clock is {seconds_ahead} s ahead of AWS's")]
    ServerClockApart { seconds_ahead: i64 },
    #[error("the policy set was exchanged while this node was judged")]
    PolicySetChanged,
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("{}", .0.message)]
    Denied(Box<Denial>),
    #[error(transparent)]
    Conflict(#[from] Box<Conflict>),
    #[error(transparent)]
    Source(#[from] SourceUnavailable),
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Nonconforming(#[from] Nonconforming),
}

impl From<Box<Denial>> for Stop {
    fn from(denial: Box<Denial>) -> Self {
        Self::Denied(denial)
    }
}

impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Conflict(conflict) => Self::Conflict(conflict),
            RecordError::Unavailable(unavailable) => Self::Store(unavailable),
        }
    }
}

impl Stop {
    fn code(&self) -> Code {
        match self {
            Self::UnknownMethod => Code::UnknownMethod,
            Self::Oversized => Code::MalformedRequest,
            Self::NotPossessed => Code::PossessionNotProven,
            Self::ServerClock { .. } | Self::ServerClockApart { .. } => Code::ServerClockWrong,
            Self::PolicySetChanged => Code::PolicySetChanged,
            Self::Overloaded(_) => Code::Overloaded,
            Self::Rejected(rejection) => rejection.code,
            Self::Denied(denial) => denial.code,
            Self::Conflict(conflict) => conflict.code,
            Self::Source(unavailable) => unavailable.code,
            Self::Store(_) => Code::StoreUnavailable,
            Self::Issue(_) => Code::CaUnavailable,
            Self::Nonconforming(_) => Code::CertificateRejected,
        }
    }

    /// What the node may know of its own evidence.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Rejected(rejection) => rejection.hint.clone(),
            Self::Denied(denial) => denial.hint.clone(),
            // What a lock says is for the operator.
            Self::Conflict(conflict) if conflict.code == Code::Locked => None,
            Self::Conflict(conflict) if conflict.hint.is_empty() => Some(conflict.message.clone()),
            Self::Conflict(conflict) => Some(conflict.hint.to_owned()),
            Self::UnknownMethod
            | Self::Oversized
            | Self::NotPossessed
            | Self::ServerClock { .. }
            | Self::ServerClockApart { .. }
            | Self::PolicySetChanged
            | Self::Overloaded(_)
            | Self::Source(_)
            | Self::Store(_)
            | Self::Issue(_)
            | Self::Nonconforming(_) => None,
        }
    }

    fn retry_after_seconds(&self) -> Option<u32> {
        if let Self::Issue(IssueError::Throttled(seconds)) = self {
            return Some(*seconds);
        }
        if let Self::Overloaded(overloaded) = self {
            return Some(overloaded.retry_after_seconds);
        }
        matches!(self.code().class(), domain::Class::Unavailable | domain::Class::Throttled)
            .then_some(RETRY_AFTER_SECONDS)
    }

    /// Security events are about evidence that verified and still does not fit (I17).
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other codes are no security events")]
    fn class(&self, is_known: bool, is_renewal: bool) -> Class {
        // Nobody was judged. A record of each would make an overload worse.
        if matches!(self, Self::Overloaded(_)) {
            return Class::Noise;
        }
        let is_security = match self.code() {
            Code::EnrollmentConflict
            | Code::CloneSuspected
            | Code::NodeUnknown
            | Code::CertificateRejected
            | Code::ProofDisproven
            | Code::EvidenceDisagrees => true,
            // A locked account's old documents are in many hands, and whoever shows one must not ring
            // the bell (K4); who has a certificate does.
            Code::Locked => is_renewal,
            // At a renewal it is most often the node's own key.
            Code::KeyInUse => !is_renewal,
            _ => false,
        };
        match (is_security, is_known) {
            (true, _) => Class::Security,
            (false, true) => Class::Known,
            (false, false) => Class::Noise,
        }
    }
}

/// What a node is told of its refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The outward code.
    pub code: Code,
    /// The code on record, for metrics; a node is never told.
    pub recorded: Code,
    /// The join method, for metrics; empty if it is not known.
    pub method: String,
    /// Leads an operator to the whole explanation; none if not even that could be made.
    pub correlation_id: Option<CorrelationId>,
    /// About the node's own evidence and clock only.
    pub hint: Option<String>,
    /// When a retry may help.
    pub retry_after_seconds: Option<u32>,
}

/// What becomes known of an attempt on its way.
pub(super) struct Trace {
    kind: &'static str,
    now: Timestamp,
    pub(super) source: String,
    method: String,
    policy: String,
    policy_hash: PolicyHash,
    key: KeyDigest,
    unverified: String,
    partition: Option<String>,
    account_id: Option<String>,
    instance_id: Option<String>,
    node_id: Option<NodeId>,
    presented: Option<Serial>,
    epoch: Option<Timestamp>,
    token: Option<TokenName>,
    claims: Option<Value>,
    facts: Option<Value>,
}

impl Trace {
    pub(super) fn new(
        kind: &'static str,
        attempt: &Attempt,
        policies: &PolicySet,
        now: Timestamp,
    ) -> Self {
        Self {
            kind,
            now,
            source: attempt.source.to_string(),
            method: attempt.start.method.clone(),
            policy: attempt.start.policy.clone(),
            policy_hash: policies.hash().clone(),
            key: attempt.start.public_key.digest(),
            unverified: attempt.start.facts.clone(),
            partition: None,
            account_id: None,
            instance_id: None,
            node_id: None,
            presented: None,
            epoch: None,
            token: None,
            claims: None,
            facts: None,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn verified(&mut self, claims: &Claims) {
        let segment = |name| claims.subject().segment(name).map(str::to_owned);
        self.partition = segment("partition");
        self.account_id = segment("account_id");
        self.instance_id = segment("instance_id").or_else(|| Some(claims.subject().path()));
        self.epoch = Some(claims.epoch());
        self.token = claims.token().map(|token| token.name.clone());
        self.claims = Some(claims.values().to_json());
    }

    /// The certificate that a renewal came by.
    pub(super) fn presented(&mut self, certificate: &PresentedCertificate) {
        self.presented = Some(certificate.serial);
    }

    /// Whose certificate a renewal came by.
    pub(super) fn held_by(&mut self, enrollment: &Enrollment) {
        let segment = |name| enrollment.subject.segment(name).map(str::to_owned);
        self.partition = segment("partition");
        self.account_id = segment("account_id");
        self.instance_id = segment("instance_id").or_else(|| Some(enrollment.subject.path()));
        self.node_id = Some(enrollment.node_id.clone());
    }

    pub(super) fn matched(&mut self, policy: &str) {
        policy.clone_into(&mut self.policy);
    }

    pub(super) fn gathered(&mut self, facts: &Facts) {
        self.facts = Some(facts.values().to_json());
    }

    /// The record of an admission; and where it puts out a key that nobody gave up, a security event
    /// with both keys (K4, K10, T56).
    pub(super) fn admission(&self, recording: &Recording<'_>, id: &CorrelationId) -> Vec<Record> {
        let mut records = vec![self.admitted(Class::Admission, recording, id)];
        let message = match recording.change {
            Change::Displace => "a proof displaced a key that had joined by a document alone",
            Change::Rejoin => "a proof took the place of a key that had fallen silent",
            Change::Outrun => {
                "two keys asked to follow one certificate: there are two of this node, and the one \
                 that proves itself now goes on"
            }
            Change::Enroll
            | Change::Repeat
            | Change::Reorder
            | Change::ComeBack
            | Change::Rebind
            | Change::Renew
            | Change::RepeatNext => return records,
        };
        if let Some(before) = recording.before {
            let put_out = before.next.as_ref().unwrap_or(&before.current);
            let event = self
                .admitted(Class::Security, recording, id)
                .with("message", message)
                .with("bound_key", put_out.key().to_string())
                .with("bound_from", before.source.clone())
                .with("bound_at", before.renewed_at.to_string());
            records.push(event);
        }
        records
    }

    fn admitted(&self, class: Class, recording: &Recording<'_>, id: &CorrelationId) -> Record {
        let Recording { after: enrollment, order, change, .. } = recording;
        let mut record = self.record(class, Outcome::Admitted, id);
        record.node_id = Some(enrollment.node_id.clone());
        record.serial = Some(order.serial);
        record
            .with("change", change.as_str())
            .with("rule", enrollment.rule.clone())
            .with("spiffe_id", order.spiffe_id.as_str())
            .with("not_after", order.not_after.to_string())
            .with("roles", enrollment.roles.clone())
    }

    /// The record of a lock that a clone signal places.
    pub(super) fn locked(&self, reason: &str) -> Record {
        let mut record = Record::new(self.now, Class::Security, "lock", Outcome::Done);
        record.policy = Some(self.policy.clone());
        record.account_id.clone_from(&self.account_id);
        record.instance_id.clone_from(&self.instance_id);
        record.node_id.clone_from(&self.node_id);
        record.serial = self.presented;
        record.source = Some(self.source.clone());
        record.with("reason", reason)
    }

    fn record(&self, class: Class, outcome: Outcome, id: &CorrelationId) -> Record {
        let mut record = Record::new(self.now, class, self.kind, outcome);
        record.correlation_id = Some(id.clone());
        record.policy = Some(self.policy.clone()).filter(|name| !name.is_empty());
        record.policy_hash = Some(self.policy_hash.clone());
        record.account_id.clone_from(&self.account_id);
        record.instance_id.clone_from(&self.instance_id);
        record.node_id.clone_from(&self.node_id);
        record.source = Some(self.source.clone());
        let mut record = record
            .with("method", self.method.clone())
            .with("key", self.key.to_string())
            .with("unverified", self.unverified.clone());
        for (name, value) in [
            ("presented", self.presented.map(|serial| serial.to_string().into())),
            ("boot", boot_of(&self.unverified).map(Into::into)),
            ("epoch", self.epoch.map(|epoch| epoch.to_string().into())),
            ("token", self.token.as_ref().map(|name| name.to_string().into())),
            ("claims", self.claims.clone()),
            ("facts", self.facts.clone()),
        ] {
            if let Some(value) = value {
                record = record.with(name, value);
            }
        }
        record
    }
}

/// The id that an agent gives itself when it starts, which links its attempts. Nobody vouches for it.
fn boot_of(facts: &str) -> Option<&str> {
    facts.split(' ').find_map(|word| word.strip_prefix("boot="))
}

/// Writes the refusal down, and says what the node is told.
pub(super) async fn write(
    audit: &Audit,
    stop: Stop,
    trace: Trace,
    policies: &PolicySet,
) -> Refusal {
    let account_is_known = match (&trace.partition, &trace.account_id) {
        (Some(partition), Some(account)) => policies.names_account(partition, account),
        _ => false,
    };
    // The holder of one of our tokens is no stranger, nor is the holder of a node's key.
    let mut token = trace.token.clone();
    if let Stop::Rejected(rejection) = &stop {
        token = token.or_else(|| rejection.token.clone());
    }
    let is_known = account_is_known || token.is_some() || trace.node_id.is_some();
    let (code, class) = (stop.code(), stop.class(is_known, trace.presented.is_some()));
    let mut refusal = Refusal {
        code: code.outward(),
        recorded: code,
        method: trace.method.clone(),
        correlation_id: None,
        hint: stop.hint(),
        retry_after_seconds: stop.retry_after_seconds(),
    };
    let Ok(id) = audit.correlation_id(class) else { return refusal };
    let mut record = trace.record(class, outcome_of(code), &id).with("message", stop.to_string());
    record.code = Some(code);
    if let Stop::Conflict(conflict) = &stop {
        record = record
            .with("bound_key", conflict.bound_key.map(|key| key.to_string()))
            .with("bound_from", conflict.bound_from.clone())
            .with("bound_at", conflict.bound_at.map(|at| at.to_string()));
    }
    log(&stop, class, &id, &trace);
    // One token makes as many subjects as somebody makes keys.
    let subject = match (&token, &trace.instance_id) {
        (Some(token), _) => format!("token {token}"),
        (None, Some(instance)) => instance.clone(),
        (None, None) => "unverified".to_owned(),
    };
    if let Err(unavailable) = audit.refuse(record, &subject).await {
        error!(join.correlation_id = %id, error = %unavailable, "a refusal could not be recorded");
    }
    refusal.correlation_id = Some(id);
    refusal
}

/// Refuses what never became an attempt: counted, and explained from memory.
pub(super) async fn write_unread(
    audit: &Audit,
    kind: &'static str,
    code: Code,
    hint: Option<String>,
    source: IpAddr,
    now: Timestamp,
) -> Refusal {
    let correlation_id = audit.correlation_id(Class::Noise).ok();
    let mut record = Record::new(now, Class::Noise, kind, outcome_of(code));
    record.code = Some(code);
    record.correlation_id.clone_from(&correlation_id);
    record.source = Some(source.to_string());
    let record = record.with("message", hint.as_deref().unwrap_or_else(|| code.remedy()));
    if let Err(unavailable) = audit.refuse(record, "unverified").await {
        error!(error = %unavailable, "a refusal could not be recorded");
    }
    let can_retry = matches!(code.class(), domain::Class::Throttled | domain::Class::Unavailable);
    let retry_after_seconds = can_retry.then_some(RETRY_AFTER_SECONDS);
    Refusal {
        code: code.outward(),
        recorded: code,
        method: String::new(),
        correlation_id,
        hint,
        retry_after_seconds,
    }
}

fn outcome_of(code: Code) -> Outcome {
    match code.class() {
        domain::Class::Denied | domain::Class::Invalid | domain::Class::Stale => Outcome::Refused,
        domain::Class::Throttled | domain::Class::Unavailable => Outcome::Failed,
    }
}

fn log(stop: &Stop, class: Class, id: &CorrelationId, trace: &Trace) {
    let code = stop.code();
    if code == Code::Overloaded {
        return debug!(join.correlation_id = %id, detail = %stop, source = trace.source, "sent away");
    }
    let (account, instance) = (trace.account_id.as_deref(), trace.instance_id.as_deref());
    if matches!(stop, Stop::Nonconforming(_)) {
        error!(join.correlation_id = %id, error.type = %code, detail = %stop,
            cloud.account.id = account, host.id = instance, "a certificate was discarded");
    } else if class == Class::Security || code.class() == domain::Class::Unavailable {
        warn!(join.correlation_id = %id, error.type = %code, detail = %stop, source = trace.source,
            cloud.account.id = account, host.id = instance, "{} refused", trace.kind);
    } else {
        info!(join.correlation_id = %id, error.type = %code, detail = %stop, source = trace.source,
            cloud.account.id = account, host.id = instance, "{} refused", trace.kind);
    }
}

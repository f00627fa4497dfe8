//! What each local command does.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use super::Caller;
use super::audit::query;
use super::protocol::{Command, LocalError, Reply};
use crate::audit::{Audit, Class, Outcome, Record};
use crate::ca::Authorities;
use crate::domain::{Code, Lifetime, NodeId, Timestamp};
use crate::join::JoinService;
use crate::registry::{Enrollment, Registry};
use crate::server::explanation::Explainer;
use crate::server::node_record;
use crate::server::publisher::TokenPublisher;
use crate::server::reload::Reloader;
use crate::store::Store;

/// The longest reason.
const REASON_BYTES_MAX: usize = 500;
/// The longest time for which a rejoin may be allowed.
const REJOIN_WITHIN_MAX: Lifetime = Lifetime::from_hours(24);
/// The most nodes of one page.
const PAGE_MAX: usize = 1000;

/// What local commands work on.
pub(crate) struct Local {
    /// Enrollments.
    pub(crate) registry: Registry,
    /// The audit log, to write.
    pub(crate) audit: Arc<Audit>,
    /// The audit log, to read.
    pub(crate) store: Arc<dyn Store>,
    /// The clock, and what joins work with.
    pub(crate) joins: Arc<JoinService>,
    /// What puts another one in force.
    pub(crate) reloader: Arc<Reloader>,
    /// The authorities beside the backend, which is `joins.authority`.
    pub(crate) authorities: Arc<Authorities>,
    /// Explains old decisions.
    pub(crate) explainer: Explainer,
    /// Publishes tokens.
    pub(crate) publisher: Arc<TokenPublisher>,
    /// Where nodes find the join listener, as far as this machine can tell.
    pub(crate) join_address: String,
    /// True once the server stops.
    pub(crate) stopped: watch::Receiver<bool>,
}

pub(super) type Done = Result<(), LocalError>;

impl Local {
    pub(super) async fn run(
        &self,
        command: Command,
        caller: &Caller,
        replies: &Sender<Reply>,
    ) -> Done {
        match command {
            Command::NodesLs { account, policy, limit, page } => {
                let page = self.nodes(account, policy, limit, page.as_deref()).await?;
                item(replies, page).await
            }
            Command::NodesShow { node } => {
                let enrollment = self.find(&node).await?;
                let locks = self.locks_of(&enrollment).await?;
                item(replies, node_record::shown_with(&enrollment, locks)).await
            }
            Command::NodesForget { node, reason } => {
                item(replies, self.forget(&node, &reason).await?).await
            }
            Command::NodesAllowRejoin { node, within, reason } => {
                item(replies, self.allow_rejoin(&node, within, &reason).await?).await
            }
            Command::NodesLock { target, within, reason } => {
                item(replies, self.lock(target, within, &reason).await?).await
            }
            Command::NodesUnlock { target, reason } => {
                item(replies, self.unlock(target, &reason).await?).await
            }
            Command::NodesLocks {} => item(replies, self.locks().await?).await,
            Command::AuditLs { since, filter } => {
                self.audit_records(query(since, filter)?, replies).await
            }
            Command::AuditTail { count, follow, filter } => {
                self.audit_tail(count, follow, query(None, filter)?, replies).await
            }
            Command::AuditShow { correlation_id } => {
                item(replies, self.explain(&correlation_id).await?).await
            }
            Command::PolicyStatus {} => item(replies, self.reloader.to_json()).await,
            Command::TokensAdd(wanted) => {
                item(replies, self.add_token(wanted, caller).await?).await
            }
            Command::TokensLs {} => item(replies, self.tokens().await?).await,
            Command::TokensShow { name } => item(replies, self.token(&name).await?).await,
            Command::TokensRm { name, reason } => {
                item(replies, self.remove_token(&name, &reason).await?).await
            }
            Command::TokensAudit {} => item(replies, self.token_faults().await?).await,
            Command::PublicationsLs { name } => {
                item(replies, self.publications(name.as_ref()).await?).await
            }
            Command::PublicationsPublish { name, target } => {
                item(replies, self.publish(&name, target.as_deref()).await?).await
            }
            Command::CaStatus {} => item(replies, self.ca_status().await?).await,
            Command::CaPin {} => item(replies, self.ca_pin()).await,
            Command::CaCheck {} => item(replies, self.ca_check().await?).await,
            Command::CaExport { format } => item(replies, self.ca_export(format).await?).await,
        }
    }

    async fn forget(&self, node: &str, reason: &str) -> Result<Value, LocalError> {
        let reason = checked_reason(reason)?;
        let found = self.find(node).await?;
        let now = self.joins.clock.now();
        let audit = |enrollment: &Enrollment| {
            self.audit.append(&by_hand(now, "forget", enrollment, reason))
        };
        let forgotten = self.registry.forget(&found.node_id, reason, now, audit).await?;
        Ok(node_record::shown(&forgotten.ok_or_else(not_found)?))
    }

    async fn allow_rejoin(
        &self,
        node: &str,
        within: Lifetime,
        reason: &str,
    ) -> Result<Value, LocalError> {
        let reason = checked_reason(reason)?;
        let now = self.joins.clock.now();
        let until = checked_end(now, within)?;
        let found = self.find(node).await?;
        let audit = |enrollment: &Enrollment| {
            let record = by_hand(now, "allow-rejoin", enrollment, reason);
            self.audit.append(&record.with("until", until.to_string()))
        };
        let id = &found.node_id;
        let allowed = self.registry.allow_rejoin(id, until, reason, now, audit).await?;
        Ok(node_record::shown(&allowed.ok_or_else(not_found)?))
    }

    async fn nodes(
        &self,
        account: Option<String>,
        policy: Option<String>,
        limit: usize,
        page: Option<&str>,
    ) -> Result<Value, LocalError> {
        let wanted = |enrollment: &Enrollment| {
            let found = enrollment.subject.segment("account_id");
            account.as_deref().is_none_or(|account| found == Some(account))
                && policy.as_deref().is_none_or(|policy| enrollment.policy == policy)
        };
        let limit = limit.clamp(1, PAGE_MAX);
        let (found, next) = self.registry.list(page, limit, wanted).await?;
        let nodes: Vec<_> = found.iter().map(node_record::listed).collect();
        Ok(json!({"nodes": nodes, "next": next}))
    }

    /// By node id, or by instance id where that is one node.
    async fn find(&self, name: &str) -> Result<Enrollment, LocalError> {
        if let Ok(id) = name.parse::<NodeId>() {
            return self.registry.find(&id).await?.ok_or_else(not_found);
        }
        let wanted = |enrollment: &Enrollment| enrollment.subject.name() == name;
        let (found, _) = self.registry.list(None, 2, wanted).await?;
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => Err(not_found()),
            (Some(_), Some(_)) => Err(LocalError::new(
                Code::NotFound,
                "several nodes have this name; give the node id that `muster nodes ls` shows",
            )),
        }
    }
}

pub(super) async fn item(replies: &Sender<Reply>, value: Value) -> Done {
    let _gone = replies.send(Reply::Item(value)).await;
    Ok(())
}

fn not_found() -> LocalError {
    LocalError::new(Code::NotFound, "there is no such node; `muster nodes ls` lists them")
}

fn by_hand(now: Timestamp, kind: &str, enrollment: &Enrollment, reason: &str) -> Record {
    let mut record = Record::new(now, Class::Security, kind, Outcome::Done);
    record.policy = Some(enrollment.policy.clone());
    record.account_id = enrollment.subject.segment("account_id").map(str::to_owned);
    record.instance_id = enrollment.subject.segment("instance_id").map(str::to_owned);
    record.node_id = Some(enrollment.node_id.clone());
    record.serial = Some(enrollment.current.order.serial);
    record.with("reason", reason)
}

pub(super) fn checked_reason(reason: &str) -> Result<&str, LocalError> {
    let is_line = !reason.trim().is_empty()
        && reason.len() <= REASON_BYTES_MAX
        && !reason.chars().any(char::is_control);
    if is_line {
        return Ok(reason);
    }
    Err(LocalError::new(Code::MalformedRequest, "a reason is one line of at most 500 bytes"))
}

fn checked_end(now: Timestamp, within: Lifetime) -> Result<Timestamp, LocalError> {
    if within.seconds() == 0 || within > REJOIN_WITHIN_MAX {
        return Err(LocalError::new(
            Code::MalformedRequest,
            "a rejoin can be allowed for 1s to 24h",
        ));
    }
    Ok(now.plus(within))
}

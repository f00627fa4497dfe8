//! Commands and replies of the local socket.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    AccountId, Code, InstanceId, Lifetime, NodeId, NodeName, Partition, PolicyName, Serial,
    Timestamp, TokenName,
};
use crate::store::StoreUnavailable;

/// A command: one JSON object on one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// A page of nodes.
    NodesLs {
        /// Of this account.
        account: Option<String>,
        /// Admitted by this policy.
        policy: Option<String>,
        /// At most so many.
        limit: usize,
        /// Where the page begins.
        page: Option<String>,
    },
    /// One node and its history.
    NodesShow {
        /// A node id or an instance id.
        node: String,
    },
    /// Forgets an enrollment but for its floor.
    NodesForget {
        /// A node id or an instance id.
        node: String,
        /// Why.
        reason: String,
    },
    /// Allows one rejoin.
    NodesAllowRejoin {
        /// A node id or an instance id.
        node: String,
        /// For how long.
        within: Lifetime,
        /// Why.
        reason: String,
    },
    /// Places a lock.
    NodesLock {
        /// What.
        target: LockWanted,
        /// For how long; until it is lifted, if none.
        within: Option<Lifetime>,
        /// Why.
        reason: String,
    },
    /// Lifts a lock.
    NodesUnlock {
        /// What.
        target: LockWanted,
        /// Why.
        reason: String,
    },
    /// The locks that stand.
    NodesLocks {},
    /// Audit records.
    AuditLs {
        /// At or after this time.
        since: Option<Timestamp>,
        /// Which.
        filter: RecordFilter,
    },
    /// The newest audit records.
    AuditTail {
        /// At most so many.
        count: usize,
        /// And every one that comes, until the connection is closed.
        follow: bool,
        /// Which.
        filter: RecordFilter,
    },
    /// Everything about one correlation id.
    AuditShow {
        /// The id.
        correlation_id: String,
    },
    /// The policy set in force.
    PolicyStatus {},
    /// Adds a join token.
    TokensAdd(TokenWanted),
    /// Every join token.
    TokensLs {},
    /// One join token.
    TokensShow {
        /// Its name.
        name: TokenName,
    },
    /// Removes a join token.
    TokensRm {
        /// Its name.
        name: TokenName,
        /// Why.
        reason: String,
    },
    /// What is doubtful about join tokens.
    TokensAudit {},
    /// Publications and how they go.
    PublicationsLs {
        /// Of this name.
        name: Option<PolicyName>,
    },
    /// Publishes new tokens now.
    PublicationsPublish {
        /// The publication.
        name: PolicyName,
        /// One of its targets; all, if none.
        target: Option<String>,
    },
    /// The authorities.
    CaStatus {},
    /// What nodes pin.
    CaPin {},
    /// Has the CA backend sign something, and compares.
    CaCheck {},
    /// What relying parties verify nodes with.
    CaExport {
        /// How it is written.
        format: BundleFormat,
    },
}

/// Which audit records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordFilter {
    /// Of this class.
    pub class: Option<String>,
    /// About this account.
    pub account: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
}

/// The form of a trust bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleFormat {
    /// Certificates between lines.
    Pem,
    /// Certificates as bytes, one after the other.
    Der,
    /// A SPIFFE trust bundle.
    Spiffe,
}

impl Command {
    /// Whether its answer ends only when somebody has enough.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self, Self::AuditTail { follow: true, .. })
    }

    /// Its name in the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NodesLs { .. } => "nodes ls",
            Self::NodesShow { .. } => "nodes show",
            Self::NodesForget { .. } => "nodes forget",
            Self::NodesAllowRejoin { .. } => "nodes allow-rejoin",
            Self::NodesLock { .. } => "nodes lock",
            Self::NodesUnlock { .. } => "nodes unlock",
            Self::NodesLocks {} => "nodes locks",
            Self::AuditLs { .. } => "audit ls",
            Self::AuditTail { .. } => "audit tail",
            Self::AuditShow { .. } => "audit show",
            Self::PolicyStatus {} => "policy status",
            Self::TokensAdd(_) => "tokens add",
            Self::TokensLs {} => "tokens ls",
            Self::TokensShow { .. } => "tokens show",
            Self::TokensRm { .. } => "tokens rm",
            Self::TokensAudit {} => "tokens audit",
            Self::PublicationsLs { .. } => "publications ls",
            Self::PublicationsPublish { .. } => "publications publish",
            Self::CaStatus {} => "ca status",
            Self::CaPin {} => "ca pin",
            Self::CaCheck {} => "ca check",
            Self::CaExport { .. } => "ca export",
        }
    }
}

/// A join token that an operator wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenWanted {
    /// Its name; one is made of the policy's, if none.
    pub name: Option<TokenName>,
    /// The policy that it is for.
    pub policy: PolicyName,
    /// How long it lives; for ever, if none.
    pub ttl: Option<Lifetime>,
    /// How many nodes may join with it; any number, if none.
    pub max_uses: Option<u32>,
    /// The node that it is for.
    pub node: Option<NodeName>,
    /// From where it may be used; from anywhere, if empty.
    pub cidrs: Vec<IpNet>,
    /// What rules can ask for.
    pub labels: BTreeMap<String, String>,
    /// For people.
    pub description: Option<String>,
}

/// What an operator locks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LockWanted {
    /// One node.
    Node(NodeId),
    /// Whatever joins from this instance.
    Instance(InstanceId),
    /// Every node of an account.
    Account {
        /// Its partition; every partition, if none.
        partition: Option<Partition>,
        /// Its number.
        account: AccountId,
    },
    /// Every node of a policy.
    Policy(PolicyName),
    /// The node that holds this certificate.
    Serial(Serial),
}

/// One line of an answer. An answer is whole when `End` or `Error` has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// A value.
    Item(Value),
    /// No more values.
    End,
    /// It did not work.
    Error(LocalError),
}

/// Why a command did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct LocalError {
    /// The code.
    pub code: Code,
    /// In words.
    pub message: String,
}

impl LocalError {
    pub(in crate::server) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<StoreUnavailable> for LocalError {
    fn from(error: StoreUnavailable) -> Self {
        Self::new(Code::StoreUnavailable, error.to_string())
    }
}

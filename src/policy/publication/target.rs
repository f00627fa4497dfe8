//! One place where tokens are written, and the names of the parameters there.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::{AccountId, Partition, PolicyName, Region, TrustDomain};

/// In the place of the trust domain, which policy files do not know. It is no character of a name.
const TRUST_DOMAIN: &str = "{trust domain}";

/// A region of an account, and how its parameters are written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationTarget {
    /// Its region.
    pub region: Region,
    /// Who writes; without one the server by its own credentials, in its own account.
    pub role: Option<TargetRole>,
    /// The KMS key that seals the token; the account's own for SSM without one.
    pub kms_key: Option<String>,
    /// Tags of the token's parameter.
    pub tags: BTreeMap<String, String>,
    /// Where the token and what is written beside it are.
    pub(super) names: NameTemplates,
}

/// A role of the account that has the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRole {
    /// The account.
    pub account: AccountId,
    /// `arn:<partition>:iam::<account>:role/<name>`.
    pub arn: String,
    /// What its trust policy asks for.
    pub external_id: Option<String>,
}

/// How parameters are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// `token`, `pin`, `server`, `policy` and `bundle` in one folder.
    Muster,
    /// As boot scripts of Teleport's nodes read them.
    Teleport {
        /// The name of the cluster.
        cluster: String,
        /// The role of the nodes.
        role: String,
    },
}

/// The parameters of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterNames {
    /// The token.
    pub token: String,
    /// What nodes pin.
    pub pin: String,
    /// The address of the server.
    pub server: Option<String>,
    /// The name of the policy.
    pub policy: Option<String>,
    /// The trust anchors of the node CA.
    pub bundle: Option<String>,
}

/// The same before the trust domain is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameTemplates(ParameterNames);

impl NameTemplates {
    /// The names of a layout. `path` is the token's, where it is written.
    pub(super) fn new(layout: &Layout, policy: &PolicyName, path: Option<&str>) -> Self {
        Self(match layout {
            Layout::Teleport { cluster, role } => ParameterNames {
                token: format!("/teleport/{cluster}/tokens/{role}"),
                pin: format!("/teleport/{cluster}/ca-pin-hash"),
                server: None,
                policy: None,
                bundle: None,
            },
            Layout::Muster => {
                let default = format!("/muster/{TRUST_DOMAIN}/{policy}/token");
                let token = path.map_or(default, ToOwned::to_owned);
                let folder = token.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                let beside = |name: &str| format!("{folder}/{name}");
                ParameterNames {
                    token,
                    pin: beside("pin"),
                    server: Some(beside("server")),
                    policy: Some(beside("policy")),
                    bundle: Some(beside("bundle")),
                }
            }
        })
    }

    /// Whether both would write one parameter with different values. Pin, server and bundle are the
    /// same wherever they are written.
    fn meets(&self, other: &Self) -> bool {
        let own = |names: &ParameterNames| [Some(names.token.clone()), names.policy.clone()];
        let all = |names: &ParameterNames| {
            let ParameterNames { token, pin, server, policy, bundle } = names.clone();
            [Some(token), Some(pin), server, policy, bundle]
        };
        let is_in = |few: &ParameterNames, many: &ParameterNames| {
            own(few).iter().flatten().any(|name| all(many).iter().flatten().any(|at| at == name))
        };
        is_in(&self.0, &other.0) || is_in(&other.0, &self.0)
    }
}

impl PublicationTarget {
    /// The partition of its region.
    pub fn partition(&self) -> Partition {
        Partition::of_region(&self.region)
    }

    /// The parameters of this target in this trust domain.
    pub fn names(&self, trust_domain: &TrustDomain) -> ParameterNames {
        let put = |name: &String| name.replace(TRUST_DOMAIN, &trust_domain.to_string());
        let ParameterNames { token, pin, server, policy, bundle } = &self.names.0;
        ParameterNames {
            token: put(token),
            pin: put(pin),
            server: server.as_ref().map(put),
            policy: policy.as_ref().map(put),
            bundle: bundle.as_ref().map(put),
        }
    }

    /// Whether both are in one region of one account.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        let account = |target: &Self| target.role.as_ref().map(|role| role.account.clone());
        self.region == other.region && account(self) == account(other)
    }

    /// Whether both would write one parameter.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.is_beside(other) && self.names.meets(&other.names)
    }
}

/// `aws/us-west-2/111122223333`, or `aws/us-west-2/own`.
impl fmt::Display for PublicationTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.partition(), self.region)?;
        match &self.role {
            Some(role) => write!(f, "{}", role.account),
            None => f.write_str("own"),
        }
    }
}

impl ParameterNames {
    /// All of them.
    pub fn all(&self) -> Vec<String> {
        let Self { token, pin, server, policy, bundle } = self.clone();
        [Some(token), Some(pin), server, policy, bundle].into_iter().flatten().collect()
    }
}

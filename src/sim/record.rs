//! What EC2 knows of an instance beyond its identity document.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::domain::Timestamp;

/// What `DescribeInstances` says of an instance beside what its document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRecord {
    /// Whether it runs.
    pub state: InstanceState,
    /// The name of its instance profile.
    pub instance_profile: Option<String>,
    /// The tags that its owner set.
    pub tags: BTreeMap<String, String>,
    /// The Auto Scaling group that started it, which AWS tells by a tag of its own.
    pub auto_scaling_group: Option<String>,
    /// Its network.
    pub vpc: String,
    /// Its part of the network.
    pub subnet: String,
    /// The ids of its security groups.
    pub security_groups: Vec<String>,
    /// Whether its metadata service insists on session tokens.
    pub v2_only: bool,
    /// For how long after its start EC2 does not know it yet.
    pub visible_after: Duration,
    /// When EC2 says it was started; its pending time if nothing stands here.
    pub launch_time: Option<Timestamp>,
}

impl Default for InstanceRecord {
    fn default() -> Self {
        Self {
            state: InstanceState::Running,
            instance_profile: None,
            tags: BTreeMap::new(),
            auto_scaling_group: None,
            vpc: "vpc-0123456789abcdef0".to_owned(),
            subnet: "subnet-0123456789abcdef0".to_owned(),
            security_groups: vec!["sg-0123456789abcdef0".to_owned()],
            v2_only: true,
            visible_after: Duration::ZERO,
            launch_time: None,
        }
    }
}

/// The life of an instance, in AWS's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It is being started.
    Pending,
    /// It runs.
    #[default]
    Running,
    /// It is being stopped.
    Stopping,
    /// It can be started again.
    Stopped,
    /// It is being removed.
    ShuttingDown,
    /// It is gone for good, and shown for a while.
    Terminated,
}

impl InstanceState {
    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// The number (EC2 API reference, `InstanceState`).
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }
}

//! One group of alike instances in a scenario.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserialize;

use super::settings::{Span, is_made_of};
use crate::domain::{AccountId, InstanceId, Region, Timestamp};
use crate::sim::{InstanceRecord, InstanceState, SimulatedInstance};

/// What the keys mean stands at [`super::Scenario`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    account: AccountId,
    region: Region,
    #[serde(default = "one")]
    pub(super) count: usize,
    #[serde(default = "default_image")]
    image: String,
    #[serde(default = "default_type")]
    instance_type: String,
    pub(super) id: Option<InstanceId>,
    pending_time: Option<Timestamp>,
    #[serde(default = "default_hop_limit")]
    hop_limit: u32,
    #[serde(default)]
    state: InstanceState,
    instance_profile: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(rename = "auto_scaling_group")]
    scaled_by: Option<String>,
    vpc: Option<String>,
    subnet: Option<String>,
    security_groups: Option<Vec<String>>,
    #[serde(default = "yes")]
    v2_only: bool,
    #[serde(default)]
    visible_after: Span,
    launch_time: Option<Timestamp>,
    document_of: Option<InstanceId>,
    #[serde(default = "yes")]
    identity_role: bool,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn default_image() -> String {
    "ami-0123456789abcdef0".to_owned()
}

fn default_type() -> String {
    "t3.micro".to_owned()
}

fn default_hop_limit() -> u32 {
    1
}

impl Group {
    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        if self.id.is_some() && self.count != 1 {
            return Some("a group with `id` has one instance, so no other `count`".to_owned());
        }
        let plain = [&self.image, &self.instance_type].into_iter();
        let plain = plain.chain(&self.vpc).chain(&self.subnet);
        let mut plain = plain.chain(self.security_groups.iter().flatten());
        let mut names = self.instance_profile.iter().chain(&self.scaled_by);
        let wrong = plain
            .find(|name| !is_made_of(name, "-_."))
            .or_else(|| names.find(|name| name.is_empty() || !is_made_of(name, "+=,.@_-")));
        if let Some(name) = wrong {
            return Some(format!("`{name}` is not a name"));
        }
        tag_problem(&self.tags)
    }

    /// The instance with this number.
    pub(super) fn instance(&self, number: u32, now: Timestamp) -> SimulatedInstance {
        let made_up = InstanceRecord::default();
        SimulatedInstance {
            account_id: self.account.clone(),
            region: self.region.clone(),
            instance_id: self.id.clone().unwrap_or_else(|| self.made_up_id(number)),
            image_id: self.image.clone(),
            instance_type: self.instance_type.clone(),
            private_ip: Ipv4Addr::from_bits(0x0a00_0010 + number),
            pending_time: self.pending_time.unwrap_or(now),
            hop_limit: self.hop_limit,
            document_of: self.document_of.clone(),
            has_identity_role: self.identity_role,
            record: InstanceRecord {
                state: self.state,
                instance_profile: self.instance_profile.clone(),
                tags: self.tags.clone(),
                auto_scaling_group: self.scaled_by.clone(),
                vpc: self.vpc.clone().unwrap_or(made_up.vpc),
                subnet: self.subnet.clone().unwrap_or(made_up.subnet),
                security_groups: self.security_groups.clone().unwrap_or(made_up.security_groups),
                v2_only: self.v2_only,
                visible_after: self.visible_after.0,
                launch_time: self.launch_time,
            },
        }
    }

    fn made_up_id(&self, number: u32) -> InstanceId {
        let mut hash = Context::new(&SHA256);
        hash.update(self.account.as_str().as_bytes());
        hash.update(self.region.as_str().as_bytes());
        hash.update(&number.to_be_bytes());
        let digits: String = hex::encode(hash.finish()).chars().take(17).collect();
        #[expect(clippy::expect_used, reason = "17 hexadecimal digits, two lines above")]
        format!("i-{digits}").parse().expect("an instance id")
    }
}

/// What keeps AWS from taking these tags: their number, their lengths, and a prefix that only AWS
/// may use.
pub(in crate::sim) fn tag_problem(tags: &BTreeMap<String, String>) -> Option<String> {
    if tags.len() > 50 {
        return Some("an instance has at most 50 tags".to_owned());
    }
    tags.iter().find_map(|(key, value)| {
        let text =
            |text: &str, most| text.chars().count() <= most && !text.chars().any(char::is_control);
        if key.starts_with("aws:") {
            return Some(format!(
                "the tag `{key}` is for AWS to set; `auto_scaling_group` sets one"
            ));
        }
        (key.is_empty() || !text(key, 128) || !text(value, 256))
            .then(|| format!("the tag `{}` is not one that AWS takes", key.escape_debug()))
    })
}

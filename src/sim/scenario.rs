//! Which instances a simulation has: a strict TOML file.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserialize;

use super::SimulatedInstance;
use crate::domain::{AccountId, InstanceId, Region, Timestamp};

/// The most instances of one simulation.
const MAX_INSTANCES: usize = 100_000;
/// Without a scenario: two accounts, three instances.
const DEFAULT: &str = r#"
[[instances]]
account = "111122223333"
region = "us-west-2"
count = 2

[[instances]]
account = "444455556666"
region = "eu-central-1"
"#;

/// A scenario that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidScenario {
    /// Not the TOML of a scenario.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// Too many instances, or two of one id.
    #[error("{0}")]
    Instances(String),
}

/// The instances of a simulation.
///
/// ```toml
/// [[instances]]
/// account = "111122223333"
/// region = "us-west-2"
/// count = 100                             # 1 unless given
/// image = "ami-0123456789abcdef0"
/// instance_type = "t3.micro"
/// pending_time = "2026-01-02T03:04:05Z"   # now unless given
/// hop_limit = 1                           # 0: the metadata service never answers
///
/// [[instances]]
/// account = "444455556666"
/// region = "eu-central-1"
/// id = "i-0123456789abcdef0"              # made up unless given
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    instances: Vec<Group>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    account: AccountId,
    region: Region,
    #[serde(default = "one")]
    count: usize,
    #[serde(default = "default_image")]
    image: String,
    #[serde(default = "default_type")]
    instance_type: String,
    id: Option<InstanceId>,
    pending_time: Option<Timestamp>,
    #[serde(default = "default_hop_limit")]
    hop_limit: u32,
}

fn one() -> usize {
    1
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

impl Default for Scenario {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a constant; a test reads it")]
        Self::parse(DEFAULT).expect("the default scenario is valid")
    }
}

impl Scenario {
    /// Reads a scenario.
    pub fn parse(text: &str) -> Result<Self, InvalidScenario> {
        let scenario: Self = toml::from_str(text)?;
        let mut count = 0_usize;
        let mut ids = BTreeSet::new();
        for group in &scenario.instances {
            count = count.saturating_add(group.count);
            if group.id.is_some() && group.count != 1 {
                let reason = "a group with `id` has one instance, so no other `count`";
                return Err(InvalidScenario::Instances(reason.to_owned()));
            }
            for name in [&group.image, &group.instance_type] {
                if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                    let reason = format!("`{name}` is not a name");
                    return Err(InvalidScenario::Instances(reason));
                }
            }
            if let Some(id) = group.id.as_ref().filter(|id| !ids.insert((*id).clone())) {
                return Err(InvalidScenario::Instances(format!("`{id}` stands twice")));
            }
        }
        if count == 0 || count > MAX_INSTANCES {
            let reason = format!("expected 1 to {MAX_INSTANCES} instances, found {count}");
            return Err(InvalidScenario::Instances(reason));
        }
        Ok(scenario)
    }

    /// The instances; the same scenario always has the same ids and addresses.
    pub(super) fn instances(&self, now: Timestamp) -> Vec<SimulatedInstance> {
        let groups =
            self.instances.iter().flat_map(|group| std::iter::repeat_n(group, group.count));
        groups
            .zip(0_u32..)
            .map(|(group, number)| SimulatedInstance {
                account_id: group.account.clone(),
                region: group.region.clone(),
                instance_id: group.id.clone().unwrap_or_else(|| made_up_id(group, number)),
                image_id: group.image.clone(),
                instance_type: group.instance_type.clone(),
                private_ip: Ipv4Addr::from_bits(0x0a00_0010 + number),
                pending_time: group.pending_time.unwrap_or(now),
                hop_limit: group.hop_limit,
            })
            .collect()
    }
}

fn made_up_id(group: &Group, number: u32) -> InstanceId {
    let mut hash = Context::new(&SHA256);
    hash.update(group.account.as_str().as_bytes());
    hash.update(group.region.as_str().as_bytes());
    hash.update(&number.to_be_bytes());
    let digits: String = hex::encode(hash.finish()).chars().take(17).collect();
    #[expect(clippy::expect_used, reason = "17 hexadecimal digits, two lines above")]
    format!("i-{digits}").parse().expect("an instance id")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    #[test]
    fn the_default_is_three_instances_in_two_accounts() {
        let instances = Scenario::default().instances(NOW);
        let accounts: BTreeSet<_> = instances.iter().map(|i| i.account_id.as_str()).collect();
        let ids: BTreeSet<_> = instances.iter().map(|i| i.instance_id.as_str()).collect();
        assert_eq!((instances.len(), accounts.len(), ids.len()), (3, 2, 3));
    }

    #[test]
    fn thousands_of_instances_have_ids_and_addresses_of_their_own() {
        let text =
            "[[instances]]\naccount = \"111122223333\"\nregion = \"us-west-2\"\ncount = 5000";
        let instances = Scenario::parse(text).unwrap().instances(NOW);
        let ids: BTreeSet<_> = instances.iter().map(|i| i.instance_id.as_str()).collect();
        let addresses: BTreeSet<_> = instances.iter().map(|i| i.private_ip).collect();
        assert_eq!((ids.len(), addresses.len()), (5000, 5000));
    }

    #[test]
    fn a_scenario_is_strict() {
        let with = |line: &str| {
            let base = "[[instances]]\naccount = \"111122223333\"\nregion = \"us-west-2\"\n";
            Scenario::parse(&format!("{base}{line}"))
        };
        assert!(with("").is_ok());
        assert!(with("id = \"i-0123456789abcdef0\"").is_ok());
        for wrong in [
            "colour = \"red\"",
            "count = 0",
            "count = 100001",
            "hop_limit = -1",
            "pending_time = \"yesterday\"",
            "image = \"ami \\\" , \"",
            "id = \"i-x\"",
            "id = \"i-0123456789abcdef0\"\ncount = 2",
            "id = \"i-0123abcd\"\n[[instances]]\naccount = \"111122223333\"\nregion = \"us-west-2\"\nid = \"i-0123abcd\"",
        ] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(Scenario::parse("").is_err());
    }
}

//! What a simulation has, instances above all: a strict TOML file.

mod group;
mod settings;

use std::collections::BTreeSet;

use serde::Deserialize;

pub(super) use group::tag_problem;
pub(super) use settings::{Latency, Limit, LimitSettings, Role, Settings, Span, is_made_of};

use super::SimulatedInstance;
use crate::domain::Timestamp;
use group::Group;
use settings::Server;

/// The most instances of one simulation.
const MAX_INSTANCES: usize = 100_000;
/// Without a scenario: two accounts, three instances.
const DEFAULT: &str = r#"
[server]
account = "111122223333"

[[instances]]
account = "111122223333"
region = "us-west-2"
count = 2
instance_profile = "web-example"
tags = {Name = "web", Tier = "web"}

[[instances]]
account = "444455556666"
region = "eu-central-1"
instance_profile = "worker"
tags = {Name = "worker", Tier = "batch"}

[[roles]]
account = "111122223333"
name = "muster-verifier"
external_id = "muster-example"

[[roles]]
account = "444455556666"
name = "muster-verifier"
external_id = "muster-example"
"#;

/// A scenario that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidScenario {
    /// Not the TOML of a scenario.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// Too many instances, two of one id, or a name that AWS would not take.
    #[error("{0}")]
    Content(String),
}

/// The instances of a simulation, and the cloud around them.
///
/// Only `account` and `region` of instances, and `account` and `name` of roles, must be given.
/// Spans are whole numbers with `ms`, `s`, `m` or `h`.
///
/// ```
/// # muster::sim::Scenario::parse(r#"
/// session_life = "1h"                     # cuts the sessions of roles short
///
/// [server]
/// account = "111122223333"                # whose user the server is; this one unless given
///
/// [limits]                                # for each account and region; AWS's unless given
/// sts = {bucket = 600, refill = 600}
/// ec2 = {bucket = 100, refill = 20}
///
/// [latency]                               # none unless given
/// sts = "20ms"
/// ec2 = "150ms"
///
/// [[instances]]
/// account = "111122223333"
/// region = "us-west-2"
/// count = 100                             # 1 unless given
/// image = "ami-0123456789abcdef0"
/// instance_type = "t3.micro"
/// pending_time = "2026-01-02T03:04:05Z"   # now unless given
/// hop_limit = 1                           # 0: the metadata service never answers
/// v2_only = true
/// state = "running"                       # pending, stopping, stopped, shutting-down, terminated
/// launch_time = "2026-01-02T03:04:05Z"    # pending_time unless given
/// visible_after = "30s"                   # EC2 knows it that long after its start; 0s unless given
/// instance_profile = "web"                # none unless given
/// auto_scaling_group = "web"              # none unless given
/// tags = {Name = "web"}
/// vpc = "vpc-0123456789abcdef0"
/// subnet = "subnet-0123456789abcdef0"
/// security_groups = ["sg-0123456789abcdef0"]
/// identity_role = true                    # false: no credentials, so no fresh proof
/// # document_of = "i-0123456789abcdef0"   # shows a copy of that instance's document: a thief
///
/// [[instances]]
/// account = "444455556666"
/// region = "eu-central-1"
/// id = "i-0123456789abcdef0"              # made up unless given
///
/// [[roles]]
/// account = "444455556666"
/// name = "muster-verifier"
/// external_id = "muster-example"          # unless given, any will do
/// trusted = ["111122223333"]              # the server's account unless given
/// # "#).unwrap();
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    instances: Vec<Group>,
    #[serde(default)]
    server: Server,
    #[serde(default)]
    roles: Vec<Role>,
    session_life: Option<Span>,
    #[serde(default)]
    limits: LimitSettings,
    #[serde(default)]
    latency: Latency,
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
            if let Some(reason) = group.problem() {
                return Err(InvalidScenario::Content(reason));
            }
            if let Some(id) = group.id.as_ref().filter(|id| !ids.insert((*id).clone())) {
                return Err(InvalidScenario::Content(format!("`{id}` stands twice")));
            }
        }
        let mut roles = BTreeSet::new();
        for role in &scenario.roles {
            if let Some(reason) = role.problem() {
                return Err(InvalidScenario::Content(reason));
            }
            if !roles.insert((&role.account, &role.name)) {
                let reason = format!("the role `{}` of {} stands twice", role.name, role.account);
                return Err(InvalidScenario::Content(reason));
            }
        }
        if count == 0 || count > MAX_INSTANCES {
            let reason = format!("expected 1 to {MAX_INSTANCES} instances, found {count}");
            return Err(InvalidScenario::Content(reason));
        }
        Ok(scenario)
    }

    /// The instances; the same scenario always has the same ids and addresses.
    pub(super) fn instances(&self, now: Timestamp) -> Vec<SimulatedInstance> {
        let groups =
            self.instances.iter().flat_map(|group| std::iter::repeat_n(group, group.count));
        groups.zip(0_u32..).map(|(group, number)| group.instance(number, now)).collect()
    }

    /// Everything else.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            server_account: self.server.account.clone(),
            roles: self.roles.clone(),
            session_life: self.session_life.map(|span| span.0),
            limits: self.limits.clone(),
            latency: self.latency.clone(),
        }
    }
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
            "state = \"asleep\"",
            "instance_profile = \"a/b\"",
            "vpc = \"<vpc>\"",
            "visible_after = 30",
            "tags = {\"aws:autoscaling:groupName\" = \"web\"}",
            "[server]\naccount = \"1\"",
            "[limits]\nec2 = {bucket = 1}",
            "[latency]\niam = \"1s\"",
            "[[roles]]\naccount = \"111122223333\"\nname = \"a:b\"",
            "[[roles]]\naccount = \"111122223333\"\nname = \"a\"\nexternal_id = \"x\"",
            "[[roles]]\naccount = \"111122223333\"\nname = \"a\"\n[[roles]]\naccount = \"111122223333\"\nname = \"a\"",
            "id = \"i-0123abcd\"\n[[instances]]\naccount = \"111122223333\"\nregion = \"us-west-2\"\nid = \"i-0123abcd\"",
        ] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(Scenario::parse("").is_err());
    }
}

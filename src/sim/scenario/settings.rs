//! What a scenario says beside its instances: roles, the server's account, limits, latencies.

use std::time::Duration;

use serde::Deserialize;

use crate::domain::{AccountId, Lifetime};
use crate::sim::Service;

/// The server's account unless the scenario names one: that of the examples.
const SERVER_ACCOUNT: &str = "111122223333";

/// A span as scenarios and faults write it: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl TryFrom<String> for Span {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const EXPECTED: &str = "expected a whole number and ms, s, m or h, such as 250ms or 6h";
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(EXPECTED)?;
        // Nine digits of any unit fit a Duration.
        if number.len() > 9 {
            return Err(EXPECTED);
        }
        let number: u64 = number.parse().map_err(|_| EXPECTED)?;
        match unit {
            "ms" => Ok(Self(Duration::from_millis(number))),
            "s" => Ok(Self(Duration::from_secs(number))),
            "m" => Ok(Self(Duration::from_secs(number * 60))),
            "h" => Ok(Self(Duration::from_secs(number * 3600))),
            _ => Err(EXPECTED),
        }
    }
}

impl Span {
    /// In whole seconds, rounded up: the simulator's clock has no parts of a second.
    pub(in crate::sim) fn in_seconds(duration: Duration) -> Lifetime {
        let seconds = duration.as_millis().div_ceil(1000);
        Lifetime::from_seconds(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

/// Everything of a scenario but its instances.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Settings {
    pub(in crate::sim) server_account: AccountId,
    pub(in crate::sim) roles: Vec<Role>,
    pub(in crate::sim) session_life: Option<Duration>,
    pub(in crate::sim) limits: LimitSettings,
    pub(in crate::sim) latency: Latency,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    #[serde(default = "server_account")]
    pub(super) account: AccountId,
}

impl Default for Server {
    fn default() -> Self {
        Self { account: server_account() }
    }
}

fn server_account() -> AccountId {
    #[expect(clippy::expect_used, reason = "a constant of this file")]
    SERVER_ACCOUNT.parse().expect("twelve digits")
}

/// A role that can be assumed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::sim) struct Role {
    pub(in crate::sim) account: AccountId,
    pub(in crate::sim) name: String,
    pub(in crate::sim) external_id: Option<String>,
    /// The server's account unless given.
    pub(in crate::sim) trusted: Option<Vec<AccountId>>,
}

impl Role {
    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { name, external_id, .. } = self;
        // IAM's alphabets: names up to 64 characters, external ids 2 to 1224.
        if name.is_empty() || name.len() > 64 || !is_made_of(name, "+=,.@_-") {
            return Some(format!("`{name}` is not the name of a role"));
        }
        let external_id = external_id.as_ref()?;
        let fits = (2..=1224).contains(&external_id.len()) && is_made_of(external_id, "+=,.@:/_-");
        (!fits).then(|| format!("`{external_id}` is not an external id"))
    }
}

/// Only ASCII letters, digits and these.
pub(in crate::sim) fn is_made_of(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// How many requests a service takes of one account in one region.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::sim) struct Limit {
    /// At once.
    pub(in crate::sim) bucket: u32,
    /// A second, from then on.
    pub(in crate::sim) refill: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::sim) struct LimitSettings {
    pub(in crate::sim) sts: Limit,
    pub(in crate::sim) ec2: Limit,
    pub(in crate::sim) ssm: Limit,
}

impl Default for LimitSettings {
    /// AWS's defaults: 600 a second for STS; 100 and 20 a second for `DescribeInstances`; 40 a second
    /// for reading parameters.
    fn default() -> Self {
        Self {
            sts: Limit { bucket: 600, refill: 600 },
            ec2: Limit { bucket: 100, refill: 20 },
            ssm: Limit { bucket: 40, refill: 40 },
        }
    }
}

/// How long a service thinks before it answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::sim) struct Latency {
    pub(in crate::sim) sts: Span,
    pub(in crate::sim) ec2: Span,
    pub(in crate::sim) ssm: Span,
}

impl Latency {
    pub(in crate::sim) fn of(&self, service: Service) -> Duration {
        match service {
            Service::Sts => self.sts.0,
            Service::Ec2 => self.ec2.0,
            Service::Ssm => self.ssm.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_whole_number_and_a_unit() {
        let span = |text: &str| Span::try_from(text.to_owned()).map(|span| span.0);
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("6h"), Ok(Duration::from_hours(6)));
        for wrong in ["", "5", "ms", "1.5s", "-1s", "1 s", "1d", "9999999999s", "1sm", "١s"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Span::in_seconds(Duration::from_millis(1001)), Lifetime::from_seconds(2));
    }
}

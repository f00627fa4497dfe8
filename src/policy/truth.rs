//! Three-valued logic: false, unknown, true. What was not read is unknown, never false and never
//! true (I11), and a hint can only refuse (I3).

use std::net::IpAddr;

use super::rule::{Accounts, Condition, Effect, Rule, TagTest, Test};
use crate::domain::{AccountId, Partition, Timestamp};
use crate::methods::{Claim, ClaimValues, Instance, Provenance, Source, Value};

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    False,
    Unknown,
    True,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What is known of a node when a rule is held against it.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'v> {
    pub(super) claims: &'v ClaimValues,
    /// Nothing before facts were gathered.
    pub(super) instance: Option<&'v Instance>,
    /// How old things are is no matter: the node has joined before, or somebody has waived it.
    pub(super) age_waived: bool,
    pub(super) now: Timestamp,
}

impl Rule {
    /// Whether the rule matches: all its conditions hold and it has not expired.
    pub(super) fn matches(&self, effect: Effect, view: &View<'_>) -> Truth {
        // A rule without conditions cannot be written; if there were one, it would match nothing.
        if self.has_expired(view.now) || self.conditions.is_empty() {
            return Truth::False;
        }
        let mut truth = Truth::True;
        for condition in &self.conditions {
            match condition.holds(effect, view) {
                Truth::False => return Truth::False,
                Truth::Unknown => truth = Truth::Unknown,
                Truth::True => {}
            }
        }
        truth
    }
}

impl Condition {
    /// Whether the condition holds for this node.
    pub(super) fn holds(&self, effect: Effect, view: &View<'_>) -> Truth {
        match (&self.test, self.field.source) {
            (Test::Any, _) => Truth::True,
            (Test::Accounts(accounts), Source::Claim) => {
                let partition = view.claims.get("partition");
                let account = view.claims.get(self.field.reads);
                let (Some(partition), Some(account)) = (partition, account) else {
                    return absent_claim(effect);
                };
                let truth = accounts_hold(accounts, &partition.value, &account.value);
                trust(trust(truth, account, effect), partition, effect)
            }
            (test, Source::Claim) => match view.claims.get(self.field.reads) {
                Some(claim) => trust(test.holds(&claim.value, view.now), claim, effect),
                None => absent_claim(effect),
            },
            (test, Source::Instance) => match view.instance {
                None | Some(Instance::NotRead(_) | Instance::Refuted(_)) => Truth::Unknown,
                Some(Instance::Known(facts)) => match facts.get(self.field.reads) {
                    // Ages are about who may join; a node that has joined grows older. A prohibition
                    // is waived by nothing.
                    Some(Some(Value::Time(_)))
                        if matches!(test, Test::Age(_))
                            && effect == Effect::Allow
                            && view.age_waived =>
                    {
                        Truth::True
                    }
                    Some(Some(value)) => test.holds(value, view.now),
                    Some(None) => test.holds_for_absent_fact(),
                    None => Truth::Unknown,
                },
            },
        }
    }

    /// Whether this reads a fact of the instance that was not read.
    pub(super) fn is_unread(&self, view: &View<'_>) -> bool {
        self.field.source == Source::Instance
            && !matches!(view.instance,
                Some(Instance::Known(facts)) if facts.contains_key(self.field.reads))
    }
}

/// Evidence that does not say something admits nobody, and rules out no prohibition.
const fn absent_claim(effect: Effect) -> Truth {
    match effect {
        Effect::Allow => Truth::False,
        Effect::Deny => Truth::Unknown,
    }
}

/// A hint may make a rule refuse, and never makes it admit.
const fn trust(truth: Truth, claim: &Claim, effect: Effect) -> Truth {
    match (claim.provenance, effect, truth) {
        (Provenance::Hinted, Effect::Allow, Truth::True)
        | (Provenance::Hinted, Effect::Deny, Truth::False) => Truth::Unknown,
        _ => truth,
    }
}

fn accounts_hold(accounts: &Accounts, partition: &Value, account: &Value) -> Truth {
    let (Value::Text(partition), Value::Text(account)) = (partition, account) else {
        return Truth::Unknown;
    };
    let (Ok(partition), Ok(account)) =
        (partition.parse::<Partition>(), account.parse::<AccountId>())
    else {
        return Truth::False;
    };
    Truth::from(partition == accounts.partition && accounts.contains(&account))
}

impl Test {
    /// Whether a value passes. A value of a kind that the test cannot judge is unknown.
    fn holds(&self, value: &Value, now: Timestamp) -> Truth {
        match (self, value) {
            (Self::Any, _) => Truth::True,
            (Self::Partition(partition), Value::Text(text)) => {
                Truth::from(partition.as_str() == text)
            }
            (Self::OneOf(allowed), Value::Text(text)) => Truth::from(allowed.contains(text)),
            (Self::OneOf(allowed), Value::List(texts)) => {
                Truth::from(texts.iter().any(|text| allowed.contains(text)))
            }
            (Self::Globs(globs), Value::Text(text)) => {
                Truth::from(globs.iter().any(|glob| glob.matches(text)))
            }
            (Self::Globs(globs), Value::List(texts)) => {
                Truth::from(texts.iter().any(|text| globs.iter().any(|glob| glob.matches(text))))
            }
            (Self::Tags(tests), Value::Tags(tags)) => Truth::from(
                tests.iter().all(|(name, test)| test.holds(tags.get(name).map(String::as_str))),
            ),
            (Self::Age(age), Value::Time(time)) => Truth::from(now.since(*time) <= *age),
            (Self::Span(most), Value::Span(span)) => Truth::from(span <= most),
            (Self::Count(most), Value::Number(number)) => Truth::from(number <= most),
            (Self::Networks(networks), Value::Text(text)) => match text.parse::<IpAddr>() {
                Ok(address) => Truth::from(networks.iter().any(|one| one.contains(&address))),
                Err(_) => Truth::Unknown,
            },
            (
                Self::MetadataOptions { v2_only, max_hop_limit },
                Value::MetadataOptions { v2_only: is_v2_only, hop_limit },
            ) => Truth::from(
                v2_only.is_none_or(|wanted| wanted == *is_v2_only)
                    && max_hop_limit.is_none_or(|limit| *hop_limit <= limit),
            ),
            (
                Self::Accounts(_)
                | Self::Partition(_)
                | Self::OneOf(_)
                | Self::Globs(_)
                | Self::Tags(_)
                | Self::Age(_)
                | Self::Span(_)
                | Self::Count(_)
                | Self::Networks(_)
                | Self::MetadataOptions { .. },
                _,
            ) => Truth::Unknown,
        }
    }

    /// The instance was read and does not have this: no name matches, and a tag is absent.
    fn holds_for_absent_fact(&self) -> Truth {
        match self {
            Self::Tags(tests) => Truth::from(tests.iter().all(|(_, test)| test.holds(None))),
            Self::Any
            | Self::Accounts(_)
            | Self::Partition(_)
            | Self::OneOf(_)
            | Self::Globs(_)
            | Self::Age(_)
            | Self::Span(_)
            | Self::Count(_)
            | Self::Networks(_)
            | Self::MetadataOptions { .. } => Truth::False,
        }
    }
}

impl TagTest {
    /// Whether a tag's value, or its absence, passes.
    pub(super) fn holds(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::Present, value) => value.is_some(),
            (Self::Absent, value) => value.is_none(),
            (Self::OneOf(_), None) => false,
            (Self::OneOf(allowed), Some(value)) => allowed.contains(value),
        }
    }
}

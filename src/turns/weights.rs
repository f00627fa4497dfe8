//! What a network has shown lately, as a weight. It moves shares under pressure and nothing else: a
//! network that is alone has everything, whatever it weighs.

use std::time::Duration;

use moka::sync::Cache;

use crate::clock::Stopwatch;
use crate::domain::Network;

/// A share, from a sixteenth to the whole. Never nothing: behind the worst address there may be an
/// honest node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    const PARTS: u32 = 1024;
    /// Of a network that lately showed nothing but nodes that were admitted.
    pub const FULL: Self = Self(Self::PARTS);
    /// Of one that showed nothing but garbage.
    pub const LEAST: Self = Self(Self::PARTS / 16);
    /// Of one that nobody knows.
    pub const UNKNOWN: Self = Self(Self::PARTS / 4);

    /// What `amount` counts for somebody of this weight: the lighter, the more.
    pub(super) fn stretch(self, amount: u64) -> u64 {
        amount.saturating_mul(u64::from(Self::PARTS) * 16) / u64::from(self.0)
    }

    pub(super) fn parts(self) -> u64 {
        u64::from(self.0)
    }

    /// In a word.
    pub(super) const fn standing(self) -> Standing {
        match self.0 {
            parts if parts < Self::UNKNOWN.0 / 2 => Standing::Distrusted,
            parts if parts <= Self::UNKNOWN.0 * 2 => Standing::Unknown,
            _ => Standing::Trusted,
        }
    }
}

/// What a weight says of a network, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Lately most of it was worthless.
    Distrusted,
    /// Nobody knows, or there is good and bad.
    Unknown,
    /// Lately most of it was admitted.
    Trusted,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Distrusted, Self::Unknown, Self::Trusted];

    /// The label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Distrusted => "distrusted",
            Self::Unknown => "unknown",
            Self::Trusted => "trusted",
        }
    }
}

/// What somebody showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Showing {
    /// A node was admitted, or renewed its certificate.
    Admitted,
    /// Work for nothing: evidence that does not hold, a handshake that was not finished, a
    /// connection without a question.
    Worthless,
}

/// How much one showing moves: a network is judged by its last ten or so.
const STEP: f64 = 0.125;
/// After so long half of a reputation is forgotten: addresses change hands, and a gateway recovers.
const HALF_LIFE: Duration = Duration::from_mins(1);
/// How many networks are remembered. More than that are unknown; and those that are asked for often
/// are kept, so that a crowd with many addresses does not push out whoever is known.
const REMEMBERED: u64 = 16_384;

/// Between -1, nothing but worthless things, and 1, nothing but admissions.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reputation {
    value: f64,
    at: Duration,
}

impl Reputation {
    const fn unknown(at: Duration) -> Self {
        Self { value: 0.0, at }
    }

    fn at(self, now: Duration) -> Self {
        let age = now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        Self { value: self.value * (-age).exp2(), at: now }
    }

    fn after(self, showing: Showing, now: Duration) -> Self {
        let Self { value, at } = self.at(now);
        let target = match showing {
            Showing::Admitted => 1.0,
            Showing::Worthless => -1.0,
        };
        Self { value: value + (target - value) * STEP, at }
    }

    /// A sixteenth at -1, a quarter at 0, the whole at 1.
    fn weight(self) -> Weight {
        let parts = f64::from(Weight::PARTS) * 4_f64.powf(self.value - 1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "64 to 1024, and clamped to it"
        )]
        let parts = parts.round() as u32;
        Weight(parts.clamp(Weight::LEAST.0, Weight::FULL.0))
    }
}

/// Reputations of networks.
pub(super) struct Weights {
    reputations: Cache<Network, Reputation>,
    watch: Stopwatch,
}

impl Default for Weights {
    fn default() -> Self {
        Self { reputations: Cache::new(REMEMBERED), watch: Stopwatch::start() }
    }
}

impl Weights {
    pub(super) fn of(&self, network: Network) -> Weight {
        let reputation = self.reputations.get(&network);
        reputation
            .map_or(Weight::UNKNOWN, |reputation| reputation.at(self.watch.elapsed()).weight())
    }

    pub(super) fn note(&self, network: Network, showing: Showing) {
        let now = self.watch.elapsed();
        self.reputations.entry(network).and_upsert_with(|known| {
            let before = known.map_or(Reputation::unknown(now), moka::Entry::into_value);
            before.after(showing, now)
        });
    }

    /// How many networks of this standing are known.
    pub(super) fn networks(&self, standing: Standing) -> u64 {
        let now = self.watch.elapsed();
        let all = self.reputations.iter();
        let such = all.filter(|(_, found)| found.at(now).weight().standing() == standing);
        u64::try_from(such.count()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn shown(showings: impl IntoIterator<Item = Showing>) -> Reputation {
        let begin = Reputation::unknown(START);
        showings.into_iter().fold(begin, |reputation, showing| reputation.after(showing, START))
    }

    #[test]
    fn a_network_is_judged_by_what_it_showed_lately_and_never_gets_nothing() {
        assert_eq!(shown([]).weight(), Weight::UNKNOWN);
        assert_eq!(shown([Showing::Worthless; 1000]).weight(), Weight::LEAST);
        assert_eq!(shown([Showing::Admitted; 1000]).weight(), Weight::FULL);
        let one = shown([Showing::Worthless]).weight();
        assert!(
            Weight::LEAST < one && one < Weight::UNKNOWN,
            "one mistake is no disgrace: {one:?}"
        );
        // A fleet behind the gateway of a crowd: as good as unknown, not the worst.
        let mixed = shown([Showing::Admitted, Showing::Worthless].repeat(100)).weight();
        assert!(Weight::UNKNOWN.0 / 2 < mixed.0 && mixed.0 < Weight::UNKNOWN.0 * 2, "{mixed:?}");
    }

    #[test]
    fn a_reputation_is_forgotten_with_time() {
        for worst in [Showing::Worthless, Showing::Admitted] {
            let reputation = shown([worst; 1000]);
            let later = reputation.at(START + HALF_LIFE);
            assert!((later.value - reputation.value / 2.0).abs() < 0.01, "{later:?}");
            assert_eq!(reputation.at(START + HALF_LIFE * 20).weight(), Weight::UNKNOWN);
        }
    }

    // Memory has a bound, and a crowd with many addresses does not push out whoever is known.
    #[test]
    fn a_crowd_of_networks_leaves_the_known_ones_known() {
        let weights = Weights::default();
        let network = |number: u32| Network::of(std::net::IpAddr::V4((number << 8).into()));
        let fleet = network(1);
        for _ in 0..50 {
            weights.note(fleet, Showing::Admitted);
            weights.of(fleet);
        }
        weights.reputations.run_pending_tasks();
        for number in 2..50_000 {
            weights.note(network(number), Showing::Worthless);
            if number % 1000 == 0 {
                weights.of(fleet);
            }
        }
        weights.reputations.run_pending_tasks();
        assert!(weights.reputations.entry_count() <= REMEMBERED);
        assert!(weights.of(fleet) > Weight::UNKNOWN, "the fleet was forgotten");
        assert_eq!(weights.networks(Standing::Distrusted), 0, "one showing damns nobody");
        assert_eq!(weights.networks(Standing::Trusted), 1);
    }
}

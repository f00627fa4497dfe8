//! "Not now", with a time to come back that spreads a crowd.

use std::time::Duration;

/// The shortest time to stay away, and the longest.
const AWAY_MIN: Duration = Duration::from_secs(2);
const AWAY_MAX: Duration = Duration::from_mins(1);

/// There is too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is too much to do: {reason}")]
pub struct Overloaded {
    /// Of what there is too much.
    pub reason: Reason,
    /// When to come back: by chance, so that not all come at once.
    pub retry_after_seconds: u32,
}

/// Of what there is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A turn would not come in time.
    Expected,
    /// A turn did not come in time.
    Waited,
    /// Too many wait, and this one's network has the most for its weight.
    Crowded,
    /// This one's account has as many joins in flight as it may.
    Places,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Expected, Self::Waited, Self::Crowded, Self::Places];

    /// The label of the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Waited => "waited",
            Self::Crowded => "crowded",
            Self::Places => "places",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expected => "a turn would not come in time",
            Self::Waited => "a turn did not come in time",
            Self::Crowded => "too many wait, most of them from this network",
            Self::Places => "this account has as many joins in flight as it may",
        })
    }
}

impl Overloaded {
    /// When what is there now will take so long.
    pub(super) fn new(reason: Reason, backlog: Duration) -> Self {
        let mut random = [0; 4];
        // Without luck they come late, which is the safe side.
        let luck = match aws_lc_rs::rand::fill(&mut random) {
            Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
            Err(_) => 1.0,
        };
        Self { reason, retry_after_seconds: come_back(backlog, luck) }
    }
}

/// When to come back, in seconds. Those who are sent away while the backlog lasts are about as many
/// as it holds, so they spread over twice its length.
fn come_back(backlog: Duration, luck: f64) -> u32 {
    let latest = backlog.saturating_mul(2).clamp(2 * AWAY_MIN, AWAY_MAX);
    let chosen = AWAY_MIN + latest.saturating_sub(AWAY_MIN).mul_f64(luck.clamp(0.0, 1.0));
    u32::try_from(chosen.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_the_backlog_and_has_ends() {
        let window = |backlog| {
            let backlog = Duration::from_secs(backlog);
            (come_back(backlog, 0.0), come_back(backlog, 1.0))
        };
        assert_eq!(window(0), (2, 4));
        assert_eq!(window(10), (2, 20));
        assert_eq!(window(1_000_000), (2, 60));
    }

    #[test]
    fn a_crowd_is_spread() {
        let mut seen = [0; 61];
        for _ in 0..2000 {
            let sent_away = Overloaded::new(Reason::Expected, Duration::from_secs(30));
            seen[usize::try_from(sent_away.retry_after_seconds).unwrap()] += 1;
        }
        assert!(seen[2..60].iter().all(|count| (5..=100).contains(count)), "{seen:?}");
    }
}

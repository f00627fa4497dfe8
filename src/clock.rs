//! The only reader of the system clock. Everything else takes `now` as a parameter.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::domain::{Lifetime, Timestamp};

/// Tells the time; cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved: for tests and simulations.
    pub fn fixed(at: Timestamp) -> Self {
        Self(Source::Fixed(Arc::new(AtomicI64::new(at.unix_seconds()))))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_unix_seconds(
                    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
                )
            }
            Source::Fixed(seconds) => Timestamp::from_unix_seconds(seconds.load(Ordering::SeqCst)),
        }
    }

    /// Moves a fixed clock on; the system's clock is not moved.
    pub fn advance(&self, by: Lifetime) {
        if let Source::Fixed(seconds) = &self.0 {
            seconds.fetch_add(by.seconds(), Ordering::SeqCst);
        }
    }

    /// Moves a fixed clock back, as a machine's clock is set right or wrong.
    pub fn turn_back(&self, by: Lifetime) {
        if let Source::Fixed(seconds) = &self.0 {
            seconds.fetch_sub(by.seconds(), Ordering::SeqCst);
        }
    }
}

/// A stopwatch for figures and metrics.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
        Self(Instant::now())
    }

    /// How long it has run.
    pub fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

//! What may be written while the store's disk runs full: noise gives way first, then known
//! refusals, and admissions only at the very end (red team D4).

use std::sync::atomic::{AtomicU8, Ordering};

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Everything is written.
    Ample,
    /// Summaries of noise wait.
    Low,
    /// Known refusals are only counted, too.
    VeryLow,
    /// The reserve is used up: nobody is admitted. Security records are still written.
    Gone,
}

impl Room {
    const ALL: [Self; 4] = [Self::Ample, Self::Low, Self::VeryLow, Self::Gone];
}

/// The room as it was last seen; read by every join.
#[derive(Debug, Default)]
pub(super) struct LastSeen(AtomicU8);

impl LastSeen {
    pub(super) fn set(&self, room: Room) {
        self.0.store(room as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Room {
        let seen = usize::from(self.0.load(Ordering::Relaxed));
        Room::ALL.get(seen).copied().unwrap_or(Room::Gone)
    }
}

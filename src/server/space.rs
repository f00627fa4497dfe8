//! Room on the store's disk. It runs out in steps: summaries of noise wait, known refusals are only
//! counted, a reserve is given back so that admissions go on, and only when that is used up they
//! stop (red team D4, I17).

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde::Deserialize;
use tracing::{error, info, warn};

use super::config::{InvalidConfig, mebibytes};
use crate::audit::Room;

/// The reserve is given back when less than this is free …
const RELEASE_BELOW: u64 = 16 << 20;
/// … and without a reserve nobody is admitted when less than this is: what SQLite and the last
/// records need to end well.
const LAST: u64 = 8 << 20;

/// The section `[store]` of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "each key tells its unit")]
pub(super) struct StoreSection {
    low_mib: Option<usize>,
    very_low_mib: Option<usize>,
    reserve_mib: Option<usize>,
}

impl StoreSection {
    /// The limits that the section sets.
    pub(super) fn limits(&self) -> Result<SpaceLimits, InvalidConfig> {
        let limits = SpaceLimits {
            low: mebibytes("store.low_mib", self.low_mib.unwrap_or(512))?,
            very_low: mebibytes("store.very_low_mib", self.very_low_mib.unwrap_or(256))?,
            reserve: mebibytes("store.reserve_mib", self.reserve_mib.unwrap_or(64))?,
        };
        if limits.very_low > limits.low {
            return Err(InvalidConfig(
                "store.very_low_mib must not be more than store.low_mib: noise gives way before \
                 known refusals"
                    .to_owned(),
            ));
        }
        Ok(limits)
    }
}

/// When what gives way, in bytes of free space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Below this summaries of noise wait.
    pub low: u64,
    /// Below this known refusals are only counted.
    pub very_low: u64,
    /// The size of the reserve; 0 for none.
    pub reserve: u64,
}

/// What the last look saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) free: u64,
    pub(super) reserve: u64,
    pub(super) room: Room,
}

/// Tells how many bytes are free where this path is.
pub(super) type Free = fn(&Path) -> io::Result<u64>;

/// Watches the disk and holds the reserve.
#[derive(Debug)]
pub(super) struct Space {
    reserve: PathBuf,
    limits: SpaceLimits,
    free: Free,
    room: Room,
}

impl Space {
    /// Watches the disk of this data directory.
    pub(super) fn new(data_dir: &Path, limits: SpaceLimits, free: Free) -> Self {
        Self { reserve: data_dir.join("reserve"), limits, free, room: Room::Ample }
    }

    /// Looks at the disk, gives the reserve back if it must, and makes it if there is room. Blocks.
    pub(super) fn look(&mut self) -> io::Result<Seen> {
        let directory = self.reserve.parent().unwrap_or_else(|| Path::new("/"));
        let mut free = (self.free)(directory)?;
        let mut held = self.held();
        if held > 0 && (held != self.limits.reserve || free < RELEASE_BELOW) {
            fs::remove_file(&self.reserve)?;
            if held == self.limits.reserve {
                error!(free, "the disk is full: the reserve is given back, admissions go on");
            }
            held = 0;
            free = (self.free)(directory)?;
        }
        let needed = self.limits.very_low.saturating_add(self.limits.reserve);
        if held == 0 && self.limits.reserve > 0 && free >= needed {
            match make(&self.reserve, self.limits.reserve) {
                Ok(()) => info!(bytes = self.limits.reserve, "space is reserved for admissions"),
                Err(error) => warn!(error = %error, "no space was reserved for admissions"),
            }
            held = self.held();
            free = (self.free)(directory)?;
        }
        let room = judge(free, held, &self.limits);
        if room != self.room {
            warn!(free, room = ?room, before = ?self.room, "the room on the store's disk has changed");
        }
        self.room = room;
        Ok(Seen { free, reserve: held, room })
    }

    fn held(&self) -> u64 {
        fs::metadata(&self.reserve).map_or(0, |file| file.len())
    }
}

fn judge(free: u64, held: u64, limits: &SpaceLimits) -> Room {
    if held == 0 && free < LAST {
        Room::Gone
    } else if free < limits.very_low {
        Room::VeryLow
    } else if free < limits.low {
        Room::Low
    } else {
        Room::Ample
    }
}

/// Bytes that a process without privileges can still write there.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// A file that takes its whole length on the disk, or none.
fn make(path: &Path, length: u64) -> io::Result<()> {
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let made = allocate(&file, length).and_then(|()| file.sync_all());
    if made.is_err() {
        fs::remove_file(path)?;
    }
    made
}

fn allocate(file: &fs::File, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP) => fill(file, length),
        other => Ok(other?),
    }
}

/// For file systems that cannot allocate.
fn fill(mut file: &fs::File, length: u64) -> io::Result<()> {
    use std::io::{Read, Write};
    let mut zeros = io::repeat(0).take(length);
    io::copy(&mut zeros, &mut file)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: SpaceLimits =
        SpaceLimits { low: 500 * MIB, very_low: 100 * MIB, reserve: 2 * MIB };

    #[test]
    fn what_matters_least_gives_way_first() {
        for (free_mib, held, room) in [
            (500, LIMITS.reserve, Room::Ample),
            (499, LIMITS.reserve, Room::Low),
            (99, LIMITS.reserve, Room::VeryLow),
            (1, LIMITS.reserve, Room::VeryLow),
            (8, 0, Room::VeryLow),
            (7, 0, Room::Gone),
        ] {
            assert_eq!(judge(free_mib * MIB, held, &LIMITS), room, "{free_mib} MiB, {held}");
        }
    }

    // The disk of this test: what others have left of it, without the reserve.
    static LEFT: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn the_reserve_is_given_back_when_the_disk_is_full_and_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let free: Free = |directory| {
            let held = fs::metadata(directory.join("reserve")).map_or(0, |file| file.len());
            Ok(LEFT.load(Ordering::SeqCst) - held)
        };
        let mut space = Space::new(directory.path(), LIMITS, free);
        let mut at = |left_mib: u64| {
            LEFT.store(left_mib * MIB, Ordering::SeqCst);
            let seen = space.look().unwrap();
            assert_eq!(path.exists(), seen.reserve == LIMITS.reserve);
            assert_eq!(seen.free, left_mib * MIB - seen.reserve);
            (seen.room, seen.reserve > 0)
        };
        assert_eq!(at(1000), (Room::Ample, true));
        assert_eq!(at(300), (Room::Low, true));
        assert_eq!(at(50), (Room::VeryLow, true));
        assert_eq!(at(18), (Room::VeryLow, true));
        assert_eq!(at(17), (Room::VeryLow, false), "given back");
        assert_eq!(at(7), (Room::Gone, false));
        assert_eq!(at(50), (Room::VeryLow, false), "admissions first");
        assert_eq!(at(110), (Room::Low, true), "made again");
    }

    #[test]
    fn a_reserve_takes_its_room_and_follows_the_configuration() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        let sized = |reserve| {
            let limits = SpaceLimits { low: 0, very_low: 0, reserve };
            Space::new(directory.path(), limits, |_| Ok(1 << 40)).look().unwrap().reserve
        };
        assert_eq!(sized(2 * MIB), 2 * MIB);
        let file = fs::metadata(&path).unwrap();
        assert!(file.blocks() * 512 >= 2 * MIB, "{} blocks", file.blocks());
        assert_eq!(file.mode() & 0o777, 0o600);
        assert_eq!(sized(MIB), MIB);
        assert_eq!(sized(0), 0);
        assert!(!path.exists());
        assert!(free_bytes(directory.path()).unwrap() > 0);
    }
}

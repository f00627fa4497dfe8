//! Metrics of the audit log and of the disk that it is on.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::registered;
use super::space::Seen;
use crate::audit::Audit;

type Bytes = Gauge<u64, AtomicU64>;

/// What is told of both.
pub(super) struct StoreMetrics {
    counted: Gauge<u64, AtomicU64>,
    refusal_bytes: Bytes,
    refusal_bytes_max: Bytes,
    explained_bytes: Bytes,
    checkpoint_failed: Gauge,
    free_bytes: Bytes,
    reserve_bytes: Bytes,
    room: Gauge,
}

impl StoreMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            counted: registered(
                registry,
                "audit_counted",
                "Refusals that were counted without a record of their own",
            ),
            refusal_bytes: registered(
                registry,
                "audit_refusal_bytes",
                "Bytes that records of known refusals take in the store",
            ),
            refusal_bytes_max: registered(
                registry,
                "audit_refusal_bytes_max",
                "The most bytes that records of known refusals may take",
            ),
            explained_bytes: registered(
                registry,
                "audit_explained_bytes",
                "Bytes of memory that explanations of counted refusals take",
            ),
            checkpoint_failed: registered(
                registry,
                "audit_checkpoint_failed",
                "1 while the last signed checkpoint of the audit log could not be written",
            ),
            free_bytes: registered(registry, "store_free_bytes", "Free bytes of the store's disk"),
            reserve_bytes: registered(
                registry,
                "store_reserve_bytes",
                "Bytes held back on the store's disk; 0 once they were given back",
            ),
            room: registered(
                registry,
                "store_room",
                "0: ample; 1: summaries wait; 2: refusals are only counted; 3: nobody is admitted",
            ),
        }
    }

    /// Reads what is counted elsewhere.
    pub(super) fn read(&self, audit: &Audit) {
        let (refusals, most) = audit.refusal_bytes();
        self.counted.set(audit.counted());
        self.refusal_bytes.set(refusals);
        self.refusal_bytes_max.set(most);
        self.explained_bytes.set(u64::try_from(audit.explained_bytes()).unwrap_or(u64::MAX));
    }

    /// Notes how the last checkpoint went.
    pub(super) fn checkpoint(&self, has_failed: bool) {
        self.checkpoint_failed.set(i64::from(has_failed));
    }

    /// Notes what was seen of the disk.
    pub(super) fn disk(&self, seen: Seen) {
        self.free_bytes.set(seen.free);
        self.reserve_bytes.set(seen.reserve);
        self.room.set(seen.room as i64);
    }
}

//! What those share who come at the same time, and the metrics of it, read where it is counted.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::turns::{Places, Reason, Standing, Turns};

/// Connections at a time that we compute for and keep state of. More than there are places, so that
/// those who wait for a slow service leave some to everybody else.
const SEATS: usize = 448;

/// Seats, turns and places of a server.
#[derive(Clone)]
pub(super) struct Shared {
    /// For connections whose first flight is complete.
    pub(super) seats: Arc<Turns>,
    /// For what is computed for strangers.
    pub(super) turns: Arc<Turns>,
    /// For joins that wait for somebody else.
    pub(super) places: Arc<Places>,
}

impl Shared {
    /// For a listener with so many connections: half of them may wait in a line.
    pub(super) fn new(connections_max: usize) -> Self {
        // As many as compute at once; more would only take turns in another order.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = Turns::new(processors, connections_max / 2);
        let seats = turns.seats(SEATS, connections_max / 2);
        Self { seats: Arc::new(seats), turns: Arc::new(turns), places: Arc::default() }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// Label of what a network has shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StandingLabel {
    standing: &'static str,
}

/// Label of an overload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self { seats, turns, places } = self;
        let (name, help) = ("turns", "Turns on a processor, by the standing of their networks");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for standing in Standing::ALL {
            let label = StandingLabel { standing: standing.as_str() };
            let served = ConstCounter::new(turns.served(standing));
            served.encode(family.encode_family(&label)?)?;
        }
        let (name, help) = ("turn_seconds", "Time that turns have used");
        let used = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(turns.used().as_secs_f64()).encode(used)?;
        let (name, help) = ("overloaded", "Who was sent away because there was too much to do");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for reason in Reason::ALL {
            let label = ReasonLabel { reason: reason.as_str() };
            let count = match reason {
                Reason::Places => places.sent_away(),
                Reason::Expected | Reason::Waited | Reason::Crowded => {
                    turns.sent_away(reason) + seats.sent_away(reason)
                }
            };
            ConstCounter::new(count).encode(family.encode_family(&label)?)?;
        }
        let (name, help) = ("networks", "Networks that have shown something lately");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for standing in Standing::ALL {
            let label = StandingLabel { standing: standing.as_str() };
            gauge(turns.networks(standing)).encode(family.encode_family(&label)?)?;
        }
        let gauges = [
            ("seats_taken", "Connections that have a seat", seats.taken()),
            ("seats_waiting", "Connections in line for a seat", seats.waiting()),
            ("turns_waiting", "Connections and joins in line for a turn", turns.waiting()),
            ("places_taken", "Joins and renewals that wait for store, AWS or CA", places.taken()),
        ];
        for (name, help, value) in gauges {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge(u64::try_from(value).unwrap_or(u64::MAX)).encode(descriptor)?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

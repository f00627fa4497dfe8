//! Metrics of who is served, read where it is counted.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::turns::{Places, Reason, Standing, Turns};

/// Turns and places of a server.
pub(super) struct TurnCollector {
    pub(super) turns: Arc<Turns>,
    pub(super) places: Arc<Places>,
}

impl std::fmt::Debug for TurnCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TurnCollector")
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

impl Collector for TurnCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self { turns, places } = self;
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
                Reason::Expected | Reason::Waited | Reason::Crowded => turns.sent_away(reason),
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

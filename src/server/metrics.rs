//! Metrics, named `muster_…`; every label value is of a closed set.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use super::exchange::Kind;
use super::publisher::{Board, Status, TargetKey};
use super::shared::Shared;
use super::store_metrics::StoreMetrics;
use crate::aws::{CallCounts, CallStatistics};
use crate::domain::{Lifetime, Timestamp};
use crate::store::StoreStatistics;

/// Labels of a finished join or renewal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct JoinLabels {
    /// A method of this build, or `unknown`.
    pub(super) method: &'static str,
    /// A code, or `OK`.
    pub(super) code: &'static str,
}

/// Everything that is counted.
pub(super) struct Metrics {
    registry: Registry,
    /// Finished joins.
    pub(super) joins: Family<JoinLabels, Counter>,
    /// Finished renewals.
    pub(super) renewals: Family<JoinLabels, Counter>,
    /// Seconds from the evidence to the answer, of joins and renewals.
    pub(super) join_seconds: Histogram,
    /// Accepted connections.
    pub(super) connections: Counter,
    /// Connections closed at once because there were too many.
    pub(super) connections_refused: Counter,
    /// Connections that were put out for others.
    pub(super) connections_put_out: Counter,
    /// Policies in force.
    pub(super) policies: Gauge,
    /// 1 while the policy files are not the set that is in force.
    pub(super) policy_reload_failed: Gauge,
    /// Ends of certificates, seconds since 1970.
    pub(super) listener_not_after: Gauge,
    /// 1 while the revocation list is not as it should be.
    pub(super) crl_failed: Gauge,
    /// Certificates on it.
    pub(super) crl_entries: Gauge,
    /// When it ends, seconds since 1970.
    pub(super) crl_next_update: Gauge,
    /// 1 while the clock is behind what it has said before: nothing is issued.
    pub(super) clock_is_behind: Gauge,
    /// 1 while the clock is more than 2 minutes from AWS's: nothing is issued.
    pub(super) clock_is_apart: Gauge,
    /// The audit log and its disk.
    pub(super) store: StoreMetrics,
}

impl Metrics {
    /// Metrics of a server that makes these calls and publishes these tokens.
    pub(super) fn new(
        calls: Arc<CallStatistics>,
        publications: Arc<Board>,
        store: Arc<StoreStatistics>,
    ) -> Self {
        let mut registry = collected(calls, publications, store);
        let joins = Family::default();
        registry.register("joins", "Finished joins by method and code", joins.clone());
        let renewals = Family::default();
        registry.register("renewals", "Finished renewals by method and code", renewals.clone());
        let join_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        registry.register("join_seconds", "Time of a join", join_seconds.clone());
        let connections = registered(&mut registry, "connections", "Accepted connections");
        let policies = registered(&mut registry, "policies", "Join policies in force");
        let policy_reload_failed = registered(
            &mut registry,
            "policy_reload_failed",
            "1 while the policy files are broken and the set before them stays in force",
        );
        let listener_not_after = registered(
            &mut registry,
            "listener_not_after_seconds",
            "End of the listener's certificate, seconds since 1970",
        );
        let crl_failed = registered(
            &mut registry,
            "crl_failed",
            "1 while the revocation list could not be made anew",
        );
        let crl_entries =
            registered(&mut registry, "crl_entries", "Certificates on the revocation list");
        let crl_next_update = registered(
            &mut registry,
            "crl_next_update_seconds",
            "End of the revocation list, seconds since 1970",
        );
        let clock_is_behind = registered(
            &mut registry,
            "clock_is_behind",
            "1 while the clock is behind what it has said before, so that nothing is issued",
        );
        let clock_is_apart = registered(
            &mut registry,
            "clock_is_apart",
            "1 while the clock is more than 2 minutes from AWS's, so that nothing is issued",
        );
        let store = StoreMetrics::new(&mut registry);
        Self {
            registry,
            joins,
            renewals,
            join_seconds,
            connections,
            connections_refused: Counter::default(),
            connections_put_out: Counter::default(),
            policies,
            policy_reload_failed,
            listener_not_after,
            crl_failed,
            crl_entries,
            crl_next_update,
            clock_is_behind,
            clock_is_apart,
            store,
        }
    }

    /// Likewise, of a server that shares its time like this.
    pub(super) fn with_shared(mut self, shared: Shared) -> Self {
        self.registry.register(
            "connections_refused",
            "Connections closed because there were too many",
            self.connections_refused.clone(),
        );
        self.registry.register(
            "connections_put_out",
            "Connections that kept the server waiting and were closed for others",
            self.connections_put_out.clone(),
        );
        self.registry.register_collector(Box::new(shared));
        self
    }

    /// Counts a finished join or renewal.
    pub(super) fn count(&self, kind: Kind, labels: &JoinLabels) {
        let family = match kind {
            Kind::Join => &self.joins,
            Kind::Renewal => &self.renewals,
        };
        family.get_or_create(labels).inc();
    }

    /// As the text of `OpenMetrics`.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail; what is there is better than nothing.
        let _complete = encode(&mut text, &self.registry);
        text
    }
}

/// A registry of what is counted elsewhere.
fn collected(
    calls: Arc<CallStatistics>,
    publications: Arc<Board>,
    store: Arc<StoreStatistics>,
) -> Registry {
    let mut registry = Registry::with_prefix("muster");
    registry.register_collector(Box::new(CloudCollector(calls)));
    registry.register_collector(Box::new(PublicationCollector(publications)));
    registry.register_collector(Box::new(StoreCollector(store)));
    registry
}

/// A new metric, in the registry.
pub(super) fn registered<M: Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Work of the store, read where it is counted.
#[derive(Debug)]
struct StoreCollector(Arc<StoreStatistics>);

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let StoreStatistics { transactions, commits } = self.0.as_ref();
        for (name, help, count) in [
            ("store_transactions", "Transactions that the store applied", transactions),
            ("store_commits", "Commits that waited for the disk; transactions share them", commits),
        ] {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}

/// Calls to AWS, read where they are counted.
#[derive(Debug)]
struct CloudCollector(Arc<CallStatistics>);

/// Reads one number.
type Read = fn(&CallCounts) -> u64;

/// Label of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: &'static str,
}

impl Collector for CloudCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let services = [("sts", &self.0.sts), ("ec2", &self.0.ec2), ("ssm", &self.0.ssm)];
        let counters: [(&str, &str, Read); 3] = [
            ("aws_calls", "Calls to AWS", CallCounts::calls),
            ("aws_calls_throttled", "Calls that AWS throttled", CallCounts::throttled),
            ("aws_calls_failed", "Calls that failed otherwise", CallCounts::failed),
        ];
        for (name, help, read) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (service, counts) in services {
                let label = ServiceLabel { service };
                ConstCounter::new(read(counts)).encode(family.encode_family(&label)?)?;
            }
        }
        let (name, help) = ("aws_last_success_seconds", "Last answer, seconds since 1970");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (service, counts) in services {
            let seconds = counts.last_success().map_or(0, Timestamp::unix_seconds);
            let label = ServiceLabel { service };
            ConstGauge::new(seconds).encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }
}

/// Publications, read where their tasks write.
#[derive(Debug)]
struct PublicationCollector(Arc<Board>);

/// Labels of a target. The policy set bounds how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PublicationLabels {
    publication: String,
    target: String,
}

/// Reads one number of a target, at a time.
type ReadTarget = fn(&Status, Timestamp) -> i64;

impl Collector for PublicationCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (now, mut targets) = (self.0.now(), self.0.all());
        targets.retain(|_, status| status.period.is_some());
        let labels = |(name, target): &TargetKey| PublicationLabels {
            publication: name.to_string(),
            target: target.clone(),
        };
        let gauges: [(&str, &str, ReadTarget); 3] = [
            (
                "publication_age_seconds",
                "How long ago the published token was read back",
                // One that never was is as old as the wish for it.
                |status, now| now.since(status.published_at.unwrap_or(status.since)).seconds(),
            ),
            ("publication_period_seconds", "How often a token should be published", |status, _| {
                status.period.map_or(0, Lifetime::seconds)
            }),
            (
                "publication_last_success_timestamp_seconds",
                "When a token was last read back, seconds since 1970; 0 if none was",
                |status, _| status.published_at.map_or(0, Timestamp::unix_seconds),
            ),
        ];
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (key, status) in &targets {
                let labels = labels(key);
                let encoder = family.encode_family(&labels)?;
                ConstGauge::new(read(status, now)).encode(encoder)?;
            }
        }
        let (name, help) = ("publication_errors", "Steps of a publication that did not work");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (key, status) in &targets {
            ConstCounter::new(status.errors).encode(family.encode_family(&labels(key))?)?;
        }
        Ok(())
    }
}

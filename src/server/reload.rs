//! Policies and region certificates while the server runs: a change of their files is in force
//! within two seconds, whole or not at all; until it is, the last good set stays, loudly.
//!
//! The directories are looked at twice a second instead of being watched: that sees a link that is
//! switched, a network file system and a mount over the directory alike, and costs one `stat` a file.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use super::metrics::Metrics;
use super::policies;
use super::policy_directory;
use crate::audit::{Class, Outcome, Record};
use crate::aws::{RegionCertificates, SharedCertificates};
use crate::domain::Timestamp;
use crate::join::JoinService;
use crate::methods::{self, ClaimValues};
use crate::policy::{Finding, PolicySet, Vocabulary};
use crate::registry::Enrollment;
use crate::store::StoreUnavailable;

/// How often the directories are looked at. A change is loaded when two looks see the same.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// Loads what is in force anew.
pub(super) struct Reloader {
    pub(super) joins: Arc<JoinService>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) policies_dir: PathBuf,
    /// None where a simulator's certificates are believed.
    pub(super) certificates_dir: Option<PathBuf>,
    pub(super) certificates: SharedCertificates,
    pub(super) status: Mutex<Status>,
    pub(super) asked: Notify,
    /// What the files looked like before they were loaded first.
    pub(super) loaded: Look,
}

/// What directories look like: it differs when anything in them does.
pub(super) type Look = u64;

/// Why files are not in force.
enum NotLoaded {
    /// They are broken: only another change helps.
    Broken(String),
    /// Something else did not work: it is tried again.
    NotNow(String),
}

/// How the last load went.
#[derive(Debug, Clone)]
pub(super) struct Status {
    /// When the set that is in force was loaded.
    pub(super) loaded_at: Timestamp,
    /// Why a later one is not in force.
    pub(super) error: Option<String>,
}

impl Reloader {
    /// Loads at the next moment, changed or not.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Why the files as they stand are not in force; nothing if they are.
    pub(super) fn error(&self) -> Option<String> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    /// The JSON of `muster policy status`.
    pub(super) fn to_json(&self) -> Value {
        let policies = self.joins.policies();
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "hash": policies.hash(),
            "loaded_at": status.loaded_at,
            "policies": policies.len(),
            "error": status.error,
        })
    }

    /// Looks for changes until `stop` says so.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut loaded = Some(self.loaded);
        let mut seen = self.loaded;
        loop {
            let is_asked = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                () = self.asked.notified() => true,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let now = self.look().await;
            if is_asked || (now == seen && loaded != Some(now)) {
                let is_settled = self.load().await;
                loaded = is_settled.then_some(now);
            }
            seen = now;
        }
    }

    async fn look(&self) -> Look {
        let (policies, certificates) = (self.policies_dir.clone(), self.certificates_dir.clone());
        let look = move || look(&policies, certificates.as_deref());
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// Loads the files, and says whether there is nothing left to try.
    async fn load(&self) -> bool {
        let loaded = self.try_load().await;
        let failed = loaded.is_err();
        let is_broken = matches!(loaded, Err(NotLoaded::Broken(_)));
        self.metrics.policy_reload_failed.set(i64::from(failed));
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(()) => {
                if status.error.take().is_some() {
                    info!("the policy files are in force again");
                }
                status.loaded_at = self.joins.clock.now();
                true
            }
            Err(NotLoaded::Broken(error) | NotLoaded::NotNow(error))
                if status.error.as_ref() == Some(&error) =>
            {
                // It was said; here it is only tried again.
                is_broken
            }
            Err(NotLoaded::Broken(error) | NotLoaded::NotNow(error)) => {
                error!(error = %error,
                    "the policy files were not loaded: the set before them stays in force");
                status.error = Some(error);
                is_broken
            }
        }
    }

    async fn try_load(&self) -> Result<(), NotLoaded> {
        let certificates = self.certificates_dir.as_deref().map(read_certificates).transpose();
        let certificates = certificates.map_err(NotLoaded::Broken)?;
        let regions = match &certificates {
            Some(certificates) => certificates.known_regions().clone(),
            None => self.certificates.current().known_regions().clone(),
        };
        let vocabulary = Vocabulary { methods: methods::ALL, regions };
        let (directory, now) = (self.policies_dir.clone(), self.joins.clock.now());
        let read = move || policy_directory::load(&directory, &vocabulary, Some(now));
        let read = tokio::task::spawn_blocking(read).await;
        let read = read.map_err(|error| NotLoaded::NotNow(error.to_string()))?;
        let read = read.map_err(|error| NotLoaded::NotNow(error.to_string()))?;
        let (errors, warnings): (Vec<Finding>, Vec<Finding>) =
            read.findings.into_iter().partition(Finding::is_error);
        let Some(set) = read.set else {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            let message = format!("{} errors; the first is {first}", errors.len());
            return Err(NotLoaded::Broken(message));
        };
        // Whatever can go wrong comes before the first change.
        let unkept = |error: StoreUnavailable| NotLoaded::NotNow(error.to_string());
        policies::keep(&self.joins.registry, &set).await.map_err(unkept)?;
        let before = self.joins.policies();
        if before.hash() != set.hash() {
            self.write_change(&before, &set).await.map_err(unkept)?;
            for warning in &warnings {
                warn!(finding = %warning, "policy");
            }
        }
        if let Some(certificates) = certificates {
            self.exchange_certificates(certificates).await.map_err(unkept)?;
        }
        if before.hash() != set.hash() {
            self.metrics.policies.set(i64::try_from(set.len()).unwrap_or(i64::MAX));
            info!(policy_hash = %set.hash(), policies = set.len(), "a new policy set is in force");
            self.joins.exchange_policies(Arc::clone(&set));
            if let Err(error) = self.write_effect(&set).await {
                warn!(error = %error, "whom the new policy set ends is not known");
            }
        }
        Ok(())
    }

    /// Whoever can add a certificate can forge the instances of its region, so that is on record
    /// before it is believed.
    async fn exchange_certificates(
        &self,
        certificates: RegionCertificates,
    ) -> Result<(), StoreUnavailable> {
        let (before, after) = (self.certificates.current().digest(), certificates.digest());
        if before != after {
            let now = self.joins.clock.now();
            let record = Record::new(now, Class::Security, "region-certificates", Outcome::Done);
            let record = record.with("before", before).with("after", after.clone());
            self.joins.audit.write(&record).await?;
            info!(digest = after, "other region certificates are in force");
        }
        self.certificates.exchange(certificates);
        Ok(())
    }

    /// The change is on record before it is in force.
    async fn write_change(
        &self,
        before: &PolicySet,
        set: &PolicySet,
    ) -> Result<(), StoreUnavailable> {
        let now = self.joins.clock.now();
        let mut record = Record::new(now, Class::Security, "policy-set", Outcome::Done);
        record.policy_hash = Some(set.hash().clone());
        let record = record
            .with("before", before.hash().to_string())
            .with("policies", u64::try_from(set.len()).unwrap_or(u64::MAX));
        self.joins.audit.write(&record).await
    }

    /// Whose renewals end by this set, and when the last of their certificates does (T51).
    async fn write_effect(&self, set: &PolicySet) -> Result<(), StoreUnavailable> {
        let now = self.joins.clock.now();
        let is_lost = |node: &Enrollment| {
            node.issues().any(|issue| issue.order.not_after > now) && !still_admits(set, node, now)
        };
        let (lost, _) = self.joins.registry.list(None, usize::MAX, is_lost).await?;
        let ends = lost.iter().flat_map(Enrollment::issues).map(|issue| issue.order.not_after);
        let Some(last_end) = ends.max() else { return Ok(()) };
        warn!(nodes = lost.len(), last_not_after = %last_end,
            "the new policy set renews these nodes no more; their last certificate ends then");
        let mut record = Record::new(now, Class::Security, "policy-effect", Outcome::Done);
        record.policy_hash = Some(set.hash().clone());
        let record = record
            .with("nodes", u64::try_from(lost.len()).unwrap_or(u64::MAX))
            .with("last_not_after", last_end.to_string());
        self.joins.audit.write(&record).await
    }
}

/// Whether the set may admit a node by what its evidence said last. What only the cloud can tell is
/// not asked here.
fn still_admits(set: &PolicySet, node: &Enrollment, now: Timestamp) -> bool {
    let Some(method) = methods::ALL.iter().find(|method| method.name == node.method) else {
        return false;
    };
    ClaimValues::from_json(method, node.claims.raw())
        .is_ok_and(|claims| set.may_admit(&node.policy, method.name, &claims, node.epoch, now))
}

/// What the directories look like.
pub(super) fn look(policies: &Path, certificates: Option<&Path>) -> Look {
    let mut hash = DefaultHasher::new();
    look_at(policies).hash(&mut hash);
    certificates.map(look_at).hash(&mut hash);
    hash.finish()
}

/// Names, sizes and times, links followed.
fn look_at(directory: &Path) -> Vec<(String, Option<[i64; 5]>)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut seen: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| {
            let found = fs::metadata(entry.path()).ok().map(|one| {
                let number = |value: u64| i64::from_ne_bytes(value.to_ne_bytes());
                [
                    one.mtime(),
                    one.mtime_nsec(),
                    one.ctime_nsec(),
                    number(one.size()),
                    number(one.ino()),
                ]
            });
            (entry.file_name().to_string_lossy().into_owned(), found)
        })
        .collect();
    seen.sort();
    seen
}

/// AWS's certificates and those of a directory. One line in it can forge every instance of a region,
/// so nobody but root and the server's user may write there (red team P12).
pub fn read_certificates(directory: &Path) -> Result<RegionCertificates, String> {
    let mut paths = vec![directory.to_owned()];
    let entries = fs::read_dir(directory);
    let entries = entries.map_err(|error| format!("{}: {error}", directory.display()))?;
    paths.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    for path in paths {
        let found = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let own = rustix::process::geteuid().as_raw();
        if found.uid() != 0 && found.uid() != own {
            let owner = found.uid();
            return Err(format!(
                "{}: it belongs to user {owner}; whoever writes here can forge any instance, so it \
                 must belong to root or the server's user",
                path.display()
            ));
        }
        if found.mode() & 0o022 != 0 {
            return Err(format!(
                "{}: others may write to it and so forge any instance; `chmod go-w` it",
                path.display()
            ));
        }
    }
    RegionCertificates::embedded().with_directory(directory).map_err(|error| error.to_string())
}

//! A server that runs, and how it ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::data_directory::DataDirectory;
use super::reload::Reloader;
use crate::audit::Audit;
use crate::domain::{PolicyHash, TrustDomain};

/// How long tasks have to end; longer than open joins have.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// How long the last records have to be copied. Both fit into the unit's `TimeoutStopSec=`.
const COPY_TIMEOUT: Duration = Duration::from_secs(5);

/// The line that a server prints when it is ready.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Always true.
    pub ready: bool,
    /// Join and node services.
    pub join: SocketAddr,
    /// Health and metrics.
    pub diagnostics: SocketAddr,
    /// The root of all names.
    pub trust_domain: TrustDomain,
    /// What nodes pin.
    pub pin: String,
    /// The revocation list, if it is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl: Option<SocketAddr>,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// The policy set in force.
    pub policy_hash: PolicyHash,
}

/// A running server. Dropping it does not stop it; `stop` does.
pub struct Running {
    /// What it says of itself.
    pub ready: Ready,
    pub(super) stop: watch::Sender<bool>,
    pub(super) tasks: JoinSet<()>,
    pub(super) answering: TaskTracker,
    pub(super) stop_sinks: watch::Sender<bool>,
    pub(super) sinks: JoinSet<()>,
    pub(super) audit: Arc<Audit>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) _data: DataDirectory,
}

impl Running {
    /// Loads policies and region certificates anew, changed or not.
    pub fn reload(&self) {
        self.reloader.ask();
    }

    /// Stops accepting, lets joins and commands finish, writes the last summary and checkpoint.
    pub async fn stop(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        let _unheard = self.stop.send(true);
        drain(&mut self.tasks, deadline).await;
        // Joins and commands outlive the tasks that took them in, and write records to their end.
        self.answering.close();
        if timeout_at(deadline, self.answering.wait()).await.is_err() {
            warn!(answers = self.answering.len(), "some answers were cut off at shutdown");
        }
        self.write_last_records().await;
        let _unheard = self.stop_sinks.send(true);
        drain(&mut self.sinks, Instant::now() + COPY_TIMEOUT).await;
    }

    async fn write_last_records(&self) {
        if let Err(error) = self.audit.write_last_summary().await {
            warn!(error = %error, "the last audit summary was not written");
        }
        if let Err(error) = self.audit.write_last_checkpoint().await {
            warn!(error = %error, "the last audit checkpoint was not written");
        }
    }
}

/// Waits for tasks to end, and ends those that do not (I14).
async fn drain(tasks: &mut JoinSet<()>, deadline: Instant) {
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout_at(deadline, ended).await.is_err() {
        warn!(tasks = tasks.len(), "some tasks were cut off at shutdown");
        tasks.shutdown().await;
    }
}

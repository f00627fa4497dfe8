//! A small simulator of EC2's metadata service, for the demo, the benchmarks and tests.
//!
//! It signs identity documents of any account and region with a key of its own, in the very shapes
//! of AWS. Nothing trusts that key unless it is told to: `muster server --simulation`, or
//! `--certificates-dir`. It listens on loopback only.

mod document;
mod imds;
mod scenario;
mod signer;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use serde_json::json;

pub use document::SimulatedInstance;
pub use imds::serve;
pub use scenario::{InvalidScenario, Scenario};

use crate::aws::RegionCertificates;
use crate::clock::Clock;
use crate::domain::{InstanceId, Region, Timestamp};
use signer::Signer;

/// Why a simulation did not begin.
#[derive(Debug, thiserror::Error)]
pub enum SimulationFailed {
    /// The key or a certificate could not be made.
    #[error("cannot make the simulator's key and certificates")]
    Key,
    /// Somebody else could reach it.
    #[error("{0} is not a loopback address; the simulator listens nowhere else")]
    NotLoopback(SocketAddr),
    /// Files or sockets.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// How it failed.
        source: io::Error,
    },
}

impl SimulationFailed {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Simulated instances and the key that signs their documents.
pub struct Simulator {
    signer: Signer,
    machines: RwLock<BTreeMap<String, Arc<Machine>>>,
    clock: Clock,
}

/// One run of an instance. Its document is signed when it is first asked for.
struct Machine {
    instance: SimulatedInstance,
    document: OnceLock<String>,
}

impl Machine {
    fn document(&self, simulator: &Simulator) -> Option<String> {
        if let Some(document) = self.document.get() {
            return Some(document.clone());
        }
        let document = simulator.document(&self.instance)?;
        Some(self.document.get_or_init(|| document).clone())
    }
}

impl Simulator {
    /// The instances of a scenario, all with a new key.
    pub fn new(scenario: &Scenario, clock: Clock) -> Result<Self, SimulationFailed> {
        let instances = scenario.instances(clock.now());
        let known = RegionCertificates::embedded();
        let known = known.known_regions().keys().filter_map(|name| name.parse::<Region>().ok());
        let regions = known.chain(instances.iter().map(|instance| instance.region.clone()));
        let signer = Signer::new(regions).ok_or(SimulationFailed::Key)?;
        let simulator = Self { signer, machines: RwLock::default(), clock };
        for instance in instances {
            simulator.start(instance);
        }
        Ok(simulator)
    }

    /// Starts an instance, or starts it anew if its id is known.
    pub fn start(&self, instance: SimulatedInstance) {
        let machine = Machine { instance, document: OnceLock::new() };
        let id = machine.instance.instance_id.to_string();
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        machines.insert(id, Arc::new(machine));
    }

    /// Stops and starts an instance: its document gets this pending time. False if there is no
    /// such instance.
    pub fn restart(&self, id: &InstanceId, pending_time: Timestamp) -> bool {
        let Some(machine) = self.machine(id.as_str()) else { return false };
        self.start(SimulatedInstance { pending_time, ..machine.instance.clone() });
        true
    }

    /// The instances, sorted by id.
    pub fn instances(&self) -> Vec<SimulatedInstance> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.values().map(|machine| machine.instance.clone()).collect()
    }

    /// The document of an instance, as the path `rsa2048` answers it. The instance need not run
    /// here, but its region needs to be one that the simulator has a certificate for.
    pub fn document(&self, instance: &SimulatedInstance) -> Option<String> {
        self.signer.rsa2048(&instance.region, &instance.json(), instance.signing_time())
    }

    /// The certificates of all regions, as PEM.
    pub fn certificates(&self) -> impl Iterator<Item = (&Region, &str)> {
        self.signer.certificates()
    }

    /// Writes what `muster server --simulation DIR` reads: `certificates/<region>.pem` and
    /// `simulation.json`. Returns the directory of the certificates.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, SimulationFailed> {
        let certificates = directory.join("certificates");
        let failed = |path: &Path| SimulationFailed::io(format!("`{}`", path.display()));
        fs::create_dir_all(&certificates).map_err(failed(&certificates))?;
        for (region, pem) in self.certificates() {
            let path = certificates.join(format!("{region}.pem"));
            fs::write(&path, pem).map_err(failed(&path))?;
        }
        let path = directory.join("simulation.json");
        let description = json!({"certificates": "certificates", "sts": null, "ec2": null});
        fs::write(&path, format!("{description}\n")).map_err(failed(&path))?;
        Ok(certificates)
    }

    fn machine(&self, id: &str) -> Option<Arc<Machine>> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.get(id).cloned()
    }
}

#[cfg(test)]
mod tests;

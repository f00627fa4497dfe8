//! A small simulator of EC2, its metadata service, STS and SSM's parameters, for the demo, the
//! benchmarks and tests.
//!
//! It checks signatures, roles and their session policies for real, and knows no other IAM policies.
//! Everything else that AWS has it can leave to an emulator behind it. It signs identity documents of
//! any account and region with a key of its own, in the very shapes of AWS. Nothing trusts that key unless it is told to: `muster server --simulation`, or
//! `--certificates-dir`. It listens on loopback only.

mod answer;
mod api;
mod calls;
mod credentials;
mod document;
mod ec2;
mod faults;
mod form;
mod imds;
mod limits;
mod permission;
mod record;
mod scenario;
mod signer;
mod sigv4;
mod ssm;
mod sts;
mod upstream;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use aws_credential_types::Credentials;
use serde::Deserialize;
use serde_json::json;

pub use calls::{AccountCalls, Calls};
pub use document::SimulatedInstance;
pub use faults::{Fault, FaultKind};
pub use imds::serve;
pub use record::{InstanceRecord, InstanceState};
pub use scenario::{InvalidScenario, Scenario};

use crate::aws::RegionCertificates;
use crate::clock::Clock;
use crate::domain::{InstanceId, Region, Timestamp};
use calls::Counter;
use credentials::Mint;
use faults::Faults;
use limits::Limits;
use scenario::{Settings, Span};
use signer::Signer;
use ssm::Parameters;

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

/// A simulated service, apart from the metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The Security Token Service.
    Sts,
    /// EC2.
    Ec2,
    /// The parameters of Systems Manager.
    Ssm,
}

/// Simulated instances, the cloud around them, and the keys of both.
pub struct Simulator {
    signer: Signer,
    mint: Mint,
    machines: RwLock<BTreeMap<String, Arc<Machine>>>,
    settings: Settings,
    limits: Limits,
    counter: Counter,
    faults: Faults,
    parameters: Parameters,
    upstream: Option<SocketAddr>,
    clock: Clock,
}

/// One run of an instance. Its document is signed when it is first asked for.
struct Machine {
    instance: SimulatedInstance,
    document: OnceLock<String>,
    /// From when on EC2 knows the instance.
    visible_from: Timestamp,
}

impl Machine {
    fn is_visible(&self, region: &Region, now: Timestamp) -> bool {
        self.instance.region == *region && self.visible_from <= now
    }

    fn document(&self, simulator: &Simulator) -> Option<String> {
        if let Some(document) = self.document.get() {
            return Some(document.clone());
        }
        let document = match &self.instance.document_of {
            None => simulator.document(&self.instance)?,
            // Not kept: the other machine may be started anew.
            Some(other) => {
                return simulator.document(&simulator.machine(other.as_str())?.instance);
            }
        };
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
        let settings = scenario.settings();
        let mint = Mint::new(settings.server_account.clone()).ok_or(SimulationFailed::Key)?;
        let simulator = Self {
            signer,
            mint,
            machines: RwLock::default(),
            limits: Limits::new(settings.limits.clone()),
            settings,
            counter: Counter::default(),
            faults: Faults::default(),
            parameters: Parameters::default(),
            upstream: None,
            clock,
        };
        for instance in instances {
            simulator.start(instance);
        }
        Ok(simulator)
    }

    /// With an emulator behind it, which gets what the simulator does not answer itself.
    pub fn with_upstream(self, upstream: SocketAddr) -> Result<Self, SimulationFailed> {
        if upstream.ip().is_loopback() {
            Ok(Self { upstream: Some(upstream), ..self })
        } else {
            Err(SimulationFailed::NotLoopback(upstream))
        }
    }

    /// Starts an instance, or starts it anew if its id is known.
    pub fn start(&self, instance: SimulatedInstance) {
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        let id = instance.instance_id.to_string();
        let started = instance.pending_time.max(self.clock.now());
        let visible_from = started.plus(Span::in_seconds(instance.record.visible_after));
        let visible_from = machines.get(&id).map_or(visible_from, |known| known.visible_from);
        machines
            .insert(id, Arc::new(Machine { instance, document: OnceLock::new(), visible_from }));
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

    /// Changes what EC2 says of an instance. False if there is no such instance.
    pub fn change(&self, id: &InstanceId, change: impl FnOnce(&mut InstanceRecord)) -> bool {
        let mut machines = self.machines.write().unwrap_or_else(PoisonError::into_inner);
        let Some(machine) = machines.get_mut(id.as_str()) else { return false };
        let mut instance = machine.instance.clone();
        change(&mut instance.record);
        let changed = Machine {
            instance,
            document: machine.document.clone(),
            visible_from: machine.visible_from,
        };
        *machine = Arc::new(changed);
        true
    }

    /// What a service does from now on instead of answering; with nothing it answers again.
    pub fn set_fault(&self, service: Service, fault: Option<Fault>) {
        self.faults.set(service, fault);
    }

    /// What arrived until now.
    pub fn calls(&self) -> Calls {
        self.counter.calls()
    }

    /// The keys of the server's own user.
    pub fn server_credentials(&self) -> Credentials {
        self.mint.server()
    }

    /// What an instance gets now from its metadata service for its identity role.
    pub fn identity_credentials(&self, id: &InstanceId) -> Option<Credentials> {
        let machine = self.machine(id.as_str())?;
        Some(self.mint.identity_role(&machine.instance, self.clock.now())?.0)
    }

    /// What an instance gets now from its metadata service for the role of its instance profile.
    pub fn profile_credentials(&self, id: &InstanceId) -> Option<Credentials> {
        let machine = self.machine(id.as_str())?;
        Some(self.mint.instance_profile(&machine.instance, self.clock.now())?.0)
    }

    /// Writes what `muster server --simulation DIR` reads: `certificates/<region>.pem`,
    /// `server-credentials.json`, and `simulation.json` with the address where the simulator is
    /// served. Returns the directory of the certificates.
    pub fn write(
        &self,
        directory: &Path,
        address: SocketAddr,
    ) -> Result<PathBuf, SimulationFailed> {
        let certificates = directory.join("certificates");
        let failed = |path: &Path| SimulationFailed::io(format!("`{}`", path.display()));
        fs::create_dir_all(&certificates).map_err(failed(&certificates))?;
        for (region, pem) in self.certificates() {
            let path = certificates.join(format!("{region}.pem"));
            fs::write(&path, pem).map_err(failed(&path))?;
        }
        let path = directory.join("server-credentials.json");
        write_private(&path, &credentials_document(&self.mint.server())).map_err(failed(&path))?;
        let path = directory.join("simulation.json");
        let url = format!("http://{address}");
        let description = json!({
            "certificates": "certificates",
            "sts": url,
            "ec2": url,
            "ssm": url,
            "credentials": "server-credentials.json",
        });
        fs::write(&path, format!("{description}\n")).map_err(failed(&path))?;
        Ok(certificates)
    }

    /// An instance that EC2 knows by now in this region.
    fn visible(&self, id: &str, region: &Region) -> Option<Arc<Machine>> {
        let now = self.clock.now();
        self.machine(id).filter(|machine| machine.is_visible(region, now))
    }

    fn all_visible(&self, region: &Region) -> Vec<Arc<Machine>> {
        let now = self.clock.now();
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.values().filter(|machine| machine.is_visible(region, now)).cloned().collect()
    }

    fn machine(&self, id: &str) -> Option<Arc<Machine>> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.get(id).cloned()
    }
}

fn credentials_document(credentials: &Credentials) -> String {
    let document = json!({
        "access_key_id": credentials.access_key_id(),
        "secret_access_key": credentials.secret_access_key(),
        "session_token": credentials.session_token(),
    });
    format!("{document}\n")
}

/// Writes a file that nobody else may read, in place of one that anybody may have made.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests;

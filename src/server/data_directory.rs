//! The data directory: one server at a time, one trust domain for ever, simulation never mixed with
//! the real thing.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::ca::write_new_file;
use crate::domain::TrustDomain;

/// The trust domain of simulations that name none.
const SIMULATION_DOMAIN: &str = "simulation.internal";

/// A data directory that cannot be used, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableDirectory(pub String);

/// What is written down at the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    trust_domain: TrustDomain,
    simulation: bool,
}

/// An opened data directory. Dropping it lets another server in.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    trust_domain: TrustDomain,
    _lock: fs::File,
}

impl DataDirectory {
    /// Opens the directory, or prepares it at the first start.
    pub fn open(
        path: &Path,
        trust_domain: Option<&TrustDomain>,
        is_simulation: bool,
    ) -> Result<Self, UnusableDirectory> {
        let unusable = |error: &dyn std::fmt::Display| {
            UnusableDirectory(format!("{}: {error}", path.display()))
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| unusable(&error))?;
        check_data_directory(path)?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| unusable(&error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| unusable(&"another muster server uses this directory"))?;
        let stamp_path = path.join("installation.json");
        let stamp = match fs::read(&stamp_path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| UnusableDirectory(format!("{}: {error}", stamp_path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                first_start(&stamp_path, trust_domain, is_simulation)?
            }
            Err(error) => return Err(unusable(&error)),
        };
        check_stamp(path, &stamp, trust_domain, is_simulation)?;
        let ca = path.join("ca");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&ca)
            .map_err(|error| unusable(&error))?;
        Ok(Self { path: path.to_owned(), trust_domain: stamp.trust_domain, _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The trust domain of this installation.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Where the authorities are.
    pub fn ca(&self) -> PathBuf {
        self.path.join("ca")
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        store_path(&self.path)
    }
}

/// The store's file in a data directory.
pub fn store_path(data_dir: &Path) -> PathBuf {
    data_dir.join("muster.db")
}

/// The local socket in a data directory.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("muster.sock")
}

/// Whether the directory is there, and ours alone.
pub fn check_data_directory(path: &Path) -> Result<(), UnusableDirectory> {
    let problem = |text: &str| Err(UnusableDirectory(format!("{}: {text}", path.display())));
    let metadata = fs::metadata(path)
        .map_err(|error| UnusableDirectory(format!("{}: {error}", path.display())))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return problem("belongs to another user; run the server as its owner");
    }
    if metadata.mode() & 0o077 != 0 {
        return problem("others can enter it; `chmod 700` it");
    }
    Ok(())
}

fn first_start(
    path: &Path,
    trust_domain: Option<&TrustDomain>,
    simulation: bool,
) -> Result<Stamp, UnusableDirectory> {
    let trust_domain = match (trust_domain, simulation) {
        (Some(domain), _) => domain.clone(),
        (None, true) => SIMULATION_DOMAIN
            .parse()
            .map_err(|_| UnusableDirectory("no trust domain".to_owned()))?,
        (None, false) => {
            return Err(UnusableDirectory(
                "the first start needs --trust-domain; it is for ever".to_owned(),
            ));
        }
    };
    let stamp = Stamp { trust_domain, simulation };
    let written = serde_json::to_vec(&stamp)
        .map_err(std::io::Error::other)
        .and_then(|bytes| write_new_file(path, &bytes));
    written.map_err(|error| UnusableDirectory(format!("{}: {error}", path.display())))?;
    Ok(stamp)
}

fn check_stamp(
    path: &Path,
    stamp: &Stamp,
    trust_domain: Option<&TrustDomain>,
    is_simulation: bool,
) -> Result<(), UnusableDirectory> {
    let problem = |text: String| Err(UnusableDirectory(format!("{}: {text}", path.display())));
    match (stamp.simulation, is_simulation) {
        (true, false) => problem(
            "was made with --simulation and never serves anything else; use another directory"
                .to_owned(),
        ),
        (false, true) => {
            problem("serves real nodes; give --simulation a directory of its own".to_owned())
        }
        _ if trust_domain.is_some_and(|domain| *domain != stamp.trust_domain) => {
            problem(format!("belongs to trust domain {}, which is for ever", stamp.trust_domain))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> TrustDomain {
        text.parse().unwrap()
    }

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().join("data");
        (keep, path)
    }

    #[test]
    fn the_first_start_needs_a_trust_domain_and_keeps_it() {
        let (_keep, path) = fresh();
        assert!(DataDirectory::open(&path, None, false).is_err());
        drop(DataDirectory::open(&path, Some(&domain("a.example")), false).unwrap());
        let again = DataDirectory::open(&path, None, false).unwrap();
        assert_eq!(again.trust_domain(), &domain("a.example"));
        drop(again);
        assert!(DataDirectory::open(&path, Some(&domain("b.example")), false).is_err());
    }

    #[test]
    fn a_simulation_never_serves_anything_else() {
        let (_keep, path) = fresh();
        let opened = DataDirectory::open(&path, None, true).unwrap();
        assert_eq!(opened.trust_domain(), &domain("simulation.internal"));
        drop(opened);
        assert!(DataDirectory::open(&path, None, false).is_err());
        let (_keep, path) = fresh();
        drop(DataDirectory::open(&path, Some(&domain("a.example")), false).unwrap());
        assert!(DataDirectory::open(&path, None, true).is_err());
    }

    #[test]
    fn one_server_at_a_time_and_nobody_else_may_enter() {
        use std::os::unix::fs::PermissionsExt;
        let (_keep, path) = fresh();
        let first = DataDirectory::open(&path, None, true).unwrap();
        assert!(DataDirectory::open(&path, None, true).unwrap_err().0.contains("another"));
        drop(first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(DataDirectory::open(&path, None, true).unwrap_err().0.contains("chmod 700"));
    }
}

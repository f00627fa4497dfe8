//! What a node keeps between joins: its key, and the certificate that it got for it.
//!
//! ```text
//! DIR/                      0700, ours, nobody else's
//!   lock                    held as long as a process uses the directory
//!   instance.json           which instance all of this belongs to
//!   pending/key.pem         the key before the first certificate: made once, kept until it has one
//!   current -> identity-7   switched atomically
//!   identity-7/             key.pem (0600), certificate.pem, bundle.pem, node.json, join_root.pem
//!   set-aside-<time>/       all of the above of another instance: a copied disk
//! ```
//!
//! The key is on disk before it is ever sent, so a lost reply or a crash leads back to the same key
//! and never to a conflict (I5). Everything is read and written below one open directory and no
//! link is followed.

mod directory;
mod key;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use pkcs8::LineEnding;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use key::{NodeKey, SigningFailed};

use crate::domain::{Code, InstanceId, Timestamp};
use directory::{Directory, Lock};

const LOCK: &str = "lock";
const STAMP: &str = "instance.json";
const PENDING: &str = "pending";
const CURRENT: &str = "current";
const IDENTITY_PREFIX: &str = "identity-";
const SET_ASIDE_PREFIX: &str = "set-aside-";
const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const BUNDLE: &str = "bundle.pem";
const NODE: &str = "node.json";
const JOIN_ROOT: &str = "join_root.pem";

/// Readable by others as far as the directory lets them, which is not at all.
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("state directory `{}`: {what}", .path.display())]
pub struct StateUnusable {
    path: PathBuf,
    what: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("another process of muster uses it")]
    InUse,
    #[error("it belongs to user {0}, not to the user of this process")]
    OtherOwner(u32),
    #[error("others may write to it; nothing in it can be trusted. Remove it, or use another one")]
    OthersMayWrite,
    #[error("`{0}` is not a P-256 key in a PKCS#8 file that only its owner can read")]
    Key(String),
    #[error("`{0}` is missing or unreadable")]
    File(String),
    #[error("`current` is not a link that muster made")]
    Link,
    #[error("no key could be made")]
    NoKey,
}

impl StateUnusable {
    /// The code that it is reported under.
    pub fn code(&self) -> Code {
        Code::StateUnusable
    }
}

/// Whose state it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceIdentity {
    /// The instance, as its metadata service names it.
    pub instance_id: InstanceId,
}

/// What a join brought, to be kept beside the key.
#[derive(Debug, Clone)]
pub struct Joined {
    /// DER certificates: the leaf, then intermediates.
    pub chain: Vec<Vec<u8>>,
    /// DER trust anchors of the node CA.
    pub bundle: Vec<Vec<u8>>,
    /// The DER join root; may be empty.
    pub join_root: Vec<u8>,
    /// The record of the node, as JSON.
    pub node_json: String,
}

/// What the node has at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentIdentity {
    /// PEM: the leaf, then intermediates.
    pub certificate_pem: String,
    /// PEM: trust anchors of the node CA.
    pub bundle_pem: String,
    /// The record of the node, as JSON.
    pub node_json: String,
}

/// An open state directory. No other process has it open.
pub struct StateDirectory {
    path: PathBuf,
    directory: Directory,
    set_aside: Option<PathBuf>,
    _lock: Lock,
}

impl StateDirectory {
    /// Opens the state of an instance, or begins it. State of another instance is set aside: the
    /// disk was copied, and a key of somebody else is never used (T62).
    pub fn open(
        path: &Path,
        instance: &InstanceIdentity,
        now: Timestamp,
    ) -> Result<Self, StateUnusable> {
        let unusable = |what| StateUnusable { path: path.to_owned(), what };
        let directory = Directory::open_private(path).map_err(unusable)?;
        let lock = directory.lock(LOCK).map_err(unusable)?;
        let mut state = Self { path: path.to_owned(), directory, set_aside: None, _lock: lock };
        state.claim(instance, now).map_err(unusable)?;
        Ok(state)
    }

    /// Where the state of another instance went, if there was any.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// The key to join with: that of the current certificate, or the pending one, which is made
    /// and durable before this returns.
    pub fn key(&self) -> Result<NodeKey, StateUnusable> {
        self.try_key().map_err(|what| self.unusable(what))
    }

    /// Keeps what a join brought for `key()`, all at once.
    pub fn install(&self, joined: &Joined) -> Result<(), StateUnusable> {
        self.try_install(joined).map_err(|what| self.unusable(what))
    }

    /// What the node has, if it ever joined.
    pub fn current(&self) -> Result<Option<CurrentIdentity>, StateUnusable> {
        self.try_current().map_err(|what| self.unusable(what))
    }

    fn unusable(&self, what: Problem) -> StateUnusable {
        StateUnusable { path: self.path.clone(), what }
    }

    /// Makes sure that everything here is the instance's, and says so in the stamp.
    fn claim(&mut self, instance: &InstanceIdentity, now: Timestamp) -> Result<(), Problem> {
        let stamp = self.directory.read(STAMP)?;
        // A stamp that cannot be read vouches for nothing.
        let owner = stamp.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if owner.as_ref() == Some(instance) {
            return Ok(());
        }
        self.set_all_aside(now)?;
        let stamp = serde_json::to_vec(instance).map_err(io::Error::from)?;
        self.directory.replace(STAMP, PUBLIC, &stamp)?;
        Ok(())
    }

    fn set_all_aside(&mut self, now: Timestamp) -> Result<(), Problem> {
        let names = to_set_aside(self.directory.names()?);
        if names.is_empty() {
            return Ok(());
        }
        let (name, aside) = self.directory.make_new(&format!("{SET_ASIDE_PREFIX}{now}"))?;
        for entry in names {
            self.directory.rename(&entry, &aside, &entry)?;
        }
        aside.sync()?;
        self.directory.sync()?;
        self.set_aside = Some(self.path.join(name));
        Ok(())
    }

    fn try_key(&self) -> Result<NodeKey, Problem> {
        match self.key_file()? {
            Some(KeyFile { path, pem }) => NodeKey::from_pem(&pem).ok_or(Problem::Key(path)),
            None => self.make_key(),
        }
    }

    /// The key that is in use, current before pending.
    fn key_file(&self) -> Result<Option<KeyFile>, Problem> {
        if let Some(name) = self.current_name()? {
            let path = format!("{name}/{KEY}");
            let pem = self.directory.child(&name)?.read_secret(KEY, &path)?;
            return match pem {
                Some(pem) => Ok(Some(KeyFile { path, pem })),
                None => Err(Problem::File(path)),
            };
        }
        let path = format!("{PENDING}/{KEY}");
        let Some(pending) = self.directory.find_child(PENDING)? else { return Ok(None) };
        Ok(pending.read_secret(KEY, &path)?.map(|pem| KeyFile { path, pem }))
    }

    fn make_key(&self) -> Result<NodeKey, Problem> {
        let key = NodeKey::generate().ok_or(Problem::NoKey)?;
        let pem = key.to_pem().ok_or(Problem::NoKey)?;
        let pending = self.directory.make_child(PENDING)?;
        pending.replace(KEY, SECRET, pem.as_bytes())?;
        self.directory.sync()?;
        Ok(key)
    }

    fn try_install(&self, joined: &Joined) -> Result<(), Problem> {
        let key = self.key_file()?.ok_or(Problem::File(KEY.to_owned()))?;
        let current = self.current_name()?;
        let name = format!("{IDENTITY_PREFIX}{}", number_of(current.as_deref()) + 1);
        // What a crash left under this name was never current.
        self.directory.remove_child(&name)?;
        let identity = self.directory.make_child(&name)?;
        identity.write_new(KEY, SECRET, &key.pem)?;
        identity.write_new(CERTIFICATE, PUBLIC, pem_of(&joined.chain)?.as_bytes())?;
        identity.write_new(BUNDLE, PUBLIC, pem_of(&joined.bundle)?.as_bytes())?;
        identity.write_new(NODE, PUBLIC, joined.node_json.as_bytes())?;
        if !joined.join_root.is_empty() {
            let join_root = pem_of(std::slice::from_ref(&joined.join_root))?;
            identity.write_new(JOIN_ROOT, PUBLIC, join_root.as_bytes())?;
        }
        identity.sync()?;
        self.directory.sync()?;
        self.directory.link(CURRENT, &name)?;
        self.remove_all_but(&name)
    }

    /// Removes keys and certificates that are no longer current.
    fn remove_all_but(&self, current: &str) -> Result<(), Problem> {
        for name in self.directory.names()? {
            let is_identity = name.starts_with(IDENTITY_PREFIX) && name != current;
            if is_identity || name == PENDING {
                self.directory.remove_child(&name)?;
            }
        }
        Ok(self.directory.sync()?)
    }

    fn try_current(&self) -> Result<Option<CurrentIdentity>, Problem> {
        let Some(name) = self.current_name()? else { return Ok(None) };
        let identity = self.directory.child(&name)?;
        let text = |file: &str| {
            let bytes = identity.read(file)?.and_then(|bytes| String::from_utf8(bytes).ok());
            bytes.ok_or_else(|| Problem::File(format!("{name}/{file}")))
        };
        Ok(Some(CurrentIdentity {
            certificate_pem: text(CERTIFICATE)?,
            bundle_pem: text(BUNDLE)?,
            node_json: text(NODE)?,
        }))
    }

    /// Where `current` leads: to a sibling of the form that `install` makes and nowhere else.
    fn current_name(&self) -> Result<Option<String>, Problem> {
        let Some(target) = self.directory.read_link(CURRENT)? else { return Ok(None) };
        if number_of(Some(&target)) == 0 {
            return Err(Problem::Link);
        }
        Ok(Some(target))
    }
}

impl fmt::Debug for StateDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateDirectory({})", self.path.display())
    }
}

/// Everything but the lock and what was set aside before. The stamp goes last: after a crash the
/// rest still does not belong to this instance.
fn to_set_aside(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| name != LOCK && !name.starts_with(SET_ASIDE_PREFIX));
    names.sort_by_key(|name| name == STAMP);
    names
}

/// A key as it lies on disk.
struct KeyFile {
    path: String,
    pem: Zeroizing<Vec<u8>>,
}

/// The number of `identity-<number>`, or 0.
fn number_of(name: Option<&str>) -> u32 {
    name.and_then(|name| name.strip_prefix(IDENTITY_PREFIX))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

fn pem_of(certificates: &[Vec<u8>]) -> Result<String, Problem> {
    certificates
        .iter()
        .map(|der| der::pem::encode_string("CERTIFICATE", LineEnding::LF, der))
        .collect::<Result<_, _>>()
        .map_err(|error| Problem::Io(io::Error::other(error.to_string())))
}

#[cfg(test)]
mod tests;

//! What a node keeps between joins: its key, and the certificate that it got for it.
//!
//! ```text
//! DIR/                      0700, ours, nobody else's
//!   lock                    held as long as a process uses the directory
//!   instance.json           which instance all of this belongs to, and since when it runs
//!   agent.json              how the agent fares, for `muster agent status`
//!   pending/key.pem         a key that is being asked with: the first one, or the next one
//!   rejoin/key.pem          the key to join with when the enrollment of `current` is lost
//!   current -> identity-7   switched atomically
//!   identity-7/             key.pem (0600), certificate.pem, bundle.pem, node.json, join_root.pem
//!   set-aside-<time>/       all of the above of another instance: a copied disk
//! ```
//!
//! A key is on disk before it is ever sent, so a lost reply or a crash leads back to the same key
//! and never to a conflict or a clone signal (I5). Everything is read and written below one open
//! directory and no link is followed.

mod directory;
mod identity;
mod key;
mod record;
mod removal;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pkcs8::LineEnding;
use serde::{Deserialize, Serialize};

pub use identity::{CurrentIdentity, NodeRecord};
pub use key::{NodeKey, SigningFailed};
pub use record::{AgentRecord, EarlierError, LastError, ReloadRecord, Status, status};
pub use removal::{Removed, remove};

use crate::agent::machine::MachineId;
use crate::domain::{Code, Timestamp};
use directory::{Directory, Lock};

const LOCK: &str = "lock";
const STAMP: &str = "instance.json";
const AGENT: &str = "agent.json";
const PENDING: &str = "pending";
const REJOIN: &str = "rejoin";
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
    /// The instance, as its metadata service names it, or the host.
    pub instance_id: MachineId,
    /// Since when it runs: the document's `pendingTime`. Nothing if the metadata service does not
    /// say or there is none, or in state of a version that did not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Timestamp>,
}

/// What this process knows of the time since the stamp was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Nothing: it has just started. Another epoch means that the machine stopped, and that the
    /// disk may have been copied or restored meanwhile.
    Unknown,
    /// It has run all the time. Another epoch means that the machine hibernated: memory and key
    /// survived together (K11).
    Ran,
}

/// What a join or a renewal brought, to be kept with its key.
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

/// A state directory that no other process has open. Whose state is in it is not known before
/// `claim`.
pub struct LockedState {
    path: PathBuf,
    directory: Directory,
    _lock: Lock,
}

impl LockedState {
    /// Opens or begins a state directory and takes its lock.
    pub fn take(path: &Path) -> Result<Arc<Self>, StateUnusable> {
        let unusable = |what| StateUnusable { path: path.to_owned(), what };
        let directory = Directory::open_private(path).map_err(unusable)?;
        let lock = directory.lock(LOCK).map_err(unusable)?;
        Ok(Arc::new(Self { path: path.to_owned(), directory, _lock: lock }))
    }

    /// The state of this instance. State of another one is set aside, and so is that of an earlier
    /// run of the machine: the disk was copied or restored, and a key of somebody else is never
    /// used (T62).
    pub fn claim(
        self: &Arc<Self>,
        instance: &InstanceIdentity,
        continuity: Continuity,
        now: Timestamp,
    ) -> Result<StateDirectory, StateUnusable> {
        let locked = Arc::clone(self);
        let instance_id = instance.instance_id.clone();
        let mut state = StateDirectory { locked, instance_id, set_aside: None };
        state.claim(instance, continuity, now).map_err(|what| self.unusable(what))?;
        Ok(state)
    }

    /// Writes `agent.json`.
    pub fn write_record(&self, record: &AgentRecord) -> Result<(), StateUnusable> {
        let text = serde_json::to_vec(record).map_err(io::Error::from);
        text.and_then(|text| self.directory.replace(AGENT, PUBLIC, &text))
            .map_err(|error| self.unusable(error.into()))
    }

    /// What `agent.json` says; nothing if it is not there or cannot be read.
    pub fn read_record(&self) -> AgentRecord {
        record::read(&self.directory)
    }

    fn unusable(&self, what: Problem) -> StateUnusable {
        StateUnusable { path: self.path.clone(), what }
    }
}

/// The state of this instance. No other process has it open.
pub struct StateDirectory {
    locked: Arc<LockedState>,
    instance_id: MachineId,
    set_aside: Option<PathBuf>,
}

impl StateDirectory {
    /// Opens the state of an instance, or begins it, for a process that has just started.
    pub fn open(
        path: &Path,
        instance: &InstanceIdentity,
        now: Timestamp,
    ) -> Result<Self, StateUnusable> {
        LockedState::take(path)?.claim(instance, Continuity::Unknown, now)
    }

    /// The instance.
    pub fn instance_id(&self) -> &MachineId {
        &self.instance_id
    }

    /// Where the state of another instance went, if there was any.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// The key to join with: one that starts over, that of the current certificate, or the pending
    /// one, which is made and durable before this returns.
    pub fn key(&self) -> Result<NodeKey, StateUnusable> {
        self.try_key().map_err(|what| self.unusable(what))
    }

    /// The key of the current certificate.
    pub fn current_key(&self) -> Result<Option<NodeKey>, StateUnusable> {
        self.try_current_key().map_err(|what| self.unusable(what))
    }

    /// The key to renew with: the pending one, which is made and durable before this returns. As
    /// long as it has no certificate there is no other: a second one over the same certificate
    /// would look like a copy of this node.
    pub fn next_key(&self) -> Result<NodeKey, StateUnusable> {
        self.try_next_key().map_err(|what| self.unusable(what))
    }

    /// The key that a renewal was asked for with, if no answer to that was kept.
    pub fn unanswered_key(&self) -> Result<Option<NodeKey>, StateUnusable> {
        let unanswered = || {
            let current = self.try_current_key()?;
            let pending = self.key_in(PENDING)?;
            let is_of_current = |key: &NodeKey| {
                current.as_ref().is_none_or(|current| current.public_key() == key.public_key())
            };
            Ok(pending.filter(|key| !is_of_current(key)))
        };
        unanswered().map_err(|what| self.unusable(what))
    }

    /// Forgets the pending key, of which the server said that it can never be used.
    pub fn discard_next_key(&self) -> Result<(), StateUnusable> {
        let removed = self.directory().remove_child(PENDING);
        removed.map_err(|error| self.unusable(error.into()))
    }

    /// Makes the key to join with when the server has given up the enrollment of the current
    /// certificate. It is used until a join succeeds; the current files stay until then.
    pub fn start_over(&self) -> Result<(), StateUnusable> {
        self.try_start_over().map_err(|what| self.unusable(what))
    }

    /// Whether a key waits that starts over.
    pub fn starts_over(&self) -> Result<bool, StateUnusable> {
        let key = self.key_in(REJOIN).map_err(|what| self.unusable(what))?;
        Ok(key.is_some())
    }

    /// Keeps what was brought for this key, all at once. An error means that nothing has changed.
    pub fn install(&self, key: &NodeKey, joined: &Joined) -> Result<(), StateUnusable> {
        self.try_install(key, joined).map_err(|what| self.unusable(what))
    }

    /// What the node has, if it ever joined.
    pub fn current(&self) -> Result<Option<CurrentIdentity>, StateUnusable> {
        identity::read(self.directory()).map_err(|what| self.unusable(what))
    }

    fn directory(&self) -> &Directory {
        &self.locked.directory
    }

    fn unusable(&self, what: Problem) -> StateUnusable {
        self.locked.unusable(what)
    }

    /// Makes sure that everything here is the instance's, and says so in the stamp.
    fn claim(
        &mut self,
        instance: &InstanceIdentity,
        continuity: Continuity,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let stamp = self.directory().read(STAMP)?;
        // A stamp that cannot be read vouches for nothing.
        let owner: Option<InstanceIdentity> =
            stamp.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let owner = owner.filter(|owner| owner.instance_id == instance.instance_id);
        let known = owner.as_ref().and_then(|owner| owner.epoch);
        let is_other_epoch = known.zip(instance.epoch).is_some_and(|(was, is)| was != is);
        let is_ours = owner.is_some() && (!is_other_epoch || continuity == Continuity::Ran);
        if !is_ours {
            self.set_all_aside(now)?;
        }
        // Not knowing the epoch is no reason to forget it. And the stamp comes before anything is
        // asked in the new epoch: a crash in between must lead back to the same key.
        let epoch = instance.epoch.or(known.filter(|_| is_ours));
        let stamp = InstanceIdentity { epoch, ..instance.clone() };
        if owner.as_ref() != Some(&stamp) || !is_ours {
            let stamp = serde_json::to_vec(&stamp).map_err(io::Error::from)?;
            self.directory().replace(STAMP, PUBLIC, &stamp)?;
        }
        Ok(())
    }

    fn set_all_aside(&mut self, now: Timestamp) -> Result<(), Problem> {
        let directory = &self.locked.directory;
        let names = to_set_aside(directory.names()?);
        if names.is_empty() {
            return Ok(());
        }
        let (name, aside) = directory.make_new(&format!("{SET_ASIDE_PREFIX}{now}"))?;
        for entry in names {
            directory.rename(&entry, &aside, &entry)?;
        }
        aside.sync()?;
        directory.sync()?;
        self.set_aside = Some(self.locked.path.join(name));
        Ok(())
    }

    fn try_key(&self) -> Result<NodeKey, Problem> {
        if let Some(key) = self.key_in(REJOIN)? {
            return Ok(key);
        }
        match self.try_current_key()? {
            Some(key) => Ok(key),
            None => self.pending_key(),
        }
    }

    fn try_current_key(&self) -> Result<Option<NodeKey>, Problem> {
        let Some(name) = identity::current_name(self.directory())? else { return Ok(None) };
        self.key_in(&name)?.map(Some).ok_or(Problem::File(format!("{name}/{KEY}")))
    }

    fn try_next_key(&self) -> Result<NodeKey, Problem> {
        let pending = self.pending_key()?;
        let current = self.try_current_key()?;
        if current.is_none_or(|current| current.public_key() != pending.public_key()) {
            return Ok(pending);
        }
        // It has its certificate: a crash came between the switch and the tidying up.
        self.directory().remove_child(PENDING)?;
        self.pending_key()
    }

    fn pending_key(&self) -> Result<NodeKey, Problem> {
        match self.key_in(PENDING)? {
            Some(key) => Ok(key),
            None => self.make_key(PENDING),
        }
    }

    fn try_start_over(&self) -> Result<(), Problem> {
        // The new key first: a crash after it finds the way on, one before it finds the old way.
        self.make_key(REJOIN)?;
        Ok(self.directory().remove_child(PENDING)?)
    }

    /// The key in a directory, if it is there.
    fn key_in(&self, name: &str) -> Result<Option<NodeKey>, Problem> {
        let path = format!("{name}/{KEY}");
        let Some(directory) = self.directory().find_child(name)? else { return Ok(None) };
        let Some(pem) = directory.read_secret(KEY, &path)? else { return Ok(None) };
        NodeKey::from_pem(&pem).map(Some).ok_or(Problem::Key(path))
    }

    fn make_key(&self, name: &str) -> Result<NodeKey, Problem> {
        let key = NodeKey::generate().ok_or(Problem::NoKey)?;
        let pem = key.to_pem().ok_or(Problem::NoKey)?;
        let child = self.directory().make_child(name)?;
        child.replace(KEY, SECRET, pem.as_bytes())?;
        self.directory().sync()?;
        Ok(key)
    }

    fn try_install(&self, key: &NodeKey, joined: &Joined) -> Result<(), Problem> {
        let current = identity::current_name(self.directory())?;
        let name = format!("{IDENTITY_PREFIX}{}", identity::number_of(current.as_deref()) + 1);
        // What a crash left under this name was never current.
        self.directory().remove_child(&name)?;
        let switched = self.write_identity(&name, key, joined).and_then(|()| {
            self.directory().sync()?;
            Ok(self.directory().link(CURRENT, &name)?)
        });
        if switched.is_err() && identity::current_name(self.directory())? != Some(name.clone()) {
            // Half an identity is of no use, and on a full disk its room is.
            let _left_for_the_next_time = self.directory().remove_child(&name);
        }
        switched?;
        // From here on the new identity is the node's, so that no failure may look as if it were
        // not. What cannot be removed now is removed after the next one.
        let _left_for_the_next_time = self.remove_all_but(&name);
        Ok(())
    }

    fn write_identity(&self, name: &str, key: &NodeKey, joined: &Joined) -> Result<(), Problem> {
        let identity = self.directory().make_child(name)?;
        let pem = key.to_pem().ok_or(Problem::NoKey)?;
        identity.write_new(KEY, SECRET, pem.as_bytes())?;
        identity.write_new(CERTIFICATE, PUBLIC, pem_of(&joined.chain)?.as_bytes())?;
        identity.write_new(BUNDLE, PUBLIC, pem_of(&joined.bundle)?.as_bytes())?;
        identity.write_new(NODE, PUBLIC, joined.node_json.as_bytes())?;
        if !joined.join_root.is_empty() {
            let join_root = pem_of(std::slice::from_ref(&joined.join_root))?;
            identity.write_new(JOIN_ROOT, PUBLIC, join_root.as_bytes())?;
        }
        Ok(identity.sync()?)
    }

    /// Removes keys and certificates that are no longer current.
    fn remove_all_but(&self, current: &str) -> io::Result<()> {
        for name in self.directory().names()? {
            let is_identity = name.starts_with(IDENTITY_PREFIX) && name != current;
            if is_identity || name == PENDING || name == REJOIN {
                self.directory().remove_child(&name)?;
            }
        }
        self.directory().sync()
    }
}

impl fmt::Debug for StateDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateDirectory({})", self.locked.path.display())
    }
}

/// Everything but the lock and what was set aside before. The stamp goes last: after a crash the
/// rest still does not belong to this instance.
fn to_set_aside(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| name != LOCK && !name.starts_with(SET_ASIDE_PREFIX));
    names.sort_by_key(|name| name == STAMP);
    names
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

//! `agent.json`: how the agent fares. Written whole by the agent, read by `muster agent status`
//! without the lock.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::{AGENT, CurrentIdentity, StateUnusable, identity};
use crate::domain::{Code, Timestamp};

/// What the agent says of itself. Nothing in it is secret, and nothing depends on it but what
/// `status` shows and whether a reload is due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentRecord {
    /// When the node last got a certificate.
    pub last_success: Option<Timestamp>,
    /// What went wrong since then.
    pub last_error: Option<LastError>,
    /// When the agent asks again.
    pub next_try: Option<Timestamp>,
    /// The last reload command.
    pub reload: Option<ReloadRecord>,
}

/// Why the last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// The stable code.
    pub code: Code,
    /// In words.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Leads an operator to the explanation.
    pub correlation_id: Option<String>,
    /// When it happened.
    pub time: Timestamp,
    /// How the node asked, where it came so far: `ec2`, `token`, `token (key alone)`.
    #[serde(default)]
    pub method: Option<String>,
    /// What was tried before it in the same attempt, and denied.
    #[serde(default)]
    pub earlier: Vec<EarlierError>,
}

/// A method that was denied, after which the next one of the list was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierError {
    /// How the node asked.
    pub method: String,
    /// The stable code.
    pub code: Code,
    /// In words.
    pub message: String,
    /// Leads an operator to the explanation.
    pub correlation_id: Option<String>,
}

/// How the reload command ended for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadRecord {
    /// The certificate's serial.
    pub serial: String,
    /// When it ended.
    pub time: Timestamp,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What can be seen of a state directory from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// What the node has, if it ever joined.
    pub current: Option<CurrentIdentity>,
    /// What the agent says.
    pub agent: AgentRecord,
}

/// Looks at a state directory without taking its lock and without changing it. One that is not
/// there is empty.
pub fn status(path: &Path) -> Result<Status, StateUnusable> {
    let unusable = |what| StateUnusable { path: path.to_owned(), what };
    let found = Directory::find(path).map_err(|error| unusable(error.into()))?;
    let Some(directory) = found else { return Ok(Status::default()) };
    let current = identity::read(&directory).map_err(unusable)?;
    Ok(Status { current, agent: read(&directory) })
}

pub(super) fn read(directory: &Directory) -> AgentRecord {
    let text = directory.read(AGENT).ok().flatten();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

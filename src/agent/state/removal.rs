//! Taking everything of a node off the disk, for `muster agent leave` and `seal`.

use std::path::Path;

use super::directory::Directory;
use super::{
    AGENT, CURRENT, IDENTITY_PREFIX, LOCK, PENDING, Problem, REJOIN, SET_ASIDE_PREFIX, STAMP,
    StateUnusable, identity,
};

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The node's id, if it ever joined and its record can be read.
    pub node_id: Option<String>,
    /// The names in the state directory.
    pub names: Vec<String>,
}

/// Removes keys, certificates and all that the agent wrote beside them; `is_rehearsal` only says what
/// there is. Refused while an agent runs. What is none of muster's is left alone.
pub fn remove(path: &Path, is_rehearsal: bool) -> Result<Removed, StateUnusable> {
    let unusable = |what: Problem| StateUnusable { path: path.to_owned(), what };
    let found = Directory::find(path).map_err(|error| unusable(error.into()))?;
    if found.is_none() {
        return Ok(Removed { node_id: None, names: Vec::new() });
    }
    let directory = Directory::open_private(path).map_err(unusable)?;
    let _lock = directory.lock(LOCK).map_err(unusable)?;
    try_remove(&directory, is_rehearsal).map_err(unusable)
}

fn try_remove(directory: &Directory, is_rehearsal: bool) -> Result<Removed, Problem> {
    // State that cannot be read is removed all the same.
    let current = identity::read(directory).ok().flatten();
    let node_id = current.and_then(|current| current.record()).map(|record| record.node_id);
    let mut names = directory.names()?;
    names.retain(|name| is_ours(name));
    // The link first: nobody finds half an identity. The stamp last, as when state is set aside.
    names.sort_by_key(|name| (name != CURRENT, name == STAMP, name.clone()));
    if !is_rehearsal {
        for name in &names {
            remove_entry(directory, name)?;
        }
        directory.sync()?;
    }
    Ok(Removed { node_id, names })
}

fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    matches!(name, STAMP | AGENT | PENDING | REJOIN | CURRENT)
        || name.starts_with(IDENTITY_PREFIX)
        || name.starts_with(SET_ASIDE_PREFIX)
}

/// Removes a link, a file, or a directory of our making: state that was set aside holds directories
/// of files, and nothing is deeper.
fn remove_entry(directory: &Directory, name: &str) -> Result<(), Problem> {
    let Some(child) = directory.find_child_directory(name)? else {
        return Ok(directory.remove_file(name)?);
    };
    for inner in child.names()? {
        if child.find_child_directory(&inner)?.is_some() {
            child.remove_child(&inner)?;
        }
    }
    Ok(directory.remove_child(name)?)
}

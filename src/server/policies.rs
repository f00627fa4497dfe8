//! The policy set at the start of a server.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use tracing::warn;

use super::config::Config;
use super::policy_directory;
use super::start_error::StartError;
use crate::clock::Clock;
use crate::policy::{Finding, PolicySet, Vocabulary};
use crate::registry::Registry;
use crate::store::StoreUnavailable;

/// `DATA/policies` is made at the first start: empty, so nobody can join, and it says so.
pub(super) fn prepare_default(config: &Config) -> Result<(), StartError> {
    let path = config.data_dir.join("policies");
    if config.policies != path || path.exists() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(|source| policy_directory::Unreadable { path, source }.into())
}

/// Reads the set that is in force from now on: whole, or the server does not start.
pub(super) fn load(
    config: &Config,
    vocabulary: &Vocabulary,
    clock: &Clock,
) -> Result<Arc<PolicySet>, StartError> {
    let loaded = policy_directory::load(&config.policies, vocabulary, Some(clock.now()))?;
    let broken = |errors| StartError::Policies { directory: config.policies.clone(), errors };
    let (errors, warnings): (Vec<Finding>, Vec<Finding>) =
        loaded.findings.into_iter().partition(Finding::is_error);
    let Some(set) = loaded.set else { return Err(broken(errors)) };
    for warning in &warnings {
        warn!(finding = %warning, "policy");
    }
    if set.is_empty() {
        warn!(directory = %config.policies.display(), "no join policy is loaded: nobody can join");
    }
    Ok(set)
}

/// Keeps the text of a set, so that decisions made by it can be explained later.
pub(super) async fn keep(
    registry: &Registry,
    policies: &PolicySet,
) -> Result<(), StoreUnavailable> {
    let files: Vec<_> =
        policies.files().iter().map(|file| (file.name.clone(), file.text.clone())).collect();
    registry.keep_policy_set(policies.hash(), &files).await
}

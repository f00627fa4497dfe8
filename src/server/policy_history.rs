//! Every policy set that was ever in force: when it was loaded, and its text. Reads alone, so it works
//! beside a running server and without one.

use std::sync::Arc;

use crate::audit::{Entry, LOG_PREFIX};
use crate::domain::{PolicyHash, Timestamp};
use crate::policy::{self, PolicyFile};
use crate::registry::Registry;
use crate::store::{Store, StoreUnavailable};

/// Kinds of audit records that say which set is in force from then on.
const LOADS: [&str; 2] = ["server-start", "policy-set"];
/// Records that are read at once.
const BATCH: usize = 1024;

/// A set came into force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// When.
    pub loaded_at: Timestamp,
    /// Which.
    pub hash: PolicyHash,
}

/// Why the text of a set is not told.
#[derive(Debug, thiserror::Error)]
pub enum AlteredSet {
    /// What is kept under the hash has another one.
    #[error("the text that is kept as {kept_as} has the hash {hash}: it was changed in the store")]
    Altered {
        /// The hash under which it is kept.
        kept_as: PolicyHash,
        /// The hash that it has.
        hash: PolicyHash,
    },
    /// Nobody knows.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The sets that a store keeps.
pub struct PolicyHistory {
    store: Arc<dyn Store>,
    registry: Registry,
}

impl PolicyHistory {
    /// Of this store, which may be one that is open for reading alone.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let registry = Registry::new(Arc::clone(&store));
        Self { store, registry }
    }

    /// Every load, in the order of time. A set that is loaded again stands here again, also by a start
    /// of the server with the set of before. Two starts within one second have no order.
    pub async fn loads(&self) -> Result<Vec<Load>, StoreUnavailable> {
        let mut loads = Vec::new();
        let chains = self.store.logs().await?;
        for chain in chains.into_iter().filter(|log| log.starts_with(LOG_PREFIX)) {
            let mut last = 0;
            loop {
                let entries = self.store.read_log(&chain, last, BATCH).await?;
                let Some(end) = entries.last().map(|entry| entry.sequence) else { break };
                for entry in &entries {
                    let entry = Entry::from_log(&chain, entry)
                        .map_err(|error| StoreUnavailable(error.to_string()))?;
                    loads.extend(load(entry));
                }
                last = end;
            }
        }
        // Chains have their own order; within one of them, records of a second keep theirs.
        loads.sort_by_key(|load| load.loaded_at);
        Ok(loads)
    }

    /// The hashes of the sets whose text is kept.
    pub async fn kept(&self) -> Result<Vec<PolicyHash>, StoreUnavailable> {
        self.registry.policy_sets().await
    }

    /// The text of a set, sorted by file name; none if it is not kept. It is checked against the hash.
    pub async fn files(&self, hash: &PolicyHash) -> Result<Option<Vec<PolicyFile>>, AlteredSet> {
        let Some(files) = self.registry.policy_set(hash).await? else { return Ok(None) };
        let files: Vec<PolicyFile> =
            files.into_iter().map(|(name, text)| PolicyFile { name, text }).collect();
        let found = policy::hash_of(&files);
        if found != *hash {
            return Err(AlteredSet::Altered { kept_as: hash.clone(), hash: found });
        }
        Ok(Some(files))
    }
}

fn load(entry: Entry) -> Option<Load> {
    let record = entry.record;
    let hash = record.policy_hash.filter(|_| LOADS.contains(&record.kind.as_str()))?;
    Some(Load { loaded_at: record.time, hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn files(text: &str) -> Vec<PolicyFile> {
        ["a.yaml", "b.yaml"].map(|name| PolicyFile { name: name.into(), text: text.into() }).into()
    }

    async fn keep(registry: &Registry, hash: &PolicyHash, files: &[PolicyFile]) {
        let files: Vec<_> =
            files.iter().map(|file| (file.name.clone(), file.text.clone())).collect();
        registry.keep_policy_set(hash, &files).await.unwrap();
    }

    #[tokio::test]
    async fn all_that_was_kept_is_found_also_text_of_many_pieces() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (registry, history) = (Registry::new(Arc::clone(&store)), PolicyHistory::new(store));
        let long = "# long\n".repeat(20_000);
        let mut sets: Vec<(PolicyHash, Vec<PolicyFile>)> = ["# one\n", &long, "# three\n"]
            .map(|text| (policy::hash_of(&files(text)), files(text)))
            .into();
        for (hash, files) in &sets {
            keep(&registry, hash, files).await;
        }
        sets.sort_by(|left, right| left.0.as_str().cmp(right.0.as_str()));
        let hashes: Vec<_> = sets.iter().map(|(hash, _)| hash.clone()).collect();
        assert_eq!(history.kept().await.unwrap(), hashes);
        for (hash, files) in &sets {
            assert_eq!(history.files(hash).await.unwrap().as_ref(), Some(files));
        }
        let unknown = policy::hash_of(&files("# unknown\n"));
        assert!(history.files(&unknown).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn text_that_is_not_what_its_hash_says_is_not_told() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (registry, history) = (Registry::new(Arc::clone(&store)), PolicyHistory::new(store));
        let hash = policy::hash_of(&files("# reviewed\n"));
        keep(&registry, &hash, &files("# reviewed \n")).await;
        let error = history.files(&hash).await.unwrap_err();
        assert!(matches!(error, AlteredSet::Altered { kept_as, .. } if kept_as == hash));
    }
}

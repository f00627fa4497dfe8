//! Since when somebody has had access: the loads of the sets that gave it, without a gap until now.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::history::Key;
use crate::cli::local::open_store;
use crate::cli::{Failure, runtime};
use crate::domain::{Code, PolicyHash, Timestamp};
use crate::policy::{self, AccessQuery, Ground, Horizon, PolicySet, Population, Vocabulary};
use crate::server::PolicyHistory;

/// Who had access by each set, in the order of loads.
pub(super) struct Since {
    loads: Vec<(Timestamp, Arc<HashSet<Key>>)>,
}

impl Since {
    /// Reads every set that a data directory keeps, up to `at`. A set whose text is gone gave, as far
    /// as can be told, nobody access: what is known begins after it.
    pub(super) fn read(
        data_dir: &Path,
        vocabulary: &Vocabulary,
        query: AccessQuery<'_>,
        at: Timestamp,
    ) -> Result<Self, Failure> {
        runtime()?.block_on(async {
            let unavailable = |error: &dyn std::fmt::Display| {
                Failure::new(Code::StoreUnavailable, error.to_string())
            };
            let history = PolicyHistory::new(Arc::new(open_store(data_dir)?));
            let mut by_hash: BTreeMap<PolicyHash, Arc<HashSet<Key>>> = BTreeMap::new();
            let mut loads = Vec::new();
            let all = history.loads().await.map_err(|error| unavailable(&error))?;
            for load in all.into_iter().filter(|load| load.loaded_at <= at) {
                if !by_hash.contains_key(&load.hash) {
                    let files = history.files(&load.hash).await;
                    let files = files.map_err(|error| unavailable(&error))?;
                    let set = files.and_then(|files| policy::load(&files, vocabulary, None).set);
                    let keys = set.map(|set| keys(&set, vocabulary, query, load.loaded_at));
                    by_hash.insert(load.hash.clone(), Arc::new(keys.unwrap_or_default()));
                }
                let keys = by_hash.get(&load.hash).cloned().unwrap_or_default();
                loads.push((load.loaded_at, keys));
            }
            Ok(Self { loads })
        })
    }

    /// The first load of the unbroken run up to the last one that gave this access; nothing if the
    /// last one does not.
    pub(super) fn of(&self, key: &Key) -> Option<Timestamp> {
        let run = self.loads.iter().rev().take_while(|(_, keys)| keys.contains(key));
        run.last().map(|(loaded_at, _)| *loaded_at)
    }
}

fn keys(
    set: &PolicySet,
    vocabulary: &Vocabulary,
    query: AccessQuery<'_>,
    at: Timestamp,
) -> HashSet<Key> {
    let population = Population::of(&[set]);
    let (regions, horizon) = (&vocabulary.regions, Horizon::Now);
    let ground = Ground { population: &population, regions, at, horizon };
    let found = policy::access(set, query, ground);
    let key = |policy: &str, account| (policy.to_owned(), account);
    found
        .rows
        .iter()
        .flat_map(|row| {
            let policy = row.policy.name().as_str();
            let of_none = row.partition.is_none().then(|| key(policy, None));
            let of_each = row.partition.into_iter().flat_map(move |partition| {
                row.accounts.iter().map(move |account| {
                    key(policy, Some((partition.as_str().to_owned(), account.to_string())))
                })
            });
            of_none.into_iter().chain(of_each)
        })
        .collect()
}

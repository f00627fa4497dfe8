//! A lease: who of several servers does what only one may do. Taking it over changes its record, and
//! every transaction of the work is under the condition that the record is still as its holder wrote
//! it, so a holder that was overtaken in its sleep writes nothing more.

use serde::{Deserialize, Serialize};

use super::{Registry, decode, put};
use crate::domain::{Lifetime, Timestamp};
use crate::store::{CommitError, Condition, Key, StoreUnavailable, Transaction};

/// What only one server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Publishing tokens.
    Publishing,
}

/// A lease that this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    key: Key,
    holder: String,
    version: u64,
}

/// Who holds a lease. Written when it changes hands, and not when it is prolonged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holder {
    holder: String,
    since: Timestamp,
}

impl Duty {
    fn key(self) -> Key {
        match self {
            Self::Publishing => Key::new(["lease", "publisher"]),
        }
    }

    /// Where it stands until when; apart from the holder, so that prolonging conflicts with nothing.
    fn end_key(self) -> Key {
        match self {
            Self::Publishing => Key::new(["lease-end", "publisher"]),
        }
    }
}

impl Lease {
    /// That nobody has taken it over.
    pub(super) fn condition(&self) -> Condition {
        Condition::Unchanged(self.key.clone(), self.version)
    }
}

impl Registry {
    /// Takes a lease that is free, that has lapsed, or that `holder` has already, and prolongs it until
    /// `life` from now. Nothing if somebody else has it.
    pub async fn take_lease(
        &self,
        duty: Duty,
        holder: &str,
        life: Lifetime,
        now: Timestamp,
    ) -> Result<Option<Lease>, StoreUnavailable> {
        let (key, end_key) = (duty.key(), duty.end_key());
        let found = self.store.get_all(&[key.clone(), end_key.clone()]).await?;
        let mut found = found.into_iter();
        let (held, end) = (found.next().flatten(), found.next().flatten());
        let known: Option<Holder> =
            held.as_ref().map(|held| decode(&key, &held.value)).transpose()?;
        let until: Option<Timestamp> =
            end.as_ref().map(|end| decode(&end_key, &end.value)).transpose()?;
        let is_own = known.as_ref().is_some_and(|known| known.holder == holder);
        if !is_own && known.is_some() && until.is_some_and(|until| now < until) {
            return Ok(None);
        }
        let as_read = |key: &Key, version: Option<u64>| match version {
            Some(version) => Condition::Unchanged(key.clone(), version),
            None => Condition::Absent(key.clone()),
        };
        let mut transaction = Transaction {
            conditions: vec![
                as_read(&key, held.as_ref().map(|held| held.version)),
                as_read(&end_key, end.as_ref().map(|end| end.version)),
            ],
            puts: vec![put(&end_key, &now.plus(life))?],
            ..Transaction::default()
        };
        if !is_own {
            let taken = Holder { holder: holder.to_owned(), since: now };
            transaction.puts.push(put(&key, &taken)?);
        }
        match self.store.commit(transaction).await {
            Ok(_) => {}
            Err(CommitError::Conflict(_)) => return Ok(None),
            Err(CommitError::Unavailable(error)) => return Err(error),
        }
        let read = self.read::<Holder>(&key).await?;
        let own = read.filter(|(known, _)| known.holder == holder);
        Ok(own.map(|(known, version)| Lease { key, holder: known.holder, version }))
    }

    /// Gives a lease back, so that nobody has to wait for its end.
    pub async fn release_lease(&self, duty: Duty, lease: &Lease) -> Result<(), StoreUnavailable> {
        let transaction = Transaction {
            conditions: vec![lease.condition()],
            deletes: vec![lease.key.clone(), duty.end_key()],
            ..Transaction::default()
        };
        match self.store.commit(transaction).await {
            // On conflict it is somebody else's already.
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Unavailable(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{MemoryStore, SqliteStore, Store};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const LIFE: Lifetime = Lifetime::from_seconds(15);

    async fn is_fenced(store: &Arc<dyn Store>, lease: &Lease) -> bool {
        let puts = vec![put(&Key::new(["work"]), &1).unwrap()];
        let conditions = vec![lease.condition()];
        let work = Transaction { conditions, puts, ..Transaction::default() };
        matches!(store.commit(work).await, Err(CommitError::Conflict(_)))
    }

    #[tokio::test]
    async fn one_holds_it_until_it_lapses_and_then_writes_nothing_more() {
        let directory = tempfile::tempdir().unwrap();
        let stores: [Arc<dyn Store>; 2] = [
            Arc::new(MemoryStore::default()),
            Arc::new(SqliteStore::open(&directory.path().join("s")).unwrap()),
        ];
        for store in stores {
            let registry = Registry::new(store.clone());
            let take = |holder: &'static str, seconds| {
                let registry = registry.clone();
                let now = NOW.plus(Lifetime::from_seconds(seconds));
                async move { registry.take_lease(Duty::Publishing, holder, LIFE, now).await.unwrap() }
            };
            let first = take("a", 0).await.unwrap();
            assert_eq!(take("b", 0).await, None);
            assert_eq!(take("a", 10).await.as_ref(), Some(&first), "prolonged");
            assert_eq!(take("b", 24).await, None);
            assert!(!is_fenced(&store, &first).await);
            let second = take("b", 25).await.unwrap();
            assert!(is_fenced(&store, &first).await, "the first one slept");
            assert_eq!(take("a", 26).await, None);
            registry.release_lease(Duty::Publishing, &first).await.unwrap();
            assert!(!is_fenced(&store, &second).await, "nobody gives back another's");
            registry.release_lease(Duty::Publishing, &second).await.unwrap();
            assert!(take("a", 26).await.is_some());
        }
    }
}

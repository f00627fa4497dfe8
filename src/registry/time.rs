//! The latest time that this installation has seen, so that a clock that was set back shows at the
//! next start (red team N10).

use super::{Registry, put};
use crate::domain::Timestamp;
use crate::store::{Key, StoreUnavailable, Transaction};

impl Registry {
    /// The latest time on record.
    pub async fn latest_time(&self) -> Result<Option<Timestamp>, StoreUnavailable> {
        Ok(self.read(&key()).await?.map(|(time, _)| time))
    }

    /// Keeps a later one.
    pub async fn keep_time(&self, latest: Timestamp) -> Result<(), StoreUnavailable> {
        if self.latest_time().await?.is_some_and(|known| known >= latest) {
            return Ok(());
        }
        let puts = vec![put(&key(), &latest)?];
        let kept = self.store.commit(Transaction { puts, ..Transaction::default() }).await;
        kept.map(|_| ()).map_err(|error| StoreUnavailable(error.to_string()))
    }
}

fn key() -> Key {
    Key::new(["clock", "latest"])
}

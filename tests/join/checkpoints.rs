//! Checkpoints while others write (I9, red team X5).

use std::sync::Arc;

use muster::audit::{Audit, CheckpointKey, Class, Outcome, Record, Verification, verify};
use muster::clock::Clock;
use muster::domain::Timestamp;
use muster::store::Transaction;

use crate::hooked::Hooked;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_000_000);

struct Site {
    store: Arc<Hooked>,
    audit: Audit,
    key: Vec<u8>,
}

impl Site {
    fn new() -> Self {
        let store = Arc::<Hooked>::default();
        let key = CheckpointKey::generate().unwrap().to_vec();
        let audit = Audit::new(store.clone(), Clock::fixed(NOW)).unwrap();
        let audit = audit.with_checkpoints(CheckpointKey::from_pkcs8(&key).unwrap());
        Self { store, audit, key }
    }

    /// Somebody else's record lands between the look at the chain and the checkpoint.
    fn let_one_come_between(&self) {
        let append = self.audit.append(&record()).unwrap();
        self.store.before_commit(async move |store| {
            let other = Transaction { appends: vec![append], ..Transaction::default() };
            store.commit(other).await.unwrap();
        });
    }

    async fn verified(&self) -> Verification {
        let key = CheckpointKey::from_pkcs8(&self.key).unwrap();
        let found = verify(&*self.store, &[key.public().clone()]).await.unwrap();
        assert!(found.ok, "{found:?}");
        found
    }
}

fn record() -> Record {
    Record::new(NOW, Class::Security, "local-command", Outcome::Done)
}

#[tokio::test]
async fn a_record_that_comes_with_a_checkpoint_is_covered_by_the_next() {
    let site = Site::new();
    site.audit.write(&record()).await.unwrap();
    site.let_one_come_between();
    assert!(site.audit.write_checkpoint().await.unwrap());
    assert_eq!(site.verified().await.unsealed, 1);
    assert!(site.audit.write_checkpoint().await.unwrap(), "nothing has come since, but it had");
    assert_eq!(site.verified().await.unsealed, 0);
    assert!(!site.audit.write_checkpoint().await.unwrap(), "an idle server writes none");
}

#[tokio::test]
async fn the_last_checkpoint_leaves_nothing_uncovered() {
    let site = Site::new();
    site.audit.write(&record()).await.unwrap();
    site.let_one_come_between();
    site.audit.write_last_checkpoint().await.unwrap();
    let found = site.verified().await;
    assert_eq!((found.unsealed, found.checkpoints), (0, 2));
}

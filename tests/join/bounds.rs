//! What crowds of strangers cost: counted to the last one, bounded in rows, bytes and memory, and
//! never paid for by those who may join (I14, I17, T70).

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use muster::audit::{Audit, Class, RefusalQuota, Room, verify};
use muster::domain::{Code, Lifetime};
use muster::join::{Attempt, Start};
use muster::sim::SimulatedInstance;
use muster::store::{
    CommitError, Committed, Key, LogEntry, LogHead, MemoryStore, Page, SqliteStore, Store,
    StoreUnavailable, Transaction, Versioned,
};
use tokio::task::JoinSet;

use crate::world::{ALLOWED, DENIED_IMAGE, Node, World};

const STRANGERS: u32 = 100_000;
/// How many strangers show the same document, each from an address of his own.
const SHOWN_BY: u32 = 10;
/// Strangers between two summaries.
const A_MINUTE: u32 = 1000;

/// The attempts of strangers with the same document, each with another text of 1 KiB.
fn attempts(document: u32) -> impl Iterator<Item = Attempt> {
    let node =
        Node::new(&format!("{:012}", 200_000_000_000 + u64::from(document)), document.into());
    let template = node.attempt("web");
    (0..SHOWN_BY).map(move |number| {
        let number = u64::from(document * SHOWN_BY + number);
        let facts = format!("{number:01024}");
        let key = template.start.public_key.spki_der();
        let start = Start::parse("web", "ec2", key, &facts).unwrap();
        let source = IpAddr::from(Ipv6Addr::from(u128::from(number) << 64));
        let Attempt { channel, nonce, ref evidence, ref pop, .. } = template;
        Attempt { start, channel, nonce, evidence: evidence.clone(), pop: pop.clone(), source }
    })
}

async fn crowd(world: &Arc<World>, documents: std::ops::Range<u32>) {
    const WORKERS: u32 = 4;
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (world, documents) = (Arc::clone(world), documents.clone());
        workers.spawn(async move {
            for document in documents.skip(worker as usize).step_by(WORKERS as usize) {
                for attempt in attempts(document) {
                    let refusal = world.joins.admit(&attempt).await.unwrap_err();
                    assert_eq!(refusal.recorded, Code::PolicyNoMatch);
                }
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn bytes_of(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

// Acceptance: 10⁵ strangers' joins grow the store by less than 10 MB and memory not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_strangers_cost_summaries_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("muster.db")).unwrap();
    let world = Arc::new(World::on(Arc::new(store)));
    let audit = &world.joins.audit;
    let (mut summaries, mut warm) = (0, 0);
    for minute in 0..STRANGERS / A_MINUTE {
        let documents = A_MINUTE / SHOWN_BY;
        crowd(&world, minute * documents..(minute + 1) * documents).await;
        audit.write_summary().await.unwrap();
        summaries += 1;
        // By now everything that is kept in memory is full.
        if (minute + 1) * A_MINUTE == STRANGERS / 4 {
            warm = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(warm);
    let (stored, explained) = (bytes_of(directory.path()), audit.explained_bytes());
    eprintln!("store {stored} bytes, memory grew by {grown}, explanations take {explained}");

    assert!(stored < 10_000_000, "{stored}");
    assert!(grown < 8 << 20, "{grown}");
    assert!(explained <= 16 << 20, "{explained}");
    let records = world.records(Class::Noise).await;
    assert_eq!(records.len(), summaries, "a summary a minute, and nothing else");
    let counted = |record: &muster::audit::Entry| {
        record.record.detail["codes"]["POLICY_NO_MATCH"].as_u64().unwrap()
    };
    assert_eq!(records.iter().map(counted).sum::<u64>(), u64::from(STRANGERS));
    assert_eq!(audit.counted(), u64::from(STRANGERS));
    for class in [Class::Known, Class::Security, Class::Admission] {
        assert_eq!(world.records(class).await.len(), 0, "{class:?}");
    }
    world.admitted(&Node::new(ALLOWED, 1), "web").await;
}

/// A disk with so many bytes left, or none.
#[derive(Default)]
struct SmallDisk {
    inner: MemoryStore,
    left: AtomicU64,
}

impl SmallDisk {
    fn leave(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Store for SmallDisk {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreUnavailable> {
        self.inner.get(key).await
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreUnavailable> {
        self.inner.get_all(keys).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreUnavailable> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let values = transaction.puts.iter().map(|put| put.value.len());
        let needed: usize =
            values.chain(transaction.appends.iter().map(|append| append.payload.len())).sum();
        let needed = u64::try_from(needed).unwrap();
        let taken = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(needed));
        if taken.is_err() {
            return Err(StoreUnavailable("database or disk is full".to_owned()).into());
        }
        self.inner.commit(transaction).await
    }

    async fn logs(&self) -> Result<Vec<String>, StoreUnavailable> {
        self.inner.logs().await
    }

    async fn heads(&self) -> Result<Vec<LogHead>, StoreUnavailable> {
        self.inner.heads().await
    }

    async fn read_log(
        &self,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreUnavailable> {
        self.inner.read_log(log, after, limit).await
    }
}

struct FullDisk {
    world: World,
    disk: Arc<SmallDisk>,
    instances: AtomicU64,
}

impl FullDisk {
    async fn new(bytes_an_hour: u64) -> Self {
        let disk = Arc::new(SmallDisk::default());
        disk.leave(10 << 20);
        let mut world = World::on(Arc::clone(&disk) as Arc<dyn Store>);
        let audit = Audit::new(Arc::clone(&world.store), world.clock.clone()).unwrap();
        let quota = RefusalQuota { bytes_an_hour, bytes_in_all: 1 << 30 };
        let audit = audit.with_refusal_quota(quota).await.unwrap();
        Arc::get_mut(&mut world.joins).unwrap().audit = Arc::new(audit);
        Self { world, disk, instances: AtomicU64::new(1) }
    }

    fn node(&self) -> Node {
        Node::new(ALLOWED, self.instances.fetch_add(1, Ordering::SeqCst))
    }

    /// So many refusals of an account that policies name, each of an instance of its own.
    async fn refusals(&self, count: u64) {
        for _ in 0..count {
            let instance = self.node().instance;
            let image_id = DENIED_IMAGE.to_owned();
            let node = Node::of(SimulatedInstance { image_id, ..instance });
            let refusal = self.world.join(&node, "web").await.unwrap_err();
            assert_eq!(refusal.recorded, Code::PolicyDenied);
        }
    }

    async fn joins(&self) -> Result<(), Code> {
        self.world.join(&self.node(), "web").await.map(|_| ()).map_err(|refusal| refusal.recorded)
    }

    fn counted(&self) -> u64 {
        self.world.joins.audit.counted()
    }

    async fn known(&self) -> u64 {
        self.world.records(Class::Known).await.len() as u64
    }

    async fn summaries(&self) -> Vec<serde_json::Value> {
        self.world.joins.audit.write_summary().await.unwrap();
        let found = self.world.records(Class::Noise).await;
        found.into_iter().map(|entry| entry.record.detail.into()).collect()
    }
}

// T70, D4: refusals fill their quota, then the disk. Joins go on, counts stay exact, and when there is
// room again the summaries come.
#[tokio::test]
async fn refusals_that_fill_their_quota_and_the_disk_leave_joins_untouched() {
    const HOUR_BYTES: u64 = 20_000;
    let site = FullDisk::new(HOUR_BYTES).await;
    let audit = Arc::clone(&site.world.joins.audit);

    // The quota.
    site.refusals(100).await;
    let written = site.known().await;
    assert!((5..50).contains(&written), "{written}");
    assert!(audit.refusal_bytes().0 <= HOUR_BYTES);
    assert_eq!(written + site.counted(), 100);
    assert_eq!(site.joins().await, Ok(()));

    // Little room: summaries wait. Less: refusals are only counted, whatever their quota has left.
    audit.set_room(Room::Low);
    assert!(site.summaries().await.is_empty());
    assert_eq!(site.joins().await, Ok(()));
    site.world.clock.advance(Lifetime::from_hours(1));
    site.refusals(1).await;
    assert_eq!(site.known().await, written + 1, "a new hour");
    audit.set_room(Room::VeryLow);
    site.refusals(50).await;
    assert_eq!(site.known().await, written + 1);
    assert!(site.summaries().await.is_empty());
    assert_eq!(site.joins().await, Ok(()));

    // Full: nobody until the reserve is given back, and then everybody and every security event.
    site.disk.leave(0);
    assert_eq!(site.joins().await, Err(Code::StoreUnavailable));
    site.disk.leave(1 << 20);
    let node = site.node();
    site.world.admitted(&node, "web").await;
    assert_eq!(site.world.refused(&node.copied(), "web").await, Code::EnrollmentConflict);
    assert_eq!(site.world.records(Class::Security).await.len(), 1);

    // The reserve is used up.
    audit.set_room(Room::Gone);
    let refusal = site.world.join(&site.node(), "web").await.unwrap_err();
    assert_eq!(refusal.recorded, Code::StoreUnavailable);
    let record = audit.recall(refusal.correlation_id.as_ref().unwrap()).unwrap();
    let message = record.detail["message"].as_str().unwrap();
    assert!(
        message.contains("store.reserve_mib") && message.contains("docs/operations.md"),
        "{message}"
    );
    assert_eq!(site.world.refused(&node.copied(), "web").await, Code::EnrollmentConflict);
    assert_eq!(site.world.records(Class::Security).await.len(), 2, "not even then");
    assert!(site.summaries().await.is_empty());

    // Room again: everything that was counted is told, exactly.
    audit.set_room(Room::Ample);
    assert_eq!(site.joins().await, Ok(()));
    let summaries = site.summaries().await;
    assert_eq!(summaries.len(), 1);
    let told = |code: &str| summaries[0]["codes"][code].as_u64().unwrap();
    assert_eq!(told("POLICY_DENIED") + site.known().await, 151);
    assert_eq!(told("STORE_UNAVAILABLE"), 2);
    assert_eq!(told("POLICY_DENIED") + told("STORE_UNAVAILABLE"), site.counted());
    assert_eq!(summaries[0]["known"]["POLICY_DENIED"], told("POLICY_DENIED"));
    assert!(verify(site.world.store.as_ref(), &[]).await.unwrap().ok);
}

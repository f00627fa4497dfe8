mod checkpoints;

use super::*;
use crate::domain::{Code, Timestamp};
use crate::store::{MemoryStore, SqliteStore};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn audit(store: &Arc<dyn Store>) -> Audit {
    Audit::new(Arc::clone(store), Clock::fixed(at(1_000_000))).unwrap()
}

fn refusal(class: Class, time: i64) -> Record {
    let mut record = Record::new(at(time), class, "join", Outcome::Refused);
    record.code = Some(Code::PolicyNoMatch);
    record
}

async fn written(store: &Arc<dyn Store>) -> Vec<Entry> {
    first(store.as_ref(), &Query::default(), usize::MAX).await.unwrap()
}

// I17: whatever noise does, security events are written.
#[tokio::test]
async fn noise_is_counted_and_security_is_written() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let audit = audit(&store);
    for _ in 0..20_000 {
        audit.refuse(refusal(Class::Noise, 5), "x").await.unwrap();
    }
    assert!(written(&store).await.is_empty());
    for _ in 0..200 {
        audit.refuse(refusal(Class::Security, 5), "x").await.unwrap();
    }
    assert_eq!(written(&store).await.len(), 200);
    audit.write_summary().await.unwrap();
    audit.write_summary().await.unwrap();
    let entries = written(&store).await;
    assert_eq!(entries.len(), 201, "one summary, and none of nothing");
    assert_eq!(entries[200].record.detail["codes"]["POLICY_NO_MATCH"], 20_000);
}

#[tokio::test]
async fn known_refusals_have_a_quota_for_each_instance_reason_and_hour() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let audit = audit(&store);
    for _ in 0..100 {
        audit.refuse(refusal(Class::Known, 5), "i-1").await.unwrap();
    }
    assert_eq!(written(&store).await.len(), 60);
    audit.refuse(refusal(Class::Known, 5), "i-2").await.unwrap();
    audit.refuse(refusal(Class::Known, 3605), "i-1").await.unwrap();
    assert_eq!(written(&store).await.len(), 62);
    assert_eq!(audit.counted(), 40);
}

#[tokio::test]
async fn noise_is_explained_from_memory() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let audit = audit(&store);
    let id = audit.correlation_id(Class::Noise).unwrap();
    let mut record = refusal(Class::Noise, 5);
    record.correlation_id = Some(id.clone());
    audit.refuse(record.clone(), "x").await.unwrap();
    assert_eq!(audit.recall(&id), Some(record));
    assert_eq!(audit.recall(&audit.correlation_id(Class::Noise).unwrap()), None);
}

#[tokio::test]
async fn a_changed_removed_or_added_record_breaks_the_chain() {
    for (tamper, reason) in [
        (
            "UPDATE records SET payload = CAST(replace(payload, 'join', 'jo1n') AS BLOB) WHERE sequence = 2",
            "changed",
        ),
        ("DELETE FROM records WHERE sequence = 2", "missing"),
        ("UPDATE records SET sequence = 9 WHERE sequence = 5", "missing"),
        ("UPDATE records SET hash = zeroblob(32) WHERE sequence = 5", "changed"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
        let audit = audit(&store);
        for _ in 0..5 {
            audit.write(&refusal(Class::Security, 5)).await.unwrap();
        }
        let sound = verify(store.as_ref(), &[]).await.unwrap();
        assert_eq!((sound.ok, sound.records, sound.chains), (true, 5, 1));
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch(tamper).unwrap();
        let found = verify(store.as_ref(), &[]).await.unwrap();
        assert!(found.first_bad.unwrap().reason.contains(reason), "{tamper}");
    }
}

#[tokio::test]
async fn an_exported_copy_shows_what_the_chain_alone_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).unwrap());
    let audit = audit(&store);
    for _ in 0..3 {
        audit.write(&refusal(Class::Security, 5)).await.unwrap();
    }
    let file = directory.path().join("audit.jsonl");
    let mut sink = FileSink::new(&file);
    assert_eq!(sink.cursor(), None);
    let mut cursor = audit.start();
    export(store.as_ref(), &mut cursor, &mut sink).await.unwrap();
    export(store.as_ref(), &mut cursor, &mut sink).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
    assert_eq!(sink.cursor(), Some(cursor));
    let against = |text: Vec<u8>| {
        let store = Arc::clone(&store);
        async move {
            let chains = verify(store.as_ref(), &[]).await.unwrap();
            assert!(chains.ok);
            let mut copy = std::io::Cursor::new(text);
            compare_with_export(store.as_ref(), &[], &mut copy, chains).await.unwrap()
        }
    };
    let copy = std::fs::read(&file).unwrap();
    assert!(against(copy.clone()).await.ok);
    assert!(!against(b"{}\n".to_vec()).await.ok);

    // The tail is gone; what is left is a perfect chain.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("DELETE FROM records WHERE sequence = 3").unwrap();
    let found = against(copy).await;
    assert_eq!(found.first_bad.unwrap().seq, 3);
}

// A crash between a commit and its copy leaves nothing out: the next process goes on where the copy
// ends, through the chains that came after.
#[tokio::test]
async fn a_copy_goes_on_where_it_ends() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let directory = tempfile::tempdir().unwrap();
    let mut sink = FileSink::new(&directory.path().join("audit.jsonl"));
    let first = audit(&store);
    first.write(&refusal(Class::Security, 5)).await.unwrap();
    export(store.as_ref(), &mut first.start(), &mut sink).await.unwrap();
    first.write(&refusal(Class::Security, 6)).await.unwrap();
    let later = Clock::fixed(at(1_000_001));
    let second = Audit::new(Arc::clone(&store), later).unwrap();
    second.write(&refusal(Class::Security, 7)).await.unwrap();
    // Half a line is what a full disk leaves.
    sink.write(b"{\"seq\":2,").unwrap();
    let cursor = sink.cursor().unwrap();
    let mut own = second.start();
    catch_up(store.as_ref(), &cursor, &own.chain, &mut sink).await.unwrap();
    export(store.as_ref(), &mut own, &mut sink).await.unwrap();
    let copy = std::fs::read(directory.path().join("audit.jsonl")).unwrap();
    let sound = verify(store.as_ref(), &[]).await.unwrap();
    let mut copy = std::io::Cursor::new(copy);
    let compared = compare_with_export(store.as_ref(), &[], &mut copy, sound).await.unwrap();
    assert!(compared.ok);
    assert_eq!(copy.into_inner().split(|byte| *byte == b'\n').count() - 1, 3);
}

// After a clock that was set back, the new chain sorts before the copied one.
#[tokio::test]
async fn a_chain_that_sorts_first_is_copied_too() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let directory = tempfile::tempdir().unwrap();
    let mut sink = FileSink::new(&directory.path().join("audit.jsonl"));
    let first = audit(&store);
    first.write(&refusal(Class::Security, 5)).await.unwrap();
    export(store.as_ref(), &mut first.start(), &mut sink).await.unwrap();
    let second = Audit::new(Arc::clone(&store), Clock::fixed(at(7))).unwrap();
    second.write(&refusal(Class::Security, 7)).await.unwrap();
    let (cursor, mut own) = (sink.cursor().unwrap(), second.start());
    catch_up(store.as_ref(), &cursor, &own.chain, &mut sink).await.unwrap();
    export(store.as_ref(), &mut own, &mut sink).await.unwrap();
    let copy = std::fs::read_to_string(directory.path().join("audit.jsonl")).unwrap();
    assert_eq!(copy.lines().count(), 2);
}

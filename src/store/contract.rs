//! What every store must do; run against each backend.

use std::sync::Arc;

use super::*;
use crate::domain::Timestamp;

/// Runs the whole suite, each test on a store of its own.
macro_rules! store_contract {
    ($make:expr) => {
        store_contract!(@tests $make,
            a_value_is_read_back_with_a_version_that_changes,
            several_values_are_read_in_the_order_asked_for,
            a_broken_condition_changes_nothing,
            racing_inserts_have_one_winner,
            scans_are_in_order_and_bounded,
            a_scan_of_a_prefix_leaves_its_neighbours_out,
            a_retried_commit_is_applied_once,
            one_conflict_in_a_batch_fails_alone,
            logs_are_chained_without_gaps,
            what_a_backend_could_not_do_is_refused,
            only_what_has_expired_is_swept,
            a_crowd_counts_to_the_limit_and_no_further,
        );
    };
    (@tests $make:expr, $($name:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (_keep, store) = $make;
            super::$name(Arc::new(store)).await;
        })*
    };
}

mod memory {
    use super::*;
    store_contract!(((), MemoryStore::new()));
}

mod sqlite {
    use super::*;
    store_contract!({
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("store.db")).unwrap();
        (directory, store)
    });

    #[tokio::test]
    async fn a_committed_value_survives_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let store = SqliteStore::open(&path).unwrap();
        store.commit(put("a", "1")).await.unwrap();
        store.commit(append("log", "first")).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, b"1");
        store.commit(append("log", "second")).await.unwrap();
        let entries = store.read_log("log", 0, 10).await.unwrap();
        assert_eq!(entries[1].sequence, 2);
        assert_eq!(entries[1].hash, link(entries[0].hash, "log", 2, b"second"));
    }

    // The tables of version 1, as it made them.
    const VERSION_1: &str = "
        CREATE TABLE entries (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL,
            version INTEGER NOT NULL, expires_at INTEGER) STRICT, WITHOUT ROWID;
        CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
        CREATE TABLE records (log TEXT NOT NULL, sequence INTEGER NOT NULL, payload BLOB NOT NULL,
            hash BLOB NOT NULL, PRIMARY KEY (log, sequence)) STRICT, WITHOUT ROWID;
        CREATE TABLE commits (token BLOB PRIMARY KEY NOT NULL, revision INTEGER NOT NULL,
            appended TEXT NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE revision (only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            value INTEGER NOT NULL) STRICT;
        INSERT INTO revision VALUES (1, 7);
        INSERT INTO entries VALUES ('b', x'32', 7, NULL), ('a', x'31', 3, 10);
        PRAGMA application_id = 1836282994; PRAGMA user_version = 1;";

    #[tokio::test]
    async fn a_file_of_version_1_is_brought_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(VERSION_1).unwrap();
        assert!(SqliteStore::open_read_only(&path).unwrap_err().0.contains("muster server"));
        let store = SqliteStore::open(&path).unwrap();
        let found = store.get_all(&[key("a"), key("b")]).await.unwrap();
        let versions: Vec<_> = found.into_iter().flatten().map(|one| one.version).collect();
        assert_eq!(versions, [3, 7]);
        let sweep = Transaction {
            sweep_expired: Some(Timestamp::from_unix_seconds(20)),
            ..Transaction::default()
        };
        assert_eq!(store.commit(sweep).await.unwrap().revision, 8);
        assert_eq!(store.get(&key("a")).await.unwrap(), None);
        assert!(SqliteStore::open_read_only(&path).is_ok());
    }

    #[tokio::test]
    async fn a_file_of_another_kind_or_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other.db");
        let connection = rusqlite::Connection::open(&other).unwrap();
        connection.execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
        assert!(SqliteStore::open(&other).is_err());
        let newer = directory.path().join("newer.db");
        drop(SqliteStore::open(&newer).unwrap());
        let connection = rusqlite::Connection::open(&newer).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(SqliteStore::open(&newer).unwrap_err().0.contains("99"));
        assert!(SqliteStore::open_read_only(&newer).is_err());
    }
}

fn key(text: &str) -> Key {
    Key::new([text])
}

fn put(at: &str, value: &str) -> Transaction {
    let put = Put { key: key(at), value: value.into(), expires_at: None };
    Transaction { puts: vec![put], ..Transaction::default() }
}

fn insert(at: &str, value: &str) -> Transaction {
    Transaction { conditions: vec![Condition::Absent(key(at))], ..put(at, value) }
}

fn append(log: &str, payload: &str) -> Transaction {
    let append = Append { log: log.to_owned(), payload: payload.into() };
    Transaction { appends: vec![append], ..Transaction::default() }
}

async fn a_value_is_read_back_with_a_version_that_changes(store: Arc<dyn Store>) {
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    store.commit(put("a", "1")).await.unwrap();
    let first = store.get(&key("a")).await.unwrap().unwrap();
    store.commit(put("a", "1")).await.unwrap();
    let second = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!(second.value, b"1");
    assert_ne!(first.version, second.version);
    let delete = Transaction { deletes: vec![key("a"), key("b")], ..Transaction::default() };
    store.commit(delete).await.unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
}

async fn several_values_are_read_in_the_order_asked_for(store: Arc<dyn Store>) {
    store.commit(put("a", "1")).await.unwrap();
    store.commit(put("b", "2")).await.unwrap();
    let found = store.get_all(&[key("b"), key("none"), key("a"), key("b")]).await.unwrap();
    let values: Vec<_> = found.into_iter().map(|one| one.map(|one| one.value)).collect();
    let (a, b) = (Some(b"1".to_vec()), Some(b"2".to_vec()));
    assert_eq!(values, [b.clone(), None, a, b]);
    assert!(store.get_all(&[]).await.unwrap().is_empty());
}

async fn a_broken_condition_changes_nothing(store: Arc<dyn Store>) {
    store.commit(put("a", "1")).await.unwrap();
    let stale = Transaction {
        conditions: vec![Condition::Absent(key("b")), Condition::Unchanged(key("a"), 999)],
        deletes: vec![key("a")],
        appends: append("log", "never").appends,
        ..put("b", "2")
    };
    assert_eq!(store.commit(stale).await, Err(CommitError::Conflict(key("a"))));
    assert_eq!(store.get(&key("b")).await.unwrap(), None);
    assert!(store.get(&key("a")).await.unwrap().is_some());
    assert!(store.read_log("log", 0, 10).await.unwrap().is_empty());
    let absent = Transaction {
        conditions: vec![Condition::Unchanged(key("never"), 0)],
        ..Transaction::default()
    };
    assert_eq!(store.commit(absent).await, Err(CommitError::Conflict(key("never"))));
}

async fn racing_inserts_have_one_winner(store: Arc<dyn Store>) {
    let racers = (0..64).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(insert("prize", &number.to_string())).await })
    });
    let mut winners = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(_) => winners += 1,
            Err(error) => assert_eq!(error, CommitError::Conflict(key("prize"))),
        }
    }
    assert_eq!(winners, 1);
}

async fn scans_are_in_order_and_bounded(store: Arc<dyn Store>) {
    for name in ["p/c", "p/a", "p/b"] {
        store.commit(put(name, name)).await.unwrap();
    }
    let names = |page: &Page| -> Vec<String> {
        page.items.iter().map(|(key, _)| key.as_str().to_owned()).collect()
    };
    let first = store.scan("p/", None, 2).await.unwrap();
    assert_eq!((names(&first), first.more), (vec!["p/a".to_owned(), "p/b".to_owned()], true));
    let rest = store.scan("p/", Some(&key("p/b")), 2).await.unwrap();
    assert_eq!((names(&rest), rest.more), (vec!["p/c".to_owned()], false));
}

async fn a_scan_of_a_prefix_leaves_its_neighbours_out(store: Arc<dyn Store>) {
    for name in ["p", "p/a", "p0", "q/a", "o/z"] {
        store.commit(put(name, name)).await.unwrap();
    }
    let page = store.scan("p/", None, 10).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let page = store.scan("p/", Some(&key("a")), 10).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

async fn a_retried_commit_is_applied_once(store: Arc<dyn Store>) {
    let mut transaction = insert("a", "1");
    transaction.appends = append("log", "once").appends;
    transaction.token = Some([7; 16]);
    let first = store.commit(transaction.clone()).await.unwrap();
    let again = store.commit(transaction).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(store.read_log("log", 0, 10).await.unwrap().len(), 1);
}

async fn one_conflict_in_a_batch_fails_alone(store: Arc<dyn Store>) {
    store.commit(put("taken", "1")).await.unwrap();
    let jobs = (0..16).map(|number| {
        let name = if number == 7 { "taken".to_owned() } else { format!("free-{number}") };
        let mut transaction = insert(&name, "x");
        transaction.appends = append("log", &name).appends;
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(transaction).await })
    });
    let mut applied = 0;
    for job in jobs.collect::<Vec<_>>() {
        applied += usize::from(job.await.unwrap().is_ok());
    }
    assert_eq!(applied, 15);
    assert_eq!(store.read_log("log", 0, 100).await.unwrap().len(), 15);
}

async fn logs_are_chained_without_gaps(store: Arc<dyn Store>) {
    let jobs = (0..32).map(|number| {
        let store = Arc::clone(&store);
        let log = if number % 2 == 0 { "even" } else { "odd" };
        tokio::spawn(async move { store.commit(append(log, &number.to_string())).await })
    });
    for job in jobs.collect::<Vec<_>>() {
        job.await.unwrap().unwrap();
    }
    assert_eq!(store.logs().await.unwrap(), ["even", "odd"]);
    let heads = store.heads().await.unwrap();
    assert_eq!(heads.iter().map(|head| head.log.as_str()).collect::<Vec<_>>(), ["even", "odd"]);
    for log in ["even", "odd"] {
        let mut previous = ChainHash::default();
        let entries = store.read_log(log, 0, 100).await.unwrap();
        assert_eq!(entries.len(), 16);
        for (entry, sequence) in entries.iter().zip(1..) {
            assert_eq!(entry.sequence, sequence);
            assert_eq!(entry.hash, link(previous, log, sequence, &entry.payload));
            previous = entry.hash;
        }
        let head = heads.iter().find(|head| head.log == log).unwrap();
        assert_eq!((head.sequence, head.hash), (16, previous));
        assert_eq!(store.read_log(log, 15, 100).await.unwrap().len(), 1);
        assert_eq!(store.read_log(log, 0, 3).await.unwrap().len(), 3);
    }
}

async fn what_a_backend_could_not_do_is_refused(store: Arc<dyn Store>) {
    let too_many = Transaction {
        puts: (0..=TRANSACTION_ITEMS_MAX).flat_map(|n| put(&n.to_string(), "x").puts).collect(),
        ..Transaction::default()
    };
    let too_long_a_key = put(&"k".repeat(KEY_BYTES_MAX + 1), "x");
    let too_long_a_value = put("a", &"v".repeat(VALUE_BYTES_MAX + 1));
    let once = Count { key: key("n"), below: 9, expires_at: None };
    let twice = Transaction { counts: vec![once.clone(), once], ..Transaction::default() };
    for transaction in [too_many, too_long_a_key, too_long_a_value, twice] {
        assert!(matches!(store.commit(transaction).await, Err(CommitError::Unavailable(_))));
    }
    assert!(store.scan("", None, 10).await.unwrap().items.is_empty());
}

async fn only_what_has_expired_is_swept(store: Arc<dyn Store>) {
    let at = Timestamp::from_unix_seconds;
    for (name, expires_at) in [("old", Some(at(10))), ("new", Some(at(30))), ("kept", None)] {
        let mut transaction = put(name, "x");
        transaction.puts[0].expires_at = expires_at;
        store.commit(transaction).await.unwrap();
    }
    let sweep = Transaction { sweep_expired: Some(at(20)), ..Transaction::default() };
    store.commit(sweep).await.unwrap();
    let left = store.scan("", None, 10).await.unwrap();
    let names: Vec<_> = left.items.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["kept", "new"]);
}

async fn a_crowd_counts_to_the_limit_and_no_further(store: Arc<dyn Store>) {
    let count = |below| {
        let count = Count { key: key("uses"), below, expires_at: None };
        Transaction { counts: vec![count], ..put("beside", "it") }
    };
    let crowd: Vec<_> = (0..40)
        .map(|_| {
            let (store, count) = (Arc::clone(&store), count(25));
            tokio::spawn(async move { store.commit(count).await.is_ok() })
        })
        .collect();
    let mut counted = 0;
    for one in crowd {
        counted += u64::from(one.await.unwrap());
    }
    assert_eq!(counted, 25);
    let found = store.get(&key("uses")).await.unwrap();
    assert_eq!(Count::read(found.as_ref()).unwrap(), 25);
    // Refused whole: what stands beside it was not written either.
    let beside = store.get(&key("beside")).await.unwrap().unwrap().version;
    let refused = store.commit(count(25)).await.unwrap_err();
    assert_eq!(refused, CommitError::Conflict(key("uses")));
    assert_eq!(store.get(&key("beside")).await.unwrap().unwrap().version, beside);
    store.commit(put("uses", "no number")).await.unwrap();
    assert!(matches!(store.commit(count(99)).await, Err(CommitError::Unavailable(_))));
}

//! What checkpoints find that links do not. Every forged store here has perfect links
//! (red team X5, X6).

use super::*;
use crate::audit::checkpoint::OTHERS_MAX;
use crate::domain::{Lifetime, PublicKey};

struct Site {
    store: Arc<dyn Store>,
    clock: Clock,
    key: Vec<u8>,
}

impl Site {
    fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let key = CheckpointKey::generate().unwrap().to_vec();
        Self { store, clock: Clock::fixed(at(1_000_000)), key }
    }

    /// A process that starts, writes a record and its first checkpoint.
    async fn start(&self) -> Audit {
        self.clock.advance(Lifetime::from_seconds(60));
        let audit = Audit::new(Arc::clone(&self.store), self.clock.clone()).unwrap();
        let audit = audit.with_checkpoints(CheckpointKey::from_pkcs8(&self.key).unwrap());
        self.record(&audit).await;
        audit.write_checkpoint().await.unwrap();
        audit
    }

    async fn record(&self, audit: &Audit) {
        audit.write(&refusal(Class::Security, self.clock.now().unix_seconds())).await.unwrap();
    }

    fn public(&self) -> PublicKey {
        CheckpointKey::from_pkcs8(&self.key).unwrap().public().clone()
    }

    async fn verified(&self) -> Verification {
        verify(self.store.as_ref(), &[self.public()]).await.unwrap()
    }

    async fn checkpoints(&self) -> usize {
        written(&self.store).await.iter().filter(|entry| entry.record.kind == "checkpoint").count()
    }

    /// What verification says of a store with these records instead, linked as they should be.
    async fn forged(&self, forge: impl Fn(&Entry) -> Option<Record>) -> String {
        let forged: Arc<dyn Store> = Arc::new(MemoryStore::new());
        for entry in written(&self.store).await {
            let Some(record) = forge(&entry) else { continue };
            append_to(&forged, &entry.chain, &record).await;
        }
        reason(&verify(forged.as_ref(), &[self.public()]).await.unwrap())
    }
}

async fn append_to(store: &Arc<dyn Store>, chain: &str, record: &Record) {
    let append = Append { log: chain.to_owned(), payload: record.to_payload().unwrap() };
    let transaction = Transaction { appends: vec![append], ..Transaction::default() };
    store.commit(transaction).await.unwrap();
}

fn reason(found: &Verification) -> String {
    let bad = found.first_bad.clone().expect("the forgery must be found");
    assert!(!found.ok);
    bad.reason
}

fn is_checkpoint(entry: &Entry) -> bool {
    entry.record.kind == "checkpoint"
}

#[tokio::test]
async fn a_checkpoint_covers_what_was_before_it() {
    let site = Site::new();
    let audit = site.start().await;
    for _ in 0..3 {
        site.record(&audit).await;
    }
    let found = site.verified().await;
    assert_eq!((found.ok, found.checkpoints, found.unsealed), (true, 1, 3));
    audit.write_checkpoint().await.unwrap();
    let found = site.verified().await;
    assert_eq!((found.ok, found.checkpoints, found.unsealed), (true, 2, 0));
    assert_eq!((found.records, found.chains), (6, 1));
}

#[tokio::test]
async fn an_idle_server_writes_none_and_two_do_not_answer_each_other() {
    let site = Site::new();
    let first = site.start().await;
    let second = site.start().await;
    first.write_checkpoint().await.unwrap();
    let before = site.checkpoints().await;
    for _ in 0..5 {
        first.write_checkpoint().await.unwrap();
        second.write_checkpoint().await.unwrap();
    }
    let after = site.checkpoints().await;
    assert!(after <= before + 1, "{before} and {after}");
    site.record(&first).await;
    for _ in 0..5 {
        first.write_checkpoint().await.unwrap();
        second.write_checkpoint().await.unwrap();
    }
    assert_eq!(site.checkpoints().await, after + 2, "each saw the record");
    assert!(site.verified().await.ok);
}

// A process that died is closed by the next start, however many there were.
#[tokio::test]
async fn the_first_checkpoint_closes_every_chain_that_none_has_closed() {
    let site = Site::new();
    let chains = OTHERS_MAX * 2 + 3;
    for number in 0..chains {
        let chain = format!("audit/{number:012}-00000000");
        append_to(&site.store, &chain, &refusal(Class::Security, 1_000_000)).await;
    }
    site.start().await;
    let found = site.verified().await;
    assert_eq!((found.ok, found.checkpoints, found.unsealed), (true, 3, 0));

    // The next one names only what is new.
    site.start().await;
    let last = written(&site.store).await.into_iter().rfind(is_checkpoint).unwrap();
    let Checkpoint { others, .. } = Checkpoint::read(&last).unwrap().unwrap();
    assert_eq!(others.len(), 1, "{others:?}");
    assert_eq!(others[0].seq, 4, "its record and its three checkpoints");
}

#[tokio::test]
async fn a_chain_that_was_cut_off_or_taken_away_is_found() {
    let site = Site::new();
    let first = site.start().await;
    site.record(&first).await;
    let (cut, _) = (first.chain.clone(), site.start().await);
    assert_eq!(site.verified().await.unsealed, 0);
    let reason =
        site.forged(|entry| (entry.chain != cut || entry.seq < 3).then(|| entry.record.clone()));
    let reason = reason.await;
    assert!(reason.contains("names record 3") && reason.contains(&cut), "{reason}");
    let reason = site.forged(|entry| (entry.chain != cut).then(|| entry.record.clone())).await;
    assert!(reason.contains("not in the store"), "{reason}");
}

#[tokio::test]
async fn a_store_that_was_rewritten_without_the_key_is_found() {
    let site = Site::new();
    let audit = site.start().await;
    site.clock.advance(Lifetime::from_hours(1));
    site.record(&audit).await;
    audit.write_checkpoint().await.unwrap();
    assert!(site.verified().await.ok);
    let changed = |entry: &Entry| {
        let mut record = entry.record.clone();
        if !is_checkpoint(entry) {
            record.source = Some("192.0.2.7".to_owned());
        }
        record
    };
    let reason = site.forged(|entry| Some(changed(entry))).await;
    assert!(reason.contains("is another one"), "{reason}");

    // Without any checkpoint.
    let reason = site.forged(|entry| (!is_checkpoint(entry)).then(|| changed(entry))).await;
    assert!(reason.contains("no checkpoint covers this record"), "{reason}");
}

#[tokio::test]
async fn a_store_without_any_checkpoint_is_found_however_short() {
    let site = Site::new();
    site.start().await;
    let reason = site.forged(|entry| (!is_checkpoint(entry)).then(|| entry.record.clone())).await;
    assert!(reason.contains("no checkpoint of a known key"), "{reason}");
}

#[tokio::test]
async fn another_key_and_a_changed_checkpoint_are_found() {
    let site = Site::new();
    let audit = site.start().await;
    site.record(&audit).await;
    audit.write_checkpoint().await.unwrap();
    let other = CheckpointKey::from_pkcs8(&CheckpointKey::generate().unwrap()).unwrap();
    let reason = site.forged(|entry| match Checkpoint::read(entry) {
        Some(Ok(Checkpoint { time, own, others, .. })) => {
            Some(Checkpoint::sign(&other, time, own, others).to_record())
        }
        _ => Some(entry.record.clone()),
    });
    assert!(reason.await.contains("whose public half was not given"));
    // With both keys, as after a change of keys, both count.
    let keys = [other.public().clone(), site.public()];
    assert!(verify(site.store.as_ref(), &keys).await.unwrap().ok);
    assert!(!verify(site.store.as_ref(), &keys[..1]).await.unwrap().ok);
    assert!(!verify(site.store.as_ref(), &[]).await.unwrap().ok);

    // Every member is signed.
    for (pointer, value) in [
        ("/time", "1970-01-12T13:47:41Z".into()),
        ("/detail/own/seq", 0.into()),
        ("/detail/own/hash", "00".repeat(32).into()),
        (
            "/detail/others",
            serde_json::json!([{"chain": "audit/x", "seq": 1, "hash": "00".repeat(32)}]),
        ),
        ("/detail/signature", "00".repeat(64).into()),
    ] {
        let reason = site.forged(|entry| {
            let mut record = serde_json::to_value(&entry.record).unwrap();
            if is_checkpoint(entry) {
                *record.pointer_mut(pointer).unwrap() = value.clone();
            }
            Some(serde_json::from_value(record).unwrap())
        });
        let reason = reason.await;
        assert!(reason.contains("signature of the checkpoint is wrong"), "{pointer}: {reason}");
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_put_in_once_more_is_found() {
    let site = Site::new();
    let audit = site.start().await;
    site.record(&audit).await;
    audit.write_checkpoint().await.unwrap();
    let entries = written(&site.store).await;
    let first = entries.iter().find(|entry| is_checkpoint(entry)).unwrap().record.clone();
    let reason = site
        .forged(|entry| Some(if entry.seq == 4 { first.clone() } else { entry.record.clone() }));
    assert_eq!(reason.await, "the checkpoint is not in its place");
}

#[tokio::test]
async fn a_record_that_is_put_in_long_after_is_found() {
    let site = Site::new();
    let first = site.start().await;
    site.clock.advance(Lifetime::from_hours(1));
    site.start().await;
    // Into the chain of a process that has ended, as if it had been written then.
    append_to(&site.store, &first.chain, &refusal(Class::Admission, 1_000_100)).await;
    let found = site.verified().await;
    assert!(reason(&found).contains("no checkpoint covers this record"));
    assert_eq!(found.first_bad.unwrap().chain, first.chain);
}

#[tokio::test]
async fn an_unreadable_checkpoint_is_found() {
    let site = Site::new();
    site.start().await;
    let reason = site.forged(|entry| {
        let mut record = entry.record.clone();
        if is_checkpoint(entry) {
            record = record.with("more", "than there may be");
        }
        Some(record)
    });
    assert_eq!(reason.await, "the checkpoint cannot be read");
}

#[tokio::test]
async fn an_exported_copy_is_checked_by_its_own_links_and_checkpoints() {
    let site = Site::new();
    let audit = site.start().await;
    site.record(&audit).await;
    audit.write_checkpoint().await.unwrap();
    let lines: Vec<String> = written(&site.store)
        .await
        .iter()
        .map(|entry| serde_json::to_string(entry).unwrap())
        .collect();
    let keys = [site.public()];
    let against = async |lines: &[String], last: &str| {
        let sound = site.verified().await;
        let text = [lines, &[last.to_owned()]].concat().join("\n");
        let mut copy = std::io::Cursor::new(text.into_bytes());
        let found = compare_with_export(site.store.as_ref(), &keys, &mut copy, sound).await;
        found.unwrap().first_bad.map(|bad| bad.reason).unwrap_or_default()
    };
    assert_eq!(against(&lines, "").await, "");
    assert_eq!(against(&lines[1..], "").await, "", "a copy may begin anywhere");
    assert_eq!(against(&lines, "{\"seq\":").await, "", "half a line is being written");
    let twice: Vec<_> = lines.iter().chain(&lines[2..]).cloned().collect();
    assert_eq!(against(&twice, "").await, "", "a copy may hold a line twice");
    let gap = [lines[0].clone(), lines[2].clone()];
    assert!(against(&gap, "").await.contains("records are missing"));
    let mut changed = lines.clone();
    changed[2] = changed[2].replace("POLICY_NO_MATCH", "POLICY_DENIED");
    assert!(against(&changed, "").await.contains("its own links break"));
    assert!(against(&changed[2..], "").await.contains("the store differs"));
    let long = "x".repeat(LINE_BYTES_MAX + 1);
    assert!(against(&[long], "").await.contains("longer than 1 MiB"));
    assert!(against(&["{}".to_owned()], "").await.contains("line 1"));

    // Nobody else's checkpoints count, although store and copy agree.
    let other = [Site::new().public()];
    let sound = verify(site.store.as_ref(), &keys).await.unwrap();
    let mut copy = std::io::Cursor::new(lines.join("\n") + "\n");
    let found = compare_with_export(site.store.as_ref(), &other, &mut copy, sound).await.unwrap();
    assert!(reason(&found).contains("public half was not given"));
}

#[test]
fn keys_are_written_and_read_as_pem() {
    let key = CheckpointKey::from_pkcs8(&CheckpointKey::generate().unwrap()).unwrap();
    let pem = public_key_to_pem(key.public()).unwrap();
    assert_eq!(&public_key_from_pem(&pem).unwrap(), key.public());
    for wrong in ["", "garbage", &pem.replace("PUBLIC", "PRIVATE")] {
        assert!(public_key_from_pem(wrong).is_err());
    }
    assert!(CheckpointKey::from_pkcs8(b"garbage").is_err());
}

// What the fuzzer begins with reaches the parts that it is about.
#[test]
fn the_seeds_of_the_fuzzer_are_read() {
    let seed = |name: &str| {
        let line = std::fs::read(format!("fuzz/seeds/audit_line/{name}")).unwrap();
        parse_line(&line).map(|entry| Checkpoint::read(&entry))
    };
    assert!(matches!(seed("checkpoint"), Ok(Some(Ok(_)))));
    assert!(matches!(seed("checkpoint-of-others"), Ok(Some(Ok(found))) if found.others.len() == 2));
    assert!(matches!(seed("checkpoint-short-hash"), Ok(Some(Err(InvalidCheckpoint)))));
    for name in ["join", "refusal", "summary"] {
        assert_eq!(seed(name), Ok(None), "{name}");
    }
    for name in ["unknown-member", "twice"] {
        assert!(seed(name).is_err(), "{name}");
    }
}

proptest::proptest! {
    // No line of a copy ends the process, and what is taken for a record is one.
    #[test]
    fn no_line_panics(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _any = parse_line(&line);
    }

    #[test]
    fn no_changed_record_panics(place in 0_usize..900, byte: u8, length in 0_usize..900) {
        let line = br#"{"seq":2,"chain":"audit/000001795330-cd52ba94","hash":"c20fb4b2e6d5fca5c02c4ad4c38c43ff6a2f3e05a4a9a7e0f3b9b4a4d1b5e6f7","time":"2026-11-22T00:00:00Z","class":"admission","kind":"checkpoint","outcome":"done","code":null,"correlation_id":null,"policy":null,"policy_hash":null,"account_id":null,"instance_id":null,"node_id":null,"serial":null,"source":null,"detail":{"key":"a1","others":[],"own":{"hash":"00","seq":1},"signature":"00"}}"#;
        let mut line = line.to_vec();
        if let Some(at) = line.get_mut(place) {
            *at = byte;
        }
        line.truncate(length.max(300));
        if let Ok(entry) = parse_line(&line) {
            let _any = Checkpoint::read(&entry);
            assert!(entry.seq > 0 && entry.chain.starts_with("audit/"));
        }
    }
}

//! Single steps of a join, each by itself: what `boot_storm` measures together. By criterion.
//!
//! ```text
//! make bench                                     these, and more
//! cargo bench --bench micro                      these
//! cargo bench --bench micro -- decide            those of this name
//! ```
//!
//! All but the audit log are one thread's time on a processor; that one waits for the disk.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark: what cannot be measured ends it"
)]

mod allow_list;
mod joining;
#[path = "../../tests/join/world.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod world;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{BatchSize, Criterion, Throughput};
use muster::audit::{self, Audit, Class, Query, Record};
use muster::ca::{self, BuiltinCa, CertificateAuthority};
use muster::clock::Clock;
use muster::domain::pop_message;
use muster::methods::ec2::IdentityDocument;
use muster::store::{SqliteStore, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use joining::Server;
use world::{ALLOWED, Node, POLICIES, World, certificates_of, simulator};

/// How many records share commits.
const RECORDS_AT_ONCE: usize = 64;

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    check_document(&mut criterion);
    decide(&mut criterion);
    issue(&mut criterion);
    append(&mut criterion);
    criterion.final_summary();
}

/// The signed document as the metadata service answers it: base64, CMS, RSA, JSON. Then the node's
/// signature over the stream.
fn check_document(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check document");
    let certificates = certificates_of(simulator());
    let node = Node::new(ALLOWED, 1);
    let genuine = node.document.as_bytes();
    group.bench_function("genuine", |bencher| {
        bencher.iter(|| IdentityDocument::verify(black_box(genuine), &certificates).unwrap());
    });
    let forged = with_another_signature(&node.document);
    group.bench_function("forged", |bencher| {
        bencher.iter(|| IdentityDocument::verify(black_box(&forged), &certificates).unwrap_err());
    });
    let attempt = node.attempt("web");
    let message = pop_message(&joining::binding(&attempt), &attempt.evidence);
    let key = &attempt.start.public_key;
    group.bench_function("possession of a P-256 key", |bencher| {
        bencher.iter(|| assert!(key.has_signed(black_box(&message), &attempt.pop)));
    });
    group.finish();
}

/// The same document with one bit of the signature changed: the refusal that takes longest.
fn with_another_signature(document: &str) -> Vec<u8> {
    let text: String = document.split_whitespace().collect();
    let mut message = STANDARD.decode(text).unwrap();
    // The signature is 256 bytes, and nothing but ends of elements follows it.
    let place = message.len() - 100;
    message[place] ^= 1;
    message
}

/// Steps 2 and 4 by the document alone: from verified claims to an order. The nodes are of accounts
/// all over the list, so that it is not in the processor's cache more than it would be.
fn decide(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("match and decide");
    // Before each of them a document is verified, which takes many times as long and is not measured.
    group.measurement_time(Duration::from_millis(200)).warm_up_time(Duration::from_millis(50));
    for accounts in [10, 1_000, 100_000] {
        let server = Server::new(allow_list::policies(accounts));
        let attempts = allow_list::attempts(accounts);
        let facts = runtime.block_on(server.gather(&attempts[0]));
        let mut coming = attempts.iter().cycle();
        group.bench_function(format!("{accounts} accounts"), |bencher| {
            bencher.iter_batched(
                || server.verify(coming.next().unwrap()),
                |verified| server.decide(verified, &facts),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Step 6 by the built-in CA, whose key is of P-256; then what came back is compared with the order.
fn issue(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("issue");
    let server = Server::new(world::policy_set(POLICIES));
    let recorded = runtime.block_on(server.record(&Node::new(ALLOWED, 1).attempt("web")));
    let authority = BuiltinCa::new(Arc::clone(&server.node_ca));
    group.bench_function("sign", |bencher| {
        bencher.iter(|| runtime.block_on(authority.issue(black_box(&recorded))).unwrap());
    });
    let issued = runtime.block_on(authority.issue(&recorded)).unwrap();
    let anchors = runtime.block_on(authority.trust_anchors()).unwrap();
    group.bench_function("compare", |bencher| {
        bencher.iter(|| ca::check(&recorded, black_box(issued.clone()), &anchors).unwrap());
    });
    group.finish();
}

/// The record of a join into the SQLite store: alone, so that each waits for the disk itself, and as
/// a crowd that shares commits.
fn append(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let _guard = runtime.enter();
    let mut group = criterion.benchmark_group("audit append");
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&directory.path().join("muster.db")).unwrap());
    let record = runtime.block_on(record_of_a_join());
    let audit = Arc::new(Audit::new(store, Clock::system()).unwrap());
    group.bench_function("alone", |bencher| {
        bencher.iter(|| runtime.block_on(audit.write(&record)).unwrap());
    });
    group.throughput(Throughput::Elements(RECORDS_AT_ONCE as u64));
    group.bench_function(format!("{RECORDS_AT_ONCE} at once"), |bencher| {
        bencher.iter(|| {
            let mut running = JoinSet::new();
            for _ in 0..RECORDS_AT_ONCE {
                let (audit, record) = (Arc::clone(&audit), record.clone());
                running.spawn(async move { audit.write(&record).await.unwrap() });
            }
            runtime.block_on(running.join_all())
        });
    });
    group.finish();
}

/// What a join leaves.
async fn record_of_a_join() -> Record {
    let world = World::new();
    world.admitted(&Node::new(ALLOWED, 1), "web").await;
    let admissions = Query { class: Some(Class::Admission), ..Query::default() };
    let mut entries = audit::first(world.store.as_ref(), &admissions, 1).await.unwrap();
    entries.remove(0).record
}

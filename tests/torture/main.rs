//! The torture storm: nodes join, and thieves with copies of their documents and keys of their own,
//! while the server is killed every 3 seconds and started again on the same data.
//!
//! At the end every instance has one node, whose key is in one enrollment; every certificate that was
//! handed out is on record with its serial; and the audit log verifies (T45, T46; I4, I5, I9). The
//! tests run 5 rounds of 30 s, `make torture` 200.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::format_push_string,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

#[path = "../../benches/boot_storm/node.rs"]
#[expect(dead_code, reason = "the benchmark uses the rest")]
mod node;
#[path = "../../benches/boot_storm/site.rs"]
#[expect(dead_code, reason = "the benchmark uses the rest")]
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use muster::audit::{self, Class, Query};
use muster::domain::{Class as Kind, Code};
use muster::store::{SqliteStore, Store};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use node::{Node, random_part};
use site::{Cloud, Server, Size, store_in};

const ROUND: Duration = Duration::from_secs(30);
const KILL_EVERY: Duration = Duration::from_secs(3);
/// Instances that start within a round, and every how many of them has a thief.
const INSTANCES: usize = 400;
const THIEF_EVERY: usize = 4;
/// How soon who was cut off comes again, at most.
const AGAIN: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_the_server_is_killed() {
    let rounds = std::env::var_os("MUSTER_TORTURE_ROUNDS");
    let rounds: u32 = rounds.map_or(5, |text| text.to_str().unwrap().parse().unwrap());
    for round in 1..=rounds {
        let data = tempfile::tempdir().unwrap();
        let cloud = Arc::new(Cloud::start(Size { instances: INSTANCES, accounts: 3 }).await);
        let first = Server::start(&cloud, data.path());
        let site = Arc::new(Site { server: RwLock::new(Arc::new(first)) });
        let killing = kill_often(Arc::clone(&site), Arc::clone(&cloud), data.path());
        let answers = storm(&cloud, &site).await;
        let kills = killing.join().unwrap();
        let serials = one_node_for_each_instance(&answers);
        repeats_are_the_same(&site, &answers).await;
        site.server().end(Signal::TERM);
        let records = all_is_on_record(data.path(), &serials).await;
        println!(
            "round {round}: {} nodes joined, {} thieves were refused, {kills} kills, {records} records verify",
            serials.len(),
            answers.len() - serials.len(),
        );
    }
}

/// The server of now.
struct Site {
    server: RwLock<Arc<Server>>,
}

impl Site {
    fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Kills the server and starts another on the same data, for one round; how often it did.
fn kill_often(site: Arc<Site>, cloud: Arc<Cloud>, data: &Path) -> std::thread::JoinHandle<usize> {
    let data = data.to_owned();
    let kills = usize::try_from(ROUND.as_secs() / KILL_EVERY.as_secs()).unwrap();
    std::thread::spawn(move || {
        for _ in 0..kills {
            std::thread::sleep(KILL_EVERY);
            site.server().end(Signal::KILL);
            let next = Arc::new(Server::start(&cloud, &data));
            *site.server.write().unwrap_or_else(PoisonError::into_inner) = next;
        }
        kills
    })
}

/// Somebody with an instance's document and a key, and what came of it: a serial, or nothing.
struct Answer {
    instance: usize,
    node: Arc<Node>,
    serial: Option<String>,
}

/// All instances of a round, each at its time.
async fn storm(cloud: &Cloud, site: &Arc<Site>) -> Vec<Answer> {
    let mut running = JoinSet::new();
    let begun = Instant::now();
    let instances = cloud.simulator.instances();
    let instances =
        instances.iter().filter(|one| one.account_id.as_str() != site::STRANGERS_ACCOUNT);
    for (number, instance) in instances.take(INSTANCES).enumerate() {
        let at = begun + ROUND.mul_f64(number as f64 / INSTANCES as f64);
        let claimants = if number % THIEF_EVERY == 0 { 2 } else { 1 };
        for _ in 0..claimants {
            let node = Arc::new(Node::new(&cloud.simulator, instance));
            let site = Arc::clone(site);
            running.spawn(async move {
                sleep_until(at).await;
                let serial = insist(&node, &site).await;
                Answer { instance: number, node, serial }
            });
        }
    }
    running.join_all().await
}

/// Asks until there is a final answer.
async fn insist(node: &Node, site: &Site) -> Option<String> {
    loop {
        match node.attempt(&site.server(), "document", false).await {
            Ok(answer) => {
                let record: Value = serde_json::from_str(&answer.record).unwrap();
                return Some(record["serial"].as_str().unwrap().to_owned());
            }
            Err(error) if error.code == Code::EnrollmentConflict => return None,
            Err(error) => {
                let is_final = matches!(error.code.class(), Kind::Denied | Kind::Invalid);
                assert!(!is_final, "{error:?}");
                sleep(AGAIN.mul_f64(random_part())).await;
            }
        }
    }
}

/// Of all who came for an instance one was admitted. Their serials.
fn one_node_for_each_instance(answers: &[Answer]) -> BTreeSet<String> {
    let mut admitted: BTreeMap<usize, usize> = BTreeMap::new();
    for answer in answers {
        *admitted.entry(answer.instance).or_default() += usize::from(answer.serial.is_some());
    }
    assert_eq!(admitted.len(), INSTANCES);
    let doubled: Vec<_> = admitted.iter().filter(|(_, nodes)| **nodes != 1).collect();
    assert!(doubled.is_empty(), "instance and nodes: {doubled:?}");
    answers.iter().filter_map(|answer| answer.serial.clone()).collect()
}

/// Who was admitted asks again and gets the same; who was not is refused again.
async fn repeats_are_the_same(site: &Site, answers: &[Answer]) {
    for answer in answers.iter().step_by(7) {
        assert_eq!(insist(&answer.node, site).await, answer.serial);
    }
}

/// The store knows every serial that was handed out, each key once, and the audit log verifies.
async fn all_is_on_record(data: &Path, serials: &BTreeSet<String>) -> u64 {
    let store = SqliteStore::open_read_only(&store_in(data)).unwrap();
    let keys = values(&store, "key/").await;
    let enrollments = values(&store, "enrollment/").await;
    assert_eq!((keys.len(), enrollments.len()), (INSTANCES, INSTANCES));
    let bound: BTreeSet<&str> =
        keys.iter().map(|key| key["enrollment"].as_str().unwrap()).collect();
    assert_eq!(bound.len(), INSTANCES, "no key in two enrollments, no enrollment with two keys");
    let current =
        |one: &Value| one.pointer("/current/order/serial").unwrap().as_str().unwrap().to_owned();
    let stored: BTreeSet<String> = enrollments.iter().map(current).collect();
    assert!(serials.is_subset(&stored), "a serial that was handed out is not in the registry");

    let query = Query { class: Some(Class::Admission), ..Query::default() };
    let admissions = audit::first(&store, &query, usize::MAX).await.unwrap();
    let recorded: BTreeSet<String> = admissions
        .iter()
        .filter(|entry| entry.record.kind == "issue")
        .filter_map(|entry| Some(entry.record.serial?.to_string()))
        .collect();
    assert!(serials.is_subset(&recorded), "a serial without a record");
    let mut verify = Command::new(env!("CARGO_BIN_EXE_muster"));
    verify.args(["audit", "verify", "--output", "json", "--data-dir"]).arg(data.join("data"));
    let verified: Value = serde_json::from_slice(&verify.output().unwrap().stdout).unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
    verified["records"].as_u64().unwrap()
}

async fn values(store: &SqliteStore, prefix: &str) -> Vec<Value> {
    let page = store.scan(prefix, None, 10 * INSTANCES).await.unwrap();
    assert!(!page.more);
    page.items.iter().map(|(_, found)| serde_json::from_slice(&found.value).unwrap()).collect()
}

//! A registry that knows very many nodes already.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use muster::store::{Key, Put, SqliteStore, Store, Transaction};
use serde_json::Value;
use tokio::task::JoinSet;

/// How many nodes one transaction writes, and how many transactions are on their way.
const NODES: usize = 20;
const TRANSACTIONS: usize = 256;

/// Writes `many` copies of the one node that the store has, each with names of its own.
pub(crate) async fn fill(store: &Path, many: usize) {
    let store = Arc::new(SqliteStore::open(store).unwrap());
    let rows = rows_of_the_one_node(store.as_ref()).await;
    let names = names(&rows);
    let mut running = JoinSet::new();
    for first in (0..many).step_by(NODES) {
        let nodes = first..many.min(first + NODES);
        let puts = nodes.flat_map(|number| copies(&rows, &names, number)).collect();
        let store = Arc::clone(&store);
        running.spawn(async move {
            store.commit(Transaction { puts, ..Transaction::default() }).await.unwrap();
        });
        if running.len() >= TRANSACTIONS {
            running.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(written) = running.join_next().await {
        written.unwrap();
    }
}

/// Copies the data of a server that does not run; its socket is left behind.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&place).unwrap();
            fs::set_permissions(&place, entry.metadata().unwrap().permissions()).unwrap();
            copy(&entry.path(), &place);
        } else if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), &place).unwrap();
        }
    }
}

type Row = (String, String);

async fn rows_of_the_one_node(store: &SqliteStore) -> Vec<Row> {
    let mut rows = Vec::new();
    for prefix in ["enrollment/", "key/", "node/", "certificate/"] {
        for (key, found) in store.scan(prefix, None, 2).await.unwrap().items {
            rows.push((key.as_str().to_owned(), String::from_utf8(found.value).unwrap()));
        }
    }
    assert_eq!(rows.len(), 4, "one node");
    rows
}

/// What is a node's own: its instance, its name here, its certificate's serial, its key.
fn names(rows: &[Row]) -> Vec<String> {
    let (key, enrollment) = &rows[0];
    let enrollment: Value = serde_json::from_str(enrollment).unwrap();
    let serial = enrollment.pointer("/current/order/serial").unwrap();
    [
        key.split('/').find(|part| part.starts_with("i-")).unwrap(),
        enrollment["node_id"].as_str().unwrap(),
        serial.as_str().unwrap(),
        rows[1].0.strip_prefix("key/").unwrap(),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn copies(rows: &[Row], names: &[String], number: usize) -> Vec<Put> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let digits = hex::encode(random);
    let renamed = |text: &str| {
        names.iter().fold(text.to_owned(), |text, name| {
            let (head, tail) = name.split_at(name.find('-').map_or(0, |dash| dash + 1));
            let other = format!("{number:08x}{digits}{digits}");
            let case = if tail.contains(|c: char| c.is_ascii_uppercase()) {
                other.to_ascii_uppercase()
            } else {
                other
            };
            text.replace(name, &format!("{head}{}", &case[..tail.len()]))
        })
    };
    let put = |(key, value): &Row| Put {
        key: Key::new([renamed(key).as_str()]),
        value: renamed(value).into_bytes(),
        expires_at: None,
    };
    rows.iter().map(put).collect()
}

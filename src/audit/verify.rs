//! Checks the chains, and compares them with an exported copy.

use std::collections::HashMap;
use std::io::BufRead;

use serde::Serialize;

use super::LOG_PREFIX;
use super::record::Entry;
use crate::store::{ChainHash, Store, StoreUnavailable, link};

/// The longest line of an exported copy that is read.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Nothing is wrong.
    pub ok: bool,
    /// How many records were checked.
    pub records: u64,
    /// In how many chains.
    pub chains: u64,
    /// The first record that is not as it should be.
    pub first_bad: Option<Broken>,
}

/// A record that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The chain.
    pub chain: String,
    /// The number of the record.
    pub seq: u64,
    /// What is wrong.
    pub reason: String,
}

/// Checks every chain from its start.
pub async fn verify(store: &dyn Store) -> Result<Verification, StoreUnavailable> {
    const BATCH: usize = 1024;
    let mut result = Verification { ok: true, records: 0, chains: 0, first_bad: None };
    let logs = store.logs().await?;
    for chain in logs.into_iter().filter(|log| log.starts_with(LOG_PREFIX)) {
        result.chains += 1;
        let (mut last, mut previous) = (0, ChainHash::default());
        loop {
            let entries = store.read_log(&chain, last, BATCH).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let expected = last + 1;
                let reason = if entry.sequence != expected {
                    Some("a record is missing before this one")
                } else if entry.hash != link(previous, &chain, expected, &entry.payload) {
                    Some("the record was changed")
                } else if Entry::from_log(&chain, &entry).is_err() {
                    Some("the record cannot be read")
                } else {
                    None
                };
                if let (Some(reason), None) = (reason, &result.first_bad) {
                    result.ok = false;
                    let seq = entry.sequence;
                    result.first_bad =
                        Some(Broken { chain: chain.clone(), seq, reason: reason.to_owned() });
                }
                result.records += 1;
                (last, previous) = (entry.sequence, entry.hash);
            }
        }
    }
    Ok(result)
}

/// Checks that every record of an exported copy stands unchanged in the store: finds a store that
/// was rewritten as a whole, or that lost its tail.
pub async fn compare_with_export(
    store: &dyn Store,
    export: &mut (dyn BufRead + Send),
    mut result: Verification,
) -> Result<Verification, StoreUnavailable> {
    let mut stored: HashMap<(String, u64), Entry> = HashMap::new();
    let mut line = Vec::new();
    let mut number = 0u64;
    loop {
        line.clear();
        let unreadable =
            |error| StoreUnavailable(format!("cannot read the exported copy: {error}"));
        let read = std::io::Read::take(&mut *export, LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .map_err(unreadable)?;
        if read == 0 {
            return Ok(result);
        }
        number += 1;
        let broken = match serde_json::from_slice::<Entry>(&line) {
            Err(_) => Some(Broken {
                chain: String::new(),
                seq: number,
                reason: "this line of the exported copy is not an audit record".to_owned(),
            }),
            Ok(exported) => difference(store, &mut stored, exported).await?,
        };
        if let (Some(broken), None) = (broken, &result.first_bad) {
            result.ok = false;
            result.first_bad = Some(broken);
        }
    }
}

async fn difference(
    store: &dyn Store,
    ahead: &mut HashMap<(String, u64), Entry>,
    exported: Entry,
) -> Result<Option<Broken>, StoreUnavailable> {
    const READ_AHEAD: usize = 512;
    let place = (exported.chain.clone(), exported.seq);
    if !ahead.contains_key(&place) {
        ahead.clear();
        let after = exported.seq.saturating_sub(1);
        for entry in store.read_log(&exported.chain, after, READ_AHEAD).await? {
            if let Ok(entry) = Entry::from_log(&exported.chain, &entry) {
                ahead.insert((entry.chain.clone(), entry.seq), entry);
            }
        }
    }
    let reason = match ahead.get(&place) {
        None => "the exported copy has a record that the store has not",
        Some(stored) if *stored != exported => "the store differs from the exported copy",
        Some(_) => return Ok(None),
    };
    let Entry { chain, seq, .. } = exported;
    Ok(Some(Broken { chain, seq, reason: reason.to_owned() }))
}

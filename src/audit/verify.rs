//! Checks the chains and their checkpoints.
//!
//! Links show that nothing within a chain was changed. Checkpoints show that the chain was not
//! written anew, cut off or taken away: what one of them names must be there, and what is older than
//! a while must be named by one.

use std::collections::HashMap;

use serde::Serialize;

use super::LOG_PREFIX;
use super::checkpoint::{CHECKPOINT, Checkpoint, Head};
use super::record::Entry;
use crate::domain::{Lifetime, PublicKey, Timestamp};
use crate::store::{ChainHash, LogEntry, Store, StoreUnavailable, link};

/// How long a record may wait for a checkpoint. One is written every 10 s, and a record tells the
/// time at which its request began; a process that died is closed by the next start.
const UNSEALED_MAX: Lifetime = Lifetime::from_minutes(5);
/// Records of one read.
const BATCH: usize = 1024;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Nothing is wrong.
    pub ok: bool,
    /// How many records were checked.
    pub records: u64,
    /// In how many chains.
    pub chains: u64,
    /// How many of the records are checkpoints with a good signature.
    pub checkpoints: u64,
    /// How many records no checkpoint covers yet: whoever can write the store can still change them.
    pub unsealed: u64,
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

impl Verification {
    /// Notes what is wrong with a record; the first one is told.
    pub(super) fn note(&mut self, chain: &str, seq: u64, reason: impl Into<String>) {
        self.ok = false;
        if self.first_bad.is_none() {
            let (chain, reason) = (chain.to_owned(), reason.into());
            self.first_bad = Some(Broken { chain, seq, reason });
        }
    }
}

/// Checks every chain from its start, every checkpoint by these keys, and that checkpoints cover what
/// they should. Without a key a store that has no checkpoints, of an older version, is checked by its
/// links alone.
pub async fn verify(
    store: &dyn Store,
    keys: &[PublicKey],
) -> Result<Verification, StoreUnavailable> {
    let result = Verification {
        ok: true,
        records: 0,
        chains: 0,
        checkpoints: 0,
        unsealed: 0,
        first_bad: None,
    };
    let mut verifier =
        Verifier { store, keys, result, sealed: HashMap::new(), newest: None, ends: Vec::new() };
    let logs = store.logs().await?;
    for chain in logs.into_iter().filter(|log| log.starts_with(LOG_PREFIX)) {
        verifier.check_chain(chain).await?;
    }
    verifier.check_cover().await?;
    Ok(verifier.result)
}

struct Verifier<'a> {
    store: &'a dyn Store,
    keys: &'a [PublicKey],
    result: Verification,
    /// Up to where checkpoints cover each chain.
    sealed: HashMap<String, u64>,
    /// The time of the newest checkpoint.
    newest: Option<Timestamp>,
    /// Where each chain ended when it was read.
    ends: Vec<(String, u64)>,
}

/// How far a chain was read.
#[derive(Default)]
struct Place {
    seq: u64,
    hash: ChainHash,
    checkpoint: u64,
}

impl Verifier<'_> {
    async fn check_chain(&mut self, chain: String) -> Result<(), StoreUnavailable> {
        self.result.chains += 1;
        let mut place = Place::default();
        loop {
            let entries = self.store.read_log(&chain, place.seq, BATCH).await?;
            if entries.is_empty() {
                break;
            }
            for found in entries {
                self.check_record(&chain, &found, &mut place).await?;
            }
        }
        self.ends.push((chain, place.seq));
        Ok(())
    }

    async fn check_record(
        &mut self,
        chain: &str,
        found: &LogEntry,
        place: &mut Place,
    ) -> Result<(), StoreUnavailable> {
        let expected = place.seq.saturating_add(1);
        let entry = Entry::from_log(chain, found);
        if found.sequence != expected {
            self.result.note(chain, found.sequence, "a record is missing before this one");
        } else if found.hash != link(place.hash, chain, expected, &found.payload) {
            self.result.note(chain, found.sequence, "the record was changed");
        } else if entry.is_err() {
            self.result.note(chain, found.sequence, "the record cannot be read");
        }
        self.result.records += 1;
        if let Some(read) = entry.ok().as_ref().and_then(Checkpoint::read) {
            let problem = match read {
                Ok(checkpoint) => self.check_checkpoint(&checkpoint, found.sequence, place).await?,
                Err(unreadable) => Some(unreadable.to_string()),
            };
            if let Some(reason) = problem {
                self.result.note(chain, found.sequence, reason);
            }
            place.checkpoint = found.sequence;
        }
        (place.seq, place.hash) = (found.sequence, found.hash);
        Ok(())
    }

    async fn check_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        seq: u64,
        before: &Place,
    ) -> Result<Option<String>, StoreUnavailable> {
        if let Some(problem) = signature_problem(checkpoint, self.keys) {
            return Ok(Some(problem));
        }
        // A checkpoint of earlier that is put in once more names what was named already.
        if checkpoint.own.seq >= seq || checkpoint.own.seq < before.checkpoint {
            return Ok(Some("the checkpoint is not in its place".to_owned()));
        }
        self.result.checkpoints += 1;
        self.newest = self.newest.max(Some(checkpoint.time));
        for head in checkpoint.heads() {
            let is_last = head.chain == checkpoint.own.chain && head.seq == before.seq;
            let is_there =
                if is_last { head.hash == before.hash } else { stands(self.store, head).await? };
            if !is_there {
                return Ok(Some(missing(head)));
            }
            let sealed = self.sealed.entry(head.chain.clone()).or_default();
            *sealed = head.seq.max(*sealed);
        }
        Ok(None)
    }

    /// Counts what no checkpoint covers, and finds what one should cover by now.
    async fn check_cover(&mut self) -> Result<(), StoreUnavailable> {
        for (chain, end) in std::mem::take(&mut self.ends) {
            let sealed = self.sealed.get(&chain).copied().unwrap_or_default();
            let tail = self.read_tail(&chain, sealed, end).await?;
            self.result.unsealed += tail.records;
            let Some((seq, time)) = tail.oldest else { continue };
            let until = tail.last.max(self.newest).unwrap_or(time);
            if !self.keys.is_empty() && until.since(time) > UNSEALED_MAX {
                self.result.note(
                    &chain,
                    seq,
                    "no checkpoint covers this record, and one should: checkpoints were removed, or \
                     the chain was written without their key",
                );
            }
        }
        if !self.keys.is_empty() && self.result.records > 0 && self.result.checkpoints == 0 {
            self.result.note("", 0, "there is no checkpoint of a known key in the store");
        }
        Ok(())
    }

    async fn read_tail(
        &self,
        chain: &str,
        sealed: u64,
        end: u64,
    ) -> Result<Tail, StoreUnavailable> {
        let (mut after, mut tail) = (sealed, Tail::default());
        loop {
            let entries = self.store.read_log(chain, after, BATCH).await?;
            let is_last = entries.len() < BATCH;
            for found in entries {
                // What came after the chain was read may be covered by what was not.
                if found.sequence > end {
                    return Ok(tail);
                }
                tail.add(chain, &found);
                after = found.sequence;
            }
            if is_last {
                return Ok(tail);
            }
        }
    }
}

/// The records of a chain after the last one that is covered.
#[derive(Default)]
struct Tail {
    records: u64,
    oldest: Option<(u64, Timestamp)>,
    last: Option<Timestamp>,
}

impl Tail {
    fn add(&mut self, chain: &str, found: &LogEntry) {
        let entry = Entry::from_log(chain, found).ok();
        // Checkpoints carry their own proof.
        if entry.as_ref().is_some_and(|entry| entry.record.kind == CHECKPOINT) {
            return;
        }
        self.records += 1;
        let Some(entry) = entry else { return };
        let time = entry.record.time;
        self.last = self.last.max(Some(time));
        if self.oldest.is_none_or(|(_, oldest)| time < oldest) {
            self.oldest = Some((found.sequence, time));
        }
    }
}

/// What is wrong with the signature of a checkpoint.
pub(super) fn signature_problem(checkpoint: &Checkpoint, keys: &[PublicKey]) -> Option<String> {
    if keys.iter().any(|key| checkpoint.is_signed_by(key)) {
        None
    } else if keys.iter().any(|key| key.digest() == checkpoint.key) {
        Some("the signature of the checkpoint is wrong".to_owned())
    } else {
        Some(format!(
            "the checkpoint is signed with key {}, whose public half was not given",
            checkpoint.key
        ))
    }
}

pub(super) fn missing(head: &Head) -> String {
    format!(
        "the checkpoint names record {} of {}, which is not in the store, or is another one",
        head.seq, head.chain
    )
}

/// Whether the store has this record with this hash.
pub(super) async fn stands(store: &dyn Store, head: &Head) -> Result<bool, StoreUnavailable> {
    let Some(before) = head.seq.checked_sub(1) else {
        return Ok(head.hash == ChainHash::default());
    };
    let found = store.read_log(&head.chain, before, 1).await?;
    Ok(found.first().is_some_and(|entry| entry.sequence == head.seq && entry.hash == head.hash))
}

//! Which chains the next checkpoint names, and when there is one.

use std::collections::HashMap;

use super::checkpoint::{CHECKPOINT, Checkpoint, CheckpointKey, Head, OTHERS_MAX};
use super::record::Entry;
use super::{Audit, LOG_PREFIX, unconditional};
use crate::store::{ChainHash, Key, LogHead, Put, Store, StoreUnavailable, Transaction};

/// Prefix of the keys that say up to where a chain was named by the checkpoint of another one. They
/// only spare the next start to name it again: who forges one hides nothing that is not named yet.
const NAMED_PREFIX: &str = "audit-named";
/// Prefix of the keys that say how many bytes of known refusals each process wrote, as of its last
/// checkpoint: the quota holds over every start.
const REFUSALS_PREFIX: &str = "audit-refusals";
/// Keys of one page.
const PAGE: usize = 512;
/// How many checkpoints a single call writes at most, each for `OTHERS_MAX` other chains.
const ROUNDS_MAX: usize = 1024;
/// How often the end of a process looks for records that came with its last checkpoint.
const LAST_LOOKS_MAX: usize = 8;

/// The part of a writer that makes checkpoints.
pub(super) struct Sealer {
    pub(super) key: CheckpointKey,
    /// Held over a checkpoint, so that there is one at a time.
    named: tokio::sync::Mutex<Named>,
}

/// What checkpoints have named so far.
#[derive(Default)]
struct Named {
    /// Up to where this process's own chain is covered: its last checkpoint, or what that one names
    /// if a record came between.
    own: u64,
    /// Up to where each other chain is named.
    others: Option<HashMap<String, u64>>,
}

impl Sealer {
    pub(super) fn new(key: CheckpointKey) -> Self {
        Self { key, named: tokio::sync::Mutex::default() }
    }
}

impl Audit {
    /// Writes a checkpoint if this chain or another one has grown since the last. The first one
    /// names every chain that none has named to its end: it closes what a process left that died.
    ///
    /// An idle server writes none, and a checkpoint alone is no growth, so that two writers do not
    /// answer each other for ever. Says whether there was one to write.
    pub async fn write_checkpoint(&self) -> Result<bool, StoreUnavailable> {
        let Some(sealer) = &self.sealer else { return Ok(false) };
        let mut named = sealer.named.lock().await;
        let mut has_written = false;
        for _ in 0..ROUNDS_MAX {
            let Some(left_out) = self.write_next(sealer, &mut named).await? else { break };
            has_written = true;
            if left_out == 0 {
                break;
            }
        }
        Ok(has_written)
    }

    /// The same before the process ends: until nothing has come since. Nobody writes any more but
    /// whoever was cut off, so one look is usually enough.
    pub async fn write_last_checkpoint(&self) -> Result<(), StoreUnavailable> {
        for _ in 0..LAST_LOOKS_MAX {
            if !self.write_checkpoint().await? {
                break;
            }
        }
        Ok(())
    }

    /// Writes one checkpoint if there is something to cover; says how many chains had no place in it.
    async fn write_next(
        &self,
        sealer: &Sealer,
        named: &mut Named,
    ) -> Result<Option<usize>, StoreUnavailable> {
        let store = self.store.as_ref();
        let is_first = named.others.is_none();
        let others = match &mut named.others {
            Some(others) => others,
            none => none.insert(numbers(store, NAMED_PREFIX).await?),
        };
        let mut own = Head { chain: self.chain.clone(), seq: 0, hash: ChainHash::default() };
        let (mut changed, mut has_grown) = (Vec::new(), is_first);
        for head in store.heads().await? {
            if head.log == self.chain {
                has_grown |= head.sequence > named.own;
                own = head_of(head);
            } else if head.log.starts_with(LOG_PREFIX) {
                let before = others.get(&head.log).copied().unwrap_or_default();
                if head.sequence > before {
                    has_grown |= is_more_than_a_checkpoint(store, &head, before).await?;
                    changed.push(head_of(head));
                }
            }
        }
        if !has_grown {
            return Ok(None);
        }
        let left_out = changed.len().saturating_sub(OTHERS_MAX);
        changed.truncate(OTHERS_MAX);
        let covered = own.seq;
        let seq = self.commit_checkpoint(sealer, own, &changed).await?;
        // A record that came in between is growth still: no checkpoint names it.
        named.own = if seq == covered.saturating_add(1) { seq } else { covered };
        others.extend(changed.into_iter().map(|head| (head.chain, head.seq)));
        Ok(Some(left_out))
    }

    async fn commit_checkpoint(
        &self,
        sealer: &Sealer,
        own: Head,
        others: &[Head],
    ) -> Result<u64, StoreUnavailable> {
        let mut puts: Vec<_> =
            others.iter().map(|head| number(NAMED_PREFIX, &head.chain, head.seq)).collect();
        let refusal_bytes = self.state().quota.used_own();
        if refusal_bytes > 0 {
            puts.push(number(REFUSALS_PREFIX, &self.chain, refusal_bytes));
        }
        let checkpoint = Checkpoint::sign(&sealer.key, self.clock.now(), own, others.to_vec());
        let transaction = Transaction {
            puts,
            appends: vec![self.chained(&checkpoint.to_record())?],
            ..Transaction::default()
        };
        let committed = self.store.commit(transaction).await.map_err(unconditional)?;
        Ok(committed.appended.first().copied().unwrap_or_default())
    }
}

fn head_of(head: LogHead) -> Head {
    Head { chain: head.log, seq: head.sequence, hash: head.hash }
}

/// A number about a chain.
fn number(prefix: &str, chain: &str, number: u64) -> Put {
    let key = Key::new([prefix, chain.strip_prefix(LOG_PREFIX).unwrap_or(chain)]);
    Put { key, value: number.to_string().into_bytes(), expires_at: None }
}

/// The numbers of this prefix, by chain.
async fn numbers(
    store: &dyn Store,
    prefix: &str,
) -> Result<HashMap<String, u64>, StoreUnavailable> {
    let prefix = format!("{prefix}/");
    let mut found = HashMap::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store.scan(&prefix, after.as_ref(), PAGE).await?;
        for (key, versioned) in &page.items {
            let chain = key.as_str().strip_prefix(&prefix);
            let number = std::str::from_utf8(&versioned.value).ok();
            let number = number.and_then(|text| text.parse().ok());
            if let (Some(chain), Some(number)) = (chain, number) {
                found.insert(format!("{LOG_PREFIX}{chain}"), number);
            }
        }
        after = page.items.into_iter().last().map(|(key, _)| key);
        if !page.more {
            return Ok(found);
        }
    }
}

/// How many bytes of known refusals earlier processes wrote.
pub(super) async fn refusal_bytes_before(store: &dyn Store) -> Result<u64, StoreUnavailable> {
    let used = numbers(store, REFUSALS_PREFIX).await?;
    Ok(used.into_values().fold(0, u64::saturating_add))
}

async fn is_more_than_a_checkpoint(
    store: &dyn Store,
    head: &LogHead,
    before: u64,
) -> Result<bool, StoreUnavailable> {
    if head.sequence > before.saturating_add(1) {
        return Ok(true);
    }
    let last = store.read_log(&head.log, before, 1).await?;
    let last = last.first().and_then(|entry| Entry::from_log(&head.log, entry).ok());
    Ok(last.is_none_or(|entry| entry.record.kind != CHECKPOINT))
}

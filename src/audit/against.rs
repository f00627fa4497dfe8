//! Compares the store with an exported copy: finds a store that was rewritten as a whole, or that
//! lost its end.

use std::collections::HashMap;
use std::io::BufRead;

use super::checkpoint::Checkpoint;
use super::line::{Read, parse_line, read_line};
use super::record::Entry;
use super::verify::{Verification, missing, signature_problem, stands};
use crate::domain::PublicKey;
use crate::store::{ChainHash, Store, StoreUnavailable, link};

/// How many records of the store are read ahead.
const READ_AHEAD: usize = 128;
/// The most chains in one copy: far more than a server starts, and a bound of what is in memory.
const CHAINS_MAX: usize = 100_000;

/// Checks that every record of an exported copy stands unchanged in the store, and that the copy's
/// own links and checkpoints are good. The copy may begin anywhere in a chain, and may hold a line
/// twice.
pub async fn compare_with_export(
    store: &dyn Store,
    keys: &[PublicKey],
    export: &mut (dyn BufRead + Send),
    result: Verification,
) -> Result<Verification, StoreUnavailable> {
    let mut comparison =
        Comparison { store, keys, result, ends: HashMap::new(), ahead: HashMap::new() };
    let (mut line, mut number) = (Vec::new(), 0_u64);
    loop {
        let read = read_line(export, &mut line)
            .map_err(|error| StoreUnavailable(format!("cannot read the exported copy: {error}")))?;
        number += 1;
        let parsed = match read {
            Read::End => return Ok(comparison.result),
            Read::TooLong => Err("this line is longer than 1 MiB".to_owned()),
            Read::Line => parse_line(&line).map_err(|invalid| invalid.to_string()),
        };
        match parsed {
            Ok(entry) => comparison.check(entry).await?,
            Err(reason) => {
                let reason = format!("line {number} of the exported copy: {reason}");
                comparison.result.note("", number, reason);
            }
        }
        if comparison.ends.len() > CHAINS_MAX {
            let reason = format!("the exported copy has more than {CHAINS_MAX} chains");
            comparison.result.note("", number, reason);
            return Ok(comparison.result);
        }
    }
}

struct Comparison<'a> {
    store: &'a dyn Store,
    keys: &'a [PublicKey],
    result: Verification,
    /// Where each chain of the copy was read to.
    ends: HashMap<String, (u64, ChainHash)>,
    /// Records of the store.
    ahead: HashMap<(String, u64), Entry>,
}

impl Comparison<'_> {
    async fn check(&mut self, exported: Entry) -> Result<(), StoreUnavailable> {
        let problem = match self.broken_link(&exported) {
            Some(problem) => Some(problem.to_owned()),
            None => match self.difference(&exported).await? {
                Some(problem) => Some(problem.to_owned()),
                None => self.broken_checkpoint(&exported).await?,
            },
        };
        if let Some(reason) = problem {
            self.result.note(&exported.chain, exported.seq, reason);
        }
        Ok(())
    }

    /// Whether the record continues what the copy has of its chain.
    fn broken_link(&mut self, exported: &Entry) -> Option<&'static str> {
        let mut hash = ChainHash::default();
        hex::decode_to_slice(&exported.hash, &mut hash.0).ok()?;
        let (chain, seq) = (exported.chain.clone(), exported.seq);
        let before = self.ends.insert(chain, (seq, hash));
        let previous = match before {
            _ if seq == 1 => ChainHash::default(),
            Some((last, previous)) if last.saturating_add(1) == seq => previous,
            Some((last, _)) if last < seq => {
                return Some("records are missing in the exported copy before this one");
            }
            // The copy begins here, or repeats itself.
            Some(_) | None => return None,
        };
        let is_linked = serde_json::to_vec(&exported.record)
            .is_ok_and(|payload| link(previous, &exported.chain, seq, &payload) == hash);
        (!is_linked).then_some("the exported copy was changed: its own links break at this record")
    }

    async fn difference(
        &mut self,
        exported: &Entry,
    ) -> Result<Option<&'static str>, StoreUnavailable> {
        let place = (exported.chain.clone(), exported.seq);
        if !self.ahead.contains_key(&place) {
            self.ahead.clear();
            let after = exported.seq.saturating_sub(1);
            for entry in self.store.read_log(&exported.chain, after, READ_AHEAD).await? {
                if let Ok(entry) = Entry::from_log(&exported.chain, &entry) {
                    self.ahead.insert((entry.chain.clone(), entry.seq), entry);
                }
            }
        }
        Ok(match self.ahead.get(&place) {
            None => Some("the exported copy has a record that the store has not"),
            Some(stored) if stored != exported => Some("the store differs from the exported copy"),
            Some(_) => None,
        })
    }

    async fn broken_checkpoint(
        &self,
        exported: &Entry,
    ) -> Result<Option<String>, StoreUnavailable> {
        let checkpoint = match Checkpoint::read(exported) {
            None => return Ok(None),
            Some(Err(unreadable)) => return Ok(Some(unreadable.to_string())),
            Some(Ok(checkpoint)) => checkpoint,
        };
        if let Some(problem) = signature_problem(&checkpoint, self.keys) {
            return Ok(Some(problem));
        }
        for head in checkpoint.heads() {
            if !stands(self.store, head).await? {
                return Ok(Some(missing(head)));
            }
        }
        Ok(None)
    }
}

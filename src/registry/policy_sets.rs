//! Policy sets by their hash, so that an old decision is explained with the text of then.

use super::{Registry, decode, put};
use crate::domain::PolicyHash;
use crate::store::{CommitError, Condition, Key, StoreUnavailable, Transaction};

/// What the keys of all sets begin with.
const PREFIX: &str = "policy-set/";
/// Text of one piece in the store, in bytes: below the store's limit even if JSON escapes it all.
const PIECE_BYTES: usize = 32 * 1024;

impl Registry {
    /// Keeps the text of a set, given as (file name, text). Does nothing if it is kept already.
    pub async fn keep_policy_set(
        &self,
        hash: &PolicyHash,
        files: &[(String, String)],
    ) -> Result<(), StoreUnavailable> {
        let head_key = head_key(hash);
        if self.store.get(&head_key).await?.is_some() {
            return Ok(());
        }
        let text = serde_json::to_string(files).map_err(|e| StoreUnavailable(e.to_string()))?;
        let pieces = pieces(&text);
        for (number, piece) in pieces.iter().enumerate() {
            let put = put(&piece_key(hash, number), piece)?;
            self.commit(Transaction { puts: vec![put], ..Transaction::default() }).await?;
        }
        // The head is written last, so that a set is there as a whole or not at all.
        let head = put(&head_key, &pieces.len())?;
        let conditions = vec![Condition::Absent(head_key)];
        self.commit(Transaction { conditions, puts: vec![head], ..Transaction::default() }).await
    }

    /// The text of a set that was once in force.
    pub async fn policy_set(
        &self,
        hash: &PolicyHash,
    ) -> Result<Option<Vec<(String, String)>>, StoreUnavailable> {
        let Some((pieces, _)) = self.read::<usize>(&head_key(hash)).await? else { return Ok(None) };
        let mut text = String::new();
        for number in 0..pieces {
            let key = piece_key(hash, number);
            let piece = self.read::<String>(&key).await?;
            let missing = || StoreUnavailable(format!("`{}` is missing", key.as_str()));
            text.push_str(&piece.ok_or_else(missing)?.0);
        }
        decode(&head_key(hash), text.as_bytes()).map(Some)
    }

    /// The hashes of all sets that are kept as a whole, in their order.
    pub async fn policy_sets(&self) -> Result<Vec<PolicyHash>, StoreUnavailable> {
        let mut hashes = Vec::new();
        let mut after = None;
        // The first key of each set tells its hash; the rest of its text is not read.
        while let Some((key, _)) = self.store.scan(PREFIX, after.as_ref(), 1).await?.items.pop() {
            let hash = key.as_str().strip_prefix(PREFIX).and_then(|rest| rest.split('/').next());
            let hash: PolicyHash = hash
                .and_then(|hash| hash.parse().ok())
                .ok_or_else(|| StoreUnavailable(format!("`{}` is no policy set", key.as_str())))?;
            let head = head_key(&hash);
            if self.store.get(&head).await?.is_some() {
                hashes.push(hash);
            }
            // The head is the last key of a set; a set that was not kept to its end has none.
            after = Some(head);
        }
        Ok(hashes)
    }

    async fn commit(&self, transaction: Transaction) -> Result<(), StoreUnavailable> {
        match self.store.commit(transaction).await {
            // On conflict another process kept the same set.
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Unavailable(error)) => Err(error),
        }
    }
}

fn head_key(hash: &PolicyHash) -> Key {
    Key::new(["policy-set", hash.as_str(), "head"])
}

fn piece_key(hash: &PolicyHash, number: usize) -> Key {
    Key::new(["policy-set", hash.as_str(), &format!("{number:06}")])
}

/// Splits text at character boundaries.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

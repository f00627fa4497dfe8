//! Join tokens on record. The token itself is written once; its uses are counted beside it, in the
//! transactions of the enrollments that use it, so that a crowd is admitted at the same time and never
//! more of it than may be (T8).

use serde::{Deserialize, Serialize};

use super::{ATTEMPTS, Registry, decode, put};
use crate::domain::{Lifetime, Timestamp, Token, TokenName, TokenOrigin};
use crate::store::{
    Append, CommitError, Condition, Count, Key, Put, StoreUnavailable, Transaction, Versioned,
};

/// For how long an expired token can still be looked at.
const KEPT_AFTER_EXPIRY: Lifetime = Lifetime::from_days(30);
/// How many tokens are read at a time.
const BATCH: usize = 256;

/// A token, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenState {
    /// As it was made.
    pub token: Token,
    /// How many nodes have joined with it.
    pub uses: u64,
    /// When one last did.
    pub last_used_at: Option<Timestamp>,
}

impl TokenState {
    /// Whether as many as may have joined with it.
    pub fn is_used_up(&self) -> bool {
        self.token.max_uses.is_some_and(|most| self.uses >= u64::from(most))
    }
}

/// A token that was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddTokenError {
    /// There is one of this name.
    #[error("there is a token of this name")]
    Taken,
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// A token as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    token: Token,
    /// The audit log has that it expired or was used up.
    #[serde(default)]
    end_is_recorded: bool,
}

impl Registry {
    /// The token of this name, as it was made.
    pub async fn find_token(&self, name: &TokenName) -> Result<Option<Token>, StoreUnavailable> {
        let found = self.read::<TokenEntry>(&token_key(name)).await?;
        Ok(found.map(|(entry, _)| entry.token))
    }

    /// The token of this name, and what became of it.
    pub async fn token(&self, name: &TokenName) -> Result<Option<TokenState>, StoreUnavailable> {
        let Some(token) = self.find_token(name).await? else { return Ok(None) };
        Ok(self.with_uses(vec![token]).await?.pop())
    }

    /// Every token, in the order of names, with those that expired not long ago.
    pub async fn tokens(&self) -> Result<Vec<TokenState>, StoreUnavailable> {
        let entries = self.token_entries().await?;
        self.with_uses(entries.into_iter().map(|(_, entry, _)| entry.token).collect()).await
    }

    /// Adds a token. `audit` makes the records that become part of the transaction.
    pub async fn add_token(
        &self,
        token: &Token,
        audit: impl Fn() -> Result<Vec<Append>, StoreUnavailable>,
    ) -> Result<(), AddTokenError> {
        let transaction = Transaction {
            conditions: vec![Condition::Absent(token_key(&token.name))],
            puts: vec![put_token(token)?],
            appends: audit()?,
            ..Transaction::default()
        };
        match self.store.commit(transaction).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(_)) => Err(AddTokenError::Taken),
            Err(CommitError::Unavailable(error)) => Err(error.into()),
        }
    }

    /// Removes a token: from here on nobody joins with it. Nodes that did stay.
    pub async fn remove_token(
        &self,
        name: &TokenName,
        audit: impl Fn(&Token) -> Result<Vec<Append>, StoreUnavailable>,
    ) -> Result<Option<Token>, StoreUnavailable> {
        let key = token_key(name);
        for _ in 0..ATTEMPTS {
            let Some((entry, version)) = self.read::<TokenEntry>(&key).await? else {
                return Ok(None);
            };
            let transaction = Transaction {
                conditions: vec![Condition::Unchanged(key.clone(), version)],
                deletes: removal(&entry.token),
                appends: audit(&entry.token)?,
                ..Transaction::default()
            };
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(Some(entry.token)),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Unavailable(error)) => return Err(error),
            }
        }
        Err(StoreUnavailable("the token keeps changing".to_owned()))
    }

    /// Puts the tokens of the server's file in the place of those that it had before. A token of
    /// another origin with the same name is left alone and returned.
    pub async fn keep_static_tokens(
        &self,
        tokens: &[Token],
        audit: impl Fn(&Token, bool) -> Result<Append, StoreUnavailable>,
    ) -> Result<Vec<TokenName>, StoreUnavailable> {
        let mut names_taken = Vec::new();
        let known = self.token_entries().await?;
        for (key, entry, version) in &known {
            let is_gone = tokens.iter().all(|token| token.name != entry.token.name);
            if entry.token.origin == TokenOrigin::Static && is_gone {
                let transaction = Transaction {
                    conditions: vec![Condition::Unchanged(key.clone(), *version)],
                    deletes: vec![key.clone()],
                    appends: vec![audit(&entry.token, false)?],
                    ..Transaction::default()
                };
                self.commit_or_leave(transaction).await?;
            }
        }
        for token in tokens {
            let mut token = token.clone();
            let found = known.iter().find(|(_, entry, _)| entry.token.name == token.name);
            let (key, condition) = match found {
                Some((key, entry, version)) if entry.token.origin == TokenOrigin::Static => {
                    if is_the_secret_of(&entry.token, &token) {
                        // Another word about the same secret makes no later token of it.
                        token.created_at = entry.token.created_at;
                    }
                    if entry.token == token {
                        continue;
                    }
                    (key.clone(), Condition::Unchanged(key.clone(), *version))
                }
                Some(_) => {
                    names_taken.push(token.name.clone());
                    continue;
                }
                None => (token_key(&token.name), Condition::Absent(token_key(&token.name))),
            };
            let transaction = Transaction {
                conditions: vec![condition],
                puts: vec![Put { key, ..put_token(&token)? }],
                appends: vec![audit(&token, true)?],
                ..Transaction::default()
            };
            self.commit_or_leave(transaction).await?;
        }
        Ok(names_taken)
    }

    /// Writes down, once for each, which tokens have expired or are used up.
    pub async fn record_ended_tokens(
        &self,
        now: Timestamp,
        audit: impl Fn(&TokenState) -> Result<Append, StoreUnavailable>,
    ) -> Result<(), StoreUnavailable> {
        let mut open = self.token_entries().await?;
        open.retain(|(_, entry, _)| !entry.end_is_recorded);
        let tokens = open.iter().map(|(_, entry, _)| entry.token.clone()).collect();
        for ((key, _, version), state) in open.into_iter().zip(self.with_uses(tokens).await?) {
            if !state.token.has_expired(now) && !state.is_used_up() {
                continue;
            }
            let expires_at = kept_until(&state.token);
            let append = audit(&state)?;
            let entry = TokenEntry { token: state.token, end_is_recorded: true };
            let transaction = Transaction {
                conditions: vec![Condition::Unchanged(key.clone(), version)],
                puts: vec![Put { expires_at, ..put(&key, &entry)? }],
                appends: vec![append],
                ..Transaction::default()
            };
            self.commit_or_leave(transaction).await?;
        }
        Ok(())
    }

    /// Another server may have been first: then there is nothing left to do.
    async fn commit_or_leave(&self, transaction: Transaction) -> Result<(), StoreUnavailable> {
        match self.store.commit(transaction).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Unavailable(error)) => Err(error),
        }
    }

    async fn token_entries(&self) -> Result<Vec<(Key, TokenEntry, u64)>, StoreUnavailable> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.scan("token/", after.as_ref(), BATCH).await?;
            for (key, versioned) in page.items {
                let entry = decode(&key, &versioned.value)?;
                after = Some(key.clone());
                found.push((key, entry, versioned.version));
            }
            if !page.more {
                return Ok(found);
            }
        }
    }

    async fn with_uses(&self, tokens: Vec<Token>) -> Result<Vec<TokenState>, StoreUnavailable> {
        let keys: Vec<_> =
            tokens.iter().flat_map(|token| [uses_key(token), used_key(token)]).collect();
        let mut values = Vec::new();
        for some in keys.chunks(BATCH) {
            values.extend(self.store.get_all(some).await?);
        }
        let mut found = keys.iter().zip(values);
        let mut states = Vec::new();
        for token in tokens {
            let uses = Count::read(found.next().and_then(|(_, value)| value).as_ref())?;
            let last = found.next().and_then(|(key, value)| Some((key, value?)));
            let last_used_at = last.map(|(key, last)| decode(key, &last.value)).transpose()?;
            states.push(TokenState { token, uses, last_used_at });
        }
        Ok(states)
    }
}

/// A token as it stood when a decision to use it was made.
#[derive(Debug)]
pub(super) struct TokenView {
    /// As it is on record now.
    pub(super) token: Token,
    /// How many have joined with it.
    pub(super) uses: u64,
    version: u64,
}

impl TokenView {
    /// What is on record of this very token; nothing if it was removed, or if its name was given again.
    pub(super) async fn read(
        registry: &Registry,
        token: &Token,
    ) -> Result<Option<Self>, StoreUnavailable> {
        let keys = [token_key(&token.name), uses_key(token)];
        let mut found = registry.store.get_all(&keys).await?.into_iter();
        let Some(Versioned { value, version }) = found.next().flatten() else { return Ok(None) };
        let TokenEntry { token: on_record, .. } = decode(&token_key(&token.name), &value)?;
        let uses = Count::read(found.next().flatten().as_ref())?;
        let is_it = on_record.public_key == token.public_key;
        Ok(is_it.then_some(Self { token: on_record, uses, version }))
    }

    /// That the token is still as it was read.
    pub(super) fn condition(&self) -> Condition {
        Condition::Unchanged(token_key(&self.token.name), self.version)
    }

    /// Counts a use; the transaction fails if others have used the token up meanwhile.
    pub(super) fn count(
        &self,
        now: Timestamp,
        transaction: &mut Transaction,
    ) -> Result<(), StoreUnavailable> {
        // The secret of a static token may be given another end: then its uses still count.
        let is_static = self.token.origin == TokenOrigin::Static;
        let expires_at = kept_until(&self.token).filter(|_| !is_static);
        let below = self.token.max_uses.map_or(u64::MAX, u64::from);
        transaction.counts.push(Count { key: uses_key(&self.token), below, expires_at });
        transaction.puts.push(Put { expires_at, ..put(&used_key(&self.token), &now)? });
        Ok(())
    }
}

fn is_the_secret_of(known: &Token, read: &Token) -> bool {
    known.public_key == read.public_key
}

fn kept_until(token: &Token) -> Option<Timestamp> {
    token.expires_at.map(|end| end.plus(KEPT_AFTER_EXPIRY))
}

/// Where a token is.
pub(super) fn token_key(name: &TokenName) -> Key {
    Key::new(["token", name.as_str()])
}

/// Uses belong to the secret and not to the name, which may be given again.
fn uses_key(token: &Token) -> Key {
    Key::new(["token-uses", token.public_key.to_string().as_str()])
}

fn used_key(token: &Token) -> Key {
    Key::new(["token-used", token.public_key.to_string().as_str()])
}

/// Writes a token.
pub(super) fn put_token(token: &Token) -> Result<Put, StoreUnavailable> {
    let entry = TokenEntry { token: token.clone(), end_is_recorded: false };
    Ok(Put { expires_at: kept_until(token), ..put(&token_key(&token.name), &entry)? })
}

/// What goes with a token. The uses of a static one stay: the same secret may come back by the file.
pub(super) fn removal(token: &Token) -> Vec<Key> {
    let mut keys = vec![token_key(&token.name)];
    if token.origin != TokenOrigin::Static {
        keys.extend([uses_key(token), used_key(token)]);
    }
    keys
}

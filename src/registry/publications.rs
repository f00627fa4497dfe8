//! What was published where: the tokens of each publication and target. A change of them, of their
//! tokens and the audit record about it are one transaction, by who holds the lease.

use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::tokens::{put_token, removal, token_key};
use super::{Registry, decode, put};
use crate::domain::{AccountId, PolicyName, Region, Timestamp, Token, TokenKey, TokenName};
use crate::store::{Append, CommitError, Condition, Key, StoreUnavailable, Transaction};

const PREFIX: &str = "publication/";

/// One target of a publication, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// The publication's name.
    pub name: PolicyName,
    /// The target, for example `aws/us-west-2/111122223333`.
    pub target: String,
    /// The policy that its tokens join under.
    pub policy: PolicyName,
    /// Where the token is written.
    pub place: PublicationPlace,
    /// A token that was made and is not known to be published.
    pub creating: Option<CreatingToken>,
    /// The token that is published.
    pub current: Option<PublishedToken>,
    /// The token before, until its end.
    pub previous: Option<OutgoingToken>,
}

/// A parameter, and who may write it: enough to clean up after the policy is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicationPlace {
    /// The region.
    pub region: Region,
    /// The role that writes, with its account and external id; the server itself, if none.
    pub role: Option<(AccountId, String, Option<String>)>,
    /// The parameter of the token.
    pub parameter: String,
}

/// A token between its making and its publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatingToken {
    /// Its name.
    pub token: TokenName,
    /// Its public key, by which it is known again.
    pub key: TokenKey,
    /// Until when it lives.
    pub expires_at: Timestamp,
}

/// A token that was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedToken {
    /// Its name.
    pub token: TokenName,
    /// Its public key.
    pub key: TokenKey,
    /// Until when it lives.
    pub expires_at: Timestamp,
    /// When it was read back.
    pub published_at: Timestamp,
    /// The parameter's ARN.
    pub arn: String,
    /// The parameter's version.
    pub version: i64,
}

/// A token that another one has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutgoingToken {
    /// Its name.
    pub token: TokenName,
    /// Until when it lives.
    pub ends_at: Timestamp,
}

/// A publication as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationOnRecord {
    /// What it says.
    pub publication: Publication,
    version: u64,
}

/// What changes together.
#[derive(Debug, Default)]
pub struct PublicationChange {
    /// How the publication is afterwards; off the record, if none.
    pub next: Option<Publication>,
    /// A token that is made.
    pub add: Option<Token>,
    /// A token whose end is brought forward. One that is gone stays gone.
    pub shorten: Option<OutgoingToken>,
    /// Tokens that are revoked.
    pub revoke: Vec<TokenName>,
}

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum NotChanged {
    /// Somebody else has changed it, or has taken over: what was planned is void.
    #[error("somebody else has changed it")]
    Overtaken,
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

impl Publication {
    /// Its tokens that may live.
    pub fn tokens(&self) -> Vec<TokenName> {
        let creating = self.creating.as_ref().map(|creating| creating.token.clone());
        let current = self.current.as_ref().map(|current| current.token.clone());
        let previous = self.previous.as_ref().map(|previous| previous.token.clone());
        [creating, current, previous].into_iter().flatten().collect()
    }
}

impl Registry {
    /// What is on record of a target.
    pub async fn publication(
        &self,
        name: &PolicyName,
        target: &str,
    ) -> Result<Option<PublicationOnRecord>, StoreUnavailable> {
        let found = self.read::<Publication>(&key(name, target)).await?;
        Ok(found.map(|(publication, version)| PublicationOnRecord { publication, version }))
    }

    /// Everything that is on record.
    pub async fn publications(&self) -> Result<Vec<Publication>, StoreUnavailable> {
        const BATCH: usize = 256;
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.scan(PREFIX, after.as_ref(), BATCH).await?;
            for (key, versioned) in page.items {
                found.push(decode(&key, &versioned.value)?);
                after = Some(key);
            }
            if !page.more {
                return Ok(found);
            }
        }
    }

    /// Makes a change of what was read, for who holds the lease.
    pub async fn change_publication(
        &self,
        lease: &Lease,
        (name, target): (&PolicyName, &str),
        known: Option<&PublicationOnRecord>,
        change: PublicationChange,
        audit: Vec<Append>,
    ) -> Result<(), NotChanged> {
        let key = key(name, target);
        let as_read = match known {
            Some(known) => Condition::Unchanged(key.clone(), known.version),
            None => Condition::Absent(key.clone()),
        };
        let mut transaction = Transaction {
            conditions: vec![lease.condition(), as_read],
            appends: audit,
            ..Transaction::default()
        };
        match &change.next {
            Some(next) => transaction.puts.push(put(&key, next)?),
            None => transaction.deletes.push(key),
        }
        if let Some(token) = &change.add {
            transaction.conditions.push(Condition::Absent(token_key(&token.name)));
            transaction.puts.push(put_token(token)?);
        }
        if let Some(OutgoingToken { token, ends_at }) = &change.shorten {
            self.shorten(token, *ends_at, &mut transaction).await?;
        }
        for name in &change.revoke {
            if let Some(state) = self.token(name).await? {
                transaction.deletes.extend(removal(&state.token));
            }
        }
        match self.store.commit(transaction).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(_)) => Err(NotChanged::Overtaken),
            Err(CommitError::Unavailable(error)) => Err(error.into()),
        }
    }

    /// An operator may remove the token meanwhile: then the condition fails, and it stays removed.
    async fn shorten(
        &self,
        name: &TokenName,
        ends_at: Timestamp,
        transaction: &mut Transaction,
    ) -> Result<(), StoreUnavailable> {
        let key = token_key(name);
        let (Some(stored), Some(state)) = (self.store.get(&key).await?, self.token(name).await?)
        else {
            return Ok(());
        };
        let earlier = state.token.expires_at.is_none_or(|end| ends_at < end);
        if earlier {
            let token = Token { expires_at: Some(ends_at), ..state.token };
            transaction.conditions.push(Condition::Unchanged(key, stored.version));
            transaction.puts.push(put_token(&token)?);
        }
        Ok(())
    }
}

/// A target has slashes, which no part of a key may have, and no dots.
fn key(name: &PolicyName, target: &str) -> Key {
    Key::new(["publication", name.as_str(), &target.replace('/', ".")])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Lifetime, TokenOrigin};
    use crate::registry::Duty;
    use crate::store::{MemoryStore, Store};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const TARGET: &str = "aws/us-west-2/own";
    const LOG: &str = "publications";

    fn name() -> PolicyName {
        "web".parse().unwrap()
    }

    fn token(name: &str) -> Token {
        Token {
            name: name.parse().unwrap(),
            public_key: "00".repeat(32).parse().unwrap(),
            policy: self::name(),
            node: None,
            cidrs: Vec::new(),
            labels: BTreeMap::new(),
            description: None,
            created_at: NOW,
            expires_at: Some(NOW.plus(Lifetime::from_hours(1))),
            max_uses: None,
            origin: TokenOrigin::Publication { publication: self::name(), target: TARGET.into() },
        }
    }

    fn publication(creating: &str) -> Publication {
        let region = "us-west-2".parse().unwrap();
        Publication {
            name: name(),
            target: TARGET.to_owned(),
            policy: name(),
            place: PublicationPlace { region, role: None, parameter: "/muster/web".to_owned() },
            creating: Some(CreatingToken {
                token: creating.parse().unwrap(),
                key: token(creating).public_key,
                expires_at: NOW.plus(Lifetime::from_hours(1)),
            }),
            current: None,
            previous: None,
        }
    }

    async fn lease(registry: &Registry, holder: &str, at: Timestamp) -> Lease {
        let life = Lifetime::from_seconds(15);
        registry.take_lease(Duty::Publishing, holder, life, at).await.unwrap().unwrap()
    }

    async fn make(registry: &Registry, lease: &Lease, name: &str) -> Result<(), NotChanged> {
        let known = registry.publication(&self::name(), TARGET).await.unwrap();
        let change = PublicationChange {
            next: Some(publication(name)),
            add: Some(token(name)),
            ..PublicationChange::default()
        };
        let key = (&self::name(), TARGET);
        let record = Append { log: LOG.to_owned(), payload: b"{}".to_vec() };
        registry.change_publication(lease, key, known.as_ref(), change, vec![record]).await
    }

    async fn names(registry: &Registry) -> Vec<String> {
        let tokens = registry.tokens().await.unwrap();
        tokens.iter().map(|state| state.token.name.to_string()).collect()
    }

    #[tokio::test]
    async fn what_was_made_is_listed_with_its_tokens_and_has_its_record() {
        let store = Arc::new(MemoryStore::default());
        let registry = Registry::new(store.clone());
        assert_eq!(registry.publications().await.unwrap(), []);
        let lease = lease(&registry, "a", NOW).await;
        make(&registry, &lease, "web-1").await.unwrap();
        let listed = registry.publications().await.unwrap();
        assert_eq!(listed, [publication("web-1")]);
        assert_eq!(listed[0].tokens(), [token("web-1").name]);
        assert_eq!(store.read_log(LOG, 0, 10).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn who_lost_the_lease_makes_no_token() {
        let registry = Registry::new(Arc::new(MemoryStore::default()));
        let first = lease(&registry, "a", NOW).await;
        make(&registry, &first, "web-1").await.unwrap();
        let second = lease(&registry, "b", NOW.plus(Lifetime::from_seconds(15))).await;
        let refused = make(&registry, &first, "web-2").await;
        assert!(matches!(refused, Err(NotChanged::Overtaken)), "{refused:?}");
        assert_eq!(names(&registry).await, ["web-1"]);
        make(&registry, &second, "web-3").await.unwrap();
    }

    #[tokio::test]
    async fn what_was_planned_on_an_older_record_is_void() {
        let registry = Registry::new(Arc::new(MemoryStore::default()));
        let lease = lease(&registry, "a", NOW).await;
        let key = (&name(), TARGET);
        make(&registry, &lease, "web-1").await.unwrap();
        let old = registry.publication(&name(), TARGET).await.unwrap();
        make(&registry, &lease, "web-2").await.unwrap();
        for known in [old.as_ref(), None] {
            let change = PublicationChange {
                revoke: vec!["web-2".parse().unwrap()],
                ..PublicationChange::default()
            };
            let refused = registry.change_publication(&lease, key, known, change, Vec::new()).await;
            assert!(matches!(refused, Err(NotChanged::Overtaken)), "{refused:?}");
        }
        assert_eq!(names(&registry).await, ["web-1", "web-2"]);
    }

    #[tokio::test]
    async fn an_end_is_brought_forward_and_never_put_off_and_what_is_removed_stays_so() {
        let registry = Registry::new(Arc::new(MemoryStore::default()));
        let lease = lease(&registry, "a", NOW).await;
        make(&registry, &lease, "web-1").await.unwrap();
        let web = token("web-1").name;
        let shorten = async |minutes| {
            let known = registry.publication(&name(), TARGET).await.unwrap();
            let ends_at = NOW.plus(Lifetime::from_minutes(minutes));
            let change = PublicationChange {
                next: Some(publication("web-2")),
                shorten: Some(OutgoingToken { token: web.clone(), ends_at }),
                ..PublicationChange::default()
            };
            let key = (&name(), TARGET);
            let changed =
                registry.change_publication(&lease, key, known.as_ref(), change, Vec::new());
            changed.await.unwrap();
            let state = registry.token(&web).await.unwrap();
            state.map(|state| state.token.expires_at.unwrap().since(NOW))
        };
        assert_eq!(shorten(5).await, Some(Lifetime::from_minutes(5)));
        assert_eq!(shorten(50).await, Some(Lifetime::from_minutes(5)));
        registry.remove_token(&web, |_| Ok(Vec::new())).await.unwrap();
        assert_eq!(shorten(1).await, None, "an operator's removal is not undone");
    }
}

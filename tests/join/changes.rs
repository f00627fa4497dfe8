//! What is changed outside of a join is changed as in one: with its record, and only as it was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster::domain::{Lifetime, NodeId, Token, TokenOrigin};
use muster::registry::{Duty, Lock, LockTarget, Registry};
use muster::store::{Append, Key, Store};

use crate::hooked::Hooked;
use crate::renewal::new_key;
use crate::tokens::Tokens;

const LOG: &str = "changes";

fn record() -> Append {
    Append { log: LOG.to_owned(), payload: b"{}".to_vec() }
}

/// A server with a node that used its token up, and a second token that is not on record yet.
struct Site {
    store: Arc<Hooked>,
    tokens: Tokens,
    node: NodeId,
    used_up: Token,
    fixed: Token,
}

impl Site {
    async fn new() -> Self {
        let store = Arc::new(Hooked::default());
        let tokens = Tokens::on(Arc::clone(&store) as Arc<dyn Store>);
        let secret = tokens.token("used-up", |_| ()).await;
        let node = tokens.admitted(Some(&secret), &new_key()).await.enrollment.node_id;
        let used_up = tokens.state(&secret).await.token;
        let (name, origin) = ("fixed".parse().unwrap(), TokenOrigin::Static);
        let fixed = Token { name, origin, max_uses: None, ..used_up.clone() };
        Self { store, tokens, node, used_up, fixed }
    }

    fn registry(&self) -> &Registry {
        &self.tokens.world.registry
    }

    async fn recorded(&self) -> usize {
        self.store.read_log(LOG, 0, 100).await.unwrap().len()
    }

    async fn keep_static(&self, tokens: &[Token]) {
        self.registry().keep_static_tokens(tokens, |_, _| Ok(record())).await.unwrap();
    }

    async fn record_ended(&self) {
        let now = self.tokens.now();
        self.registry().record_ended_tokens(now, |_| Ok(record())).await.unwrap();
    }

    async fn is_on_record(&self, token: &Token) -> bool {
        let found = self.registry().find_token(&token.name).await.unwrap();
        found.as_ref() == Some(token)
    }
}

fn token_key(token: &Token) -> Key {
    Key::new(["token", token.name.as_str()])
}

// I9: what is not on record did not happen.
#[tokio::test]
async fn no_change_is_made_without_its_record() {
    let site = Site::new().await;
    let (registry, now) = (site.registry(), site.tokens.now());
    let Site { node, used_up, fixed, .. } = &site;
    let (name, public_key) = ("made".parse().unwrap(), "00".repeat(32).parse().unwrap());
    let made = Token { name, public_key, ..used_up.clone() };
    registry.add_token(&made, || Ok(vec![record()])).await.unwrap();
    assert_eq!(site.recorded().await, 1, "a token is added");
    registry.remove_token(&made.name, |_| Ok(vec![record()])).await.unwrap().unwrap();
    assert_eq!(site.recorded().await, 2, "a token is removed");
    site.keep_static(std::slice::from_ref(fixed)).await;
    assert_eq!(site.recorded().await, 3, "a token comes by the file");
    site.keep_static(&[]).await;
    assert_eq!(site.recorded().await, 4, "a token goes by the file");
    site.record_ended().await;
    assert_eq!(site.recorded().await, 5, "a token ends");
    let target = LockTarget::Node(node.clone());
    let reason = "test".to_owned();
    let lock = Lock { target: target.clone(), reason, since: now, until: None };
    registry.lock(&[lock], || Ok(vec![record()])).await.unwrap();
    assert_eq!(site.recorded().await, 6, "a lock is placed");
    registry.unlock(&[target], |_| Ok(vec![record()])).await.unwrap();
    assert_eq!(site.recorded().await, 7, "a lock is lifted");
    registry.allow_rejoin(node, now, "test", now, |_| Ok(record())).await.unwrap().unwrap();
    assert_eq!(site.recorded().await, 8, "a node is changed");
    let floor = now.plus(Lifetime::from_hours(1));
    for _ in 0..2 {
        registry.raise_floor(node, floor, now, |_| Ok(record())).await.unwrap();
        assert_eq!(site.recorded().await, 9, "a floor that stands is no change");
    }
}

// What somebody else has changed meanwhile is looked at again, or left to him.
#[tokio::test]
async fn nothing_is_changed_that_was_changed_meanwhile() {
    let site = Site::new().await;
    let Site { store, node, used_up, fixed, .. } = &site;
    let (registry, now) = (site.registry(), site.tokens.now());

    store.touch_before_commit(token_key(used_up));
    site.record_ended().await;
    assert_eq!(site.recorded().await, 0);
    site.record_ended().await;
    assert_eq!(site.recorded().await, 1);

    let looks = AtomicUsize::new(0);
    let look = || looks.fetch_add(1, Ordering::SeqCst);
    store.touch_before_commit(token_key(used_up));
    let removed = registry.remove_token(&used_up.name, |_| {
        look();
        Ok(vec![record()])
    });
    assert_eq!(removed.await.unwrap().as_ref(), Some(used_up));
    assert_eq!(looks.swap(0, Ordering::SeqCst), 2);
    let (place, _) = store.scan("enrollment/", None, 1).await.unwrap().items.remove(0);
    store.touch_before_commit(place);
    let forgotten = registry.forget(node, "test", now, |_| {
        look();
        Ok(record())
    });
    assert!(forgotten.await.unwrap().is_some());
    assert_eq!(looks.swap(0, Ordering::SeqCst), 2);

    site.keep_static(std::slice::from_ref(fixed)).await;
    let changed = Token { max_uses: Some(7), ..fixed.clone() };
    store.touch_before_commit(token_key(fixed));
    site.keep_static(std::slice::from_ref(&changed)).await;
    assert!(site.is_on_record(fixed).await);
    store.touch_before_commit(token_key(fixed));
    site.keep_static(&[]).await;
    assert!(site.is_on_record(fixed).await);
    site.keep_static(&[]).await;
    assert!(!site.is_on_record(fixed).await);
}

// A lock is on the list within seconds, and nobody makes a list for nothing.
#[tokio::test(start_paused = true)]
async fn who_publishes_the_list_hears_of_every_change_of_it() {
    let site = Site::new().await;
    let (registry, now) = (site.registry(), site.tokens.now());
    let target = LockTarget::Node(site.node.clone());
    let reason = "test".to_owned();
    let lock = Lock { target: target.clone(), reason, since: now, until: None };
    let hears = async || {
        let change = registry.revocations_changed();
        tokio::time::timeout(Duration::from_secs(1), change).await.is_ok()
    };
    assert!(!hears().await, "nothing is revoked by a join");
    registry.lock(&[lock], || Ok(vec![])).await.unwrap();
    assert!(hears().await, "a lock is placed");
    registry.unlock(&[target], |_| Ok(vec![])).await.unwrap();
    assert!(hears().await, "a lock is lifted");
    registry.forget(&site.node, "test", now, |_| Ok(record())).await.unwrap();
    assert!(hears().await, "a node is forgotten");
    assert!(!hears().await, "each change is heard of once");
}

#[tokio::test]
async fn of_two_servers_at_once_one_gets_the_lease_and_each_a_list_number_of_its_own() {
    const LIFE: Lifetime = Lifetime::from_seconds(15);
    let site = Site::new().await;
    let (registry, now) = (site.registry(), site.tokens.now());
    site.store.before_commit(async move |store| {
        let registry = Registry::new(store);
        let taken = registry.take_lease(Duty::Publishing, "quicker", LIFE, now).await.unwrap();
        assert!(taken.is_some());
    });
    let late = registry.take_lease(Duty::Publishing, "late", LIFE, now).await.unwrap();
    assert_eq!(late, None);

    let first = registry.next_list_number().await.unwrap();
    for _ in 0..2 {
        site.store.before_commit(async |store| {
            Registry::new(store).next_list_number().await.unwrap();
        });
        registry.next_list_number().await.unwrap();
    }
    assert_eq!(registry.next_list_number().await.unwrap(), first + 5);
}

// A name of the file may be an operator's already: his token stays as it is, and stays.
#[tokio::test]
async fn the_file_of_static_tokens_touches_no_other_token() {
    let site = Site::new().await;
    let (registry, used_up) = (site.registry(), &site.used_up);
    let of_that_name = Token { name: used_up.name.clone(), ..site.fixed.clone() };
    let taken = registry.keep_static_tokens(&[of_that_name], |_, _| Ok(record())).await.unwrap();
    assert_eq!(taken, std::slice::from_ref(&used_up.name));
    site.keep_static(&[]).await;
    let known = registry.tokens().await.unwrap();
    assert_eq!(known.iter().map(|state| &state.token).collect::<Vec<_>>(), [used_up]);
}

// The epoch of a token's nodes begins with its secret: by another secret nobody is an earlier node.
#[tokio::test]
async fn another_secret_in_the_file_makes_a_later_token() {
    let site = Site::new().await;
    site.keep_static(std::slice::from_ref(&site.fixed)).await;
    let created_at = site.fixed.created_at.plus(Lifetime::from_hours(1));
    let public_key = "00".repeat(32).parse().unwrap();
    let other = Token { public_key, created_at, ..site.fixed.clone() };
    site.keep_static(std::slice::from_ref(&other)).await;
    assert!(site.is_on_record(&other).await);
}

// Uses belong to the secret, and the secret of a static token may come back by the file.
#[tokio::test]
async fn the_uses_of_a_removed_token_go_with_it_unless_it_is_static() {
    let site = Site::new().await;
    let (registry, used_up, fixed) = (site.registry(), &site.used_up, &site.fixed);
    assert_eq!(used_up.public_key, fixed.public_key);
    site.keep_static(std::slice::from_ref(fixed)).await;
    registry.remove_token(&fixed.name, |_| Ok(Vec::new())).await.unwrap().unwrap();
    assert_eq!(registry.tokens().await.unwrap()[0].uses, 1);
    registry.remove_token(&used_up.name, |_| Ok(Vec::new())).await.unwrap().unwrap();
    registry.add_token(used_up, || Ok(Vec::new())).await.unwrap();
    assert_eq!(registry.tokens().await.unwrap()[0].uses, 0);
}

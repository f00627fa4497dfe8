//! Join tokens on the server: counted in the transaction of the enrollment, and of one connection.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster::audit::Class;
use muster::ca::BuiltinCa;
use muster::domain::{
    Code, KeyBinding, Lifetime, PublicKey, Purpose, Timestamp, Token, TokenOrigin, TokenSecret,
    pop_message,
};
use muster::join::{Admission, Attempt, Refusal, Renewal, Start};
use muster::methods::token;
use muster::registry::{AddTokenError, PresentedCertificate, Registry, TokenState};
use muster::store::Store;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use zeroize::Zeroizing;

use crate::hooked::Hooked;
use crate::renewal::new_key;
use crate::world::{World, serial, stores};

const POLICIES: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: "by token", owner: "platform"}
spec:
  method: token
  roles: [node]
  allow:
    - {name: short, tokens: any, lifetime: 24h, uses: 100}
    - {name: labelled, tokens: any, token_labels: {forever: "yes"}}
  token: {come_back: {within: 7d, limit: 2}}
  certificate: {ttl: 12h, dns_names: ["{node}.web.internal.example"]}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: strict, description: "by token, and nobody comes back", owner: "platform"}
spec:
  method: token
  roles: [node]
  allow: [{tokens: [strict-*], networks: [192.0.2.0/24]}]
"#;

/// A server, and whoever has tokens of it.
pub(crate) struct Tokens {
    pub(crate) world: World,
}

/// A change to a token that a test is about.
pub(crate) type Amend = fn(&mut Token);

impl Tokens {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(muster::store::MemoryStore::new()))
    }

    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        let authority = |node_ca| Arc::new(BuiltinCa::new(node_ca)) as Arc<_>;
        Self { world: World::with(store, POLICIES, authority) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// A single-use token of policy `web` for half an hour, but for what `change` says.
    pub(crate) async fn token(&self, name: &str, change: Amend) -> TokenSecret {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).unwrap();
        let secret = TokenSecret::from_seed(name.parse().unwrap(), seed).unwrap();
        let mut token = Token {
            name: secret.name().clone(),
            public_key: secret.public_key(),
            policy: "web".parse().unwrap(),
            node: None,
            cidrs: Vec::new(),
            labels: BTreeMap::new(),
            description: None,
            created_at: self.now(),
            expires_at: Some(self.now().plus(Lifetime::from_minutes(30))),
            max_uses: Some(1),
            origin: TokenOrigin::Operator { by: "test".to_owned() },
        };
        change(&mut token);
        self.world.registry.add_token(&token, || Ok(Vec::new())).await.unwrap();
        secret
    }

    pub(crate) async fn state(&self, secret: &TokenSecret) -> TokenState {
        self.world.registry.token(secret.name()).await.unwrap().unwrap()
    }

    pub(crate) async fn join(
        &self,
        with: Option<&TokenSecret>,
        key: &KeyPair,
    ) -> Result<Admission, Refusal> {
        self.world.joins.admit(&attempt(with, key, "")).await
    }

    pub(crate) async fn admitted(&self, with: Option<&TokenSecret>, key: &KeyPair) -> Admission {
        self.join(with, key).await.unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    pub(crate) async fn refused(&self, with: Option<&TokenSecret>, key: &KeyPair) -> Code {
        let refusal = self.join(with, key).await.expect_err("it must be refused");
        self.world.code_of(&refusal).await
    }

    pub(crate) async fn renew(
        &self,
        certificate: &PresentedCertificate,
        policy: &str,
        key: &KeyPair,
    ) -> Result<Admission, Refusal> {
        let Attempt { start, channel, nonce, evidence, pop, source } =
            made(None, key, policy, Purpose::Renew);
        let Start { public_key, facts, .. } = start;
        let certificate = certificate.clone();
        let renewal =
            Renewal { certificate, public_key, facts, channel, nonce, evidence, pop, source };
        self.world.joins.renew(renewal).await
    }

    pub(crate) fn pass(&self, span: Lifetime) {
        self.world.clock.advance(span);
    }
}

pub(crate) fn attempt(with: Option<&TokenSecret>, key: &KeyPair, policy: &str) -> Attempt {
    made(with, key, policy, Purpose::Join)
}

fn made(with: Option<&TokenSecret>, key: &KeyPair, policy: &str, purpose: Purpose) -> Attempt {
    let spki = key.subject_public_key_info();
    let start = Start::parse(policy, "token", &spki, "muster/0.1.0 boot=0123456789abcdef").unwrap();
    let (channel, nonce) = ([1; 32], [2; 32]);
    let binding = KeyBinding::new(purpose, &channel, &nonce, "token", policy, &start.public_key);
    let evidence = token::evidence(with, &binding);
    let pop = key.sign(&pop_message(&binding, &evidence)).unwrap();
    Attempt { start, channel, nonce, evidence, pop, source: [192, 0, 2, 7].into() }
}

// Acceptance: 64 parallel joins with a single-use token give one certificate, on every store (T8);
// the winner's key repeats its request; the use is counted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_crowd_gets_the_only_use() {
    for (name, store, _keep) in stores() {
        let tokens = Arc::new(Tokens::on(store));
        let secret = Arc::new(tokens.token("once", |_| ()).await);
        let crowd: Vec<_> = (0..64)
            .map(|_| {
                let (tokens, secret) = (Arc::clone(&tokens), Arc::clone(&secret));
                tokio::spawn(async move {
                    let key = new_key();
                    let outcome = tokens.join(Some(&secret), &key).await;
                    (key, outcome)
                })
            })
            .collect();
        let mut winner = None;
        for one in crowd {
            let (key, outcome) = one.await.unwrap();
            match outcome {
                Ok(admission) => assert!(winner.replace((key, admission)).is_none(), "{name}"),
                Err(refusal) => assert_eq!(refusal.code, Code::TokenExhausted, "{name}"),
            }
        }
        let (key, first) = winner.expect("one of them joins");
        let again = tokens.admitted(Some(&secret), &key).await;
        assert_eq!(serial(&again), serial(&first), "{name}");
        let state = tokens.state(&secret).await;
        assert_eq!((state.uses, state.last_used_at), (1, Some(tokens.now())), "{name}");
    }
}

// A token for many counts each of a crowd, and stops at its limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_may_be_as_large_as_the_token_says() {
    let tokens = Arc::new(Tokens::new());
    let secret = Arc::new(tokens.token("some", |token| token.max_uses = Some(20)).await);
    let crowd: Vec<_> = (0..40)
        .map(|_| {
            let (tokens, secret) = (Arc::clone(&tokens), Arc::clone(&secret));
            tokio::spawn(async move { tokens.join(Some(&secret), &new_key()).await.is_ok() })
        })
        .collect();
    let mut admitted = 0;
    for one in crowd {
        admitted += u64::from(one.await.unwrap());
    }
    assert_eq!((admitted, tokens.state(&secret).await.uses), (20, 20));
}

#[tokio::test]
async fn a_token_names_its_policy_and_is_good_for_no_other() {
    let tokens = Tokens::new();
    let secret = tokens.token("web-1", |_| ()).await;
    let key = new_key();
    let refusal =
        tokens.world.joins.admit(&attempt(Some(&secret), &key, "strict")).await.unwrap_err();
    assert_eq!(refusal.code, Code::NotAdmitted);
    assert_eq!(tokens.world.code_of(&refusal).await, Code::TokenOtherPolicy);
    let admission = tokens.admitted(Some(&secret), &key).await;
    assert_eq!(admission.enrollment.policy, "web");
    let digest = PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap().digest();
    let node = format!("k-{}", &digest.to_string()[..32]);
    assert_eq!(
        admission.order.spiffe_id.as_str(),
        format!("spiffe://prod.example.org/node/token/web/{node}")
    );
    assert_eq!(admission.order.dns_names, [format!("{node}.web.internal.example")]);
    // The audit log names policy, token and boot, though the node named no policy, and no secret.
    let records = tokens.world.records(Class::Admission).await;
    let text = serde_json::to_string(&records[0].record).unwrap();
    assert!(text.contains(r#""token":"web-1""#) && text.contains(r#""boot":"0123456789abcdef""#));
    assert_eq!(records[0].record.policy.as_deref(), Some("web"));
    let digits = secret.to_text().rsplit('.').next().unwrap().to_owned();
    assert!(!text.contains(&digits[..32]));
}

#[tokio::test]
async fn what_a_token_is_not_good_for_is_refused() {
    let tokens = Tokens::new();
    let key = new_key();
    let expired = tokens.token("expired", |token| token.expires_at = Some(token.created_at)).await;
    assert_eq!(tokens.refused(Some(&expired), &key).await, Code::TokenExpired);
    let elsewhere =
        tokens.token("far", |token| token.cidrs = vec!["10.0.0.0/8".parse().unwrap()]).await;
    assert_eq!(tokens.refused(Some(&elsewhere), &key).await, Code::TokenNotFromHere);
    let unlimited = tokens.token("unlimited", |token| token.max_uses = None).await;
    assert_eq!(tokens.refused(Some(&unlimited), &key).await, Code::PolicyNoMatch);
    let removed = tokens.token("removed", |_| ()).await;
    tokens.world.registry.remove_token(removed.name(), |_| Ok(Vec::new())).await.unwrap();
    assert_eq!(tokens.refused(Some(&removed), &key).await, Code::TokenUnknown);
    assert_eq!(tokens.refused(None, &key).await, Code::TokenUnknown);
    let label = |token: &mut Token| {
        token.max_uses = None;
        token.expires_at = None;
        token.labels = BTreeMap::from([("forever".to_owned(), "yes".to_owned())]);
    };
    let forever = tokens.token("forever", label).await;
    assert_eq!(tokens.admitted(Some(&forever), &key).await.enrollment.rule, "labelled");
}

// Acceptance: a captured join is of no use, to anybody, anywhere: every byte of it is of one channel,
// one challenge and one key.
#[tokio::test]
async fn a_captured_join_cannot_be_used_again() {
    let tokens = Tokens::new();
    let secret = tokens.token("captured", |token| token.max_uses = Some(10)).await;
    let key = new_key();
    let captured = attempt(Some(&secret), &key, "");
    let replayed = |channel, nonce, start| Attempt {
        start,
        channel,
        nonce,
        evidence: captured.evidence.clone(),
        pop: captured.pop.clone(),
        source: captured.source,
    };
    let fresh = || Start::parse("", "token", &key.subject_public_key_info(), "").unwrap();
    for (channel, nonce) in [([9; 32], [2; 32]), ([1; 32], [9; 32])] {
        let refusal =
            tokens.world.joins.admit(&replayed(channel, nonce, fresh())).await.unwrap_err();
        assert_eq!(tokens.world.code_of(&refusal).await, Code::PossessionNotProven);
    }
    // The token's part of it under a thief's own key, which he can prove to have.
    let thief = new_key();
    let with_old_signature = |key: &KeyPair, channel, nonce| {
        let spki = key.subject_public_key_info();
        let start = Start::parse("", "token", &spki, "").unwrap();
        let binding =
            KeyBinding::new(Purpose::Join, &channel, &nonce, "token", "", &start.public_key);
        let evidence = captured.evidence.clone();
        let pop = key.sign(&pop_message(&binding, &evidence)).unwrap();
        Attempt { start, channel, nonce, evidence, pop, source: captured.source }
    };
    for stolen in [
        with_old_signature(&thief, [1; 32], [2; 32]),
        // Not even the node itself can use it on another connection, or for another challenge.
        with_old_signature(&key, [9; 32], [2; 32]),
        with_old_signature(&key, [1; 32], [9; 32]),
    ] {
        let refusal = tokens.world.joins.admit(&stolen).await.unwrap_err();
        assert_eq!(tokens.world.code_of(&refusal).await, Code::TokenUnknown);
    }
    assert_eq!(tokens.state(&secret).await.uses, 0);
    tokens.admitted(Some(&secret), &key).await;
}

#[tokio::test]
async fn a_name_stands_for_one_token_and_its_uses_for_one_secret() {
    let tokens = Tokens::new();
    let first = tokens.token("again", |_| ()).await;
    tokens.admitted(Some(&first), &new_key()).await;
    let state = tokens.state(&first).await;
    let taken = tokens.world.registry.add_token(&state.token, || Ok(Vec::new())).await;
    assert!(matches!(taken, Err(AddTokenError::Taken)));
    tokens.world.registry.remove_token(first.name(), |_| Ok(Vec::new())).await.unwrap();
    let second = tokens.token("again", |_| ()).await;
    assert_eq!(tokens.refused(Some(&first), &new_key()).await, Code::TokenUnknown);
    let admission = tokens.admitted(Some(&second), &new_key()).await;
    assert_eq!(admission.enrollment.history.len(), 1);
    assert_eq!(tokens.state(&second).await.uses, 1);
}

// A token that is removed while a node is judged lets nobody in.
#[tokio::test]
async fn a_token_that_is_removed_meanwhile_is_worth_nothing() {
    let store = Arc::new(Hooked::default());
    let tokens = Tokens::on(Arc::clone(&store) as Arc<dyn Store>);
    let secret = tokens.token("web-1", |_| ()).await;
    let name = secret.name().clone();
    store.before_commit(async move |store| {
        Registry::new(store).remove_token(&name, |_| Ok(Vec::new())).await.unwrap();
    });
    assert_eq!(tokens.refused(Some(&secret), &new_key()).await, Code::TokenUnknown);
    let (nodes, _) = tokens.world.registry.list(None, 10, |_| true).await.unwrap();
    assert!(nodes.is_empty());
}

// What ended is written down once, whatever ended it.
#[tokio::test]
async fn the_end_of_a_token_is_recorded_once() {
    let tokens = Tokens::new();
    let used = tokens.token("used", |_| ()).await;
    tokens.token("expired", |token| token.expires_at = Some(token.created_at)).await;
    tokens.token("open", |_| ()).await;
    tokens.admitted(Some(&used), &new_key()).await;
    let ended = std::sync::Mutex::new(Vec::new());
    for _ in 0..2 {
        let audit = |state: &TokenState| {
            ended.lock().unwrap().push(state.token.name.to_string());
            let payload = b"{}".to_vec();
            Ok(muster::store::Append { log: "test".to_owned(), payload })
        };
        tokens.world.registry.record_ended_tokens(tokens.now(), audit).await.unwrap();
    }
    assert_eq!(*ended.lock().unwrap(), ["expired", "used"]);
    // It still names itself to whoever comes with it.
    assert_eq!(tokens.refused(Some(&used), &new_key()).await, Code::TokenExhausted);
}

// Whoever asks why can still look at a token that expired; then nothing is left of it, nor of its uses.
#[tokio::test]
async fn an_expired_token_is_forgotten_with_its_uses_after_thirty_days() {
    let tokens = Tokens::new();
    let secret = tokens.token("web-1", |_| ()).await;
    tokens.admitted(Some(&secret), &new_key()).await;
    let sweep = async || {
        let now = Some(tokens.now());
        let sweep = muster::store::Transaction { sweep_expired: now, ..Default::default() };
        tokens.world.store.commit(sweep).await.unwrap();
    };
    tokens.pass(Lifetime::from_minutes(30));
    tokens.pass(Lifetime::from_days(30));
    sweep().await;
    assert_eq!(tokens.state(&secret).await.uses, 1);
    tokens.pass(Lifetime::from_seconds(1));
    sweep().await;
    let left = tokens.world.store.scan("token", None, 10).await.unwrap();
    assert!(left.items.is_empty(), "{left:?}");
}

// What a decision was made on is what the token still says when it is recorded.
#[tokio::test]
async fn a_token_that_is_changed_meanwhile_is_judged_anew() {
    let store = Arc::new(Hooked::default());
    let tokens = Tokens::on(Arc::clone(&store) as Arc<dyn Store>);
    let mut written = tokens.state(&tokens.token("ci", |_| ()).await).await.token;
    let secret = {
        let name = written.name.clone();
        tokens.world.registry.remove_token(&name, |_| Ok(Vec::new())).await.unwrap();
        let seed = Zeroizing::new([7; 32]);
        TokenSecret::from_seed(name, seed).unwrap()
    };
    written.public_key = secret.public_key();
    written.origin = TokenOrigin::Static;
    let log = |_: &Token, _: bool| {
        Ok(muster::store::Append { log: "test".to_owned(), payload: b"{}".to_vec() })
    };
    tokens.world.registry.keep_static_tokens(&[written.clone()], log).await.unwrap();
    let changed = Token { cidrs: vec!["10.0.0.0/8".parse().unwrap()], ..written.clone() };
    store.before_commit(async move |store| {
        Registry::new(store).keep_static_tokens(&[changed], log).await.unwrap();
    });
    assert_eq!(tokens.refused(Some(&secret), &new_key()).await, Code::TokenChanged);
    // Another word about the same secret makes no later token of it, and no unused one.
    let back = Token { created_at: tokens.now().plus(Lifetime::from_days(1)), ..written.clone() };
    tokens.world.registry.keep_static_tokens(&[back], log).await.unwrap();
    assert_eq!(tokens.state(&secret).await.token.created_at, written.created_at);
    tokens.admitted(Some(&secret), &new_key()).await;
    let longer = Token { expires_at: None, ..written.clone() };
    tokens.world.registry.keep_static_tokens(&[longer], log).await.unwrap();
    tokens.pass(Lifetime::from_days(300));
    let now = Some(tokens.now());
    let sweep = muster::store::Transaction { sweep_expired: now, ..Default::default() };
    tokens.world.store.commit(sweep).await.unwrap();
    assert_eq!(tokens.state(&secret).await.uses, 1, "a spent static token stays spent");
}

// Whoever holds one token can make as many keys as he likes: his refusals are of one subject.
#[tokio::test]
async fn the_refusals_of_a_token_are_kept_within_one_quota() {
    let tokens = Tokens::new();
    let secret = tokens.token("once", |_| ()).await;
    tokens.admitted(Some(&secret), &new_key()).await;
    for _ in 0..80 {
        tokens.join(Some(&secret), &new_key()).await.unwrap_err();
    }
    let known = tokens.world.records(Class::Known).await;
    let of_it = known.iter().filter(|entry| entry.record.code == Some(Code::TokenExhausted));
    assert_eq!(of_it.count(), 60);
}

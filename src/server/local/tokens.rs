//! What `muster tokens` does.

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Caller;
use super::commands::{Local, checked_reason};
use super::protocol::{LocalError, TokenWanted};
use crate::domain::{
    Code, Lifetime, Timestamp, Token, TokenName, TokenOrigin, TokenSecret, is_plain_network,
};
use crate::registry::{AddTokenError, TokenState};
use crate::server::tokens::{faults, record};

/// The longest life of a token that has an end.
const TTL_MAX: Lifetime = Lifetime::from_days(3650);
/// How many networks and labels a token may have, and how long its description may be.
const CIDRS_MAX: usize = 64;
const LABELS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 500;

impl Local {
    /// Adds a token. The answer has the secret, and nothing else ever does.
    pub(super) async fn add_token(
        &self,
        wanted: TokenWanted,
        caller: &Caller,
    ) -> Result<Value, LocalError> {
        let now = self.joins.clock.now();
        check(&wanted)?;
        let policies = self.joins.policies();
        let policy = policies.policy(wanted.policy.as_str()).filter(|policy| policy.uses_tokens());
        let policy = policy.ok_or_else(|| {
            let message = format!("no policy `{}` admits by tokens", wanted.policy);
            LocalError::new(Code::PolicyUnknown, message)
        })?;
        let secret = new_secret(&wanted)?;
        let token = token(wanted, &secret, caller.in_words(), now);
        if !faults::fits(&token, policy, now) {
            let message = format!("no rule of policy `{}` admits who comes with it", token.policy);
            return Err(LocalError::new(Code::TokenTooWide, message));
        }
        let audit = || {
            let record = record("token-add", &token, now).with("by", caller.in_words());
            Ok(vec![self.audit.append(&record)?])
        };
        match self.registry.add_token(&token, audit).await {
            Ok(()) => {}
            Err(AddTokenError::Taken) => {
                let message = format!("there is a token `{}` already", token.name);
                return Err(LocalError::new(Code::NameTaken, message));
            }
            Err(AddTokenError::Unavailable(error)) => return Err(error.into()),
        }
        let command = format!(
            "muster join --server {} --pin sha256:{} --policy {} --method token --token-file \
             /etc/muster/token",
            self.join_address,
            self.authorities.join_root.key(),
            token.policy,
        );
        let mut added = shown(&TokenState { token, uses: 0, last_used_at: None }, now);
        if let Some(members) = added.as_object_mut() {
            members.insert("token".to_owned(), json!(secret.to_text().as_str()));
            members.insert("command".to_owned(), json!(command));
        }
        Ok(added)
    }

    pub(super) async fn tokens(&self) -> Result<Value, LocalError> {
        let now = self.joins.clock.now();
        let tokens = self.registry.tokens().await?;
        let tokens: Vec<_> = tokens.iter().map(|state| shown(state, now)).collect();
        Ok(json!({"tokens": tokens}))
    }

    pub(super) async fn token(&self, name: &TokenName) -> Result<Value, LocalError> {
        let state = self.registry.token(name).await?.ok_or_else(not_found)?;
        Ok(shown(&state, self.joins.clock.now()))
    }

    pub(super) async fn remove_token(
        &self,
        name: &TokenName,
        reason: &str,
    ) -> Result<Value, LocalError> {
        let reason = checked_reason(reason)?;
        let now = self.joins.clock.now();
        let state = self.registry.token(name).await?.ok_or_else(not_found)?;
        match &state.token.origin {
            TokenOrigin::Operator { .. } | TokenOrigin::Publication { .. } => {}
            TokenOrigin::Static => {
                let message = "it stands in the server's file of static tokens; remove it there";
                return Err(LocalError::new(Code::MalformedRequest, message));
            }
        }
        let audit = |token: &Token| {
            let record = record("token-remove", token, now).with("reason", reason);
            Ok(vec![self.audit.append(&record)?])
        };
        self.registry.remove_token(name, audit).await?.ok_or_else(not_found)?;
        Ok(json!({"removed": name, "uses": state.uses}))
    }

    pub(super) async fn token_faults(&self) -> Result<Value, LocalError> {
        let (now, policies) = (self.joins.clock.now(), self.joins.policies());
        let tokens = self.registry.tokens().await?;
        let found: Vec<_> =
            tokens.iter().flat_map(|state| faults::faults_of(state, &policies, now)).collect();
        Ok(json!({"tokens": tokens.len(), "findings": found}))
    }
}

fn check(wanted: &TokenWanted) -> Result<(), LocalError> {
    let is_line = |text: &str| text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
    let is_ok = wanted.ttl.is_none_or(|ttl| ttl.seconds() > 0 && ttl <= TTL_MAX)
        && wanted.max_uses != Some(0)
        && wanted.cidrs.len() <= CIDRS_MAX
        && wanted.cidrs.iter().all(is_plain_network)
        && wanted.labels.len() <= LABELS_MAX
        && wanted
            .labels
            .iter()
            .all(|(name, value)| !name.is_empty() && is_line(name) && is_line(value))
        && wanted.description.as_deref().is_none_or(is_line);
    if is_ok {
        return Ok(());
    }
    let message = "a token lives for 1s to 3650d, has at least 1 use, at most 64 networks (by \
                   their first addresses, IPv4 as IPv4) and 64 labels, and its texts are lines of at most 500 bytes";
    Err(LocalError::new(Code::MalformedRequest, message))
}

fn new_secret(wanted: &TokenWanted) -> Result<TokenSecret, LocalError> {
    let failed = |what: String| LocalError::new(Code::Internal, what);
    let mut seed = Zeroizing::new([0; 32]);
    let mut suffix = [0; 4];
    aws_lc_rs::rand::fill(seed.as_mut_slice())
        .and_then(|()| aws_lc_rs::rand::fill(&mut suffix))
        .map_err(|_| failed("no random bytes".to_owned()))?;
    let name = if let Some(name) = &wanted.name {
        name.clone()
    } else {
        // The policy's name, as much of it as leaves room for the digits.
        let stem: String = wanted.policy.as_str().chars().take(54).collect();
        let text = format!("{stem}-{}", hex::encode(suffix));
        text.parse().map_err(|error| failed(format!("{error}")))?
    };
    TokenSecret::from_seed(name, seed).map_err(|error| failed(error.to_string()))
}

fn token(wanted: TokenWanted, secret: &TokenSecret, by: String, now: Timestamp) -> Token {
    let TokenWanted { name: _, policy, ttl, max_uses, node, cidrs, labels, description } = wanted;
    Token {
        name: secret.name().clone(),
        public_key: secret.public_key(),
        policy,
        node,
        cidrs,
        labels,
        description,
        created_at: now,
        expires_at: ttl.map(|ttl| now.plus(ttl)),
        max_uses,
        origin: TokenOrigin::Operator { by },
    }
}

/// A token as `ls` and `show` have it.
fn shown(state: &TokenState, now: Timestamp) -> Value {
    let TokenState { token, uses, last_used_at } = state;
    let created_by = match &token.origin {
        TokenOrigin::Operator { by } => by.clone(),
        TokenOrigin::Static => "static".to_owned(),
        TokenOrigin::Publication { publication, target } => {
            format!("publication {publication} ({target})")
        }
    };
    let condition = if token.has_expired(now) {
        "expired"
    } else if state.is_used_up() {
        "used up"
    } else {
        "live"
    };
    json!({
        "name": token.name,
        "policy": token.policy,
        "node": token.node,
        "state": condition,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "max_uses": token.max_uses,
        "uses": uses,
        "last_used_at": last_used_at,
        "created_by": created_by,
        "cidrs": token.cidrs,
        "labels": token.labels,
        "description": token.description,
        "public_key": token.public_key,
    })
}

fn not_found() -> LocalError {
    LocalError::new(Code::NotFound, "there is no such token; `muster tokens ls` lists them")
}

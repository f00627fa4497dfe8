//! What is doubtful about a token, for `muster tokens audit`. Pure.

use std::net::IpAddr;

use serde::Serialize;

use crate::domain::{Lifetime, Timestamp, Token, TokenName, TokenOrigin};
use crate::methods::token::claims_of;
use crate::methods::{Provenance, Value};
use crate::policy::{JoinPolicy, PolicySet};
use crate::registry::TokenState;

/// A token that nobody joined with for this long is in nobody's use.
const UNUSED_AFTER: Lifetime = Lifetime::from_days(30);

/// Something that a reviewer should know of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::server) struct Fault {
    token: TokenName,
    pub(in crate::server) code: &'static str,
    message: String,
    expected: &'static str,
}

/// Everything that is doubtful about a token that can still be used.
pub(in crate::server) fn faults_of(
    state: &TokenState,
    policies: &PolicySet,
    now: Timestamp,
) -> Vec<Fault> {
    let token = &state.token;
    if token.has_expired(now) || state.is_used_up() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut add = |code, message: String, expected| {
        faults.push(Fault { token: token.name.clone(), code, message, expected });
    };
    if token.expires_at.is_none() {
        let expected = "a token with an end: `--ttl`, or `expires_at` in the file";
        add("TOKEN_NEVER_EXPIRES", "it is good for ever".to_owned(), expected);
    }
    if token.max_uses.is_none() {
        let expected = "as many uses as there are nodes";
        add("TOKEN_UNLIMITED", "any number of nodes may join with it".to_owned(), expected);
    }
    let last = state.last_used_at.unwrap_or(token.created_at);
    if now.since(last) >= UNUSED_AFTER {
        let message = format!("nobody has joined with it since {last}");
        add("TOKEN_UNUSED", message, "`muster tokens rm`");
    }
    if token.origin == TokenOrigin::Static {
        let expected = "a publication, which rotates it, or tokens of `muster tokens add`";
        add("TOKEN_STATIC", "it stands in a file and is never rotated".to_owned(), expected);
    }
    let policy = policies.policy(token.policy.as_str()).filter(|policy| policy.uses_tokens());
    match policy {
        None => {
            let message = format!("no policy `{}` admits by tokens", token.policy);
            add("TOKEN_POLICY_GONE", message, "`muster tokens rm`, or the policy");
        }
        Some(policy) if !fits(token, policy, now) => {
            let message = format!("no rule of policy `{}` admits who comes with it", token.policy);
            let expected = "a shorter life, fewer uses, or networks within those of a rule";
            add("TOKEN_WIDER_THAN_POLICY", message, expected);
        }
        Some(_) => {}
    }
    faults
}

/// Whether its policy admits whoever comes with the token from wherever it may be used: from the first
/// and the last address of each of its networks, and from anywhere if it has none.
pub(in crate::server) fn fits(token: &Token, policy: &JoinPolicy, now: Timestamp) -> bool {
    let edges = token.cidrs.iter().flat_map(|network| [network.network(), network.broadcast()]);
    let mut sources: Vec<IpAddr> = edges.collect();
    if sources.is_empty() {
        sources = vec![[0, 0, 0, 0].into(), [255, 255, 255, 255].into(), [0_u16; 8].into()];
    }
    sources.into_iter().all(|source| {
        let mut claims = claims_of(token, Some(source));
        if token.node.is_none() {
            // Some node that is called by its key.
            let name = format!("k-{:032}", 0);
            claims.insert("node", Value::Text(name), Provenance::Proven);
        }
        policy.would_admit(&claims, token.created_at, now)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::methods;
    use crate::policy::{self, PolicyFile, Vocabulary};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const POLICY: &str = "
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web}
spec:
  method: token
  roles: [node]
  allow: [{tokens: any, networks: [10.0.0.0/8]}]
";

    fn policies() -> Arc<PolicySet> {
        let file = PolicyFile { name: "web.yaml".to_owned(), text: POLICY.to_owned() };
        let vocabulary = Vocabulary { methods: methods::ALL, regions: BTreeMap::new() };
        let loaded = policy::load(&[file], &vocabulary, None);
        loaded.set.unwrap_or_else(|| panic!("{:?}", loaded.findings))
    }

    fn codes(change: impl FnOnce(&mut TokenState)) -> Vec<&'static str> {
        let token = Token {
            name: "web-1".parse().unwrap(),
            public_key: "0".repeat(64).parse().unwrap(),
            policy: "web".parse().unwrap(),
            node: None,
            cidrs: vec!["10.1.0.0/16".parse().unwrap()],
            labels: BTreeMap::new(),
            description: None,
            created_at: NOW,
            expires_at: Some(NOW.plus(Lifetime::from_hours(1))),
            max_uses: Some(1),
            origin: TokenOrigin::Operator { by: "uid 0".to_owned() },
        };
        let mut state = TokenState { token, uses: 0, last_used_at: None };
        change(&mut state);
        faults_of(&state, &policies(), NOW).iter().map(|fault| fault.code).collect()
    }

    #[test]
    fn a_token_as_it_should_be_has_no_fault() {
        assert!(codes(|_| ()).is_empty());
    }

    #[test]
    fn one_that_never_expires_is_found() {
        assert_eq!(codes(|state| state.token.expires_at = None), ["TOKEN_NEVER_EXPIRES"]);
    }

    #[test]
    fn one_without_a_limit_is_found() {
        assert_eq!(codes(|state| state.token.max_uses = None), ["TOKEN_UNLIMITED"]);
    }

    #[test]
    fn one_that_nobody_uses_is_found() {
        let since = |days| NOW.minus(Lifetime::from_days(days));
        assert_eq!(codes(|state| state.token.created_at = since(30)), ["TOKEN_UNUSED"]);
        let used = |state: &mut TokenState| {
            state.token.created_at = since(30);
            state.last_used_at = Some(since(1));
        };
        assert!(codes(used).is_empty());
    }

    #[test]
    fn one_that_is_wider_than_its_policy_is_found() {
        for cidrs in [vec![], vec!["10.0.0.0/7"], vec!["10.0.0.0/8", "192.0.2.0/24"]] {
            let cidrs: Vec<_> = cidrs.iter().map(|text| text.parse().unwrap()).collect();
            let found = codes(|state| state.token.cidrs.clone_from(&cidrs));
            assert_eq!(found, ["TOKEN_WIDER_THAN_POLICY"], "{cidrs:?}");
        }
    }

    #[test]
    fn one_of_a_file_or_of_no_policy_is_found() {
        assert_eq!(codes(|state| state.token.origin = TokenOrigin::Static), ["TOKEN_STATIC"]);
        let gone = |state: &mut TokenState| state.token.policy = "gone".parse().unwrap();
        assert_eq!(codes(gone), ["TOKEN_POLICY_GONE"]);
    }

    #[test]
    fn what_cannot_be_used_any_more_is_no_fault() {
        let over = |state: &mut TokenState| {
            state.token.max_uses = Some(1);
            state.uses = 1;
            state.token.origin = TokenOrigin::Static;
        };
        assert!(codes(over).is_empty());
    }
}

//! Where the server is and how it is known: from the configuration, or for `--from-ssm` from what the
//! publisher wrote beside the token.
//!
//! Whoever may write those parameters decides which server a node believes at its first join. Later
//! the join root and the trust domain of the state directory hold, whatever SSM says (red team B2).

use zeroize::Zeroizing;

use super::method::Method;
use super::token::{ParameterPath, Parameters};
use crate::client::{Endpoint, JoinError, ServerTrust, parse_pin};
use crate::domain::{Code, PolicyName};

/// The most policies that an error names.
const NAMES_SHOWN: usize = 20;
/// Two while the join root is changed; more is a mistake.
const PINS_MAX: usize = 10;

/// What the configuration says; it wins over what is learnt.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    pub(super) server: Option<Endpoint>,
    pub(super) trust: Option<ServerTrust>,
    pub(super) policy: Option<String>,
    pub(super) from_ssm: Option<ParameterPath>,
}

/// The way to the server.
#[derive(Debug, Clone)]
pub(super) struct Directions {
    pub(super) server: Endpoint,
    pub(super) trust: ServerTrust,
    /// Whether SSM said how the server is known.
    pub(super) is_trust_learnt: bool,
    /// The policy to join under; empty if the server may choose.
    pub(super) policy: String,
    /// The policy of the token, if it is known.
    pub(super) token_policy: Option<String>,
    /// The parameter with the token, as the publisher names it.
    pub(super) token: Option<ParameterPath>,
}

impl Directions {
    /// The string of the policy in a join by this method.
    pub(super) fn policy_of(&self, method: Method) -> &str {
        match method {
            Method::Ec2 => &self.policy,
            Method::Token => self.token_policy.as_deref().unwrap_or_default(),
        }
    }
}

impl Configured {
    /// Reads what is missing. `is_token_alone`: the configured policy is that of the token.
    pub(super) async fn complete(
        &self,
        is_token_alone: bool,
        parameters: &impl Parameters,
    ) -> Result<Directions, JoinError> {
        let learnt = match &self.from_ssm {
            Some(path) => Some(learn(parameters, path, self.policy.as_deref()).await?),
            None => None,
        };
        let server = self.server.clone().or(learnt.as_ref().map(|it| it.server.clone()));
        let pins = learnt.as_ref().map(|it| ServerTrust::Pins(it.pins.clone()));
        let (Some(server), Some(trust)) = (server, self.trust.clone().or(pins)) else {
            // The configuration is not taken without one or the other.
            return Err(JoinError::rejected(Code::Internal, "no server is configured"));
        };
        let own = self.policy.clone().filter(|_| is_token_alone);
        let learnt_policy = learnt.as_ref().map(|it| it.policy.to_string());
        Ok(Directions {
            server,
            trust,
            is_trust_learnt: self.trust.is_none(),
            policy: self.policy.clone().unwrap_or_default(),
            token_policy: own.or(learnt_policy),
            token: learnt.map(|it| it.token),
        })
    }
}

/// What the publisher wrote.
#[derive(Debug)]
struct Learnt {
    server: Endpoint,
    pins: Vec<crate::domain::KeyDigest>,
    policy: PolicyName,
    token: ParameterPath,
}

async fn learn(
    parameters: &impl Parameters,
    path: &ParameterPath,
    policy: Option<&str>,
) -> Result<Learnt, JoinError> {
    if let Some(learnt) = read_folder(parameters, path).await? {
        return Ok(learnt);
    }
    let folder = match policy {
        Some(policy) => path.child(policy).map_err(|error| unusable(path, &error))?,
        None => only_folder(parameters, path).await?,
    };
    let learnt = read_folder(parameters, &folder).await?;
    learnt.ok_or_else(|| {
        unusable(&folder, &"there is no parameter `server`; is anything published there?")
    })
}

/// The folder of the only policy below a path.
async fn only_folder(
    parameters: &impl Parameters,
    path: &ParameterPath,
) -> Result<ParameterPath, JoinError> {
    let names = parameters.names_below(path.as_str()).await?;
    let mut folders: Vec<&str> =
        names.iter().filter_map(|name| name.strip_suffix("/policy")).collect();
    folders.sort_unstable();
    match folders.as_slice() {
        [only] => only.parse().map_err(|error| unusable(path, &error)),
        [] => Err(unusable(path, &"nothing is published there, or this role may not list it")),
        several => {
            let shown: Vec<&str> = several.iter().copied().take(NAMES_SHOWN).collect();
            let what = format!("several policies are published there; give one: {shown:?}");
            Err(unusable(path, &what))
        }
    }
}

/// What a folder says; nothing if it has no `server`.
async fn read_folder(
    parameters: &impl Parameters,
    folder: &ParameterPath,
) -> Result<Option<Learnt>, JoinError> {
    let name = |name: &str| folder.child(name).map_err(|error| unusable(folder, &error));
    let (server, pin, policy) = (name("server")?, name("pin")?, name("policy")?);
    // Not the token: it is read when the server is known (B2).
    let names = [server.as_str(), pin.as_str(), policy.as_str()];
    let values = parameters.values(&names).await?;
    let value = |name: &ParameterPath| -> Option<&Zeroizing<String>> {
        values.iter().find(|(found, _)| found == name.as_str()).map(|(_, text)| text)
    };
    let Some(said) = value(&server) else { return Ok(None) };
    let server = said.trim().parse().map_err(|error| unusable(&server, &error))?;
    let missing = |name: &ParameterPath| unusable(name, &"there is no such parameter");
    let pins = value(&pin).ok_or_else(|| missing(&pin))?;
    let pins: Vec<_> = pins
        .split_ascii_whitespace()
        .map(parse_pin)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&pin, &error))?;
    if pins.is_empty() || pins.len() > PINS_MAX {
        return Err(unusable(&pin, &"expected one to ten pins"));
    }
    let said = value(&policy).ok_or_else(|| missing(&policy))?;
    let policy = said.trim().parse().map_err(|error| unusable(&policy, &error))?;
    Ok(Some(Learnt { server, pins, policy, token: name("token")? }))
}

fn unusable(path: &ParameterPath, what: &dyn std::fmt::Display) -> JoinError {
    JoinError::rejected(Code::TokenSourceDenied, format!("ssm:{path}: {what}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;

    const PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    /// What is in SSM, and what was asked of it.
    #[derive(Default)]
    struct Published {
        parameters: BTreeMap<String, String>,
        read: RefCell<Vec<String>>,
        listed: RefCell<Vec<String>>,
    }

    impl Published {
        fn policy(mut self, folder: &str, policy: &str) -> Self {
            let values = [("server", "a.example:7443\n"), ("pin", PIN), ("policy", policy)];
            for (name, value) in values.into_iter().chain([("token", "canary"), ("bundle", "x")]) {
                self.parameters.insert(format!("{folder}/{name}"), value.to_owned());
            }
            self
        }

        fn but(mut self, name: &str, value: Option<&str>) -> Self {
            match value {
                Some(value) => self.parameters.insert(name.to_owned(), value.to_owned()),
                None => self.parameters.remove(name),
            };
            self
        }
    }

    impl Parameters for Published {
        async fn values(
            &self,
            names: &[&str],
        ) -> Result<Vec<(String, Zeroizing<String>)>, JoinError> {
            self.read.borrow_mut().extend(names.iter().map(|name| (*name).to_owned()));
            let found = names.iter().filter_map(|name| self.parameters.get_key_value(*name));
            Ok(found.map(|(name, value)| (name.clone(), Zeroizing::new(value.clone()))).collect())
        }

        async fn names_below(&self, path: &str) -> Result<Vec<String>, JoinError> {
            self.listed.borrow_mut().push(path.to_owned());
            let below = format!("{path}/");
            Ok(self.parameters.keys().filter(|name| name.starts_with(&below)).cloned().collect())
        }
    }

    fn from(path: &str, policy: Option<&str>) -> Configured {
        Configured {
            server: None,
            trust: None,
            policy: policy.map(ToOwned::to_owned),
            from_ssm: Some(path.parse().unwrap()),
        }
    }

    async fn complete(it: &Configured, published: &Published) -> Result<Directions, String> {
        it.complete(true, published).await.map_err(|error| {
            assert_eq!(error.code, Code::TokenSourceDenied);
            error.message
        })
    }

    #[tokio::test]
    async fn the_folder_of_a_policy_says_all() {
        let published = Published::default().policy("/muster/prod/web", "web");
        for (path, policy) in [
            ("/muster/prod/web", None),
            ("/muster/prod", Some("web")),
            ("/muster/prod", None),
            ("/muster", None),
        ] {
            let found = complete(&from(path, policy), &published).await.unwrap();
            assert_eq!(found.server.to_string(), "a.example:7443");
            assert!(found.is_trust_learnt);
            assert!(matches!(&found.trust, ServerTrust::Pins(pins) if pins.len() == 1));
            assert_eq!(found.policy_of(Method::Token), "web");
            assert_eq!(found.token.unwrap().as_str(), "/muster/prod/web/token");
        }
        // B2: nothing is authenticated yet.
        let read = published.read.borrow();
        assert!(!read.iter().any(|name| name.ends_with("/token")), "{read:?}");
    }

    #[tokio::test]
    async fn several_policies_are_named_and_none_is_guessed() {
        let published =
            Published::default().policy("/muster/prod/web", "web").policy("/muster/prod/db", "db");
        let error = complete(&from("/muster/prod", None), &published).await.unwrap_err();
        assert!(error.contains("/muster/prod/db") && error.contains("/muster/prod/web"), "{error}");
        let found = complete(&from("/muster/prod", Some("db")), &published).await.unwrap();
        assert_eq!(found.policy_of(Method::Token), "db");
        let error = complete(&from("/muster/prod", Some("x")), &published).await.unwrap_err();
        assert!(error.contains("/muster/prod/x"), "{error}");
        let error = complete(&from("/other", None), &published).await.unwrap_err();
        assert!(error.contains("nothing is published"), "{error}");
    }

    #[tokio::test]
    async fn what_is_configured_wins() {
        let published = Published::default().policy("/muster/prod/web", "web");
        let own = Configured {
            server: Some("b.example".parse().unwrap()),
            trust: Some(ServerTrust::SystemRoots),
            ..from("/muster/prod/web", Some("other"))
        };
        let found = complete(&own, &published).await.unwrap();
        assert_eq!(found.server.to_string(), "b.example:7443");
        assert!(matches!(found.trust, ServerTrust::SystemRoots) && !found.is_trust_learnt);
        assert_eq!(found.policy_of(Method::Token), "other");
        // In a longer list the configured policy is that of the other methods.
        let found = own.complete(false, &published).await.unwrap();
        assert_eq!(found.policy_of(Method::Token), "web");
        assert_eq!(found.policy_of(Method::Ec2), "other");
    }

    #[tokio::test]
    async fn without_ssm_nobody_is_asked_and_a_token_of_a_longer_list_knows_its_policy() {
        let published = Published::default();
        let own = Configured {
            server: Some("b.example".parse().unwrap()),
            trust: Some(ServerTrust::SystemRoots),
            policy: Some("web".to_owned()),
            from_ssm: None,
        };
        let alone = own.complete(true, &published).await.unwrap();
        let second = own.complete(false, &published).await.unwrap();
        assert_eq!(alone.policy_of(Method::Token), "web");
        assert_eq!((second.policy_of(Method::Ec2), second.policy_of(Method::Token)), ("web", ""));
        assert!(published.read.borrow().is_empty() && published.listed.borrow().is_empty());
    }

    #[tokio::test]
    async fn what_is_half_published_or_garbage_is_refused() {
        let two = format!("{PIN}\n{PIN}\n");
        for (name, value, part) in [
            ("pin", None, "no such parameter"),
            ("policy", None, "no such parameter"),
            ("server", Some("a b"), "HOST"),
            ("pin", Some("sha256:12"), "64"),
            ("pin", Some(""), "one to ten"),
            ("policy", Some("../x"), "ssm:/p/web/policy"),
        ] {
            let published = Published::default().policy("/p/web", "web");
            let published = published.but(&format!("/p/web/{name}"), value);
            let error = complete(&from("/p/web", None), &published).await.unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
        let published = Published::default().policy("/p/web", "web").but("/p/web/pin", Some(&two));
        let found = complete(&from("/p/web", None), &published).await.unwrap();
        assert!(matches!(found.trust, ServerTrust::Pins(pins) if pins.len() == 2));
    }
}

//! The file of static tokens: names, public keys and terms. Nothing in it is secret; whoever can write
//! to it can let nodes in.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;

use crate::domain::{
    NodeName, PolicyName, Timestamp, Token, TokenKey, TokenName, TokenOrigin, is_plain_network,
};
use crate::server::config;

/// The most tokens of a file.
const TOKENS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Written>,
}

/// A token as the file has it. Absent never means "for ever" or "any number": that is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: TokenName,
    public_key: TokenKey,
    policy: PolicyName,
    /// A time, or `never`.
    expires_at: String,
    /// A number, or `unlimited`.
    max_uses: toml::Value,
    node: Option<NodeName>,
    #[serde(default)]
    cidrs: Vec<IpNet>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    description: Option<String>,
}

/// The text of the file, if nobody else could have written it.
pub(super) fn read(path: &Path) -> Result<String, String> {
    check_owner(path)?;
    config::read(path).map_err(|error| error.to_string())
}

fn check_owner(path: &Path) -> Result<(), String> {
    let found = std::fs::metadata(path);
    let found = found.map_err(|error| format!("{}: {error}", path.display()))?;
    let own = rustix::process::geteuid().as_raw();
    let is_ours = found.uid() == 0 || found.uid() == own;
    if is_ours && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(format!(
        "{}: others may write to it and so let any node in; it must belong to root or the server's \
         user, and `chmod go-w` it",
        path.display()
    ))
}

/// Reads the tokens: whole, or not at all.
pub(super) fn parse(text: &str, now: Timestamp) -> Result<Vec<Token>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if file.token.len() > TOKENS_MAX {
        return Err(format!("more than {TOKENS_MAX} tokens"));
    }
    let mut names = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let mut tokens = Vec::new();
    for written in file.token {
        let name = written.name.clone();
        let token = written.into_token(now).map_err(|problem| format!("`{name}`: {problem}"))?;
        if !names.insert(name.clone()) || !keys.insert(token.public_key) {
            return Err(format!("`{name}`: another token has the same name or public key"));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

impl Written {
    fn into_token(self, now: Timestamp) -> Result<Token, String> {
        let expires_at = match self.expires_at.as_str() {
            "never" => None,
            text => {
                let end = text.parse().map_err(|error| format!("expires_at: {error}, or never"))?;
                Some(end)
            }
        };
        let max_uses = match (self.max_uses.as_str(), self.max_uses.as_integer()) {
            (Some("unlimited"), _) => None,
            (_, number) => {
                let number = number.and_then(|number| u32::try_from(number).ok());
                let number = number.filter(|number| *number > 0);
                Some(number.ok_or("max_uses: expected a number from 1 on, or \"unlimited\"")?)
            }
        };
        if let Some(network) = self.cidrs.iter().find(|network| !is_plain_network(network)) {
            let first = network.trunc();
            return Err(format!("cidrs: expected {first}, and IPv4 as IPv4"));
        }
        Ok(Token {
            name: self.name,
            public_key: self.public_key,
            policy: self.policy,
            node: self.node,
            cidrs: self.cidrs,
            labels: self.labels,
            description: self.description,
            created_at: now,
            expires_at,
            max_uses,
            origin: TokenOrigin::Static,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn written(change: &str) -> Result<Vec<Token>, String> {
        let key = "0".repeat(64);
        let text = format!(
            "[[token]]\nname = \"ci\"\npublic_key = \"{key}\"\npolicy = \"web\"\n\
             expires_at = \"2027-01-01T00:00:00Z\"\nmax_uses = 3\n"
        );
        let (old, new) = change.split_once("=>").unwrap_or_default();
        parse(&text.replace(old.trim(), new.trim()), NOW)
    }

    #[test]
    fn terms_are_written_and_never_left_out() {
        assert_eq!(written("").unwrap()[0].max_uses, Some(3));
        assert_eq!(written("max_uses = 3 => max_uses = \"unlimited\"").unwrap()[0].max_uses, None);
        let never = written("2027-01-01T00:00:00Z => never").unwrap();
        assert_eq!(never[0].expires_at, None);
        for wrong in [
            "max_uses = 3 => max_uses = 0",
            "max_uses = 3 => max_uses = \"any\"",
            "max_uses = 3 => ",
            "expires_at = \"2027-01-01T00:00:00Z\" => ",
            "2027-01-01T00:00:00Z => ",
            "max_uses = 3 => max_uses = 3\nsecret = \"x\"",
            "name = \"ci\" => name = \"CI\"",
        ] {
            assert!(written(wrong).is_err(), "{wrong}");
        }
    }
}

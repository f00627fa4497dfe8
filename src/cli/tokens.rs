//! `muster tokens`: join tokens for nodes that have no document.

mod output;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::local::{DataDir, call_one};
use super::nodes::reason;
use super::{Exit, Failure, Outcome, Printer};
use crate::domain::{Code, Lifetime, NodeName, PolicyName, TokenName, TokenSecret};
use crate::server::{Command, TokenWanted};

/// Adds, lists, removes and audits join tokens, over the server's local socket.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster tokens add --policy web
  muster tokens add --policy web --ttl 2h --max-uses 20 --cidr 10.0.0.0/8 --out token
  muster tokens add --policy db --node db-1
  muster tokens ls
  muster tokens rm web-7f3a91c2 --reason 'rollout is over'
  muster tokens audit
  muster tokens keygen ci --out token    # for the server's file of static tokens

Exit status: 0 done, 1 `audit` has findings, or there is no such token.")]
pub(super) struct TokensArguments {
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// Adds a token and prints its secret, once.
    Add(Box<Add>),
    /// Lists tokens; never their secrets.
    Ls {
        #[command(flatten)]
        server: DataDir,
    },
    /// Shows a token; never its secret.
    Show {
        /// Its name.
        name: TokenName,
        #[command(flatten)]
        server: DataDir,
    },
    /// Removes a token: nobody joins with it any more. Nodes that did stay.
    Rm {
        /// Its name.
        name: TokenName,
        /// Why, on one line; it stands in the audit log.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        #[command(flatten)]
        server: DataDir,
    },
    /// Says what is doubtful about the tokens that can be used.
    Audit {
        #[command(flatten)]
        server: DataDir,
    },
    /// Makes a token offline, and prints its entry for the server's file of static tokens.
    Keygen {
        /// Its name.
        name: TokenName,
        /// Writes the secret there, readable by its owner alone, and not on stdout.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// The policy that it is for; its method must be `token`.
    #[arg(long, value_name = "NAME")]
    policy: PolicyName,
    /// Its name; one is made of the policy's unless given. Names are no secrets.
    #[arg(long, value_name = "NAME")]
    name: Option<TokenName>,
    /// How long it can be used.
    #[arg(long, value_name = "D", default_value = "30m")]
    ttl: Lifetime,
    /// It can be used for ever.
    #[arg(long, conflicts_with = "ttl")]
    never_expires: bool,
    /// How many nodes may join with it: a number, or `unlimited`.
    #[arg(long, value_name = "N", default_value = "1", value_parser = max_uses)]
    max_uses: MaxUses,
    /// The name of the node that it is for; without it each node is named by its key.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// A network from which it may be used; may be given several times. From anywhere, if not given.
    #[arg(long, value_name = "NETWORK")]
    cidr: Vec<IpNet>,
    /// A label that rules can ask for; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Writes the secret there, readable by its owner alone, and not on stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: DataDir,
}

/// A number of uses; none means any number, and is written.
#[derive(Debug, Clone, Copy)]
struct MaxUses(Option<u32>);

fn max_uses(text: &str) -> Result<MaxUses, &'static str> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(MaxUses(Some(number))),
        Err(_) if text == "unlimited" => Ok(MaxUses(None)),
        Ok(_) | Err(_) => Err("a number from 1 on, or `unlimited`"),
    }
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("NAME=VALUE"),
    }
}

/// Runs the command.
pub(super) fn run(arguments: TokensArguments, printer: Printer) -> Outcome {
    match arguments.command {
        TokensCommand::Add(add) => add.run(printer),
        TokensCommand::Ls { server } => {
            let value = call_one(&server.data_dir, &Command::TokensLs {})?;
            printer.result(&value, || output::listed(&value));
            Ok(Exit::Yes)
        }
        TokensCommand::Show { name, server } => {
            let value = call_one(&server.data_dir, &Command::TokensShow { name })?;
            printer.result(&value, || output::shown(&value));
            Ok(Exit::Yes)
        }
        TokensCommand::Rm { name, reason, server } => {
            let value = call_one(&server.data_dir, &Command::TokensRm { name, reason })?;
            printer.result(&value, || output::removed(&value));
            Ok(Exit::Yes)
        }
        TokensCommand::Audit { server } => {
            let value = call_one(&server.data_dir, &Command::TokensAudit {})?;
            let is_clean =
                value.get("findings").and_then(Value::as_array).is_some_and(Vec::is_empty);
            printer.result(&value, || output::findings(&value));
            Ok(if is_clean { Exit::Yes } else { Exit::No })
        }
        TokensCommand::Keygen { name, out } => keygen(name, out.as_deref(), printer),
    }
}

impl Add {
    fn run(self, printer: Printer) -> Outcome {
        let wanted = TokenWanted {
            name: self.name,
            policy: self.policy,
            ttl: (!self.never_expires).then_some(self.ttl),
            max_uses: self.max_uses.0,
            node: self.node,
            cidrs: self.cidr,
            labels: self.label.into_iter().collect(),
            description: self.description,
        };
        // Before the server makes a token that could not be kept.
        let out = self.out.as_deref().map(output::SecretFile::create).transpose()?;
        let added = call_one(&self.server.data_dir, &Command::TokensAdd(wanted));
        if let (Err(_), Some(file)) = (&added, &out) {
            file.take_back();
        }
        let mut value = added?;
        if let (Some(file), Some(members)) = (out, value.as_object_mut()) {
            let secret = members.remove("token");
            let secret = Zeroizing::new(
                secret.as_ref().and_then(|text| text.as_str()).unwrap_or_default().to_owned(),
            );
            members.insert("file".to_owned(), json!(file.path()));
            file.write(&secret)?;
        }
        printer.result(&value, || output::added(&value));
        Ok(Exit::Yes)
    }
}

fn keygen(name: TokenName, out: Option<&std::path::Path>, printer: Printer) -> Outcome {
    let failed = |what: &dyn std::fmt::Display| Failure::new(Code::Internal, what.to_string());
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| failed(&"no random bytes"))?;
    let secret = TokenSecret::from_seed(name, seed).map_err(|error| failed(&error))?;
    let mut value = json!({"name": secret.name(), "public_key": secret.public_key()});
    if let Some(members) = value.as_object_mut() {
        match out {
            Some(path) => {
                let file = output::SecretFile::create(path)?;
                members.insert("file".to_owned(), json!(file.path()));
                file.write(&secret.to_text())?;
            }
            None => {
                members.insert("token".to_owned(), json!(secret.to_text().as_str()));
            }
        }
    }
    printer.result(&value, || output::made(&value));
    Ok(Exit::Yes)
}

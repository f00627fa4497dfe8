//! Join tokens on the server's side: those of a file, what is doubtful about them, and their ends.

pub(super) mod faults;
mod static_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::audit::{Class, Outcome, Record};
use crate::domain::{Timestamp, Token};
use crate::join::JoinService;
use crate::registry::TokenState;

/// How often the file of static tokens is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After how many of these looks the tokens are looked through for those that have ended.
const LOOKS_FOR_ENDS: u64 = 5;

/// What the task works on.
pub(super) struct TokenKeeper {
    joins: Arc<JoinService>,
    /// The file of static tokens, if there is one.
    file: Option<PathBuf>,
    /// Its text when it was last looked at.
    seen: String,
}

impl TokenKeeper {
    /// Begins with the tokens of the file, or takes them all away where there is no file any more. One
    /// that is broken is an error here; later the tokens of the last good one stay, loudly.
    pub(super) async fn start(
        joins: &Arc<JoinService>,
        file: Option<PathBuf>,
    ) -> Result<Self, String> {
        let text = match &file {
            Some(file) => static_file::read(file)?,
            None => String::new(),
        };
        let keeper = Self { joins: Arc::clone(joins), file, seen: text };
        keeper.put_in_force().await.map(|()| keeper)
    }

    /// Looks at the file. A change counts when two looks see the same: it may be half written.
    async fn look(&mut self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let text = static_file::read(file)?;
        if text == self.seen {
            return self.put_in_force().await;
        }
        self.seen = text;
        Ok(())
    }

    async fn put_in_force(&self) -> Result<(), String> {
        let now = self.joins.clock.now();
        let tokens = static_file::parse(&self.seen, now).map_err(|problem| {
            let file = self.file.as_deref().unwrap_or(Path::new(""));
            format!("{}: {problem}", file.display())
        })?;
        let audit = |token: &Token, is_added: bool| {
            let kind = if is_added { "token-add" } else { "token-remove" };
            self.joins.audit.append(&record(kind, token, now))
        };
        let kept = self.joins.registry.keep_static_tokens(&tokens, audit).await;
        for name in kept.map_err(|error| error.to_string())? {
            warn!(token = %name, "a token of the file has the name of another, and is not in force");
        }
        Ok(())
    }

    /// Follows the file, and writes down which tokens have ended, until `stop` says so.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut last_problem = None;
        let mut looks: u64 = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let problem = self.look().await.err();
            match (&problem, &last_problem) {
                (Some(problem), last) if last.as_ref() != Some(problem) => {
                    error!(error = %problem, "the static tokens were not loaded: those before stay");
                }
                (None, Some(_)) => info!("the static tokens are in force again"),
                _ => {}
            }
            last_problem = problem;
            looks += 1;
            if !looks.is_multiple_of(LOOKS_FOR_ENDS) {
                continue;
            }
            let now = self.joins.clock.now();
            let audit = |state: &TokenState| self.joins.audit.append(&ended(state, now));
            if let Err(error) = self.joins.registry.record_ended_tokens(now, audit).await {
                warn!(error = %error, "the ends of tokens were not written down");
            }
        }
    }
}

/// The record of something that happened to a token. Nothing in it is secret.
pub(super) fn record(kind: &str, token: &Token, now: Timestamp) -> Record {
    let mut record = Record::new(now, Class::Security, kind, Outcome::Done);
    record.policy = Some(token.policy.to_string());
    record
        .with("token", token.name.as_str())
        .with("expires_at", token.expires_at.map(|end| end.to_string()))
        .with("max_uses", token.max_uses)
}

fn ended(state: &TokenState, now: Timestamp) -> Record {
    let how = if state.is_used_up() { "used up" } else { "expired" };
    record("token-end", &state.token, now).with("how", how).with("uses", state.uses)
}

//! Join tokens on the server's side: those of a file, what is doubtful about them, and their ends.

pub(super) mod faults;
mod static_file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::audit::{Class, Outcome, Record};
use crate::domain::{Timestamp, Token};
use crate::join::JoinService;
use crate::registry::TokenState;

/// How often the file of static tokens is looked at, and tokens for having ended.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the task works on.
pub(super) struct TokenKeeper {
    joins: Arc<JoinService>,
    /// The file of static tokens, if there is one.
    file: Option<PathBuf>,
}

impl TokenKeeper {
    /// Begins with the tokens of the file. One that is broken is an error here; later the tokens of the
    /// last good one stay, loudly.
    pub(super) async fn start(
        joins: &Arc<JoinService>,
        file: Option<PathBuf>,
    ) -> Result<Self, String> {
        let keeper = Self { joins: Arc::clone(joins), file };
        keeper.load().await.map(|()| keeper)
    }

    /// Puts the tokens of the file in force.
    async fn load(&self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let now = self.joins.clock.now();
        let tokens = static_file::read(file, now)?;
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
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut last_problem = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let problem = self.load().await.err();
            match (&problem, &last_problem) {
                (Some(problem), last) if last.as_ref() != Some(problem) => {
                    error!(error = %problem, "the static tokens were not loaded: those before stay");
                }
                (None, Some(_)) => info!("the static tokens are in force again"),
                _ => {}
            }
            last_problem = problem;
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

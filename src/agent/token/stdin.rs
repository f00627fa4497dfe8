//! A token on standard input: read once, and kept until the node has joined with it.

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{denied, file};
use crate::client::JoinError;

/// Standard input.
pub(super) struct Stdin(Mutex<State>);

enum State {
    Unread(Box<dyn Read + Send>),
    Held(Zeroizing<String>),
    Spent,
}

impl Stdin {
    pub(super) fn of_process() -> Self {
        Self::new(Box::new(std::io::stdin()))
    }

    pub(super) fn new(input: Box<dyn Read + Send>) -> Self {
        Self(Mutex::new(State::Unread(input)))
    }

    /// The text. Nothing comes twice on standard input, so it is held for later attempts.
    pub(super) async fn read(&self) -> Result<Zeroizing<String>, JoinError> {
        let state = std::mem::replace(&mut *self.state(), State::Spent);
        let input = match state {
            State::Unread(input) => input,
            State::Held(text) => {
                *self.state() = State::Held(text.clone());
                return Ok(text);
            }
            State::Spent => return Err(denied("stdin has been read; start again to give a token")),
        };
        let (said, hears) = oneshot::channel();
        // Not a thread of the runtime: that would wait for it at its end, and a terminal can be
        // silent for ever.
        std::thread::spawn(move || drop(said.send(file::bounded(input))));
        let text = hears.await.unwrap_or_else(|_| Err("it cannot be read".to_owned()));
        let text = text.map_err(|problem| denied(format!("stdin: {problem}")))?;
        *self.state() = State::Held(text.clone());
        Ok(text)
    }

    /// Wipes what is held.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        if matches!(&*state, State::Held(_)) {
            *state = State::Spent;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Where a node gets its join token: a file, a parameter of SSM, or standard input. Never an argument
//! and never the environment, which others can read.
//!
//! A source is not even opened before the server is authenticated (red team B2). What was read is
//! wiped from memory, and never written to the state directory.

mod file;
mod source;
mod ssm;
mod stdin;

pub use source::{InvalidTokenSource, ParameterPath, TokenSource};
pub use ssm::SsmSettings;
pub(super) use ssm::{Parameters, SsmParameters};

use self::stdin::Stdin;
use crate::client::JoinError;
use crate::domain::{Code, TokenSecret};

/// The longest text that is read: a token has at most 192 bytes, and may have white space around it.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Reads the token, as late as possible.
pub(super) struct TokenReader {
    source: TokenSource,
    stdin: Stdin,
}

impl TokenReader {
    pub(super) fn new(source: TokenSource) -> Self {
        Self { source, stdin: Stdin::of_process() }
    }

    /// With something else as standard input.
    #[cfg(test)]
    pub(super) fn with_stdin(input: impl std::io::Read + Send + 'static) -> Self {
        Self { source: TokenSource::Stdin, stdin: Stdin::new(Box::new(input)) }
    }

    /// The token. Text that is none is refused here, before anything of it is sent.
    pub(super) async fn read(
        &self,
        parameters: &impl Parameters,
    ) -> Result<TokenSecret, JoinError> {
        let text = match &self.source {
            TokenSource::File(path) => file::read(path)?,
            TokenSource::Ssm(parameter) => ssm::read(parameters, parameter).await?,
            TokenSource::Stdin => self.stdin.read().await?,
        };
        TokenSecret::parse(&text).map_err(|error| {
            JoinError::rejected(Code::TokenMalformed, format!("{}: {error}", self.source))
        })
    }

    /// Forgets what could not be read again: the node has joined.
    pub(super) fn forget(&self) {
        self.stdin.forget();
    }
}

fn unavailable(what: impl Into<String>) -> JoinError {
    JoinError::rejected(Code::TokenSourceUnavailable, what)
}

fn denied(what: impl Into<String>) -> JoinError {
    JoinError::rejected(Code::TokenSourceDenied, what)
}

#[cfg(test)]
mod tests;

//! Why a step did not work. Never holds a token.

use crate::aws::CallFailed;
use crate::domain::Code;
use crate::registry::NotChanged;
use crate::store::StoreUnavailable;

/// A step that did not work; it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(in crate::server) struct Failure {
    /// What kind.
    pub(in crate::server) code: Code,
    /// In words.
    pub(in crate::server) message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<CallFailed> for Failure {
    fn from(failed: CallFailed) -> Self {
        Self::new(Code::SsmUnavailable, failed.to_string())
    }
}

impl From<StoreUnavailable> for Failure {
    fn from(error: StoreUnavailable) -> Self {
        Self::new(Code::StoreUnavailable, error.to_string())
    }
}

impl From<NotChanged> for Failure {
    fn from(error: NotChanged) -> Self {
        match error {
            NotChanged::Overtaken => Self::new(
                Code::PublisherNotReady,
                "another server has taken over, or the publication was changed meanwhile",
            ),
            NotChanged::Unavailable(error) => error.into(),
        }
    }
}

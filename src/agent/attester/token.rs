//! By a join token, or by the node's key alone.

use crate::agent::join::local;
use crate::agent::state::NodeKey;
use crate::client::{Attester, Challenged, JoinError};
use crate::domain::{Code, TokenSecret};
use crate::methods::token;

/// A node with a token, or one that was admitted before and has its key.
pub(in crate::agent) struct TokenAttester<'a> {
    token: Option<TokenSecret>,
    key: &'a NodeKey,
}

impl<'a> TokenAttester<'a> {
    /// Without a token it is the key alone.
    pub(in crate::agent) fn new(token: Option<TokenSecret>, key: &'a NodeKey) -> Self {
        Self { token, key }
    }
}

impl Attester for TokenAttester<'_> {
    fn evidence(&self, challenged: &Challenged<'_>) -> Result<Vec<u8>, JoinError> {
        Ok(token::evidence(self.token.as_ref(), challenged.binding))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoinError> {
        self.key.sign(message).map_err(|error| local(Code::Internal, &error))
    }
}

//! What the audit log has of publications: names, ARNs and versions, never a secret.

use crate::audit::{Class, Outcome, Record};
use crate::domain::{Timestamp, TokenName};
use crate::registry::Publication;

/// A record about a publication and one of its tokens.
pub(super) fn record(
    kind: &str,
    publication: &Publication,
    token: Option<&TokenName>,
    now: Timestamp,
) -> Record {
    let mut record = Record::new(now, Class::Security, kind, Outcome::Done);
    record.policy = Some(publication.policy.to_string());
    record.account_id = publication.place.role.as_ref().map(|(account, _, _)| account.to_string());
    record
        .with("publication", publication.name.as_str())
        .with("target", publication.target.as_str())
        .with("parameter", publication.place.parameter.as_str())
        .with("token", token.map(|token| token.as_str().to_owned()))
}

//! What the server remembers of whoever presents evidence: read before the evidence is verified, for
//! the methods that need it. Nothing is believed for being on record here; methods verify with it.

use super::Attempt;
use super::refusal::Stop;
use crate::methods::{ClaimValues, Enrolled, JoinMethod, Remembered};
use crate::registry::{Enrollment, Registry, State};
use crate::store::StoreUnavailable;

/// At a join: the token that the evidence names, and the enrollment of the node's key where the
/// method has nothing better to know a node by.
pub(super) async fn at_join(
    registry: &Registry,
    method: &dyn JoinMethod,
    attempt: &Attempt,
) -> Result<Remembered, Stop> {
    if method.declaration().has_fresh_proof {
        return Ok(Remembered::default());
    }
    let token = match method.token_named(&attempt.evidence)? {
        Some(name) => registry.find_token(&name).await?,
        None => None,
    };
    let node = match registry.holder_of_key(attempt.start.public_key.digest()).await? {
        Some(holder) => enrolled(&holder, method)?,
        None => None,
    };
    Ok(Remembered { token, node })
}

/// At a renewal: the certificate says who it is, and no token is looked for.
pub(super) fn at_renewal(
    holder: &Enrollment,
    method: &dyn JoinMethod,
) -> Result<Remembered, StoreUnavailable> {
    let leans_on_key = !method.declaration().has_fresh_proof;
    let node = if leans_on_key { enrolled(holder, method)? } else { None };
    Ok(Remembered { token: None, node })
}

/// An enrollment as its method sees it; nothing if it is another method's.
fn enrolled(
    node: &Enrollment,
    method: &dyn JoinMethod,
) -> Result<Option<Enrolled>, StoreUnavailable> {
    let declaration = method.declaration();
    if node.method != declaration.name {
        return Ok(None);
    }
    let unreadable = |why: &dyn std::fmt::Display| {
        StoreUnavailable(format!("the enrollment of {} cannot be read: {why}", node.node_id))
    };
    let values = ClaimValues::from_json(declaration, node.claims.raw())
        .map_err(|error| unreadable(&error))?;
    let policy = node.policy.parse().map_err(|error| unreadable(&error))?;
    let (subject, is_bound) = (node.subject.clone(), node.state == State::Bound);
    Ok(Some(Enrolled { subject, values, epoch: node.epoch, policy, is_bound }))
}

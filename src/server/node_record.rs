//! JSON of nodes as outside.md has it: what the node keeps, and what `muster nodes` shows.

use serde_json::{Value, json};

use crate::domain::CorrelationId;
use crate::policy::Order;
use crate::registry::{Enrollment, State};

/// `node.json`.
pub(super) fn of(
    enrollment: &Enrollment,
    order: &Order,
    correlation_id: Option<&CorrelationId>,
) -> Value {
    json!({
        "node_id": enrollment.node_id,
        "spiffe_id": order.spiffe_id,
        "method": enrollment.method,
        "policy": enrollment.policy,
        "roles": enrollment.roles,
        "labels": enrollment.labels,
        "account_id": enrollment.subject.segment("account_id"),
        "region": enrollment.subject.segment("region"),
        "instance_id": enrollment.subject.segment("instance_id"),
        "serial": order.serial,
        "not_before": order.not_before,
        "not_after": order.not_after,
        "renew_after": order.renew_after,
        "correlation_id": correlation_id,
    })
}

/// A line of `muster nodes ls`.
pub(super) fn listed(enrollment: &Enrollment) -> Value {
    let state = match enrollment.state {
        State::Bound if enrollment.current.certificate.is_none() => "ordered",
        State::Bound => "bound",
        State::Forgotten { .. } => "forgotten",
    };
    json!({
        "node_id": enrollment.node_id,
        "spiffe_id": enrollment.current.order.spiffe_id,
        "method": enrollment.method,
        "policy": enrollment.policy,
        "partition": enrollment.subject.segment("partition"),
        "account_id": enrollment.subject.segment("account_id"),
        "region": enrollment.subject.segment("region"),
        "instance_id": enrollment.subject.segment("instance_id"),
        "slot": enrollment.slot,
        "state": state,
        "epoch": enrollment.epoch,
        "strength": enrollment.strength,
        "serial": enrollment.current.order.serial,
        "not_after": enrollment.current.order.not_after,
        "renewed_at": enrollment.renewed_at,
    })
}

/// `muster nodes show`: a node, and the locks that hold it.
pub(super) fn shown_with(enrollment: &Enrollment, locks: Value) -> Value {
    let mut value = shown(enrollment);
    if let Some(object) = value.as_object_mut() {
        object.insert("locks".to_owned(), locks);
    }
    value
}

/// A listed node and its history.
pub(super) fn shown(enrollment: &Enrollment) -> Value {
    let mut value = listed(enrollment);
    if let Some(object) = value.as_object_mut() {
        object.insert("floor".to_owned(), json!(enrollment.floor));
        object.insert("key".to_owned(), json!(enrollment.key()));
        object.insert("fingerprint".to_owned(), json!(enrollment.current.fingerprint));
        let next = enrollment.next.as_ref();
        let next = next.map(|next| {
            json!({"serial": next.order.serial, "not_after": next.order.not_after, "key": next.key()})
        });
        object.insert("next".to_owned(), json!(next));
        object.insert("rejoins".to_owned(), json!(enrollment.rejoins));
        object.insert("node".to_owned(), json!(enrollment.subject.segment("node")));
        let token = enrollment.token.as_ref().map(|token| &token.name);
        object.insert("token".to_owned(), json!(token));
        object.insert("come_backs".to_owned(), json!(enrollment.come_backs));
        object.insert("roles".to_owned(), json!(enrollment.roles));
        object.insert("labels".to_owned(), json!(enrollment.labels));
        object.insert("rule".to_owned(), json!(enrollment.rule));
        object.insert("policy_hash".to_owned(), json!(enrollment.policy_hash));
        object.insert("source".to_owned(), json!(enrollment.source));
        object.insert("created_at".to_owned(), json!(enrollment.created_at));
        object.insert("superseded".to_owned(), json!(enrollment.superseded));
        object.insert("grant".to_owned(), json!(enrollment.grant));
        object.insert("history".to_owned(), json!(enrollment.history));
    }
    value
}

//! What `muster publications` does.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::commands::Local;
use super::protocol::LocalError;
use crate::domain::{Code, PolicyName};
use crate::registry::Publication;
use crate::server::publisher::{Spec, Status, TargetKey};

impl Local {
    /// Every target that is wanted or of which something is left.
    pub(super) async fn publications(
        &self,
        name: Option<&PolicyName>,
    ) -> Result<Value, LocalError> {
        let mut targets: BTreeMap<TargetKey, (Option<Spec>, Option<Publication>)> = BTreeMap::new();
        for (key, spec) in self.publisher.wanted() {
            targets.entry(key).or_default().0 = Some(spec);
        }
        for found in self.registry.publications().await? {
            let key = (found.name.clone(), found.target.clone());
            targets.entry(key).or_default().1 = Some(found);
        }
        targets.retain(|key, _| name.is_none_or(|name| key.0 == *name));
        if targets.is_empty() && name.is_some() {
            let message = "there is no such publication; `muster publications ls` lists them";
            return Err(LocalError::new(Code::NotFound, message));
        }
        let board = self.publisher.board().all();
        let shown = targets
            .iter()
            .map(|(key, (spec, found))| shown(key, spec.as_ref(), found.as_ref(), board.get(key)));
        Ok(json!({"publications": shown.collect::<Vec<_>>()}))
    }

    /// Publishes now; answers when the new tokens are read back.
    pub(super) async fn publish(
        &self,
        name: &PolicyName,
        target: Option<&str>,
    ) -> Result<Value, LocalError> {
        let published = self.publisher.publish(name, target).await;
        published.map_err(|failure| LocalError::new(failure.code, failure.message))?;
        self.publications(Some(name)).await
    }
}

fn shown(
    key: &TargetKey,
    spec: Option<&Spec>,
    found: Option<&Publication>,
    status: Option<&Status>,
) -> Value {
    let (name, target) = key;
    let current = found.and_then(|found| found.current.as_ref());
    let parameter = spec.map(Spec::place).or(found.map(|found| &found.place));
    let policy = spec.map(Spec::policy).or(found.map(|found| found.policy.as_str()));
    let next_at = current.zip(spec).map(|(current, spec)| current.published_at.plus(spec.period()));
    json!({
        "name": name,
        "policy": policy,
        "target": target,
        "parameter": parameter.map(|place| place.parameter.as_str()),
        "arn": current.map(|current| current.arn.as_str()),
        "version": current.map(|current| current.version),
        "token": current.map(|current| &current.token),
        "published_at": current.map(|current| current.published_at),
        "next_at": next_at,
        "expires_at": current.map(|current| current.expires_at),
        "previous": found.and_then(|found| found.previous.as_ref()),
        "state": state(spec, found),
        "error": status.and_then(|status| status.error.as_deref()),
    })
}

fn state(spec: Option<&Spec>, found: Option<&Publication>) -> &'static str {
    match (spec, found) {
        (None, _) => "retiring",
        (Some(_), Some(found)) if found.creating.is_some() => "creating",
        (Some(_), Some(found)) if found.current.is_some() => "published",
        (Some(_), _) => "waiting",
    }
}

//! Explains a recorded decision: the policy set of then, the claims and facts of then, rule by rule.

use serde_json::Value;

use super::local::LocalError;
use crate::audit::Record;
use crate::aws::SharedCertificates;
use crate::domain::{Code, Timestamp};
use crate::methods::{self, ClaimValues, FactValues, UnreadableValues};
use crate::policy::{self, Hypothesis, PolicyFile, Vocabulary};
use crate::registry::Registry;

/// Recomputes explanations from what is on record (red team D5).
pub struct Explainer {
    registry: Registry,
    certificates: SharedCertificates,
}

impl Explainer {
    /// Explains with the sets that this registry keeps.
    pub fn new(registry: Registry, certificates: SharedCertificates) -> Self {
        Self { registry, certificates }
    }

    /// The explanation of a record, as `muster policy explain` prints it; null for records that no
    /// policy was asked about.
    pub async fn explain(&self, record: &Record) -> Result<Value, LocalError> {
        let (Some(hash), Some(claims)) = (&record.policy_hash, record.detail.get("claims")) else {
            return Ok(Value::Null);
        };
        let method = record.detail.get("method").and_then(Value::as_str).unwrap_or_default();
        let Some(declaration) = methods::ALL.iter().find(|one| one.name == method) else {
            return Ok(Value::Null);
        };
        let Some(files) = self.registry.policy_set(hash).await? else { return Ok(Value::Null) };
        let files: Vec<PolicyFile> =
            files.into_iter().map(|(name, text)| PolicyFile { name, text }).collect();
        let regions = self.certificates.current().known_regions().clone();
        let vocabulary = Vocabulary { methods: methods::ALL, regions };
        let loaded = policy::load(&files, &vocabulary, None);
        let Some(set) = loaded.set else { return Ok(Value::Null) };
        let unreadable =
            |error: UnreadableValues| LocalError::new(Code::Internal, error.to_string());
        let values = ClaimValues::from_json(declaration, claims).map_err(unreadable)?;
        let facts = match record.detail.get("facts") {
            Some(facts) => Some(FactValues::from_json(declaration, facts).map_err(unreadable)?),
            // The join ended before anybody was asked.
            None => None,
        };
        let epoch = record.detail.get("epoch").and_then(Value::as_str);
        let epoch: Option<Timestamp> = epoch.and_then(|text| text.parse().ok());
        let node = Hypothesis {
            method: declaration.name,
            values: &values,
            epoch: epoch.unwrap_or(record.time),
        };
        let asked = record.policy.as_deref().filter(|name| set.policy(name).is_some());
        let explanation = policy::explain(&set, &node, facts.as_ref(), asked, record.time);
        serde_json::to_value(explanation)
            .map_err(|error| LocalError::new(Code::Internal, error.to_string()))
    }
}

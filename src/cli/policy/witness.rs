//! Witnesses as JSON: just what `muster policy explain` is given.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::domain::{PolicyName, Timestamp};
use crate::methods::{Instance, Proof, Value};
use crate::policy::Witness;

/// A node that might be.
#[derive(Debug, Clone, Serialize)]
pub(super) struct WitnessDocument {
    policy: PolicyName,
    method: &'static str,
    /// `--at`.
    at: Timestamp,
    /// `--proof`.
    proof: &'static str,
    /// `--claims`.
    claims: Map<String, Json>,
    /// `--instance`; null where nobody looks.
    instance: Option<Map<String, Json>>,
}

impl From<&Witness> for WitnessDocument {
    fn from(witness: &Witness) -> Self {
        let mut claims: Map<String, Json> = witness
            .claims
            .iter()
            .map(|(name, claim)| (name.to_owned(), to_json(&claim.value)))
            .collect();
        if let Some(name) = witness.method.epoch_claim {
            claims.insert(name.to_owned(), json!(witness.epoch));
        }
        let instance = match &witness.facts.instance {
            Instance::Known(facts) => Some(
                facts
                    .iter()
                    .map(|(name, value)| {
                        let value = value.as_ref().map_or(Json::Null, to_json);
                        ((*name).to_owned(), value)
                    })
                    .collect(),
            ),
            Instance::NotRead(_) | Instance::Refuted(_) => None,
        };
        let is_proven = witness.facts.proof == Proof::Proven;
        Self {
            policy: witness.policy.clone(),
            method: witness.method.name,
            at: witness.at,
            proof: if is_proven { "proven" } else { "none" },
            claims,
            instance,
        }
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(text),
        Value::List(list) => json!(list),
        Value::Tags(tags) => json!(tags),
        Value::Time(time) => json!(time),
        Value::Span(span) => json!(span),
        Value::Number(number) => json!(number),
        Value::MetadataOptions { v2_only, hop_limit } => {
            json!({"v2_only": v2_only, "hop_limit": hop_limit})
        }
    }
}

impl WitnessDocument {
    /// The node on one line.
    pub(super) fn in_words(&self) -> String {
        let members = |map: &Map<String, Json>| -> String {
            let one = |(name, value): (&String, &Json)| match value.as_str() {
                Some(text) => format!("{name} {text}"),
                None => format!("{name} {value}"),
            };
            map.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let mut words = members(&self.claims);
        if let Some(instance) = &self.instance {
            words = format!("{words}; {}", members(instance));
        }
        if self.proof == "none" {
            words.push_str("; no proof");
        }
        words
    }
}

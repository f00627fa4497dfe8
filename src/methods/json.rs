//! Claims and facts as JSON, for the audit log and back, so that an old decision can be explained.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    ClaimValues, Contradiction, Declaration, FactValues, Instance, Proof, Provenance, Value,
};
use crate::domain::{Code, JsonText, Lifetime, Timestamp};

/// JSON that is no claims or facts of this build's methods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not readable as claims or facts: {0}")]
pub struct UnreadableValues(String);

fn unreadable(error: impl std::fmt::Display) -> UnreadableValues {
    UnreadableValues(error.to_string())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ValueDocument {
    Text(String),
    List(Vec<String>),
    Tags(BTreeMap<String, String>),
    Time(Timestamp),
    Span(Lifetime),
    Number(u32),
    MetadataOptions { v2_only: bool, hop_limit: u32 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimDocument {
    value: ValueDocument,
    hinted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FactsDocument {
    proof: ProofDocument,
    instance: InstanceDocument,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ProofDocument {
    Proven,
    Disproven(ContradictionDocument),
    NotOffered,
    NotChecked(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum InstanceDocument {
    Known(BTreeMap<String, Option<ValueDocument>>),
    NotRead(String),
    Refuted(ContradictionDocument),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContradictionDocument {
    code: Code,
    reason: String,
}

impl From<&Contradiction> for ContradictionDocument {
    fn from(found: &Contradiction) -> Self {
        Self { code: found.code, reason: found.reason.clone() }
    }
}

impl From<ContradictionDocument> for Contradiction {
    fn from(written: ContradictionDocument) -> Self {
        Self { code: written.code, reason: written.reason, hint: None }
    }
}

impl ClaimValues {
    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.documents()).unwrap_or_default()
    }

    /// As the text of the same.
    pub fn to_json_text(&self) -> JsonText {
        JsonText::of(&self.documents()).unwrap_or_default()
    }

    fn documents(&self) -> BTreeMap<&'static str, ClaimDocument> {
        self.iter()
            .map(|(name, claim)| {
                let hinted = claim.provenance == Provenance::Hinted;
                (name, ClaimDocument { value: document(&claim.value), hinted })
            })
            .collect()
    }

    /// From JSON; names that the method does not know are left out, for no rule can ask for them.
    pub fn from_json<'de>(
        method: &Declaration,
        json: impl Deserializer<'de>,
    ) -> Result<Self, UnreadableValues> {
        let documents: BTreeMap<String, ClaimDocument> =
            Deserialize::deserialize(json).map_err(unreadable)?;
        let mut values = Self::default();
        for (name, claim) in documents {
            let provenance = if claim.hinted { Provenance::Hinted } else { Provenance::Proven };
            if let Some(name) = method.claim_name(&name) {
                values.insert(name, value(claim.value), provenance);
            }
        }
        Ok(values)
    }
}

impl FactValues {
    /// As JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let facts = FactsDocument {
            proof: match &self.proof {
                Proof::Proven => ProofDocument::Proven,
                Proof::Disproven(found) => ProofDocument::Disproven(found.into()),
                Proof::NotOffered => ProofDocument::NotOffered,
                Proof::NotChecked(reason) => ProofDocument::NotChecked(reason.clone()),
            },
            instance: match &self.instance {
                Instance::NotRead(reason) => InstanceDocument::NotRead(reason.clone()),
                Instance::Refuted(found) => InstanceDocument::Refuted(found.into()),
                Instance::Known(facts) => InstanceDocument::Known(
                    facts
                        .iter()
                        .map(|(name, one)| ((*name).to_owned(), one.as_ref().map(document)))
                        .collect(),
                ),
            },
        };
        serde_json::to_value(facts).unwrap_or_default()
    }

    /// From JSON.
    pub fn from_json<'de>(
        method: &Declaration,
        json: impl Deserializer<'de>,
    ) -> Result<Self, UnreadableValues> {
        let facts: FactsDocument = Deserialize::deserialize(json).map_err(unreadable)?;
        let known = |facts: BTreeMap<String, Option<ValueDocument>>| {
            facts
                .into_iter()
                .filter_map(|(name, one)| Some((method.claim_name(&name)?, one.map(value))))
                .collect()
        };
        Ok(Self {
            proof: match facts.proof {
                ProofDocument::Proven => Proof::Proven,
                ProofDocument::Disproven(found) => Proof::Disproven(found.into()),
                ProofDocument::NotOffered => Proof::NotOffered,
                ProofDocument::NotChecked(reason) => Proof::NotChecked(reason),
            },
            instance: match facts.instance {
                InstanceDocument::Known(facts) => Instance::Known(known(facts)),
                InstanceDocument::NotRead(reason) => Instance::NotRead(reason),
                InstanceDocument::Refuted(found) => Instance::Refuted(found.into()),
            },
        })
    }
}

impl Declaration {
    /// The name of a claim or fact of this method.
    fn claim_name(&self, name: &str) -> Option<&'static str> {
        let read = self.fields.iter().map(|field| field.reads);
        let state = self.running.iter().map(|running| running.reads);
        read.chain(state).chain(self.name_variables.iter().copied()).find(|known| *known == name)
    }
}

fn document(value: &Value) -> ValueDocument {
    match value {
        Value::Text(text) => ValueDocument::Text(text.clone()),
        Value::List(list) => ValueDocument::List(list.clone()),
        Value::Tags(tags) => ValueDocument::Tags(tags.clone()),
        Value::Time(time) => ValueDocument::Time(*time),
        Value::Span(span) => ValueDocument::Span(*span),
        Value::Number(number) => ValueDocument::Number(*number),
        Value::MetadataOptions { v2_only, hop_limit } => {
            ValueDocument::MetadataOptions { v2_only: *v2_only, hop_limit: *hop_limit }
        }
    }
}

fn value(document: ValueDocument) -> Value {
    match document {
        ValueDocument::Text(text) => Value::Text(text),
        ValueDocument::List(list) => Value::List(list),
        ValueDocument::Tags(tags) => Value::Tags(tags),
        ValueDocument::Time(time) => Value::Time(time),
        ValueDocument::Span(span) => Value::Span(span),
        ValueDocument::Number(number) => Value::Number(number),
        ValueDocument::MetadataOptions { v2_only, hop_limit } => {
            Value::MetadataOptions { v2_only, hop_limit }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::ALL;

    #[test]
    fn claims_and_facts_come_back_as_they_went() {
        let method = ALL[0];
        let mut claims = ClaimValues::default();
        claims.insert("region", Value::Text("us-west-2".to_owned()), Provenance::Proven);
        claims.insert("account_id", Value::Text("1".to_owned()), Provenance::Hinted);
        assert_eq!(ClaimValues::from_json(method, claims.to_json()).unwrap(), claims);
        let text = claims.to_json_text();
        assert_eq!(ClaimValues::from_json(method, text.raw()).unwrap(), claims);
        let instance = Instance::Known(BTreeMap::from([
            ("tags", Some(Value::Tags(BTreeMap::from([("a".to_owned(), "b".to_owned())])))),
            ("launch_time", Some(Value::Time(Timestamp::from_unix_seconds(5)))),
            ("imds", Some(Value::MetadataOptions { v2_only: true, hop_limit: 1 })),
            ("security_groups", Some(Value::List(vec!["sg-1".to_owned()]))),
            ("vpc", None),
        ]));
        let found =
            Contradiction { code: Code::ProofDisproven, reason: "why".to_owned(), hint: None };
        for facts in [
            FactValues { proof: Proof::Disproven(found.clone()), instance },
            FactValues {
                proof: Proof::NotChecked("STS".to_owned()),
                instance: Instance::Refuted(found),
            },
        ] {
            assert_eq!(FactValues::from_json(method, facts.to_json()).unwrap(), facts);
        }
    }
}

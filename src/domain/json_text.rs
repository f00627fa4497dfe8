//! JSON that is written once and handed on as it stands.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// A JSON value as text. Cheap to clone, and written into other JSON without being read again.
#[derive(Debug, Clone)]
pub struct JsonText(Arc<RawValue>);

impl JsonText {
    /// This value's JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self(Arc::from(to_raw_value(value)?)))
    }

    /// For reading it.
    pub fn raw(&self) -> &RawValue {
        &self.0
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl Default for JsonText {
    /// `null`.
    fn default() -> Self {
        Self(Arc::from(RawValue::NULL.to_owned()))
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JsonText {}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::from(Box::<RawValue>::deserialize(deserializer)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_into_other_json_as_it_stands() {
        let text = JsonText::of(&serde_json::json!({"b": [1, 2], "a": null})).unwrap();
        let written = serde_json::to_string(&vec![&text, &JsonText::default()]).unwrap();
        assert_eq!(written, r#"[{"a":null,"b":[1,2]},null]"#);
        let read: Vec<JsonText> = serde_json::from_str(&written).unwrap();
        assert_eq!(read, [text, JsonText::default()]);
    }
}

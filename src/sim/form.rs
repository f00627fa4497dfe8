//! Bodies of the Query protocol: `application/x-www-form-urlencoded`.

use std::collections::BTreeMap;

/// Names and values of a form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a body. `None` if it is no form, or names something twice.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let mut values = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if values.insert(decode(name)?, decode(value)?).is_some() {
                return None;
            }
        }
        Some(Self(values))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The values of `prefix.1`, `prefix.2` and so on, in the order of their numbers.
    pub(super) fn list(&self, prefix: &str) -> Vec<&str> {
        let mut numbered: Vec<(u32, &str)> = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((number_after(name, prefix)?, value.as_str())))
            .collect();
        numbered.sort_unstable();
        numbered.into_iter().map(|(_, value)| value).collect()
    }

    /// A name that is neither one of these nor in one of these lists.
    pub(super) fn other_than(&self, names: &[&str], lists: &[&str]) -> Option<&str> {
        let is_known = |name: &str| {
            names.contains(&name) || lists.iter().any(|list| number_after(name, list).is_some())
        };
        self.0.keys().map(String::as_str).find(|name| !is_known(name))
    }
}

fn number_after(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.strip_prefix('.')?.parse().ok()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded() {
        let form = Form::parse(b"Action=A&X=a+b%2Fc%c3%a9&L.2=two&L.10=ten&L.1=one&E").unwrap();
        assert_eq!(form.get("X"), Some("a b/cé"));
        assert_eq!(form.get("E"), Some(""));
        assert_eq!(form.list("L"), ["one", "two", "ten"]);
        assert_eq!(form.other_than(&["Action", "X"], &["L"]), Some("E"));
        assert_eq!(Form::parse(b""), Some(Form::default()));
        for wrong in ["a=1&a=2", "a=%", "a=%4", "a=%zz", "a=%ff", "%61=1&a=1"] {
            assert_eq!(Form::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

//! DNS names of certificates: literals and identifiers that nobody can choose, never a tag, a host
//! name or a session name (I6, I13, T10, T74).

use std::net::IpAddr;

use super::decode;
use super::finding::{FindingCode, Place, Report, quoted};
use super::yaml::Node;
use crate::methods::{ClaimValues, Declaration};

/// The most names of one certificate.
const MAX_NAMES: usize = 20;

/// A name with variables, checked when it was read.
#[derive(Debug)]
pub(super) struct NameTemplate {
    pub(super) text: String,
    pub(super) place: Place,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Literal(String),
    Variable(&'static str),
}

/// A name that cannot be made for this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameNotPossible {
    pub(super) template: String,
    pub(super) why: String,
}

impl NameTemplate {
    /// The name of one node. Values come from proven claims only, and what is not a part of a DNS
    /// label is refused, never escaped or cut.
    pub(super) fn render(&self, claims: &ClaimValues) -> Result<String, NameNotPossible> {
        let refused = |why: String| NameNotPossible { template: self.text.clone(), why };
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Variable(variable) => {
                    let value = claims
                        .proven_text(variable)
                        .ok_or_else(|| refused(format!("the evidence proves no `{variable}`")))?;
                    let value = with_dashes(value);
                    if !value.bytes().all(is_label_byte) {
                        return Err(refused(format!("the value of `{variable}` is no DNS label")));
                    }
                    name.push_str(&value);
                }
            }
        }
        if is_dns_name(&name) { Ok(name) } else { Err(refused("it is no DNS name".to_owned())) }
    }

    /// Whether the name ends with `.suffix`.
    pub(super) fn ends_below(&self, suffix: &str) -> bool {
        self.text.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// The variables that are in it.
    pub(super) fn variables(&self) -> impl Iterator<Item = &'static str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Variable(variable) => Some(*variable),
        })
    }
}

/// Reads the `dns_names` of a policy.
pub(super) fn templates(
    node: &Node,
    method: &'static Declaration,
    report: &mut Report,
) -> Vec<NameTemplate> {
    let example = "[\"{instance_id}.web.internal.example\"]";
    let texts = decode::texts(node, "dns_names", example, report).unwrap_or_default();
    if texts.len() > MAX_NAMES {
        let message = format!("`dns_names` has {} names", texts.len());
        report.add(FindingCode::LimitExceeded, &node.place, message, "at most 20 names");
        return Vec::new();
    }
    texts.into_iter().filter_map(|(text, node)| template(text, node, method, report)).collect()
}

fn template(
    text: &str,
    node: &Node,
    method: &'static Declaration,
    report: &mut Report,
) -> Option<NameTemplate> {
    let parts = match parts(text, method.name_variables) {
        Ok(parts) => parts,
        Err(variable) => {
            let message = format!("{} cannot be part of a name", quoted(variable));
            let expected = format!(
                "only {{{}}}: tags and other text that somebody can choose never become names",
                method.name_variables.join("}, {")
            );
            report.add(FindingCode::DnsNameVariable, &node.place, message, expected);
            return None;
        }
    };
    // A letter stands for any value: what is wrong then is wrong for every node.
    let sample: String = parts
        .iter()
        .map(|part| match part {
            Part::Literal(text) => text.as_str(),
            Part::Variable(_) => "x",
        })
        .collect();
    if !is_dns_name(&sample) {
        let message = format!("{} does not become a DNS name", quoted(text));
        let expected = "lower-case labels of letters, digits and hyphens with dots between them, \
                        no wildcard, for example \"{instance_id}.web.internal.example\"";
        report.add(FindingCode::DnsNameInvalid, &node.place, message, expected);
        return None;
    }
    Some(NameTemplate { text: text.to_owned(), place: node.place.clone(), parts })
}

/// The parts of a template, or the variable that names may not be made of. A brace without its
/// partner stays in a literal, where it is no part of a DNS name.
fn parts<'t>(text: &'t str, variables: &'static [&'static str]) -> Result<Vec<Part>, &'t str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let Some((variable, after)) = after.split_once('}') else { break };
        let known = variables.iter().find(|name| **name == variable).ok_or(variable)?;
        parts.push(Part::Literal(literal.to_owned()));
        parts.push(Part::Variable(known));
        rest = after;
    }
    parts.push(Part::Literal(rest.to_owned()));
    Ok(parts)
}

/// An address becomes a label: `10.0.0.1` is `10-0-0-1`, and IPv6 is written out in eight groups.
fn with_dashes(value: &str) -> String {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => value.replace('.', "-"),
        Ok(IpAddr::V6(address)) => {
            let groups: Vec<String> =
                address.segments().iter().map(|group| format!("{group:x}")).collect();
            groups.join("-")
        }
        Err(_) => value.to_owned(),
    }
}

const fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// A lower-case host name of at least two labels, whose last label is no number (RFC 1123 §2.1), so
/// that it can be no address and no bare name such as `localhost`.
pub(super) fn is_dns_name(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let is_label = |label: &&str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(is_label_byte)
    };
    name.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(is_label)
        && labels.last().is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{ALL, Provenance, Value};
    use crate::policy::yaml;

    fn read(text: &str) -> (Vec<NameTemplate>, Vec<FindingCode>) {
        let mut report = Report::default();
        let nodes = yaml::parse("a.yaml", &format!("[{text:?}]"), &mut report);
        let templates = templates(&nodes[0], ALL[0], &mut report);
        (templates, report.into_findings().iter().map(|finding| finding.code).collect())
    }

    fn claims(name: &'static str, value: &str, provenance: Provenance) -> ClaimValues {
        let mut claims = ClaimValues::default();
        claims.insert(name, Value::Text(value.to_owned()), provenance);
        claims
    }

    // T74, T10: a tag, a host name or any other text that can be chosen cannot be written.
    #[test]
    fn only_identifiers_that_nobody_chooses_may_be_interpolated() {
        for variable in ["tag:Name", "tags.Name", "hostname", "image_id", "", "instance_id "] {
            let (names, codes) = read(&format!("{{{variable}}}.web.internal"));
            assert!(names.is_empty() && codes == [FindingCode::DnsNameVariable], "{variable}");
        }
    }

    #[test]
    fn what_is_no_dns_name_is_refused_when_it_is_read() {
        for text in [
            "*.web.internal",
            "web",
            "{instance_id}",
            "Web.internal",
            "a..b",
            "-a.b",
            "10.0.0.1",
            "a.b.",
            "a_b.c",
            "{instance_id.web",
            "instance_id}.web",
            "{{instance_id}}.web",
            "a b.c",
            "localhost",
            "a/b.c",
            "é.c",
        ] {
            let (names, codes) = read(text);
            assert!(names.is_empty() && !codes.is_empty(), "{text}");
        }
    }

    // T11, T20: a value never brings a dot, a wildcard or a second name with it.
    #[test]
    fn a_value_that_is_no_label_makes_no_name() {
        let name = &read("{instance_id}.web.internal").0[0];
        let render = |value: &str| name.render(&claims("instance_id", value, Provenance::Proven));
        assert_eq!(render("i-0a").unwrap(), "i-0a.web.internal");
        for hostile in ["*", "a.b", "a,b", "", "-a", "A", "a\"}", "a\n", "..", "аdmin"] {
            assert!(render(hostile).is_err(), "{hostile:?}");
        }
        assert!(render(&"a".repeat(64)).is_err());
        assert!(name.render(&claims("instance_id", "i-0a", Provenance::Hinted)).is_err());
        assert!(name.render(&ClaimValues::default()).is_err());
    }

    #[test]
    fn an_address_is_written_with_dashes() {
        let name = &read("ip-{private_ip}.web.internal").0[0];
        let render = |value| name.render(&claims("private_ip", value, Provenance::Proven)).unwrap();
        assert_eq!(render("10.0.12.7"), "ip-10-0-12-7.web.internal");
        assert_eq!(render("fd00::1"), "ip-fd00-0-0-0-0-0-0-1.web.internal");
    }

    #[test]
    fn a_suffix_ends_at_a_dot() {
        let name = &read("{instance_id}.internal.example").0[0];
        assert!(name.ends_below("internal.example"));
        assert!(!name.ends_below("ternal.example"));
        assert!(!read("internal.example").0[0].ends_below("internal.example"));
    }
}

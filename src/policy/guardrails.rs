//! Guardrails: floors that no policy can lower.

use std::sync::Arc;

use super::decode::{self, Keys, invalid};
use super::dns::is_dns_name;
use super::document::{Document, Kind, Metadata};
use super::finding::{FindingCode, Place, Report, quoted};
use super::join_policy::JoinPolicy;
use super::rule::Rule;
use super::settings::FreshProof;
use super::yaml::Node;
use crate::domain::Lifetime;

/// What every policy must keep to.
#[derive(Debug, Default)]
pub(super) struct Guardrails {
    /// Where they stand, if there are any.
    pub(super) place: Option<Place>,
    pub(super) fresh_proof_is_required: bool,
    pub(super) look_up_is_required: bool,
    pub(super) max_ttl: Option<Lifetime>,
    require: Vec<Requirement>,
    /// Any domain, if none.
    pub(super) dns_suffixes: Option<Vec<String>>,
}

/// What must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requirement {
    Owner,
    Description,
    Name,
    Reason,
    Ticket,
    Until,
}

impl Requirement {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("owner", Self::Owner),
        ("description", Self::Description),
        ("name", Self::Name),
        ("reason", Self::Reason),
        ("ticket", Self::Ticket),
        ("until", Self::Until),
    ];

    fn is_met_by_metadata(self, metadata: &Metadata) -> bool {
        match self {
            Self::Owner => metadata.owner.is_some(),
            Self::Description => metadata.description.is_some(),
            Self::Name | Self::Reason | Self::Ticket | Self::Until => true,
        }
    }

    fn is_met_by_rule(self, rule: &Rule) -> bool {
        match self {
            Self::Owner | Self::Description => true,
            // A name in brackets is the index of a rule without one.
            Self::Name => !rule.name.ends_with(']'),
            Self::Reason => rule.reason.is_some(),
            Self::Ticket => rule.ticket.is_some(),
            Self::Until => rule.until.is_some(),
        }
    }
}

/// Reads the guardrails: at most one document.
pub(super) fn read(documents: &[Document<'_>], report: &mut Report) -> Guardrails {
    let mut all = documents.iter().filter(|document| document.kind == Kind::Guardrails);
    let first = all.next();
    for second in all {
        let message = "there are Guardrails already";
        let place = &second.metadata.place;
        report.add(FindingCode::GuardrailsRepeated, place, message, "one Guardrails document");
    }
    first.and_then(|document| written(document, report)).unwrap_or_default()
}

fn written(document: &Document<'_>, report: &mut Report) -> Option<Guardrails> {
    const KEYS: &[&str] = &["fresh_proof", "max_ttl", "require", "look_up", "dns_suffixes"];
    let keys = Keys::read(document.spec, "the `spec` of Guardrails", KEYS, report)?;
    let max_ttl = keys
        .get("max_ttl")
        .and_then(|node| decode::duration(node, "max_ttl", Lifetime::from_days(7), report));
    Some(Guardrails {
        place: Some(document.metadata.place.clone()),
        fresh_proof_is_required: required(&keys, "fresh_proof", report),
        look_up_is_required: required(&keys, "look_up", report),
        max_ttl,
        require: keys.get("require").map(|node| requirements(node, report)).unwrap_or_default(),
        dns_suffixes: keys.get("dns_suffixes").map(|node| suffixes(node, report)),
    })
}

fn required(keys: &Keys<'_>, name: &'static str, report: &mut Report) -> bool {
    let Some(node) = keys.get(name) else { return false };
    match decode::text(node, name, report) {
        Some("required") => true,
        Some(_) => {
            let expected = "required, or leave the key out: guardrails only raise floors";
            invalid(node, name, expected, report).unwrap_or_default()
        }
        None => false,
    }
}

fn requirements(node: &Node, report: &mut Report) -> Vec<Requirement> {
    let names: Vec<&str> = Requirement::NAMES.iter().map(|(name, _)| *name).collect();
    let mut requirements = Vec::new();
    for (text, item) in
        decode::texts(node, "require", "[owner, reason]", report).unwrap_or_default()
    {
        if let Some((_, requirement)) = Requirement::NAMES.iter().find(|(name, _)| *name == text) {
            requirements.push(*requirement);
        } else {
            let expected = decode::unknown(text, &names);
            let _reported: Option<()> = invalid(item, "require", &expected, report);
        }
    }
    requirements
}

fn suffixes(node: &Node, report: &mut Report) -> Vec<String> {
    let texts = decode::texts(node, "dns_suffixes", "[internal.example]", report);
    let mut suffixes = Vec::new();
    for (text, item) in texts.unwrap_or_default() {
        if is_dns_name(text) {
            suffixes.push(text.to_owned());
        } else {
            let expected = "a domain of at least two labels without a dot before it";
            let _reported: Option<()> = invalid(item, "dns_suffixes", expected, report);
        }
    }
    suffixes
}

impl Guardrails {
    /// Reports what of a policy is beyond them.
    pub(super) fn hold(&self, policy: &JoinPolicy, metadata: &Metadata, report: &mut Report) {
        let mut beyond = |place: &Place, message: String, expected: String| {
            report.add(FindingCode::GuardrailExceeded, place, message, expected);
        };
        let is_weaker = matches!(policy.proof.value, FreshProof::NotRequired { .. });
        if self.fresh_proof_is_required && is_weaker {
            let message = "the Guardrails require a fresh proof".to_owned();
            beyond(&policy.proof.place, message, "`fresh_proof: required`".to_owned());
        }
        if self.look_up_is_required && !policy.reads_facts() {
            let message = "the Guardrails require a look at the instance".to_owned();
            let expected = "`look_up: own` or a role, and `fresh_proof: required`";
            beyond(&policy.look_up.place, message, expected.to_owned());
        }
        let ttl = &policy.certificate.ttl;
        if let Some(max_ttl) = self.max_ttl.filter(|max_ttl| ttl.value > *max_ttl) {
            let written = if ttl.is_default { "the default ttl" } else { "`ttl`" };
            let message = format!("{written} of {} is longer than the Guardrails allow", ttl.value);
            beyond(&ttl.place, message, format!("`certificate: {{ttl: {max_ttl}}}` or shorter"));
        }
        for name in &policy.certificate.dns_names {
            let Some(suffixes) = &self.dns_suffixes else { break };
            if !suffixes.iter().any(|suffix| name.ends_below(suffix)) {
                let message = format!("{} is not below a permitted domain", quoted(&name.text));
                beyond(&name.place, message, format!("a name below {}", suffixes.join(" or ")));
            }
        }
        self.hold_metadata(metadata, report);
        self.hold_rules(&policy.allow, report);
        let own = policy.deny.iter().filter(|rule| rule.deny_list.is_none());
        self.hold_rules(own.map(AsRef::as_ref), report);
    }

    /// Reports what of a deny list is beyond them.
    pub(super) fn hold_deny_list(
        &self,
        rules: &[Arc<Rule>],
        metadata: &Metadata,
        report: &mut Report,
    ) {
        self.hold_metadata(metadata, report);
        self.hold_rules(rules.iter().map(AsRef::as_ref), report);
    }

    fn hold_metadata(&self, metadata: &Metadata, report: &mut Report) {
        for (name, requirement) in self.required() {
            if !requirement.is_met_by_metadata(metadata) {
                let message = format!("the Guardrails require `{name}` in `metadata`");
                let expected = format!("`{name}: …` beside the name");
                report.add(FindingCode::GuardrailExceeded, &metadata.place, message, expected);
            }
        }
    }

    fn hold_rules<'r>(&self, rules: impl IntoIterator<Item = &'r Rule>, report: &mut Report) {
        for rule in rules {
            for (name, requirement) in self.required() {
                if !requirement.is_met_by_rule(rule) {
                    let message = format!("the Guardrails require `{name}` in every rule");
                    let expected = format!("`{name}: …` in the rule");
                    report.add(FindingCode::GuardrailExceeded, &rule.place, message, expected);
                }
            }
        }
    }

    /// What must be written, by the names of the keys.
    pub(super) fn required_keys(&self) -> impl Iterator<Item = &'static str> {
        self.required().map(|(name, _)| name)
    }

    fn required(&self) -> impl Iterator<Item = (&'static str, Requirement)> {
        Requirement::NAMES.iter().copied().filter(|(_, found)| self.require.contains(found))
    }
}

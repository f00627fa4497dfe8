//! Guardrails: what authors of policies may write. A change of them admits nobody by itself; it is
//! shown by a policy file that one of the two sets takes and the other does not.

use std::collections::BTreeSet;

use super::super::guardrails::Guardrails;
use super::super::set::{PolicyFile, PolicySet, Vocabulary, load};
use super::diff::{Change, ChangeKind, Proof, Spot};
use crate::domain::{Lifetime, Timestamp};
use crate::methods::{Kind, Presence};

const WHAT: &str = "guardrails";
/// A life that every guardrail lets pass which can be written at all.
const SHORT: Lifetime = Lifetime::from_minutes(1);
/// How many changes are shown by a file: each takes loading both sets.
const MAX_SHOWN: usize = 16;
/// The longest life that a policy may give.
const LONGEST: Lifetime = Lifetime::from_days(7);

/// What of the guardrails is looser or stricter than before.
pub(super) fn changes(
    old: &PolicySet,
    new: &PolicySet,
    vocabulary: &Vocabulary,
    at: Timestamp,
) -> Vec<Change> {
    let looser = loosened(&old.guardrails, &new.guardrails).into_iter().enumerate();
    let stricter = loosened(&new.guardrails, &old.guardrails).into_iter().enumerate();
    let looser = looser.map(|(index, one)| {
        let is_shown = index < MAX_SHOWN;
        let file = is_shown.then(|| shown(&one, new, old, vocabulary, at)).flatten();
        change(ChangeKind::Weaker, one.message("no longer"), old, new, file)
    });
    let stricter = stricter.map(|(index, one)| {
        let is_shown = index < MAX_SHOWN;
        let file = is_shown.then(|| shown(&one, old, new, vocabulary, at)).flatten();
        change(ChangeKind::Stronger, one.message("now"), old, new, file)
    });
    looser.chain(stricter).collect()
}

fn change(
    kind: ChangeKind,
    message: String,
    old: &PolicySet,
    new: &PolicySet,
    file: Option<String>,
) -> Change {
    let spot = |set: &PolicySet| set.guardrails.place.as_ref().map(Spot::at);
    Change {
        kind,
        what: WHAT,
        policy: None,
        message,
        accounts: Vec::new(),
        old: spot(old),
        new: spot(new),
        witness: file.map(Proof::File),
    }
}

/// Something that the one guardrails let pass and the other do not.
enum Looser {
    NoProof,
    NoLook,
    Ttl { most: Option<Lifetime>, bound: Lifetime },
    Without(&'static str),
    Domain(String),
    AnyDomain,
}

impl Looser {
    fn message(&self, how: &str) -> String {
        match self {
            Self::NoProof => format!("the Guardrails {how} require a fresh proof"),
            Self::NoLook => format!("the Guardrails {how} require a look at the instance"),
            Self::Ttl { most: Some(most), bound } => {
                format!("the Guardrails {how} hold certificates to {bound}, but for {most}")
            }
            Self::Ttl { most: None, bound } => {
                format!("the Guardrails {how} hold certificates to {bound}")
            }
            Self::Without(key) => format!("the Guardrails {how} require `{key}`"),
            Self::Domain(suffix) => {
                format!("the Guardrails {how} forbid DNS names below `{suffix}`")
            }
            Self::AnyDomain => format!("the Guardrails {how} hold DNS names to some domains"),
        }
    }
}

impl Looser {
    /// Whether a witness still has this key.
    fn keeps(&self, key: &str) -> bool {
        !matches!(self, Self::Without(without) if *without == key)
    }
}

/// In what `loose` let more pass than `strict`.
fn loosened(strict: &Guardrails, loose: &Guardrails) -> Vec<Looser> {
    let mut found = Vec::new();
    // A look is made after a proof alone, so to require it is to require both.
    let requires_proof = |one: &Guardrails| one.fresh_proof_is_required || one.look_up_is_required;
    if requires_proof(strict) && !requires_proof(loose) {
        found.push(Looser::NoProof);
    }
    if strict.look_up_is_required && !loose.look_up_is_required {
        found.push(Looser::NoLook);
    }
    let is_passed =
        |bound: &Lifetime| *bound < LONGEST && loose.max_ttl.is_none_or(|most| most > *bound);
    if let Some(bound) = strict.max_ttl.filter(is_passed) {
        found.push(Looser::Ttl { most: loose.max_ttl, bound });
    }
    let kept: Vec<&str> = loose.required_keys().collect();
    found.extend(strict.required_keys().filter(|key| !kept.contains(key)).map(Looser::Without));
    match (&strict.dns_suffixes, &loose.dns_suffixes) {
        (Some(_), None) => found.push(Looser::AnyDomain),
        (Some(strict), Some(loose)) => {
            let strict: BTreeSet<&str> = strict.iter().map(String::as_str).collect();
            let is_below = |suffix: &&String| {
                let parents = suffix.match_indices('.').filter_map(|(at, _)| suffix.get(at + 1..));
                parents.chain([suffix.as_str()]).any(|domain| strict.contains(domain))
            };
            found.extend(
                loose.iter().filter(|suffix| !is_below(suffix)).cloned().map(Looser::Domain),
            );
        }
        (None, _) => {}
    }
    found
}

/// A file that loads beside the looser set and not beside the stricter; nothing if there is none,
/// because another guardrail forbids the same.
fn shown(
    looser: &Looser,
    loose: &PolicySet,
    strict: &PolicySet,
    vocabulary: &Vocabulary,
    at: Timestamp,
) -> Option<String> {
    let text = file(looser, vocabulary, at)?;
    let loads = |set: &PolicySet| {
        let file = PolicyFile { name: "zz-witness.yaml".to_owned(), text: text.clone() };
        let files: Vec<PolicyFile> = set.files().iter().cloned().chain([file]).collect();
        load(&files, vocabulary, None).set.is_some()
    };
    (loads(loose) && !loads(strict)).then_some(text)
}

/// A policy that keeps to every guardrail but the one.
fn file(looser: &Looser, vocabulary: &Vocabulary, at: Timestamp) -> Option<String> {
    let method = vocabulary.methods.iter().find(|method| {
        method.has_fresh_proof && method.fields.iter().any(|field| field.kind == Kind::Accounts)
    })?;
    let mut rule = vec!["partition: aws".to_owned()];
    for field in method.fields {
        match (field.presence, field.kind) {
            (Presence::Optional, _) => {}
            (_, Kind::Accounts) => rule.push(format!("{}: [\"000000000000\"]", field.name)),
            (_, _) => rule.push(format!("{}: any", field.name)),
        }
    }
    let until = at.plus(Lifetime::from_days(30)).to_string();
    let mut metadata = vec!["name: zz-witness".to_owned()];
    for (key, value) in [("owner", "nobody"), ("description", "a witness")] {
        metadata.extend(looser.keeps(key).then(|| format!("{key}: {value}")));
    }
    for (key, value) in
        [("name", "witness"), ("reason", "a witness"), ("ticket", "W-1"), ("until", &until)]
    {
        rule.extend(looser.keeps(key).then(|| format!("{key}: {value}")));
    }
    let (mut settings, mut ttl, mut domain) =
        ("{fresh_proof: required, look_up: own}", SHORT, None);
    match looser {
        Looser::NoProof => settings = "{fresh_proof: not_required, document_ttl: 1m}",
        Looser::NoLook => settings = "{fresh_proof: required, look_up: none}",
        Looser::Ttl { most, .. } => ttl = most.unwrap_or(LONGEST),
        Looser::Domain(suffix) => domain = Some(suffix.as_str()),
        Looser::AnyDomain => domain = Some("elsewhere.invalid"),
        Looser::Without(_) => {}
    }
    let names = domain.map(|domain| format!(", dns_names: [\"witness.{domain}\"]"));
    let names = names.unwrap_or_default();
    Some(format!(
        "apiVersion: muster/v1\nkind: JoinPolicy\nmetadata: {{{}}}\nspec:\n  method: {}\n  \
         roles: [node]\n  allow:\n    - {{{}}}\n  {}: {settings}\n  certificate: {{ttl: {ttl}{names}}}\n",
        metadata.join(", "),
        method.name,
        rule.join(", "),
        method.name,
    ))
}

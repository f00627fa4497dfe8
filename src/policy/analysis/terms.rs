//! The terms on which a policy admits: what a node must prove and what it is given.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::super::finding::Place;
use super::super::join_policy::JoinPolicy;
use super::super::publication::TokenPublication;
use super::super::set::PolicySet;
use super::super::settings::FreshProof;
use super::diff::{Change, ChangeKind, Proof, Spot};
use super::witness::Witness;
use crate::domain::Lifetime;
use crate::methods::{Instance, LookUp, Proof as FreshProofOf, Value};

/// A state in which no machine runs.
const NOT_RUNNING: &str = "stopped";

/// A difference in one term.
pub(super) struct Term {
    kind: ChangeKind,
    what: &'static str,
    message: String,
    old: Place,
    new: Place,
    shows: Shows,
}

/// What about a node shows the difference.
#[derive(Debug, Clone, Copy)]
enum Shows {
    /// It is given something else.
    Grant,
    /// It proves nothing afresh.
    NoProof,
    /// Its document is so old.
    OldDocument(Lifetime),
    /// It does not run.
    Stopped,
}

impl Term {
    /// Whether the node must be one that the new policy admits.
    pub(super) const fn is_shown_by_new(&self) -> bool {
        !matches!(self.kind, ChangeKind::Stronger | ChangeKind::NoLongerAdmitted)
    }

    /// The change, shown by a node that both policies admit on the stricter terms.
    pub(super) fn shown_by(self, mut node: Witness) -> Change {
        match self.shows {
            Shows::Grant => {}
            Shows::NoProof => node.facts.proof = FreshProofOf::NotOffered,
            Shows::OldDocument(age) => node.epoch = node.at.minus(age),
            Shows::Stopped => stop(&mut node),
        }
        Change {
            kind: self.kind,
            what: self.what,
            policy: Some(node.policy.clone()),
            message: self.message,
            accounts: Vec::new(),
            old: Some(Spot::at(&self.old)),
            new: Some(Spot::at(&self.new)),
            witness: Some(Proof::Node(Box::new(node))),
        }
    }
}

fn stop(node: &mut Witness) {
    let Some(running) = &node.method.running else { return };
    if let Instance::Known(facts) = &mut node.facts.instance {
        facts.insert(running.reads, Some(Value::Text(NOT_RUNNING.to_owned())));
    }
}

/// The differences between two policies of one name and method, but for their rules.
pub(super) fn changes(old: &JoinPolicy, new: &JoinPolicy) -> Vec<Term> {
    let mut terms = Vec::new();
    terms.extend(fresh_proof(old, new));
    terms.extend(look_up(old, new));
    let (was, is) = (&old.certificate.ttl, &new.certificate.ttl);
    terms.extend(longer("ttl", "certificates live", was.value, is.value).map(|(kind, message)| {
        let (old, new) = (was.place.clone(), is.place.clone());
        Term { kind, what: "ttl", message, old, new, shows: Shows::Grant }
    }));
    let names = |policy: &JoinPolicy| -> BTreeSet<String> {
        policy.certificate.dns_names.iter().map(|name| name.text.clone()).collect()
    };
    let roles = |policy: &JoinPolicy| policy.roles().iter().cloned().collect();
    let labels = |policy: &JoinPolicy| -> BTreeSet<String> {
        policy.labels().iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    terms.extend(given("dns_names", "the DNS name", &names(old), &names(new), old, new));
    terms.extend(given("roles", "the role", &roles(old), &roles(new), old, new));
    terms.extend(given("labels", "the label", &labels(old), &labels(new), old, new));
    terms.extend(limits("rejoin", old, new, |policy| {
        // The shorter the silence, the more get in.
        policy.rejoin().map(|rejoin| (-rejoin.when_silent.seconds(), rejoin.limit))
    }));
    terms.extend(limits("come_back", old, new, |policy| {
        policy.come_back().map(|back| (back.within.seconds(), back.limit))
    }));
    terms
}

/// With a fresh proof a document may be of any age, and without one it may not; so what is stricter
/// in the one is looser in the other.
fn fresh_proof(old: &JoinPolicy, new: &JoinPolicy) -> Vec<Term> {
    let term = |kind, what, message: &str, shows| Term {
        kind,
        what,
        message: message.to_owned(),
        old: old.age_place.clone(),
        new: new.age_place.clone(),
        shows,
    };
    let (proof, age) = ("fresh_proof", "document_ttl");
    match (old.proof.value, new.proof.value) {
        (FreshProof::Required, FreshProof::NotRequired { document_ttl }) => {
            let no_proof = "a fresh proof is no longer required: a copied document is enough";
            let no_age = "with a proof, too, a document may no longer be of any age";
            let loses = document_ttl.map(|most| {
                term(ChangeKind::Stronger, age, no_age, Shows::OldDocument(beyond(most)))
            });
            let gains = term(ChangeKind::Weaker, proof, no_proof, Shows::NoProof);
            [Some(gains), loses].into_iter().flatten().collect()
        }
        (FreshProof::NotRequired { document_ttl }, FreshProof::Required) => {
            let any_age = "with the proof that is now required, a document may be of any age";
            let gains = document_ttl.map(|most| {
                term(ChangeKind::Weaker, age, any_age, Shows::OldDocument(beyond(most)))
            });
            let required = "a fresh proof is now required";
            let loses = term(ChangeKind::Stronger, proof, required, Shows::NoProof);
            [Some(loses), gains].into_iter().flatten().collect()
        }
        (
            FreshProof::NotRequired { document_ttl: Some(was) },
            FreshProof::NotRequired { document_ttl: Some(is) },
        ) => longer(age, "documents join up to an age of", was, is)
            .map(|(kind, message)| term(kind, age, &message, Shows::OldDocument(was.max(is))))
            .into_iter()
            .collect(),
        (FreshProof::Required | FreshProof::NotRequired { .. }, _) => Vec::new(),
    }
}

fn beyond(most: Lifetime) -> Lifetime {
    let seconds = u32::try_from(most.seconds()).unwrap_or(u32::MAX);
    Lifetime::from_seconds(seconds.saturating_add(1))
}

fn look_up(old: &JoinPolicy, new: &JoinPolicy) -> Option<Term> {
    let (kind, message, shows) = match (old.reads_facts(), new.reads_facts()) {
        (true, false) => (
            ChangeKind::Weaker,
            "instances are no longer looked at: one that was stopped may join".to_owned(),
            Shows::Stopped,
        ),
        (false, true) => (
            ChangeKind::Stronger,
            "instances are now looked at, and must run".to_owned(),
            Shows::Stopped,
        ),
        (true, true) if old.look_up() != new.look_up() => (
            ChangeKind::Changed,
            format!("instances are looked at with {}, before with {}", means(new), means(old)),
            Shows::Grant,
        ),
        (_, _) => return None,
    };
    let (old, new) = (old.look_up.place.clone(), new.look_up.place.clone());
    Some(Term { kind, what: "look_up", message, old, new, shows })
}

fn means(policy: &JoinPolicy) -> String {
    match policy.look_up() {
        LookUp::None => "nothing".to_owned(),
        LookUp::Own => "the server's own credentials".to_owned(),
        LookUp::Role { role, external_id: Some(id) } => {
            format!("`{role}` and the external id `{id}`")
        }
        LookUp::Role { role, external_id: None } => format!("`{role}`"),
    }
}

fn longer(what: &str, says: &str, was: Lifetime, is: Lifetime) -> Option<(ChangeKind, String)> {
    let kind = match is.cmp(&was) {
        Ordering::Greater => ChangeKind::Weaker,
        Ordering::Less => ChangeKind::Stronger,
        Ordering::Equal => return None,
    };
    Some((kind, format!("`{what}`: {says} {is}, before {was}")))
}

/// Everything that only one of the two gives.
fn given(
    what: &'static str,
    noun: &str,
    was: &BTreeSet<String>,
    is: &BTreeSet<String>,
    old: &JoinPolicy,
    new: &JoinPolicy,
) -> Vec<Term> {
    let place = |policy: &JoinPolicy, text: &str| {
        let names = &policy.certificate.dns_names;
        let name = names.iter().find(|name| what == "dns_names" && name.text == text);
        name.map_or(&policy.place, |name| &name.place).clone()
    };
    let term = |kind, text: &String, message| {
        let (old, new) = (place(old, text), place(new, text));
        Term { kind, what, message, old, new, shows: Shows::Grant }
    };
    let more = is
        .difference(was)
        .map(|text| term(ChangeKind::Weaker, text, format!("nodes now get {noun} `{text}`")));
    let less = was.difference(is).map(|text| {
        // A name that is made of claims keeps out whoever does not have them, and what a label or its
        // absence is worth is for relying parties to say.
        let asks = what == "dns_names" && text.contains('{');
        let (kind, also) = match (what, asks) {
            (_, true) => (ChangeKind::Changed, ", and need not have what it is made of"),
            ("labels", _) => (ChangeKind::Changed, ""),
            (_, _) => (ChangeKind::Stronger, ""),
        };
        term(kind, text, format!("nodes no longer get {noun} `{text}`{also}"))
    });
    more.chain(less).collect()
}

/// Compares two limits of which the greater is the weaker; none is the strictest.
fn limits(
    what: &'static str,
    old: &JoinPolicy,
    new: &JoinPolicy,
    of: impl Fn(&JoinPolicy) -> Option<(i64, u32)>,
) -> Option<Term> {
    let (was, is) = (of(old), of(new));
    let kind = match (was, is) {
        (was, is) if was == is => return None,
        (None, _) => ChangeKind::Weaker,
        (_, None) => ChangeKind::Stronger,
        (Some(was), Some(is)) if is.0 >= was.0 && is.1 >= was.1 => ChangeKind::Weaker,
        (Some(was), Some(is)) if is.0 <= was.0 && is.1 <= was.1 => ChangeKind::Stronger,
        (Some(_), Some(_)) => ChangeKind::Changed,
    };
    let says = |limit: Option<(i64, u32)>| match limit {
        None => "never".to_owned(),
        Some((seconds, limit)) => format!("{}s, {limit} times", seconds.abs()),
    };
    let message = format!("`{what}`: {}, before {}", says(is), says(was));
    let (old, new) = (old.place.clone(), new.place.clone());
    Some(Term { kind, what, message, old, new, shows: Shows::Grant })
}

/// Publications hand tokens to whoever may read a parameter, so every difference is one to look at.
pub(super) fn publications(old: &PolicySet, new: &PolicySet) -> Vec<Change> {
    let find = |set: &'_ PolicySet, one: &TokenPublication| {
        set.publications().any(|other| other.name == one.name && other.says_the_same(one))
    };
    let place = |set: &PolicySet, one: &TokenPublication| {
        let other = set.publications().find(|other| other.name == one.name);
        other.map(|other| Spot::at(&other.place))
    };
    let added = new.publications().filter(|one| !find(old, one)).map(|one| {
        let old = place(old, one);
        let is_new = old.is_none();
        let kind = if is_new { ChangeKind::Weaker } else { ChangeKind::Changed };
        let verb = if is_new { "is new" } else { "is another" };
        let message =
            format!("the publication `{}` of tokens for `{}` {verb}", one.name, one.policy);
        publication(kind, one, message, old, Some(Spot::at(&one.place)))
    });
    let removed = old.publications().filter(|one| place(new, one).is_none()).map(|one| {
        let message = format!("the publication `{}` is gone: its tokens are revoked", one.name);
        publication(ChangeKind::Stronger, one, message, Some(Spot::at(&one.place)), None)
    });
    added.chain(removed).collect()
}

fn publication(
    kind: ChangeKind,
    one: &TokenPublication,
    message: String,
    old: Option<Spot>,
    new: Option<Spot>,
) -> Change {
    let policy = Some(one.policy.clone());
    let what = "publications";
    Change { kind, what, policy, message, accounts: Vec::new(), old, new, witness: None }
}

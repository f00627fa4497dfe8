//! The enrollment: one instance, one run of it, one key in use and at most one that follows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Change, Issue, PresentedCertificate, Ruling};
use crate::domain::{
    JsonText, KeyDigest, NodeId, PolicyHash, Serial, Subject, Timestamp, Token, TokenKey, TokenName,
};
use crate::policy::{Approval, Strength};

/// How many past events a node's record keeps; the audit log keeps all.
const HISTORY_LENGTH: usize = 50;
/// How many certificates a node may have that were superseded and have not ended. There is no more
/// than one for each third of a life unless somebody collects them.
const SUPERSEDED_LENGTH: usize = 50;

/// One record per subject and slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrollment {
    /// Which attester.
    pub subject: Subject,
    /// Which of its identities.
    pub slot: String,
    /// Its name here.
    pub node_id: NodeId,
    /// Whether it stands.
    pub state: State,
    /// No document of a run that began before this is accepted. Never falls (I4).
    pub floor: Timestamp,
    /// The run of the instance that is bound.
    pub epoch: Timestamp,
    /// How the binding was proven.
    pub strength: Strength,
    /// The join method.
    pub method: String,
    /// The policy that admitted it.
    pub policy: String,
    /// The policy set of then.
    pub policy_hash: PolicyHash,
    /// The rule that admitted it.
    pub rule: String,
    /// What the policy says it is.
    pub roles: Vec<String>,
    /// What else the policy says of it.
    pub labels: BTreeMap<String, String>,
    /// What the evidence said at the latest decision, so that another policy set can be held against
    /// it without asking the node.
    pub claims: JsonText,
    /// The certificate in use.
    pub current: Issue,
    /// The certificate that follows it: made at a renewal, and in use once the node has shown it.
    pub next: Option<Issue>,
    /// Earlier certificates that may not have ended yet.
    pub superseded: Vec<Superseded>,
    /// One rejoin that an operator has allowed.
    pub grant: Option<Grant>,
    /// How often the policy has let another key in for a silent one, in this run.
    pub rejoins: u32,
    /// The token that it joined with, if it did.
    #[serde(default)]
    pub token: Option<TokenUse>,
    /// How often it has come back by its key alone since it joined.
    #[serde(default)]
    pub come_backs: u32,
    /// First order.
    pub created_at: Timestamp,
    /// Latest order.
    pub renewed_at: Timestamp,
    /// Where the latest order was asked from.
    pub source: String,
    /// What happened, oldest first.
    pub history: Vec<Event>,
}

/// A token that somebody has joined with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenUse {
    /// Its name.
    pub name: TokenName,
    /// Its public key: a name may be given again.
    pub public_key: TokenKey,
}

impl From<&Token> for TokenUse {
    fn from(token: &Token) -> Self {
        Self { name: token.name.clone(), public_key: token.public_key }
    }
}

/// Whether an enrollment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum State {
    /// A key is bound.
    Bound,
    /// An operator forgot it; until this time a key may bind anew.
    Forgotten {
        /// End of that hour.
        until: Timestamp,
    },
}

/// A certificate that another took the place of, and that is not revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Superseded {
    /// Its serial.
    pub serial: Serial,
    /// Its end.
    pub not_after: Timestamp,
    /// Its key.
    pub key: KeyDigest,
    /// SHA-256 of it, if it was ever issued.
    pub fingerprint: Option<String>,
    /// The policy that it is by.
    pub policy: String,
}

/// One rejoin that an operator has allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its end.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// Something that happened to an enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What: `enrolled`, `reordered`, `rebound`, `displaced`, `renewed`, `renewed by another key`,
    /// `rejoined`, `came back`, `forgotten`, `rejoin allowed`, `a later start was seen`.
    pub what: String,
    /// The certificate ordered, if one was.
    pub serial: Option<Serial>,
    /// The key bound then.
    pub key: KeyDigest,
    /// A person's reason, or nothing.
    pub reason: Option<String>,
}

/// Which of its two certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Current,
    Next,
}

/// What a key rests on: in one run the best evidence that ever came with it, so that an hour without
/// STS does not make it one that a thief's proof could displace (K10). A new key begins with its own.
fn strongest(before: Option<&Enrollment>, approval: &Approval) -> Strength {
    let key = approval.order().public_key.digest();
    let same_run = before.filter(|one| one.state == State::Bound && one.epoch == approval.epoch());
    let same_key = same_run.into_iter().flat_map(Enrollment::issues).filter(|one| one.key() == key);
    same_key
        .map(|one| one.strength)
        .max()
        .map_or(approval.strength(), |best| best.max(approval.strength()))
}

impl Enrollment {
    /// What the enrollment is after this change.
    pub(super) fn after(
        before: Option<&Self>,
        approval: &Approval,
        ruling: Ruling,
        source: &str,
        now: Timestamp,
    ) -> Self {
        let mut before = before.cloned();
        if let Some(before) = before.as_mut().filter(|_| ruling.promotes) {
            before.promote(now);
        }
        match (ruling.change, before) {
            (Change::Repeat | Change::RepeatNext, Some(before)) => before,
            (Change::Renew | Change::Outrun, Some(before)) => {
                let mut renewed = Self::decided(Some(&before), approval, ruling, source, now);
                if let Some(next) = before.next.filter(|_| !ruling.change.revokes()) {
                    renewed.supersede(&next, now);
                }
                let issue = std::mem::replace(&mut renewed.current, before.current);
                renewed.strength = before.strength;
                renewed.next = Some(issue);
                renewed
            }
            (_, before) => Self::decided(before.as_ref(), approval, ruling, source, now),
        }
    }

    /// The enrollment as this approval has it, with its order in the place of all others.
    fn decided(
        before: Option<&Self>,
        approval: &Approval,
        ruling: Ruling,
        source: &str,
        now: Timestamp,
    ) -> Self {
        let is_join = !matches!(ruling.change, Change::Renew | Change::Outrun);
        let strength = strongest(before, approval);
        let floor = before.map_or(approval.epoch(), |one| one.floor.max(approval.epoch()));
        let grant = before.and_then(|one| one.grant.clone()).filter(|_| !ruling.uses_grant);
        let mut enrollment = Self {
            subject: approval.subject().clone(),
            slot: approval.slot().to_owned(),
            node_id: approval.subject().node_id(approval.slot()),
            state: State::Bound,
            floor,
            epoch: approval.epoch(),
            strength,
            method: approval.method().to_owned(),
            policy: approval.policy().to_string(),
            policy_hash: approval.policy_hash().clone(),
            rule: approval.rule().name.clone(),
            roles: approval.roles().to_vec(),
            labels: approval
                .labels()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            claims: approval.claims().values().to_json_text(),
            current: Issue::of(approval, strength),
            next: None,
            // What is revoked has an entry of its own and is kept no longer.
            superseded: before
                .filter(|_| !ruling.change.revokes())
                .map(|one| one.superseded.clone())
                .unwrap_or_default(),
            grant,
            rejoins: before
                .filter(|one| one.epoch == approval.epoch())
                .map_or(0, |one| one.rejoins)
                + u32::from(ruling.change == Change::Rejoin),
            token: approval
                .token()
                .map(TokenUse::from)
                .or_else(|| before.and_then(|one| one.token.clone())),
            come_backs: match (ruling.change, approval.token()) {
                (_, Some(_)) => 0,
                (Change::ComeBack, None) => before.map_or(0, |one| one.come_backs) + 1,
                (_, None) => before.map_or(0, |one| one.come_backs),
            },
            created_at: before.map_or(now, |one| one.created_at),
            renewed_at: now,
            source: source.to_owned(),
            history: before.map(|one| one.history.clone()).unwrap_or_default(),
        };
        let gives_up = is_join && !ruling.change.revokes();
        for issue in before.into_iter().filter(|_| gives_up).flat_map(Self::issues) {
            enrollment.supersede(issue, now);
        }
        let (order, what) = (approval.order(), ruling.change.in_history());
        enrollment.log(now, what, Some(order.serial), order.public_key.digest(), None);
        enrollment
    }

    /// The node has shown that it has the next certificate: from now on that is the one in use.
    fn promote(&mut self, now: Timestamp) {
        if let Some(next) = self.next.take() {
            let last = std::mem::replace(&mut self.current, next);
            self.strength = self.current.strength;
            self.supersede(&last, now);
        }
    }

    /// The certificate in use, and the one that follows it.
    pub fn issues(&self) -> impl Iterator<Item = &Issue> {
        std::iter::once(&self.current).chain(&self.next)
    }

    pub(super) fn issue(&self, which: Which) -> &Issue {
        match (which, &self.next) {
            (Which::Next, Some(next)) => next,
            (Which::Next | Which::Current, _) => &self.current,
        }
    }

    /// The order of this serial, to keep its certificate.
    pub(super) fn issue_mut(&mut self, serial: Serial) -> Option<&mut Issue> {
        let issues = std::iter::once(&mut self.current).chain(&mut self.next);
        issues.into_iter().find(|issue| issue.order.serial == serial)
    }

    /// Which of its certificates was presented; none if its key was given up. An earlier one of a key
    /// that is still the node's is as good: the reply that brought the later one was lost (I5).
    pub(super) fn which(&self, presented: &PresentedCertificate) -> Option<Which> {
        let earlier = self.superseded.iter().find(|one| {
            one.serial == presented.serial
                && one.fingerprint.as_ref() == Some(&presented.fingerprint)
        });
        let is_of = |issue: &Issue| {
            issue.is(presented) || earlier.is_some_and(|one| one.key == issue.key())
        };
        if is_of(&self.current) {
            Some(Which::Current)
        } else if self.next.as_ref().is_some_and(is_of) {
            Some(Which::Next)
        } else {
            None
        }
    }

    /// Whether a certificate that was the node's is so no more by another key's taking its place, which
    /// revoked it; what the node gave up by itself is kept in mind until it ends.
    pub(super) fn has_revoked(&self, serial: Serial) -> bool {
        let held = self.issues().map(|issue| issue.order.serial);
        held.chain(self.superseded.iter().map(|one| one.serial)).all(|known| known != serial)
    }

    /// Whether it has so many certificates that no more are made before some end.
    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        let alive = self.superseded.iter().filter(|one| one.not_after > now).count();
        alive >= SUPERSEDED_LENGTH
    }

    /// Every certificate that is not revoked and has not ended: serial, end and policy.
    pub(super) fn alive(&self, now: Timestamp) -> impl Iterator<Item = (Serial, Timestamp, &str)> {
        let held =
            self.issues().map(|one| (one.order.serial, one.order.not_after, one.policy.as_str()));
        let given_up =
            self.superseded.iter().map(|one| (one.serial, one.not_after, one.policy.as_str()));
        held.chain(given_up).filter(move |(_, not_after, _)| *not_after >= now)
    }

    /// The key that is bound.
    pub fn key(&self) -> KeyDigest {
        self.current.key()
    }

    /// The key that follows it, if there is one.
    pub fn next_key(&self) -> Option<KeyDigest> {
        self.next.as_ref().map(Issue::key)
    }

    /// The grant, if it has not ended.
    pub fn active_grant(&self, now: Timestamp) -> Option<&Grant> {
        self.grant.as_ref().filter(|grant| now <= grant.until)
    }

    pub(super) fn forget(&mut self, until: Timestamp, reason: &str, now: Timestamp) {
        self.state = State::Forgotten { until };
        self.floor = self.floor.max(self.epoch);
        self.grant = None;
        self.next = None;
        self.superseded.clear();
        self.log(now, "forgotten", None, self.key(), Some(reason));
    }

    pub(super) fn raise_floor(&mut self, floor: Timestamp, now: Timestamp) {
        self.floor = self.floor.max(floor);
        self.log(now, "a later start was seen", None, self.key(), None);
    }

    pub(super) fn allow_rejoin(&mut self, until: Timestamp, reason: &str, now: Timestamp) {
        self.grant = Some(Grant { until, reason: reason.to_owned() });
        self.log(now, "rejoin allowed", None, self.key(), Some(reason));
    }

    fn supersede(&mut self, issue: &Issue, now: Timestamp) {
        let serial = issue.order.serial;
        self.superseded.retain(|one| one.not_after > now && one.serial != serial);
        self.superseded.push(Superseded {
            serial,
            not_after: issue.order.not_after,
            key: issue.key(),
            fingerprint: issue.fingerprint.clone(),
            policy: issue.policy.clone(),
        });
    }

    fn log(
        &mut self,
        time: Timestamp,
        what: &str,
        serial: Option<Serial>,
        key: KeyDigest,
        reason: Option<&str>,
    ) {
        let reason = reason.map(str::to_owned);
        self.history.push(Event { time, what: what.to_owned(), serial, key, reason });
        let surplus = self.history.len().saturating_sub(HISTORY_LENGTH);
        self.history.drain(..surplus);
    }
}

//! Who may renew an enrollment: two-phase, the certificate is the counter (red team N2). Pure.
//!
//! Over the certificate in use a next one is made; asking again for the same new key gives the same
//! one, so a lost reply locks nobody out (I5). The first use of the next one puts it in the place of
//! the other. Any other certificate of the node, or a second new key, shows that there are two of it.

use super::PresentedCertificate;
use super::View;
use super::enrollment::{Enrollment, State, Which};
use super::rules::{self, Change, Conflict, Ruling};
use crate::domain::{Code, KeyDigest, Timestamp};
use crate::policy::{Approval, Strength};

/// What can be refused before anybody is asked for a proof.
pub(super) fn refuse_early(
    view: &View,
    place: &str,
    presented: &PresentedCertificate,
    new_key: KeyDigest,
    epoch: Timestamp,
) -> Result<(), Box<Conflict>> {
    let (enrollment, which) = standing(view, presented)?;
    if epoch < enrollment.floor {
        let message = format!("a later run of the instance than that of {epoch} is known");
        return Err(Conflict::new(Code::EpochStale, &message, Some(enrollment)));
    }
    let shown = enrollment.issue(which).key();
    if new_key == enrollment.key() || new_key == shown {
        let message = "a renewal is for a new key, and this one is in use";
        return Err(Conflict::new(Code::KeyInUse, message, Some(enrollment)));
    }
    match view.key_holder() {
        Some((holder, false)) if holder == place => Ok(()),
        Some((holder, true)) if holder == place => Err(Conflict::new(
            Code::KeyInUse,
            "this key was given up and is never valid again; the agent makes another",
            Some(enrollment),
        )),
        Some(_) => Err(Conflict::new(
            Code::KeyInUse,
            "another instance is enrolled with this key",
            Some(enrollment),
        )),
        None => Ok(()),
    }
}

/// The enrollment, and which of its certificates was presented.
fn standing<'v>(
    view: &'v View,
    presented: &PresentedCertificate,
) -> Result<(&'v Enrollment, Which), Box<Conflict>> {
    let Some(enrollment) = view.enrollment().filter(|one| one.state == State::Bound) else {
        let message = "the certificate is of no enrollment that stands: it was forgotten";
        return Err(Conflict::new(Code::NodeUnknown, message, view.enrollment()));
    };
    let which = enrollment.which(presented).ok_or_else(|| {
        let message = "a certificate was shown that this node has given up: somebody has a copy of \
                       its state directory, or it was restored from a snapshot";
        let mut conflict = Conflict::new(Code::CloneSuspected, message, Some(enrollment));
        conflict.is_put_out = enrollment.has_revoked(presented.serial);
        conflict
    })?;
    Ok((enrollment, which))
}

/// The whole table.
pub(super) fn admit(
    view: &View,
    place: &str,
    presented: &PresentedCertificate,
    approval: &Approval,
    now: Timestamp,
) -> Result<Ruling, Box<Conflict>> {
    let new_key = approval.order().public_key.digest();
    view.refuse_locked(now)?;
    refuse_early(view, place, presented, new_key, approval.epoch())?;
    rules::refuse_earlier_run(view.enrollment(), approval)?;
    let (enrollment, which) = standing(view, presented)?;
    let ruling = rules::bounded(enrollment, Ruling::of(Change::Renew), now);
    let next = match which {
        Which::Next => return Ok(Ruling { promotes: true, ..ruling? }),
        Which::Current => enrollment.next.as_ref(),
    };
    match next {
        None => ruling,
        Some(next) if next.key() == new_key => {
            let repeats = rules::is_worth_repeating(enrollment, next, approval, now);
            if repeats { Ok(Ruling::of(Change::RepeatNext)) } else { ruling }
        }
        // The one that proves itself afresh goes on; without a proof nobody can tell which is the
        // node (T56).
        Some(_) if approval.strength() == Strength::Proof => Ok(Ruling::of(Change::Outrun)),
        Some(_) => Err(Conflict::new(
            Code::CloneSuspected,
            "two keys ask to follow one certificate, and none comes with a proof: there are two of \
             this node",
            Some(enrollment),
        )),
    }
}

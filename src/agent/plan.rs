//! When the agent asks next, and for what: a pure function of what the node holds, of how the last
//! attempt ended, and of the time.

use std::time::Duration;

use super::state::NodeRecord;
use crate::domain::{Class, Code, Lifetime, Timestamp};

/// No two attempts are closer than this, whatever happens.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// An outage: the first pause at most, and every later one.
const OUTAGE_FIRST: Duration = Duration::from_secs(1);
const OUTAGE_MAX: Duration = Duration::from_secs(30);
/// A refusal. Policies get mended, so the node goes on, and rarely.
const DENIAL_FIRST: Duration = Duration::from_secs(10);
const DENIAL_MAX: Duration = Duration::from_mins(10);
/// How often "stale" may follow itself without a longer pause.
const STALE_MAX: u32 = 2;
/// After a success the next attempt is at least this part of what is left of a certificate when it is
/// due away, about a ninth of its life: where the machine's clock is wrong, a new certificate can look
/// as if it were due.
const REST_PART: i64 = 3;

/// What to ask the server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A first certificate, or one after a certificate that ended or is no longer accepted.
    Join,
    /// The next certificate, with the current one.
    Renew,
}

/// What the node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// The record beside its certificate, if it has one.
    pub(super) record: Option<NodeRecord>,
    /// Whether a key waits to join afresh: the server has given up the certificate's enrollment.
    pub(super) starts_over: bool,
}

impl Held {
    /// The certificate that the node can still show.
    pub(super) fn usable(&self, now: Timestamp) -> Option<&NodeRecord> {
        self.record.as_ref().filter(|record| record.not_after > now)
    }
}

/// How the last attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// There was none: the agent has just started.
    None,
    /// With a certificate.
    Success,
    /// With a refusal or an outage.
    Failure(Failure),
}

/// A failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// What was asked for.
    pub(super) step: Step,
    /// Why there was none.
    pub(super) code: Code,
    /// How long the server asked to wait.
    pub(super) retry_after: Duration,
    /// How many attempts have failed since the last success, with this one.
    pub(super) count: u32,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    /// What to ask for.
    pub(super) step: Step,
    /// When.
    pub(super) at: Timestamp,
    /// Not before this, even if somebody is in a hurry: the server asked to wait.
    pub(super) earliest: Timestamp,
}

/// Decides. `luck` is a random number from 0 to 1, so that a crowd spreads.
pub(super) fn next(held: &Held, last: Last, now: Timestamp, luck: f64) -> Next {
    let luck = luck.clamp(0.0, 1.0);
    let (at, earliest) = match last {
        Last::None => match held.usable(now) {
            Some(record) if !held.starts_over => (due(record, luck).max(now), now),
            _ => (now, now),
        },
        Last::Success => {
            let rest = held.record.as_ref().map_or(PAUSE_MIN, rest);
            let renewal = held.record.as_ref().map_or(now, |record| due(record, luck));
            (renewal.max(after(now, rest)), after(now, PAUSE_MIN))
        }
        Last::Failure(failure) => {
            let asked = failure.retry_after;
            let pause = pause(&failure, luck).max(PAUSE_MIN);
            (after(now, asked.saturating_add(pause)), after(now, asked.max(PAUSE_MIN)))
        }
    };
    Next { step: step(held, last, at), at, earliest }
}

/// What to ask for at a time; asked again when the time has come, because a machine may sleep
/// through the end of its certificate.
pub(super) fn step(held: &Held, last: Last, at: Timestamp) -> Step {
    if held.starts_over || held.usable(at).is_none() {
        return Step::Join;
    }
    match last {
        // A renewal that was refused: the policy may have another name now, or the server no longer
        // takes the certificate. One join finds out; after it renewals have their turn again.
        Last::Failure(Failure { step: Step::Renew, code, .. }) if is_final_word(code) => Step::Join,
        Last::None | Last::Success | Last::Failure(_) => Step::Renew,
    }
}

/// Whether the server has refused in a way that another renewal would not change. What the node
/// itself found wrong (`SERVER_UNTRUSTED`, a source of tokens that it may not read) says nothing of the next renewal, and a
/// key that is taken is replaced.
fn is_final_word(code: Code) -> bool {
    let is_own = [
        Code::ServerUntrusted,
        Code::ResultRejected,
        Code::StateUnusable,
        Code::TokenSourceDenied,
        Code::TokenMalformed,
    ];
    let is_refusal = matches!(code.class(), Class::Denied | Class::Invalid);
    is_refusal && code != Code::KeyInUse && !is_own.contains(&code)
}

/// When a certificate is renewed: at its time, give or take a tenth of the way there, and while it
/// still counts. A certificate begins before it was issued, for clocks that are behind, so a short
/// one is held to a quarter of what is left of it then.
fn due(record: &NodeRecord, luck: f64) -> Timestamp {
    let interval = record.renew_after.since(record.not_before);
    let spread = interval.fraction(1, 10).min(time_left(record).fraction(1, 4));
    let earliest = record.renew_after.minus(spread);
    let range = seconds(spread).saturating_mul(2);
    after(earliest, range.mul_f64(luck)).min(record.not_after)
}

/// How much of a certificate is left when it is due.
fn time_left(record: &NodeRecord) -> Lifetime {
    record.not_after.since(record.renew_after)
}

fn rest(record: &NodeRecord) -> Duration {
    seconds(time_left(record).fraction(1, REST_PART)).clamp(PAUSE_MIN, DENIAL_MAX)
}

/// Full jitter: anything from nothing to a bound that doubles.
fn pause(failure: &Failure, luck: f64) -> Duration {
    let doubled = |first: Duration, max: Duration, count: u32| {
        first.saturating_mul(1 << count.saturating_sub(1).min(16)).min(max)
    };
    let count = failure.count;
    let is_first_refusal = failure.step == Step::Renew && is_final_word(failure.code);
    let most = match failure.code.class() {
        // The join that follows is another question than the renewal that was refused.
        Class::Denied | Class::Invalid if is_first_refusal => DENIAL_FIRST,
        Class::Denied | Class::Invalid => doubled(DENIAL_FIRST, DENIAL_MAX, count),
        Class::Stale if count <= STALE_MAX => PAUSE_MIN,
        Class::Stale | Class::Throttled | Class::Unavailable => {
            doubled(OUTAGE_FIRST, OUTAGE_MAX, count)
        }
    };
    most.mul_f64(luck)
}

/// Later by a time of which a part of a second counts whole.
fn after(time: Timestamp, length: Duration) -> Timestamp {
    let whole = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    time.plus(Lifetime::from_seconds(u32::try_from(whole).unwrap_or(u32::MAX)))
}

fn seconds(span: Lifetime) -> Duration {
    Duration::from_secs(u64::try_from(span.seconds()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::agent::method::Method;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    /// A certificate of twelve hours that began some time ago.
    fn record(age: Lifetime) -> NodeRecord {
        let not_before = NOW.minus(age);
        NodeRecord {
            node_id: "n-1".to_owned(),
            spiffe_id: "spiffe://a.example/node".to_owned(),
            method: Method::Ec2,
            policy: "web".to_owned(),
            serial: "01".to_owned(),
            not_before,
            not_after: not_before.plus(Lifetime::from_hours(12)),
            renew_after: not_before.plus(Lifetime::from_hours(8)),
        }
    }

    fn held(age_in_hours: u32) -> Held {
        Held { record: Some(record(Lifetime::from_hours(age_in_hours))), starts_over: false }
    }

    fn failed(step: Step, code: Code, count: u32) -> Last {
        Last::Failure(Failure { step, code, retry_after: Duration::ZERO, count })
    }

    fn in_seconds(count: u32) -> Timestamp {
        NOW.plus(Lifetime::from_seconds(count))
    }

    #[test]
    fn a_start_asks_only_if_it_must() {
        let nothing = Held { record: None, starts_over: false };
        let lost = Held { starts_over: true, ..held(1) };
        for (held, step, at) in [
            (nothing, Step::Join, NOW),
            (held(13), Step::Join, NOW),
            (lost, Step::Join, NOW),
            (held(10), Step::Renew, NOW),
            (held(1), Step::Renew, NOW.plus(Lifetime::from_hours(7))),
        ] {
            let next = next(&held, Last::None, NOW, 0.5);
            assert_eq!((next.step, next.at), (step, at), "{held:?}");
        }
    }

    #[test]
    fn what_follows_a_failed_renewal() {
        for (code, step) in [
            (Code::ServerUnreachable, Step::Renew),
            (Code::PolicySetChanged, Step::Renew),
            (Code::ServerClockWrong, Step::Renew),
            (Code::KeyInUse, Step::Renew),
            (Code::StateUnusable, Step::Renew),
            (Code::ServerUntrusted, Step::Renew),
            (Code::NotAdmitted, Step::Join),
            (Code::CertificateRequired, Step::Join),
            (Code::NodeUnknown, Step::Join),
            (Code::CloneSuspected, Step::Join),
        ] {
            assert_eq!(next(&held(9), failed(Step::Renew, code, 1), NOW, 0.5).step, step, "{code}");
            // When the certificate has ended there is nothing to renew.
            let ended = next(&held(12), failed(Step::Renew, code, 1), NOW, 0.5);
            assert_eq!(ended.step, Step::Join, "{code}");
        }
        let refused = next(&held(9), failed(Step::Join, Code::NotAdmitted, 2), NOW, 0.5);
        assert_eq!(refused.step, Step::Renew, "they take turns while the certificate lives");
    }

    #[test]
    fn outages_are_tried_often_and_refusals_rarely() {
        let longest = |code, count| next(&held(13), failed(Step::Join, code, count), NOW, 1.0).at;
        for (count, outage, denial) in [(1, 1, 10), (2, 2, 20), (5, 16, 160), (9, 30, 600)] {
            assert_eq!(longest(Code::ServerUnreachable, count), in_seconds(outage));
            assert_eq!(longest(Code::NotAdmitted, count), in_seconds(denial));
        }
        assert_eq!(longest(Code::ChallengeExpired, 1), in_seconds(1));
        assert_eq!(longest(Code::ChallengeExpired, 40), in_seconds(30));
    }

    #[test]
    fn a_new_certificate_that_looks_due_is_not_asked_for_at_once() {
        // The clock of this machine is nine hours ahead.
        let next = next(&held(9), Last::Success, NOW, 0.5);
        assert_eq!(next.at, in_seconds(600));
    }

    // What a server issues for some seconds, which begins a minute ago.
    #[test]
    fn a_certificate_of_seconds_is_renewed_in_time() {
        let record = NodeRecord {
            not_before: NOW.minus(Lifetime::from_seconds(60)),
            not_after: in_seconds(12),
            renew_after: in_seconds(8),
            ..record(Lifetime::from_hours(0))
        };
        let held = Held { record: Some(record), starts_over: false };
        for luck in [0.0, 0.5, 1.0] {
            let at = next(&held, Last::Success, NOW, luck).at;
            assert!((in_seconds(7)..=in_seconds(9)).contains(&at), "{luck}: {at}");
        }
    }

    fn codes() -> impl Strategy<Value = Code> {
        prop::sample::select(Code::ALL)
    }

    fn lasts() -> impl Strategy<Value = Last> {
        let steps = prop_oneof![Just(Step::Join), Just(Step::Renew)];
        let failure =
            (steps, codes(), 0u64..5000, 1u32..100).prop_map(|(step, code, retry_after, count)| {
                let retry_after = Duration::from_secs(retry_after);
                Last::Failure(Failure { step, code, retry_after, count })
            });
        prop_oneof![Just(Last::None), Just(Last::Success), failure]
    }

    fn anything() -> impl Strategy<Value = Held> {
        let ages = prop::option::of((0u32..100_000).prop_map(Lifetime::from_seconds));
        (ages, any::<bool>())
            .prop_map(|(age, starts_over)| Held { record: age.map(record), starts_over })
    }

    proptest! {
        // It never spins, keeps to what the server asks, never gives up, and never shows a
        // certificate that has ended.
        #[test]
        fn it_neither_spins_nor_sleeps_for_ever(
            held in anything(), last in lasts(), luck in 0.0f64..=1.0,
        ) {
            let next = next(&held, last, NOW, luck);
            prop_assert!(next.earliest <= next.at && NOW <= next.at);
            match last {
                Last::None => {}
                Last::Success => prop_assert!(next.at > NOW),
                Last::Failure(Failure { retry_after, .. }) => {
                    let asked = NOW.plus(Lifetime::from_seconds(
                        u32::try_from(retry_after.as_secs()).unwrap(),
                    ));
                    prop_assert!(next.at > asked && next.earliest >= asked);
                    prop_assert!(next.at <= asked.plus(Lifetime::from_minutes(10)));
                }
            }
            if next.step == Step::Renew {
                prop_assert!(!held.starts_over && held.usable(next.at).is_some());
            }
        }

        #[test]
        fn renewals_spread_by_a_tenth(luck in 0.0f64..=1.0) {
            let next = next(&held(0), Last::Success, NOW, luck);
            let middle = NOW.plus(Lifetime::from_hours(8));
            prop_assert!(next.at >= middle.minus(Lifetime::from_minutes(48)));
            // Parts of a second count whole.
            let latest = middle.plus(Lifetime::from_minutes(48)).plus(Lifetime::from_seconds(1));
            prop_assert!(next.at <= latest);
            prop_assert_eq!(next.step, Step::Renew);
        }
    }

    #[test]
    fn the_whole_spread_is_used() {
        let at = |luck| next(&held(0), Last::Success, NOW, luck).at;
        assert_eq!(at(0.0), NOW.plus(Lifetime::from_minutes(432)));
        assert_eq!(at(1.0), NOW.plus(Lifetime::from_minutes(528)));
    }
}

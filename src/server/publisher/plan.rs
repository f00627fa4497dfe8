//! What is to be done for one target of a publication, from what is on record and what the policy
//! says. Pure.

use crate::domain::{Lifetime, PolicyName, Timestamp};
use crate::registry::{Publication, PublicationPlace};

/// What the policy in force says of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) policy: PolicyName,
    pub(super) place: PublicationPlace,
    pub(super) period: Lifetime,
}

/// What else is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// The published token is on record: nobody has removed it.
    pub(super) is_current_alive: bool,
    /// Somebody wants a new token now.
    pub(super) is_asked: bool,
}

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A token was made, and the process or a call ended before it was known to be published: look
    /// whether it is.
    Recover,
    /// No policy wants this any more, or wants it elsewhere: revoke the tokens and clean up.
    Retire,
    /// The token before has had its time, or must make room for a new one.
    RevokePrevious,
    /// Publish a new token.
    Rotate,
    /// Nothing until then.
    Wait(Timestamp),
    /// Nothing, and nothing will be.
    Done,
}

/// The next step for a target.
pub(super) fn next(
    known: Option<&Publication>,
    wanted: Option<&Wanted>,
    circumstances: Circumstances,
    now: Timestamp,
) -> Step {
    let Some(known) = known else {
        return if wanted.is_some() { Step::Rotate } else { Step::Done };
    };
    let Some(wanted) = wanted else { return Step::Retire };
    if known.place != wanted.place || known.policy != wanted.policy {
        return Step::Retire;
    }
    if known.creating.is_some() {
        return Step::Recover;
    }
    let current = known.current.as_ref().filter(|_| circumstances.is_current_alive);
    let due_at = match current {
        Some(current) if !circumstances.is_asked => current.published_at.plus(wanted.period),
        Some(_) | None => now,
    };
    // Never more than two: the one before goes first.
    match &known.previous {
        Some(previous) if due_at <= now || previous.ends_at <= now => Step::RevokePrevious,
        Some(previous) => Step::Wait(due_at.min(previous.ends_at)),
        None if due_at <= now => Step::Rotate,
        None => Step::Wait(due_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{CreatingToken, OutgoingToken, PublishedToken};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const PERIOD: Lifetime = Lifetime::from_minutes(10);
    const CALM: Circumstances = Circumstances { is_current_alive: true, is_asked: false };

    fn place(parameter: &str) -> PublicationPlace {
        let region = "us-west-2".parse().unwrap();
        PublicationPlace { region, role: None, parameter: parameter.to_owned() }
    }

    fn wanted() -> Wanted {
        Wanted { policy: "web".parse().unwrap(), place: place("/muster/web"), period: PERIOD }
    }

    fn key() -> crate::domain::TokenKey {
        "00".repeat(32).parse().unwrap()
    }

    fn minutes(minutes: u32) -> Lifetime {
        Lifetime::from_minutes(minutes)
    }

    /// With a current token that was published so many minutes ago.
    fn known(published: u32) -> Publication {
        Publication {
            name: "web".parse().unwrap(),
            target: "aws/us-west-2/own".to_owned(),
            policy: "web".parse().unwrap(),
            place: place("/muster/web"),
            creating: None,
            current: Some(PublishedToken {
                token: "web-2".parse().unwrap(),
                key: key(),
                expires_at: NOW.plus(minutes(30)),
                published_at: NOW.minus(minutes(published)),
                arn: "arn".to_owned(),
                version: 2,
            }),
            previous: None,
        }
    }

    fn with_previous(publication: Publication, ends_in: u32) -> Publication {
        let previous =
            OutgoingToken { token: "web-1".parse().unwrap(), ends_at: NOW.plus(minutes(ends_in)) };
        Publication { previous: Some(previous), ..publication }
    }

    fn creating(publication: Publication) -> Publication {
        let creating = CreatingToken {
            token: "web-3".parse().unwrap(),
            key: key(),
            expires_at: NOW.plus(minutes(30)),
        };
        Publication { creating: Some(creating), ..publication }
    }

    type Row = (&'static str, Option<Publication>, Option<Wanted>, Circumstances, Step);

    #[test]
    fn every_state_has_its_step() {
        let asked = Circumstances { is_asked: true, ..CALM };
        let gone = Circumstances { is_current_alive: false, ..CALM };
        let moved = Publication { place: place("/other"), ..known(1) };
        let other = Publication { policy: "api".parse().unwrap(), ..known(1) };
        let never = Publication { current: None, ..known(1) };
        let at = |in_minutes| Step::Wait(NOW.plus(minutes(in_minutes)));
        let rows: [Row; 18] = [
            ("a new one", None, Some(wanted()), CALM, Step::Rotate),
            ("none and nothing", None, None, CALM, Step::Done),
            ("fresh", Some(known(4)), Some(wanted()), CALM, at(6)),
            ("due", Some(known(10)), Some(wanted()), CALM, Step::Rotate),
            ("overdue", Some(known(600)), Some(wanted()), CALM, Step::Rotate),
            ("asked", Some(known(1)), Some(wanted()), asked, Step::Rotate),
            ("removed by hand", Some(known(1)), Some(wanted()), gone, Step::Rotate),
            ("never published", Some(never.clone()), Some(wanted()), CALM, Step::Rotate),
            ("overlap", Some(with_previous(known(1), 4)), Some(wanted()), CALM, at(4)),
            (
                "overlap over",
                Some(with_previous(known(1), 0)),
                Some(wanted()),
                CALM,
                Step::RevokePrevious,
            ),
            (
                "due in the overlap",
                Some(with_previous(known(10), 4)),
                Some(wanted()),
                CALM,
                Step::RevokePrevious,
            ),
            (
                "asked in the overlap",
                Some(with_previous(known(1), 4)),
                Some(wanted()),
                asked,
                Step::RevokePrevious,
            ),
            ("killed at first", Some(creating(never)), Some(wanted()), CALM, Step::Recover),
            ("killed later", Some(creating(known(10))), Some(wanted()), CALM, Step::Recover),
            ("killed and asked", Some(creating(known(1))), Some(wanted()), asked, Step::Recover),
            ("vanished", Some(creating(known(1))), None, CALM, Step::Retire),
            ("moved", Some(moved), Some(wanted()), CALM, Step::Retire),
            ("of another policy", Some(other), Some(wanted()), CALM, Step::Retire),
        ];
        for (what, publication, wanted, circumstances, expected) in rows {
            let step = next(publication.as_ref(), wanted.as_ref(), circumstances, NOW);
            assert_eq!(step, expected, "{what}");
        }
    }

    // Never more than two: a token is made only where one lives, and none is on its way out.
    #[test]
    fn a_token_is_made_only_when_at_most_one_lives() {
        for published in [0, 5, 10, 20] {
            for (has_previous, is_creating) in [(true, false), (false, true), (true, true)] {
                for is_asked in [true, false] {
                    let mut one = known(published);
                    if has_previous {
                        one = with_previous(one, 3);
                    }
                    if is_creating {
                        one = creating(one);
                    }
                    let circumstances = Circumstances { is_asked, ..CALM };
                    let step = next(Some(&one), Some(&wanted()), circumstances, NOW);
                    assert_ne!(step, Step::Rotate, "{one:?}");
                }
            }
        }
    }
}

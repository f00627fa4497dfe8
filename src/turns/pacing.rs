//! What keeps a place free for nodes that are on their way. A fair queue shares among those who wait
//! at this moment, and a node does not wait at every moment: its messages travel. A crowd does, so it
//! would be served in each of these gaps. While a trusted network is at work, distrusted ones get the
//! share of one of them, all together, also if nobody else waits. Pure: no clock, no waiting.

use std::time::Duration;

use super::Standing;

/// The part of everything that is for distrusted networks then: what the lightest weighs.
pub(super) const PART: u32 = 16;
/// A network is at work until so long after it was last in line or served: what a node's message and
/// our answer take between two continents.
const AT_WORK: Duration = Duration::from_millis(250);
/// A turn that took far longer than any should, as on a machine that was suspended, is not repaid.
const REST_MAX: Duration = Duration::from_millis(500);

/// How distrusted networks are held back. Times are since any one moment.
#[derive(Debug)]
pub(super) struct Pacing {
    /// How many of them are served at once while they are held back: one, if their part is less.
    distrusted_max: usize,
    /// Where their part is less than one, how long they rest for what a turn took.
    rest_for_turn: u32,
    distrusted: usize,
    trusted: usize,
    /// Until when a trusted network is at work, if it does nothing more.
    at_work_until: Duration,
    rests_until: Duration,
}

impl Pacing {
    pub(super) fn new(at_once: usize) -> Self {
        let at_once = u32::try_from(at_once).unwrap_or(u32::MAX).max(1);
        Self {
            distrusted_max: usize::try_from(at_once / PART).unwrap_or(usize::MAX).max(1),
            rest_for_turn: (PART / at_once).saturating_sub(1),
            distrusted: 0,
            trusted: 0,
            at_work_until: Duration::ZERO,
            rests_until: Duration::ZERO,
        }
    }

    /// Somebody got in line.
    pub(super) fn asked(&mut self, standing: Standing, now: Duration) {
        if standing == Standing::Trusted {
            self.at_work_until = now + AT_WORK;
        }
    }

    /// A turn began.
    pub(super) fn began(&mut self, standing: Standing) {
        match standing {
            Standing::Distrusted => self.distrusted += 1,
            Standing::Unknown => {}
            Standing::Trusted => self.trusted += 1,
        }
    }

    /// A turn is over that began with this standing.
    pub(super) fn ended(&mut self, standing: Standing, cost: Duration, now: Duration) {
        match standing {
            Standing::Distrusted => {
                self.distrusted = self.distrusted.saturating_sub(1);
                if self.is_trusted_at_work(now) {
                    let rest = cost.saturating_mul(self.rest_for_turn).min(REST_MAX);
                    self.rests_until = self.rests_until.max(now + rest);
                }
            }
            Standing::Unknown => {}
            Standing::Trusted => {
                self.trusted = self.trusted.saturating_sub(1);
                self.at_work_until = now + AT_WORK;
            }
        }
    }

    /// Whether distrusted networks have no more than their part now.
    pub(super) fn is_trusted_at_work(&self, now: Duration) -> bool {
        self.trusted > 0 || now < self.at_work_until
    }

    /// Whether nobody of a distrusted network is to be served now.
    pub(super) fn holds_back(&self, now: Duration) -> bool {
        self.is_trusted_at_work(now)
            && (self.distrusted >= self.distrusted_max || now < self.rests_until)
    }

    /// When they may be served again if nothing begins and nothing ends before; `None` if something
    /// has to end.
    pub(super) fn lets_go_at(&self) -> Option<Duration> {
        let rested = (self.distrusted < self.distrusted_max).then_some(self.rests_until);
        let gone = (self.trusted == 0).then_some(self.at_work_until);
        match (rested, gone) {
            (Some(rested), Some(gone)) => Some(rested.min(gone)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// How long distrusted turns of a millisecond take of a second in which a trusted network is at
    /// work, with as many at once as are let.
    fn used(at_once: usize) -> Duration {
        let mut pacing = Pacing::new(at_once);
        let mut used = Duration::ZERO;
        for now in (0..1000).map(|now| now * MILLISECOND) {
            pacing.asked(Standing::Trusted, now);
            let mut served = 0;
            while !pacing.holds_back(now) {
                pacing.began(Standing::Distrusted);
                served += 1;
            }
            for _ in 0..served {
                pacing.ended(Standing::Distrusted, MILLISECOND, now + MILLISECOND);
                used += MILLISECOND;
            }
        }
        used
    }

    #[test]
    fn the_part_is_a_sixteenth_however_many_are_served_at_once() {
        for at_once in [1, 2, 4, 8, 16, 64, 448] {
            let part = used(at_once).as_secs_f64() / f64::from(u32::try_from(at_once).unwrap());
            assert!((0.06..=0.065).contains(&part), "{at_once}: {part}");
        }
        // Between these the part is one turn at once: 3 of 48, 1 of 3 with a rest of 4.
        for at_once in [3, 5, 12, 31, 40] {
            let part = used(at_once).as_secs_f64() / f64::from(u32::try_from(at_once).unwrap());
            assert!((0.03..=0.125).contains(&part), "{at_once}: {part}");
        }
    }

    #[test]
    fn nobody_is_held_back_when_no_trusted_network_is_at_work() {
        let mut pacing = Pacing::new(1);
        for standing in [Standing::Distrusted, Standing::Unknown] {
            for _ in 0..10 {
                assert!(!pacing.holds_back(MILLISECOND));
                pacing.asked(standing, MILLISECOND);
                pacing.began(standing);
            }
            pacing.ended(standing, MILLISECOND, MILLISECOND);
        }
        pacing.asked(Standing::Trusted, MILLISECOND);
        assert!(pacing.holds_back(MILLISECOND));
        let gone = MILLISECOND + AT_WORK;
        assert_eq!(pacing.lets_go_at(), Some(gone));
        assert!(pacing.holds_back(gone.saturating_sub(Duration::from_nanos(1))));
        assert!(!pacing.holds_back(gone));
    }

    #[test]
    fn a_trusted_turn_holds_until_it_is_over_and_a_while() {
        let mut pacing = Pacing::new(1);
        pacing.asked(Standing::Trusted, Duration::ZERO);
        pacing.began(Standing::Trusted);
        pacing.began(Standing::Distrusted);
        assert_eq!(pacing.lets_go_at(), None, "somebody's turn has to end");
        let later = AT_WORK * 4;
        assert!(pacing.holds_back(later));
        pacing.ended(Standing::Distrusted, MILLISECOND, later);
        assert_eq!(pacing.lets_go_at(), Some(later + 15 * MILLISECOND));
        pacing.ended(Standing::Trusted, MILLISECOND, later + MILLISECOND);
        assert!(pacing.holds_back(later + 2 * MILLISECOND));
        assert!(!pacing.holds_back(later + 15 * MILLISECOND), "it has rested");
    }

    #[test]
    fn no_turn_is_repaid_for_longer_than_half_a_second() {
        let mut pacing = Pacing::new(2);
        pacing.began(Standing::Trusted);
        pacing.began(Standing::Distrusted);
        pacing.ended(Standing::Distrusted, Duration::from_hours(1), Duration::ZERO);
        assert_eq!(pacing.lets_go_at(), Some(REST_MAX));
    }
}

//! One target of one publication: a task of its own, so that a failure here never delays another.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::Shared;
use super::board::TargetKey;
use super::failure::Failure;
use super::plan::{self, Circumstances, Step};
use super::spec::Spec;
use crate::domain::{Code, Lifetime, Timestamp, Token};
use crate::policy::TokenTerms;
use crate::registry::{Lease, PublicationOnRecord};

/// How long until a failed step is tried again, doubling, with a part left to chance.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(1);
/// How often the record is looked at: an operator may remove the token.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the parameter is looked at: others may write there, and so may a call of before that was
/// given up on its way.
const VERIFY_EVERY: Lifetime = Lifetime::from_minutes(1);

/// Somebody who wants a new token now, and waits for it.
pub(super) type Ask = oneshot::Sender<Result<(), Failure>>;

/// What a task works on.
pub(super) struct Target {
    pub(super) shared: Arc<Shared>,
    pub(super) key: TargetKey,
    /// What the policy set wants; nothing, where tokens are left of a publication that is gone.
    pub(super) spec: Option<Spec>,
    pub(super) lease: Lease,
    /// When the parameter was last seen to hold the current token.
    pub(super) verified_at: Option<Timestamp>,
}

/// What a look came to.
enum Looked {
    /// A token was published.
    Published,
    /// Something was done, and there may be more.
    Stepped,
    /// Nothing until then.
    Waits(Timestamp),
    /// Nothing any more.
    Done,
}

impl Target {
    /// Does what is to be done, until nothing is or somebody ends the task.
    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut waiting: Vec<Ask> = Vec::new();
        let mut failures = 0;
        loop {
            while let Ok(ask) = asks.try_recv() {
                waiting.push(ask);
            }
            let pause = match self.look(!waiting.is_empty()).await {
                Ok(Looked::Done) => {
                    self.shared.board.forget(&self.key);
                    return;
                }
                Ok(Looked::Published) => {
                    failures = 0;
                    answer(&mut waiting, &Ok(()));
                    continue;
                }
                Ok(Looked::Stepped) => continue,
                Ok(Looked::Waits(until)) => {
                    failures = 0;
                    let seconds = until.since(self.shared.joins.clock.now()).seconds();
                    Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).min(LOOK_EVERY)
                }
                Err(failure) => {
                    if self.shared.board.went_wrong(&self.key, self.period(), &failure.message) {
                        let (publication, target) = &self.key;
                        error!(%publication, target, error = %failure, "a token was not published");
                    }
                    answer(&mut waiting, &Err(failure));
                    failures += 1;
                    backoff(failures)
                }
            };
            // Never a busy loop, whatever the clock says.
            let pause = pause.max(Duration::from_millis(100));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(ask) = asks.recv() => waiting.push(ask),
            }
        }
    }

    /// Looks at what is on record, and does the next step.
    async fn look(&mut self, is_asked: bool) -> Result<Looked, Failure> {
        // Bounds the calls to AWS at a time. The semaphore is never closed.
        let shared = Arc::clone(&self.shared);
        let _slot = shared.slots.acquire().await;
        let known = self.on_record().await?;
        let publication = known.as_ref().map(|known| &known.publication);
        let current = publication.and_then(|publication| publication.current.as_ref());
        let is_current_alive = match current {
            Some(current) => {
                let on_record = self.shared.joins.registry.find_token(&current.token).await?;
                on_record.is_some_and(|token| self.is_wanted(&token))
            }
            None => false,
        };
        let mut circumstances = Circumstances { is_current_alive, is_asked };
        let wanted = self.spec.as_ref().map(|spec| &spec.wanted);
        let now = self.now()?;
        let mut step = plan::next(publication, wanted, circumstances, now);
        if let (Step::Wait(_), Some(spec), Some(current)) = (step, &self.spec, current)
            && self.verified_at.is_none_or(|at| now.since(at) >= VERIFY_EVERY)
        {
            if self.read_back(spec, &current.key, &current.token).await?.is_some() {
                self.write_beside(spec, publication).await?;
                self.verified_at = Some(now);
            } else {
                warn!(publication = %self.key.0, target = self.key.1,
                    "the parameter does not hold the published token; a new one is published");
                circumstances.is_current_alive = false;
                step = plan::next(publication, wanted, circumstances, now);
            }
        }
        match (step, &self.spec, &known) {
            (Step::Rotate, Some(spec), known) => {
                self.rotate(spec, known.as_ref()).await?;
                self.verified_at = Some(now);
                info!(publication = %self.key.0, target = self.key.1, "a new token is published");
                return Ok(Looked::Published);
            }
            (Step::Recover, Some(spec), Some(known)) => self.recover(spec, known).await?,
            (Step::RevokePrevious, _, Some(known)) => self.revoke_previous(known).await?,
            (Step::Retire, _, Some(known)) => self.retire(known).await?,
            (Step::Wait(until), ..) => {
                let published_at = current.map(|current| current.published_at);
                self.shared.board.went_well(&self.key, self.period(), published_at);
                return Ok(Looked::Waits(until));
            }
            (
                Step::Done | Step::Rotate | Step::Recover | Step::RevokePrevious | Step::Retire,
                ..,
            ) => return Ok(Looked::Done),
        }
        Ok(Looked::Stepped)
    }

    /// Whether a token is what the policies in force want: terms that were narrowed hold at once.
    pub(super) fn is_wanted(&self, token: &Token) -> bool {
        self.spec.as_ref().is_none_or(|spec| {
            let TokenTerms { life, max_uses, cidrs, labels } = &spec.tokens;
            token.lifetime() == Some(*life)
                && token.max_uses == *max_uses
                && token.cidrs == *cidrs
                && token.labels == *labels
        })
    }

    fn period(&self) -> Option<Lifetime> {
        self.spec.as_ref().map(Spec::period)
    }

    pub(super) async fn on_record(&self) -> Result<Option<PublicationOnRecord>, Failure> {
        Ok(self.shared.joins.registry.publication(&self.key.0, &self.key.1).await?)
    }

    /// The time, if the clock can be believed: a token's end must mean what it says.
    pub(super) fn now(&self) -> Result<Timestamp, Failure> {
        let now = self.shared.joins.clock.now();
        if self.shared.joins.time_guard.see(now) {
            let message = "the clock is behind what it has said before";
            return Err(Failure::new(Code::ServerClockWrong, message));
        }
        Ok(now)
    }
}

fn answer(waiting: &mut Vec<Ask>, answer: &Result<(), Failure>) {
    for ask in waiting.drain(..) {
        let _gone = ask.send(answer.clone());
    }
}

/// Between half and all of a time that doubles with each failure.
fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(6));
    let most = doubled.min(BACKOFF_MAX);
    let mut byte = [0];
    // Without randomness it waits the least.
    let _zero = rand::fill(&mut byte);
    let [chance] = byte;
    most / 2 + most / 2 * u32::from(chance) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_target_is_tried_again_within_a_minute_and_not_at_once() {
        for (failures, most) in [(1, 1), (2, 2), (4, 8), (7, 60), (1000, 60)] {
            for _ in 0..100 {
                let pause = backoff(failures);
                let most = Duration::from_secs(most);
                assert!(most / 2 <= pause && pause <= most, "{failures}: {pause:?}");
            }
        }
    }
}

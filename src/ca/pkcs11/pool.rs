//! Sessions of a device that may be slow, hang, or go away and come back.
//!
//! Every call of a session blocks, so it has a thread of its own. There are as many places as
//! sessions, and a call keeps its place until it has really ended: a device that hangs holds up that
//! many threads and no more (I14).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::ca::IssueError;

/// What opens sessions.
pub(super) trait Device: Send + Sync + 'static {
    /// A session is used by one thread at a time.
    type Session: Send + 'static;

    /// Opens one; may block for as long as the device likes.
    fn open(&self) -> Result<Self::Session, String>;
}

/// Why something that was done with a session failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The session or the device; another session may do better.
    Session(String),
    /// What was asked for; it would fail again.
    Request(String),
}

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// For a free session.
    pub(super) wait: Duration,
    /// For the device, once there is one.
    pub(super) answer: Duration,
}

/// Sessions that are open and not in use, and places for those that are.
pub(super) struct Pool<D: Device> {
    device: Arc<D>,
    idle: Arc<Mutex<Vec<D::Session>>>,
    places: Arc<Semaphore>,
    bounds: Bounds,
}

impl<D: Device> Pool<D> {
    /// At most so many sessions at a time. None is opened yet.
    pub(super) fn new(device: D, sessions: usize, bounds: Bounds) -> Self {
        Self {
            device: Arc::new(device),
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(sessions)),
            bounds,
        }
    }

    /// Does some work with a session, on a thread of its own.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&D::Session) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, IssueError> {
        let unavailable = |why: &str| IssueError::Unavailable(why.to_owned());
        let place = timeout(self.bounds.wait, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| unavailable("all sessions of the token are in use"))?
            .map_err(|_| unavailable("the token is not used any more"))?;
        let (device, idle) = (Arc::clone(&self.device), Arc::clone(&self.idle));
        let task = spawn_blocking(move || {
            let _place = place;
            work_with_a_session(device.as_ref(), &idle, work)
        });
        let done = timeout(self.bounds.answer, task)
            .await
            .map_err(|_| unavailable("the token does not answer"))?
            .map_err(|_| unavailable("a call of the token's module panicked"))?;
        done.map_err(|failure| match failure {
            Failure::Session(why) => IssueError::Unavailable(why),
            Failure::Request(why) => IssueError::Refused(why),
        })
    }
}

/// Closing a session may hang as any call may, and whoever lets go of the pool does so at the end of
/// the process, which closes them all.
impl<D: Device> Drop for Pool<D> {
    fn drop(&mut self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.drain(..).for_each(std::mem::forget);
    }
}

/// A session that failed is dropped. If it was an old one, the token may have been away meanwhile:
/// one more try with a new one.
fn work_with_a_session<D: Device, T>(
    device: &D,
    idle: &Mutex<Vec<D::Session>>,
    work: impl Fn(&D::Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let take = || idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let keep = |session| idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    if let Some(old) = take() {
        let done = work(&old);
        if !matches!(done, Err(Failure::Session(_))) {
            keep(old);
            return done;
        }
    }
    let new = device.open().map_err(Failure::Session)?;
    let done = work(&new);
    if !matches!(done, Err(Failure::Session(_))) {
        keep(new);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(5), answer: Duration::from_secs(10) };

    /// Hands out numbers as sessions, counts them, and can be taken away.
    #[derive(Default)]
    struct Fake {
        opened: Arc<AtomicUsize>,
        is_away: Arc<AtomicBool>,
    }

    impl Device for Fake {
        type Session = usize;

        fn open(&self) -> Result<usize, String> {
            if self.is_away.load(Ordering::SeqCst) {
                return Err("no such token".to_owned());
            }
            Ok(self.opened.fetch_add(1, Ordering::SeqCst) + 1)
        }
    }

    #[tokio::test]
    async fn a_session_is_used_again_and_a_failed_one_is_not() {
        let fake = Fake::default();
        let (opened, is_away) = (Arc::clone(&fake.opened), Arc::clone(&fake.is_away));
        let pool = Pool::new(fake, 2, BOUNDS);
        assert_eq!(pool.run(|session| Ok(*session)).await, Ok(1));
        assert_eq!(pool.run(|session| Ok(*session)).await, Ok(1));

        // The token was taken out and put back: the old session fails, a new one works.
        let stale = |session: &usize| match session {
            1 => Err(Failure::Session("device removed".to_owned())),
            newer => Ok(*newer),
        };
        assert_eq!(pool.run(stale).await, Ok(2));

        // It is away: nothing works, nothing is kept, and it comes back by itself.
        is_away.store(true, Ordering::SeqCst);
        let broken = |_: &usize| -> Result<(), _> { Err(Failure::Session("gone".to_owned())) };
        let no_token = IssueError::Unavailable("no such token".to_owned());
        assert_eq!(pool.run(broken).await, Err(no_token.clone()));
        assert_eq!(pool.run(|session| Ok(*session)).await, Err(no_token));
        is_away.store(false, Ordering::SeqCst);
        assert_eq!(pool.run(|session| Ok(*session)).await, Ok(3));
        assert_eq!(opened.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_request_that_is_refused_costs_no_session() {
        let pool = Pool::new(Fake::default(), 1, BOUNDS);
        let refused: Result<(), _> =
            pool.run(|_| Err(Failure::Request("no such curve".to_owned()))).await;
        assert_eq!(refused, Err(IssueError::Refused("no such curve".to_owned())));
        assert_eq!(pool.run(|session| Ok(*session)).await, Ok(1));
    }

    // I14: a token that hangs is an outage within the bounds, and holds up no more threads than
    // there are sessions.
    #[tokio::test]
    async fn a_device_that_hangs_is_unavailable_and_holds_its_sessions_alone() {
        let fake = Fake::default();
        let opened = Arc::clone(&fake.opened);
        let bounds = Bounds { wait: Duration::from_millis(50), answer: Duration::from_millis(100) };
        let pool = Arc::new(Pool::new(fake, 2, bounds));
        let (release, hanging) = mpsc::channel::<()>();
        let hanging = Arc::new(Mutex::new(hanging));
        let calls = (0..8).map(|_| {
            let (pool, hanging) = (Arc::clone(&pool), Arc::clone(&hanging));
            tokio::spawn(async move {
                pool.run(move |_| {
                    let _released = hanging.lock().unwrap().recv();
                    Ok(())
                })
                .await
            })
        });
        let mut silent = 0;
        for call in calls.collect::<Vec<_>>() {
            let answer = call.await.unwrap();
            let Err(IssueError::Unavailable(why)) = answer else { panic!("{answer:?}") };
            silent += usize::from(why == "the token does not answer");
        }
        assert_eq!(silent, 2, "the others waited for a session");
        assert_eq!(opened.load(Ordering::SeqCst), 2);

        // When the token wakes up the sessions are there again.
        drop(release);
        let mut answer = pool.run(|_| Ok(())).await;
        for _ in 0..100 {
            if answer.is_ok() {
                break;
            }
            answer = pool.run(|_| Ok(())).await;
        }
        assert_eq!(answer, Ok(()));
        assert_eq!(opened.load(Ordering::SeqCst), 2);
    }
}

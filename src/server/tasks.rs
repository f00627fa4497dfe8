//! What the server does by itself: audit summaries and copies, the listener's next certificate,
//! sweeping what has expired.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::metrics::Metrics;
use super::space::Space;
use super::tls::ListenerCertificates;
use crate::audit::{self, Audit, Cursor, FileSink, Sink, StdoutSink};
use crate::aws::CallStatistics;
use crate::ca::{Authorities, LISTENER_LIFETIME, ListenerIdentity};
use crate::clock::Clock;
use crate::domain::{Lifetime, Serial, Timestamp, TrustDomain};
use crate::join::JoinService;
use crate::store::{Store, Transaction};

const SUMMARY_EVERY: Duration = Duration::from_mins(1);
/// How long a record waits for a checkpoint.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);
const EXPORT_EVERY: Duration = Duration::from_millis(500);
const LISTENER_CHECK_EVERY: Duration = Duration::from_mins(10);
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// More than this between two sweeps is no hour that has passed.
const CLOCK_LEAP: Lifetime = Lifetime::from_hours(2);
/// How far a clock may fall back over a restart without being seen.
const KEEP_TIME_EVERY: Lifetime = Lifetime::from_seconds(30);
/// How often the disk is looked at.
const SPACE_LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the clock is looked at.
const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the tasks work on.
pub(super) struct Background {
    pub(super) store: Arc<dyn Store>,
    pub(super) audit: Arc<Audit>,
    pub(super) joins: Arc<JoinService>,
    pub(super) clock: Clock,
    pub(super) authorities: Arc<Authorities>,
    pub(super) trust_domain: TrustDomain,
    pub(super) certificates: Arc<ListenerCertificates>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) calls: Arc<CallStatistics>,
}

/// Starts all tasks; each ends when `stop` says so.
pub(super) async fn spawn_all(
    tasks: &mut JoinSet<()>,
    background: Background,
    space: Space,
    stop: &watch::Receiver<bool>,
) {
    let background = Arc::new(background);
    // Before the first join: a server that starts on a full disk knows it.
    let space = look_at_space(&background, space).await;
    tasks.spawn(watch_space(Arc::clone(&background), space, stop.clone()));
    tasks.spawn(summarise(Arc::clone(&background), stop.clone()));
    tasks.spawn(write_checkpoints(Arc::clone(&background), stop.clone()));
    tasks.spawn(renew_listener(Arc::clone(&background), stop.clone()));
    tasks.spawn(keep_time(Arc::clone(&background), stop.clone()));
    tasks.spawn(sweep(background, stop.clone()));
}

/// Starts the copies of the audit log. They end after everything that writes records, so that the
/// last of them is copied.
pub(super) fn spawn_sinks(
    sinks: &mut JoinSet<()>,
    file: Option<&Path>,
    has_stdout: bool,
    store: &Arc<dyn Store>,
    audit: &Arc<Audit>,
    stop: &watch::Receiver<bool>,
) {
    let mut spawn = |sink: Box<dyn Sink>, earlier: Option<Cursor>| {
        let (store, audit) = (Arc::clone(store), Arc::clone(audit));
        sinks.spawn(copy_audit(store, audit, sink, earlier, stop.clone()));
    };
    if let Some(path) = file {
        let sink = FileSink::new(path);
        let earlier = sink.cursor();
        spawn(Box::new(sink), earlier);
    }
    if has_stdout {
        spawn(Box::new(StdoutSink), None);
    }
}

/// Makes the listener's certificate, for `spiffe://<trust domain>/muster/server` only.
pub(super) fn listener_identity(
    authorities: &Authorities,
    trust_domain: &TrustDomain,
    clock: &Clock,
) -> Result<ListenerIdentity, String> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "no random bytes".to_owned())?;
    let serial = Serial::from_random(random);
    ListenerIdentity::issue(&authorities.join_root, &trust_domain.server_id(), serial, clock.now())
        .map_err(|error| error.to_string())
}

/// Waits; says whether to go on.
async fn pause(duration: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(duration) => true,
        _ = stop.wait_for(|stop| *stop) => false,
    }
}

async fn copy_audit(
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    mut sink: Box<dyn Sink>,
    mut earlier: Option<Cursor>,
    mut stop: watch::Receiver<bool>,
) {
    let mut own = audit.start();
    loop {
        let goes_on = pause(EXPORT_EVERY, &mut stop).await;
        // What the last process did not come to copy is copied first.
        let caught_up = match &earlier {
            Some(cursor) => {
                audit::catch_up(store.as_ref(), cursor, &own.chain, sink.as_mut()).await
            }
            None => Ok(()),
        };
        let copied = match caught_up {
            Ok(()) => {
                earlier = None;
                audit::export(store.as_ref(), &mut own, sink.as_mut()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = copied {
            warn!(error = %error, "the audit log could not be copied");
        }
        if !goes_on {
            return;
        }
    }
}

async fn summarise(background: Arc<Background>, mut stop: watch::Receiver<bool>) {
    while pause(SUMMARY_EVERY, &mut stop).await {
        if let Err(error) = background.audit.write_summary().await {
            warn!(error = %error, "the audit summary was not written");
        }
    }
}

async fn watch_space(
    background: Arc<Background>,
    mut space: Option<Space>,
    mut stop: watch::Receiver<bool>,
) {
    while pause(SPACE_LOOK_EVERY, &mut stop).await {
        let Some(watched) = space else { return };
        space = look_at_space(&background, watched).await;
    }
}

/// One look; it may write to a disk that is slow, so it blocks a thread of its own.
async fn look_at_space(background: &Background, mut space: Space) -> Option<Space> {
    let looked = tokio::task::spawn_blocking(move || (space.look(), space)).await;
    let (seen, space) = looked.ok()?;
    match seen {
        Ok(seen) => {
            background.audit.set_room(seen.room);
            background.metrics.store.disk(seen);
        }
        Err(error) => warn!(error = %error, "the space on the store's disk is not known"),
    }
    Some(space)
}

async fn write_checkpoints(background: Arc<Background>, mut stop: watch::Receiver<bool>) {
    while pause(CHECKPOINT_EVERY, &mut stop).await {
        let written = background.audit.write_checkpoint().await;
        background.metrics.store.checkpoint(written.is_err());
        if let Err(error) = written {
            warn!(error = %error, "the audit checkpoint was not written");
        }
    }
}

async fn renew_listener(background: Arc<Background>, mut stop: watch::Receiver<bool>) {
    let mut made_at = background.clock.now();
    while pause(LISTENER_CHECK_EVERY, &mut stop).await {
        if background.clock.now().since(made_at) < LISTENER_LIFETIME.fraction(1, 2) {
            continue;
        }
        let (authorities, domain) = (&background.authorities, &background.trust_domain);
        let renewed =
            listener_identity(authorities, domain, &background.clock).and_then(|identity| {
                let not_after = identity.not_after;
                let renewed = background.certificates.renew(identity);
                renewed.map(|()| not_after).map_err(|error| error.to_string())
            });
        match renewed {
            Ok(not_after) => {
                made_at = background.clock.now();
                background.metrics.listener_not_after.set(not_after.unix_seconds());
                info!(not_after = %not_after, "the listener has a new certificate");
            }
            Err(error) => error!(error = %error, "the listener's certificate was not renewed"),
        }
    }
}

/// Keeps the latest time on record, and says loudly when the clock cannot be right.
async fn keep_time(background: Arc<Background>, mut stop: watch::Receiver<bool>) {
    let mut kept: Option<Timestamp> = None;
    loop {
        let (guard, now) = (&background.joins.time_guard, background.clock.now());
        let is_behind = guard.see(now);
        background.metrics.clock_is_behind.set(i64::from(is_behind));
        guard.compare(background.calls.seconds_ahead(now));
        background.metrics.clock_is_apart.set(i64::from(guard.apart().is_some()));
        if let Some(seconds_ahead) = guard.apart() {
            error!(seconds_ahead, "the clock is not AWS's: nothing is issued until it is right");
        }
        if is_behind {
            error!(now = %now, latest = %guard.latest(),
                "the clock is behind what it has said before: nothing is issued until it is right");
        } else if kept.is_none_or(|kept| now.since(kept) >= KEEP_TIME_EVERY) {
            match background.joins.registry.keep_time(now).await {
                Ok(()) => kept = Some(now),
                Err(error) => warn!(error = %error, "the time was not kept"),
            }
        }
        if !pause(CLOCK_LOOK_EVERY, &mut stop).await {
            return;
        }
    }
}

async fn sweep(background: Arc<Background>, mut stop: watch::Receiver<bool>) {
    let mut last = background.clock.now();
    while pause(SWEEP_EVERY, &mut stop).await {
        let now = background.clock.now();
        let has_leapt = now.since(last) > CLOCK_LEAP;
        last = now;
        if has_leapt {
            // What is swept by a clock that is ahead is gone for good: revocations, too.
            warn!(now = %now, "the clock has leapt ahead; nothing is swept this hour");
            continue;
        }
        let sweep = Transaction { sweep_expired: Some(now), ..Transaction::default() };
        if let Err(error) = background.store.commit(sweep).await {
            warn!(error = %error, "expired entries were not swept");
        }
    }
}

//! The revocation list: made anew within seconds of a lock or a take-over, in `DATA/crl.der`, and on
//! a listener of its own for relying parties.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::metrics::Metrics;
use crate::ca::{RevocationList, RevokedCertificate, check_revocation_list};
use crate::domain::{Lifetime, Serial, Timestamp};
use crate::join::JoinService;

/// How long a list is good: relying parties outlive an outage of this server for so long.
const LIST_LIFETIME: Lifetime = Lifetime::from_hours(24);
/// How old a list becomes when nothing changes.
const LIST_AGE_MAX: Lifetime = Lifetime::from_hours(1);
/// How often ends of locks and certificates are looked for, and a failed list is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a change waits for others that come with it.
const GATHER_FOR: Duration = Duration::from_millis(100);
/// How long reading a large fleet and signing may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_mins(2);
/// Bounds of the listener: connections at a time, and how long one may last.
const CONNECTIONS_MAX: usize = 512;
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the list, and has the last one.
pub(super) struct Publisher {
    joins: Arc<JoinService>,
    metrics: Arc<Metrics>,
    path: PathBuf,
    published: RwLock<Published>,
}

/// What was published last.
#[derive(Debug, Default)]
struct Published {
    der: Bytes,
    /// None until this process has made one.
    made_at: Option<Timestamp>,
    revoked: BTreeMap<Serial, Timestamp>,
    /// When a lock ends, so that the list changes by itself.
    changes_at: Option<Timestamp>,
}

impl Publisher {
    /// Publishes to this file.
    pub(super) fn new(joins: Arc<JoinService>, metrics: Arc<Metrics>, path: PathBuf) -> Self {
        // Until there is a new one the last process's is better than none: it is signed, and says
        // until when it is good.
        let der = fs::read(&path).unwrap_or_default().into();
        let published = RwLock::new(Published { der, ..Published::default() });
        Self { joins, metrics, path, published }
    }

    /// Publishes once, and then whenever something changes, until `stop` says so.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            let has_changed = tokio::select! {
                () = self.joins.registry.revocations_changed() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if has_changed {
                tokio::time::sleep(GATHER_FOR).await;
            }
            // Reading who is revoked may be long work in a large fleet: nobody does it for nothing.
            if has_changed || self.is_time() {
                self.publish().await;
            }
        }
    }

    /// Makes a new list if one is due.
    pub(super) async fn publish(&self) {
        let published = timeout(PUBLISH_TIMEOUT, self.try_publish()).await;
        let outcome = published.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        self.metrics.crl_failed.set(i64::from(outcome.is_err()));
        if let Err(error) = outcome {
            error!(error = %error, "the revocation list was not made: the one before it stands");
            // It is tried again at the next look.
            self.published.write().unwrap_or_else(PoisonError::into_inner).made_at = None;
        }
    }

    async fn try_publish(&self) -> Result<(), String> {
        let now = self.joins.clock.now();
        if self.joins.time_guard.see(now) {
            return Err(format!("the clock says {now}, and it has seen later times"));
        }
        let registry = &self.joins.registry;
        let locks = registry.locks().await.map_err(|error| error.to_string())?;
        let ends = locks.iter().filter(|lock| lock.stands(now)).filter_map(|lock| lock.until);
        let changes_at = ends.min();
        let revoked = registry.revoked(now).await.map_err(|error| error.to_string())?;
        if !self.is_due(&revoked, changes_at, now) {
            return Ok(());
        }
        let number = registry.next_list_number().await.map_err(|error| error.to_string())?;
        let entries = revoked.iter();
        let entries = entries
            .map(|(serial, since)| RevokedCertificate { serial: *serial, revoked_at: *since });
        let next_update = now.plus(LIST_LIFETIME);
        let list =
            RevocationList { number, this_update: now, next_update, entries: entries.collect() };
        let backend = &self.joins.authority;
        let signed = backend.sign_revocation_list(&list).await.map_err(|e| e.to_string())?;
        let anchors = backend.trust_anchors().await.map_err(|error| error.to_string())?;
        check_revocation_list(&list, &signed, backend.issuer(), &anchors)
            .map_err(|error| error.to_string())?;
        write(&self.path, &signed).map_err(|error| format!("{}: {error}", self.path.display()))?;
        info!(number, certificates = revoked.len(), next_update = %next_update,
            "a new revocation list");
        self.metrics.crl_entries.set(i64::try_from(revoked.len()).unwrap_or(i64::MAX));
        self.metrics.crl_next_update.set(next_update.unix_seconds());
        let published = Published { der: signed.into(), made_at: Some(now), revoked, changes_at };
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = published;
        Ok(())
    }

    /// Whether the list is old, is not there, or a lock has ended since.
    fn is_time(&self) -> bool {
        let now = self.joins.clock.now();
        let last = self.published.read().unwrap_or_else(PoisonError::into_inner);
        last.made_at.is_none_or(|made_at| now.since(made_at) > LIST_AGE_MAX)
            || last.changes_at.is_some_and(|at| at < now)
    }

    fn is_due(
        &self,
        revoked: &BTreeMap<Serial, Timestamp>,
        changes_at: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let mut last = self.published.write().unwrap_or_else(PoisonError::into_inner);
        last.changes_at = changes_at;
        last.made_at.is_none_or(|made_at| now.since(made_at) > LIST_AGE_MAX)
            || last.revoked != *revoked
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let status = |code| {
            let mut response = Response::new(Full::default());
            *response.status_mut() = code;
            response
        };
        if request.uri().path() != "/crl.der" {
            return status(StatusCode::NOT_FOUND);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let der = self.published.read().unwrap_or_else(PoisonError::into_inner).der.clone();
        if der.is_empty() {
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
        let mut response = Response::new(Full::new(der));
        let kind = http::HeaderValue::from_static("application/pkix-crl");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// Serves `/crl.der` to anybody until `stop` says so: it is public, and signed.
pub(super) async fn serve(
    listener: TcpListener,
    publisher: Arc<Publisher>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            warn!("a reader of the revocation list was sent away: there are too many");
            continue;
        };
        let publisher = Arc::clone(&publisher);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let response = publisher.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever reads too slowly, or goes away, asks again.
            let _ended = timeout(CONNECTION_TIMEOUT, serving).await;
        });
    }
}

/// A file that is always whole: another name first, synced, renamed.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_added_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

//! The accept loop of the join listener. It faces strangers: everything about a connection that is
//! not proven yet is bounded in count, size and time (red team D6).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use tracing::{debug, warn};

use super::metrics::Metrics;
use super::proxy_protocol::Balancers;
use crate::proto::channel;

/// A handshake that takes longer is of nobody who wants to join.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be silent before its first request. A node asks at once.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection serves one join; none takes longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(90);
/// How long connections may finish when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// The RFC 9266 `tls-exporter` value.
    pub(super) channel: [u8; 32],
    /// The peer.
    pub(super) peer: SocketAddr,
    /// The node's certificate, DER: verified, and its key proven by the handshake.
    pub(super) certificate: Option<Arc<[u8]>>,
    has_joined: Arc<AtomicBool>,
}

impl Connection {
    /// Whether this is the first join or renewal of the connection: one stream each (red team B7).
    pub(super) fn take_stream(&self) -> bool {
        !self.has_joined.swap(true, Ordering::SeqCst)
    }
}

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// Of these, how many may be within their handshake or before their first request. When one
    /// more comes the oldest goes: an honest one is young.
    pub(super) handshakes: usize,
}

/// Accepts connections until `stop` says so, then lets those that are open finish.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Routes,
    limits: Limits,
    balancers: Balancers,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let balancers = Arc::new(balancers);
    let connections = Arc::new(Semaphore::new(limits.connections));
    let half_open = Arc::new(HalfOpen::new(limits.handshakes));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        // Finished tasks leave nothing behind.
        while tasks.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a peer that went away: neither is a reason to stop.
                warn!(error = %error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            metrics.connections_refused.inc();
            continue;
        };
        metrics.connections.inc();
        let id = half_open.next_id();
        let connection = serve_connection(
            stream,
            peer,
            Arc::clone(&balancers),
            acceptor.clone(),
            routes.clone(),
            Arc::clone(&half_open),
            id,
            permit,
            stop.clone(),
        );
        half_open.track(id, || tasks.spawn(connection));
    }
    drop(listener);
    let drained = timeout(DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        warn!(open = tasks.len(), "connections were cut off at shutdown");
    }
}

#[expect(clippy::too_many_arguments, reason = "each is one thing that the connection needs")]
async fn serve_connection(
    mut stream: TcpStream,
    accepted_from: SocketAddr,
    balancers: Arc<Balancers>,
    acceptor: TlsAcceptor,
    routes: Routes,
    half_open: Arc<HalfOpen>,
    id: u64,
    _permit: OwnedSemaphorePermit,
    stop: watch::Receiver<bool>,
) {
    let arrival = Arc::new(Arrival { half_open, id, asked: Notify::new() });
    // Small messages that wait for each other: Nagle's algorithm would add 40 ms to each.
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(peer = %accepted_from, error = %error, "the peer is gone");
    }
    let handshake = timeout(HANDSHAKE_TIMEOUT, async {
        let peer = balancers.peer_of(&mut stream, accepted_from).await?;
        acceptor.accept(stream).await.map(|stream| (stream, peer))
    });
    let (stream, peer) = match handshake.await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return debug!(peer = %accepted_from, error = %error, "handshake failed"),
        Err(_) => return debug!(peer = %accepted_from, "handshake timed out"),
    };
    let Some(connection) = describe(&stream, peer) else { return };
    let served = serve_http(stream, connection, arrival, routes, stop);
    if timeout(CONNECTION_TIMEOUT, served).await.is_err() {
        debug!(peer = %peer, "connection timed out");
    }
}

fn describe(stream: &TlsStream<TcpStream>, peer: SocketAddr) -> Option<Connection> {
    let (_, tls) = stream.get_ref();
    let channel = channel(tls).ok()?;
    let certificate =
        tls.peer_certificates().and_then(|chain| Some(chain.first()?.as_ref().into()));
    Some(Connection { channel, peer, certificate, has_joined: Arc::default() })
}

async fn serve_http(
    stream: TlsStream<TcpStream>,
    connection: Connection,
    arrival: Arc<Arrival>,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) {
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(1)
        .max_header_list_size(8 * 1024)
        .max_pending_accept_reset_streams(Some(10))
        .max_local_error_reset_streams(Some(10))
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(64 * 1024)
        .max_frame_size(16 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .keep_alive_timeout(Duration::from_secs(5));
    let peer = connection.peer;
    let service = WithConnection { routes, connection, arrival: Arc::clone(&arrival) };
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = arrival.asks_for_nothing() => {
            return debug!(peer = %peer, "no request came");
        }
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        debug!(peer = %peer, error = %error, "connection failed");
    }
}

/// Waits until the server stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody can say so any more, which is the same.
    let _said = stop.wait_for(|stop| *stop).await.is_ok();
}

/// Gives every request the connection it came by.
#[derive(Clone)]
struct WithConnection {
    routes: Routes,
    connection: Connection,
    arrival: Arc<Arrival>,
}

impl tower_service::Service<http::Request<hyper::body::Incoming>> for WithConnection {
    type Response = <Routes as tower_service::Service<http::Request<tonic::body::Body>>>::Response;
    type Error = <Routes as tower_service::Service<http::Request<tonic::body::Body>>>::Error;
    type Future = <Routes as tower_service::Service<http::Request<tonic::body::Body>>>::Future;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        <Routes as tower_service::Service<http::Request<tonic::body::Body>>>::poll_ready(
            &mut self.routes,
            context,
        )
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        self.arrival.asks();
        let mut request = request.map(tonic::body::Body::new);
        request.extensions_mut().insert(self.connection.clone());
        self.routes.call(request)
    }
}

/// A connection that has to show that it is worth its place.
struct Arrival {
    half_open: Arc<HalfOpen>,
    id: u64,
    asked: Notify,
}

impl Arrival {
    /// A request came: whoever it is, he gets an answer.
    fn asks(&self) {
        self.half_open.remove(self.id);
        self.asked.notify_one();
    }

    /// Ends if no request comes in time, and never if one does.
    async fn asks_for_nothing(&self) {
        if timeout(FIRST_REQUEST_TIMEOUT, self.asked.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.half_open.remove(self.id);
    }
}

/// Connections within their handshake or before their first request, oldest first.
struct HalfOpen {
    most: usize,
    state: Mutex<(u64, BTreeMap<u64, AbortHandle>)>,
}

impl HalfOpen {
    fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    fn next_id(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        state.0
    }

    /// Starts a connection and keeps its handle. The lock is held over the start, so that `remove`
    /// cannot come first.
    fn track(&self, id: u64, start: impl FnOnce() -> AbortHandle) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.insert(id, start());
        let oldest = if state.1.len() > self.most { state.1.pop_first() } else { None };
        drop(state);
        if let Some((_, oldest)) = oldest {
            oldest.abort();
        }
    }

    fn remove(&self, id: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id);
    }
}

/// An address that this listens on, as nodes may find it: a machine that listens on all of its
/// addresses is called by its name.
pub(super) fn as_nodes_see(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{name}:{}", address.port())
}

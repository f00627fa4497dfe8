//! The accept loop of the join listener. It faces strangers: everything about a connection that is
//! not proven yet is bounded in count, size and time (red team D6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_rustls::server::TlsStream;
use tonic::service::Routes;
use tracing::{debug, warn};

use super::connections::{Connections, Handle, Presence};
use super::handshake::{Bounded, Failed, Handshakes, Seated};
use super::metrics::Metrics;
use crate::proto::channel;
use crate::turns::Showing;

/// How long a connection may be silent before its first request. A node asks at once.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection serves one join; none takes longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(90);
/// How often seats are taken from those who are slow.
const SEATS_CLEARED_EVERY: Duration = Duration::from_millis(250);
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
    /// Its place among the others.
    pub(super) presence: Handle,
    has_joined: Arc<AtomicBool>,
}

impl Connection {
    /// Whether this is the first join or renewal of the connection: one stream each (red team B7).
    pub(super) fn take_stream(&self) -> bool {
        !self.has_joined.swap(true, Ordering::SeqCst)
    }
}

/// What every connection needs.
pub(super) struct Serving {
    pub(super) handshakes: Handshakes,
    pub(super) routes: Routes,
    pub(super) connections: Arc<Connections>,
    pub(super) metrics: Arc<Metrics>,
}

/// Accepts connections until `stop` says so, then lets those that are open finish.
pub(super) async fn serve(
    listener: TcpListener,
    serving: Serving,
    mut stop: watch::Receiver<bool>,
) {
    let serving = Arc::new(serving);
    let mut tasks = JoinSet::new();
    let mut clearing = interval(SEATS_CLEARED_EVERY);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = clearing.tick() => {
                serving.connections.clear_seats(serving.handshakes.seats.waiting());
                continue;
            }
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
        let Some(presence) = serving.connections.admit(peer.ip()) else {
            serving.metrics.connections_refused.inc();
            continue;
        };
        serving.metrics.connections.inc();
        let handle = presence.handle();
        let task = serve_connection(Arc::clone(&serving), stream, peer, presence, stop.clone());
        handle.is_served_by(tasks.spawn(task));
    }
    drop(listener);
    let drained = timeout(DRAIN_TIMEOUT, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        warn!(open = tasks.len(), "connections were cut off at shutdown");
    }
}

async fn serve_connection(
    serving: Arc<Serving>,
    stream: TcpStream,
    mut peer: SocketAddr,
    presence: Presence,
    stop: watch::Receiver<bool>,
) {
    // Small messages that wait for each other: Nagle's algorithm would add 40 ms to each.
    if let Err(error) = stream.set_nodelay(true) {
        return debug!(peer = %peer, error = %error, "the peer is gone");
    }
    let turns = &serving.handshakes.turns;
    let Seated { stream, seat } = match serving.handshakes.shake(stream, &mut peer, &presence).await
    {
        Ok(seated) => seated,
        Err(failed) => {
            if !matches!(failed, Failed::Overloaded(_)) {
                turns.note(peer.ip(), Showing::Worthless);
            }
            return debug!(peer = %peer, error = %failed, "no connection");
        }
    };
    let Some(connection) = describe(&stream, peer, presence.handle()) else { return };
    // In a box, for those who are in line for a seat.
    let served = Box::pin(serve_http(stream, connection, serving.routes.clone(), stop));
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ended::AskedNothing) => turns.note(peer.ip(), Showing::Worthless),
        Ok(Ended::Served) => {}
        Err(_) => debug!(peer = %peer, "connection timed out"),
    }
    drop(seat);
}

fn describe<S>(stream: &TlsStream<S>, peer: SocketAddr, presence: Handle) -> Option<Connection> {
    let (_, tls) = stream.get_ref();
    let channel = channel(tls).ok()?;
    let certificate =
        tls.peer_certificates().and_then(|chain| Some(chain.first()?.as_ref().into()));
    Some(Connection { channel, peer, certificate, presence, has_joined: Arc::default() })
}

/// How a connection ended.
enum Ended {
    Served,
    AskedNothing,
}

async fn serve_http(
    stream: Box<TlsStream<Bounded<TcpStream>>>,
    connection: Connection,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) -> Ended {
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
    let arrival = Arc::new(Arrival::default());
    let service = WithConnection { routes, connection, arrival: Arc::clone(&arrival) };
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = arrival.asks_for_nothing() => {
            debug!(peer = %peer, "no request came");
            return Ended::AskedNothing;
        }
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        debug!(peer = %peer, error = %error, "connection failed");
    }
    if arrival.has_asked() { Ended::Served } else { Ended::AskedNothing }
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
#[derive(Default)]
struct Arrival {
    has_asked: AtomicBool,
    asked: Notify,
}

impl Arrival {
    /// A request came: whoever it is, he gets an answer.
    fn asks(&self) {
        self.has_asked.store(true, Ordering::SeqCst);
        self.asked.notify_one();
    }

    fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::SeqCst)
    }

    /// Ends if no request comes in time, and never if one does.
    async fn asks_for_nothing(&self) {
        if timeout(FIRST_REQUEST_TIMEOUT, self.asked.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
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

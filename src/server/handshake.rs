//! The TLS handshake of somebody who has proven nothing. What he sends is bounded in size and time,
//! and what it makes us compute has its turn: our key exchange and signature, and whatever else his
//! bytes lead to.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::Presence;
use super::proxy_protocol::Balancers;
use crate::clock::Stopwatch;
use crate::turns::{Overloaded, Turns};

/// A handshake that keeps us waiting for longer is of nobody who wants to join. The time in line
/// for a turn is ours, and is not counted; it has a bound of its own.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a peer may send until his first flight is complete, and until the handshake is. A hello with
/// a post-quantum key share is below 2 KiB; the rest is a node's certificate.
const HELLO_BYTES_MAX: usize = 8 * 1024;
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;
/// What he may send after it, as long as the connection lasts. A join is at most two messages of 32
/// KiB. Whatever else he sends would be there to keep us busy: pings, settings, resets, headers that
/// do not end.
const CONNECTION_BYTES_MAX: usize = 128 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The peer's doing.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] io::Error),
    /// Likewise.
    #[error("the handshake took too long")]
    TooSlow,
    /// Ours.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
}

/// What handshakes need.
pub(super) struct Handshakes {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) balancers: Balancers,
    pub(super) turns: Arc<Turns>,
}

impl Handshakes {
    /// Makes a connection; and says where it really comes from, also if it fails.
    pub(super) async fn shake(
        &self,
        mut stream: TcpStream,
        peer: &mut SocketAddr,
        presence: &Presence,
    ) -> Result<TlsStream<Bounded<TcpStream>>, Failed> {
        let mut patience = Patience(HANDSHAKE_TIMEOUT);
        *peer = patience.wait(self.balancers.peer_of(&mut stream, *peer)).await??;
        let source = peer.ip();
        presence.comes_from(source);

        let hello = LazyConfigAcceptor::new(
            Acceptor::default(),
            Bounded { inner: stream, left: HELLO_BYTES_MAX },
        );
        let hello = patience.wait(hello).await??;
        let in_line = presence.handle().waits_for_us();
        let turn = self.turns.turn(source).await?;
        // The key exchange and the signature are made here.
        let mut shaking = hello.into_stream(Arc::clone(&self.tls));
        if let Some(stream) = shaking.get_mut() {
            stream.left = HANDSHAKE_BYTES_MAX;
        }
        let mut shaken = poll_once(&mut shaking).await;
        drop((turn, in_line));

        while shaken.is_pending() {
            // Another hello, with another key share, or a certificate with a chain to verify.
            if let Some(stream) = shaking.get_ref() {
                patience.wait(stream.inner.readable()).await??;
            }
            let in_line = presence.handle().waits_for_us();
            let turn = self.turns.turn(source).await?;
            shaken = poll_once(&mut shaking).await;
            drop((turn, in_line));
        }
        let Poll::Ready(shaken) = shaken else { return Err(Failed::TooSlow) };
        let mut stream = shaken?;
        stream.get_mut().0.left = CONNECTION_BYTES_MAX;
        Ok(stream)
    }
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// How long we still wait for a peer, in all.
struct Patience(Duration);

impl Patience {
    async fn wait<F: Future>(&mut self, future: F) -> Result<F::Output, Failed> {
        let watch = Stopwatch::start();
        let output = timeout(self.0, future).await.map_err(|_| Failed::TooSlow)?;
        self.0 = self.0.saturating_sub(watch.elapsed());
        Ok(output)
    }
}

/// A stream of which only so much is read.
pub(super) struct Bounded<S> {
    inner: S,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        let came = buffer.filled().len().saturating_sub(before);
        let Some(left) = self.left.checked_sub(came) else {
            let what = "the peer sends more than anybody needs to";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        };
        self.left = left;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

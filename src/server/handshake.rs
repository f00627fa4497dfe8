//! The TLS handshake of somebody who has proven nothing. What he sends is bounded in size and time.
//! When his first flight is complete he waits for a seat: until then he costs a socket and a few
//! kilobytes. What he makes us compute has its turn: our key exchange and signature, and whatever
//! else his bytes lead to.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::Presence;
use super::hello::read_hello;
use super::proxy_protocol::Balancers;
use crate::clock::Stopwatch;
use crate::turns::{Overloaded, Turn, Turns};

/// A handshake that keeps us waiting for longer is of nobody who wants to join. The time in line
/// for a turn is ours, and is not counted; it has a bound of its own.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a peer may send after his hello until the handshake is complete: a node's certificate.
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
    pub(super) seats: Arc<Turns>,
}

/// A connection, and the seat that it has.
pub(super) struct Seated {
    pub(super) stream: Box<TlsStream<Bounded<TcpStream>>>,
    pub(super) seat: Turn,
}

impl Handshakes {
    /// Makes a connection; and says where it really comes from, also if it fails.
    ///
    /// Thousands may be in line for a seat. So nothing is there by then but the bytes of the hello;
    /// TLS begins after it, in a box of its own.
    pub(super) async fn shake(
        &self,
        mut stream: TcpStream,
        peer: &mut SocketAddr,
        presence: &Presence,
    ) -> Result<Seated, Failed> {
        let mut patience = Patience(HANDSHAKE_TIMEOUT);
        *peer = patience.wait(Box::pin(self.balancers.peer_of(&mut stream, *peer))).await??;
        presence.comes_from(peer.ip());
        let hello = patience.wait(Box::pin(read_hello(&mut stream))).await??;

        let in_line = presence.handle().waits_for_us();
        let seat = self.seats.turn(peer.ip()).await?;
        presence.handle().is_seated();
        drop(in_line);
        let stream = Bounded { inner: stream, heard: hello, left: HANDSHAKE_BYTES_MAX };
        let stream = Box::pin(self.finish(stream, peer.ip(), presence, patience)).await?;
        Ok(Seated { stream, seat })
    }

    async fn finish(
        &self,
        stream: Bounded<TcpStream>,
        source: IpAddr,
        presence: &Presence,
        mut patience: Patience,
    ) -> Result<Box<TlsStream<Bounded<TcpStream>>>, Failed> {
        let mut shaking = TlsAcceptor::from(Arc::clone(&self.tls)).accept(stream);
        loop {
            let in_line = presence.handle().waits_for_us();
            let turn = self.turns.turn(source).await?;
            // The key exchange and the signature are made here; and after that whatever another hello
            // with another key share asks for, or a certificate with a chain to verify.
            let shaken = poll_once(&mut shaking).await;
            drop((turn, in_line));
            if let Poll::Ready(shaken) = shaken {
                let mut stream = shaken?;
                stream.get_mut().0.left = CONNECTION_BYTES_MAX;
                return Ok(Box::new(stream));
            }
            if let Some(stream) = shaking.get_ref() {
                patience.wait(stream.inner.readable()).await??;
            }
        }
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

/// A stream of which only so much is read. Some of it was heard before.
pub(super) struct Bounded<S> {
    inner: S,
    heard: Vec<u8>,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.heard.is_empty() {
            let come = self.heard.len().min(buffer.remaining());
            let rest = self.heard.split_off(come);
            buffer.put_slice(&std::mem::replace(&mut self.heard, rest));
            return Poll::Ready(Ok(()));
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_was_heard_before_is_read_first_and_what_follows_is_bounded() {
        let mut stream = Bounded { inner: &b"4567"[..], heard: b"123".to_vec(), left: 3 };
        let (mut two, mut one) = ([0; 2], [0; 4]);
        assert_eq!(stream.read(&mut two).await.unwrap(), 2);
        assert_eq!(stream.read(&mut one).await.unwrap(), 1);
        assert_eq!((&two, one[0]), (b"12", b'3'));
        assert_eq!(stream.read(&mut two).await.unwrap(), 2);
        assert_eq!((&two, stream.left), (b"45", 1));
        stream.read(&mut two).await.unwrap_err();
    }
}

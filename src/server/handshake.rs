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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::Presence;
use super::proxy_protocol::Balancers;
use crate::clock::Stopwatch;
use crate::turns::{Overloaded, Turn, Turns};

/// A handshake that keeps us waiting for longer is of nobody who wants to join. The time in line
/// for a turn is ours, and is not counted; it has a bound of its own.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a peer may send until his hello is complete, and until the handshake is. A hello with a
/// post-quantum key share is below 2 KiB; the rest is a node's certificate.
const HELLO_BYTES_MAX: usize = 8 * 1024;
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;
/// RFC 8446: the length of a record's header, the type of records, and that of the message.
const RECORD_HEADER: u64 = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
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
        let hello = patience.wait(Box::pin(hello(&mut stream))).await??;

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

/// Reads the records of a hello, or of what pretends to be one (RFC 8446 §4 and §5.1), and nothing
/// after it.
async fn hello<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let (mut heard, mut heard_of_hello) = (Vec::new(), 0);
    let mut length_of_hello = None;
    while length_of_hello.is_none_or(|length| heard_of_hello < length) {
        let body = record(stream, &mut heard).await?;
        if length_of_hello.is_none() {
            let &[CLIENT_HELLO, high, middle, low, ..] = heard.get(body..).unwrap_or_default()
            else {
                return Err(not_a_hello());
            };
            let length = u32::from_be_bytes([0, high, middle, low]);
            length_of_hello = Some(usize::try_from(length).unwrap_or(usize::MAX).saturating_add(4));
        }
        heard_of_hello += heard.len() - body;
    }
    heard.shrink_to_fit();
    Ok(heard)
}

/// Adds a record, and says where its body begins.
async fn record<S: AsyncRead + Unpin>(stream: &mut S, heard: &mut Vec<u8>) -> io::Result<usize> {
    let begins = heard.len();
    (&mut *stream).take(RECORD_HEADER).read_to_end(heard).await?;
    let &[HANDSHAKE, _, _, high, low] = heard.get(begins..).unwrap_or_default() else {
        return Err(not_a_hello());
    };
    let body = heard.len();
    let length = u16::from_be_bytes([high, low]);
    if length == 0 || body + usize::from(length) > HELLO_BYTES_MAX {
        return Err(not_a_hello());
    }
    stream.take(length.into()).read_to_end(heard).await?;
    if heard.len() < body + usize::from(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

fn not_a_hello() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the peer sends is not a TLS hello")
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
    use proptest::collection;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of these bytes, which come one write after the other.
    async fn heard(writes: &[&[u8]]) -> io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let hearing = tokio::spawn(async move { hello(&mut stream).await });
        for write in writes {
            peer.write_all(write).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(peer);
        hearing.await.unwrap()
    }

    /// Records of these bodies.
    fn records(bodies: &[&[u8]]) -> Vec<u8> {
        let of = |body: &&[u8]| {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1], &length[..], body].concat()
        };
        bodies.iter().flat_map(of).collect()
    }

    // T36, D6: the first bytes of a stranger.
    #[tokio::test]
    async fn a_hello_is_heard_to_its_end_and_no_further() {
        let whole = records(&[&[1, 0, 0, 3, b'a', b'b', b'c']]);
        assert_eq!(heard(&[&whole]).await.unwrap(), whole);
        assert_eq!(heard(&[&whole, b"more"]).await.unwrap(), whole);
        let bytes: Vec<_> = whole.chunks(1).collect();
        assert_eq!(heard(&bytes).await.unwrap(), whole);
        let parts = records(&[&[1, 0, 0, 3], b"a", b"bc"]);
        assert_eq!(heard(&[&parts, b"more"]).await.unwrap(), parts);
        let longest = records(&[&[&[1, 0, 0x1f, 0xf7][..], &[0; 0x1ff7]].concat()]);
        assert_eq!(longest.len(), HELLO_BYTES_MAX);
        assert_eq!(heard(&[&longest]).await.unwrap(), longest);
    }

    // T36: nobody waits 5 s for the end of what is none.
    #[tokio::test]
    async fn what_is_no_hello_is_not_waited_for() {
        let first: &[u8] = &[&[1, 0, 0x20, 0][..], &[0; 4000]].concat();
        let in_parts = [records(&[first]), vec![HANDSHAKE, 3, 1, 0x10, 0x60]].concat();
        let refused: [&[u8]; 8] = [
            b"GET / HTTP/1.1\r\n",
            &[23, 3, 3, 0, 1, 0],
            &[HANDSHAKE, 3, 1, 0, 0],
            &[HANDSHAKE, 3],
            &records(&[&[2, 0, 0, 1, 0]]),
            &records(&[&[1, 0, 0]]),
            &[HANDSHAKE, 3, 1, 0x1f, 0xfc],
            &in_parts,
        ];
        for bytes in refused {
            let error = heard(&[bytes]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        let cut_off = heard(&[&[HANDSHAKE, 3, 1, 0, 7, 1, 0]]).await.unwrap_err();
        assert_eq!(cut_off.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        // I14: whatever comes, what is heard is its beginning, whole records of it, and bounded.
        #[test]
        fn any_bytes_are_heard_within_bounds(
            bodies in collection::vec(collection::vec(any::<u8>(), 0..3000), 0..5),
            said in any::<u16>(),
            tail in collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bodies = bodies;
            if let Some([kind, high, middle, low, ..]) = bodies.first_mut().map(Vec::as_mut_slice) {
                *kind = CLIENT_HELLO;
                [*high, *middle, *low] = [0, said.to_be_bytes()[0] % 32, said.to_be_bytes()[1]];
            }
            let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
            let bytes = [records(&bodies), tail].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Ok(heard) = runtime.block_on(hello(&mut bytes.as_slice())) {
                prop_assert!(heard.len() <= HELLO_BYTES_MAX);
                prop_assert!(bytes.starts_with(&heard));
                let length = usize::from(u16::from_be_bytes([heard[7], heard[8]]));
                prop_assert!(heard.len() >= length + 4 + usize::try_from(RECORD_HEADER).unwrap());
            }
        }
    }

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

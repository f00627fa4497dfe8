//! Where a connection really comes from, when a TCP balancer stands in front: the PROXY protocol,
//! version 2, and only from networks that the configuration trusts. Whoever else begins so is a
//! stranger who would choose his own address.

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;
use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// Signature, version, family and length.
const FIXED_BYTES: usize = 16;
/// The longest rest: addresses, and what a balancer adds of its own.
const REST_BYTES_MAX: usize = 1024;

/// The balancers whose word on addresses is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Balancers(Vec<IpNet>);

impl Balancers {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The peer of a connection. From a balancer the header must come, from anybody else it must
    /// not: TLS would refuse it.
    pub(super) async fn peer_of(
        &self,
        stream: &mut TcpStream,
        accepted_from: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let address = accepted_from.ip().to_canonical();
        if self.0.iter().any(|network| network.contains(&address)) {
            read_proxy_header(stream, accepted_from).await
        } else {
            Ok(accepted_from)
        }
    }
}

/// Reads the header of a connection from this balancer, and nothing after it; says where the
/// connection comes from.
pub async fn read_proxy_header<S: AsyncRead + Unpin>(
    stream: &mut S,
    balancer: SocketAddr,
) -> io::Result<SocketAddr> {
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    let rest = length_of(&header)?;
    header.resize(FIXED_BYTES + rest, 0);
    if let Some(unread) = header.get_mut(FIXED_BYTES..) {
        stream.read_exact(unread).await?;
    }
    source_of(&header, balancer)
}

/// How many bytes follow.
fn length_of(header: &[u8]) -> io::Result<usize> {
    let refused = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if !header.starts_with(PROTOCOL_PREFIX) {
        return Err(refused("the balancer sent no PROXY protocol v2 header"));
    }
    let length = header.last_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    match usize::from(length) {
        length if length <= REST_BYTES_MAX => Ok(length),
        _ => Err(refused("the PROXY protocol header is longer than 1 KiB")),
    }
}

/// The client that the balancer names. Its own health checks come as `LOCAL`.
fn source_of(header: &[u8], balancer: SocketAddr) -> io::Result<SocketAddr> {
    let refused = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let header = Header::try_from(header).map_err(|error| refused(error.to_string()))?;
    match (header.command, header.addresses) {
        (Command::Local, _) => Ok(balancer),
        (Command::Proxy, Addresses::IPv4(found)) => {
            Ok((found.source_address, found.source_port).into())
        }
        (Command::Proxy, Addresses::IPv6(found)) => {
            Ok((found.source_address, found.source_port).into())
        }
        (Command::Proxy, Addresses::Unix(_) | Addresses::Unspecified) => {
            Err(refused("the PROXY protocol header names no address".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A header as the protocol's text has it: version 2, PROXY, TCP over IPv4.
    fn header(source: [u8; 4], port: u16, more: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        bytes.extend(u16::try_from(12 + more.len()).unwrap().to_be_bytes());
        bytes.extend(source);
        bytes.extend([10, 0, 0, 1]);
        bytes.extend(port.to_be_bytes());
        bytes.extend(7443_u16.to_be_bytes());
        bytes.extend(more);
        bytes
    }

    async fn peer(trusted: &str, sent: &[u8]) -> io::Result<(SocketAddr, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut stream, from) = listener.accept().await.unwrap();
        let balancers = Balancers::new(vec![trusted.parse().unwrap()]);
        Ok((balancers.peer_of(&mut stream, from).await?, from))
    }

    #[tokio::test]
    async fn a_balancer_says_where_a_connection_comes_from() {
        let sent = header([192, 0, 2, 7], 4711, b"\x04\0\x02ab");
        let (peer, _) = peer("127.0.0.0/8", &sent).await.unwrap();
        assert_eq!(peer, "192.0.2.7:4711".parse().unwrap());
    }

    // Anybody could claim any address: only a trusted network is heard.
    #[tokio::test]
    async fn nobody_else_is_asked() {
        let sent = header([192, 0, 2, 7], 4711, b"");
        let (peer, from) = peer("10.0.0.0/8", &sent).await.unwrap();
        assert_eq!(peer, from);
    }

    #[tokio::test]
    async fn a_balancer_without_a_header_is_refused() {
        assert!(
            peer("127.0.0.0/8", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03hello").await.is_err()
        );
        assert!(peer("127.0.0.0/8", &header([1, 2, 3, 4], 5, b"")[..20]).await.is_err());
        let mut long = header([1, 2, 3, 4], 5, b"");
        long[14] = 0xff;
        assert!(peer("127.0.0.0/8", &long).await.is_err());
        let mut unspecified = header([1, 2, 3, 4], 5, b"");
        unspecified[13] = 0;
        assert!(peer("127.0.0.0/8", &unspecified).await.is_err());
    }

    #[tokio::test]
    async fn a_health_check_of_the_balancer_is_its_own() {
        let (peer, from) = peer("127.0.0.0/8", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").await.unwrap();
        assert_eq!(peer, from);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 16..64)) {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            header.extend(&bytes);
            let balancer: SocketAddr = "127.0.0.1:1".parse().unwrap();
            let _read = length_of(&header[..16]).and_then(|_| source_of(&header, balancer));
        }
    }
}

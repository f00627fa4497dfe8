//! The first bytes of somebody who has proven nothing: a TLS hello, heard before TLS begins.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a peer may send until his hello is complete. One with a post-quantum key share is below 2
/// KiB.
pub const HELLO_BYTES_MAX: usize = 8 * 1024;
/// RFC 8446: the length of a record's header, the type of records, and that of the message.
const RECORD_HEADER: u64 = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Reads the records of a hello, or of what pretends to be one (RFC 8446 §4 and §5.1), and nothing
/// after it.
pub async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// What is made of these bytes, which come one write after the other.
    async fn heard(writes: &[&[u8]]) -> io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let hearing = tokio::spawn(async move { read_hello(&mut stream).await });
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
            if let Ok(heard) = runtime.block_on(read_hello(&mut bytes.as_slice())) {
                prop_assert!(heard.len() <= HELLO_BYTES_MAX);
                prop_assert!(bytes.starts_with(&heard));
                let length = usize::from(u16::from_be_bytes([heard[7], heard[8]]));
                prop_assert!(heard.len() >= length + 4 + usize::try_from(RECORD_HEADER).unwrap());
            }
        }
    }
}

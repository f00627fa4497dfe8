//! The bounds of a connection to the join listener, each tried by somebody who does not keep it (I14,
//! T36, T55).

use std::time::Duration;

use muster::clock::Stopwatch;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::HandshakeKind;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Site, WORKER, careless, careless_connection};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// Longer than anything here may take, and shorter than a test may.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a connection may send in its life.
const CONNECTION_BYTES_MAX: usize = 128 * 1024;

/// Makes one frame after the other.
type Flooding = fn(u32) -> Vec<u8>;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A literal header of HPACK, never indexed.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x10];
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            bytes.push(u8::try_from(length).unwrap());
        } else {
            let rest = length - 127;
            bytes.extend([127, u8::try_from(rest % 128).unwrap() | 128]);
            bytes.push(u8::try_from(rest / 128).unwrap());
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The headers of a join; `more` after them.
fn join_headers(more: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/muster.v1.JoinService/Join"),
        (":authority", "muster"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.extend(header(name, value));
    }
    block.extend(more);
    block
}

/// An HTTP/2 connection that has said hello, and the settings of the server.
async fn connection(site: &Site) -> (TlsStream<TcpStream>, Vec<(u16, u32)>) {
    let mut stream = careless_connection(site.address()).await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let (kind, _, payload) = read_frame(&mut stream).await.unwrap();
    assert_eq!(kind, SETTINGS);
    let setting = |bytes: &[u8]| {
        let number = u16::from_be_bytes(bytes[..2].try_into().unwrap());
        (number, u32::from_be_bytes(bytes[2..].try_into().unwrap()))
    };
    (stream, payload.chunks(6).map(setting).collect())
}

/// Kind, stream and payload of the next frame; none at the end.
async fn read_frame(stream: &mut TlsStream<TcpStream>) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    let number = u32::from_be_bytes(head[5..9].try_into().unwrap());
    Some((head[3], number, payload))
}

/// Sends a frame over and over, as a flood does, until the server has had enough of it; how many
/// bytes it took, and the error that it named, if it came to that.
async fn flood(site: &Site, first: &[u8], next: impl Fn(u32) -> Vec<u8>) -> (usize, Option<u32>) {
    let (stream, _) = connection(site).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let listening = tokio::spawn(async move {
        let mut answers = Vec::new();
        let _reset = reader.read_to_end(&mut answers).await;
        answers
    });
    let mut sent = 0;
    let flooding = async {
        if writer.write_all(first).await.is_err() {
            return;
        }
        for number in 0.. {
            let some: Vec<u8> = (0..50).flat_map(|part| next(number * 50 + part)).collect();
            if writer.write_all(&some).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            sent += some.len();
            // A reset takes a moment to come back.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, flooding).await.expect("the flood goes on for as long as it likes");
    let answers = timeout(PATIENCE, listening).await.unwrap().unwrap();
    (sent, error_of(&answers))
}

/// The error of the last GOAWAY.
fn error_of(mut answers: &[u8]) -> Option<u32> {
    let mut error = None;
    while let [a, b, c, kind, rest @ ..] = answers {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
        let Some(payload) = rest.get(5..5 + length) else { break };
        if *kind == GOAWAY {
            error = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        answers = &rest[5 + length..];
    }
    error
}

// D6: whatever kind of frame it is, a connection has only so many bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_only_so_many_bytes() {
    let site = Site::new();
    // What was on its way when the connection was closed counts as sent.
    let most = 8 * CONNECTION_BYTES_MAX;
    let floods: [(&str, Flooding); 4] = [
        ("settings", |_| frame(SETTINGS, 0, 0, &[])),
        ("pings", |_| frame(PING, 0, 0, &[7; 8])),
        ("window updates", |_| frame(8, 0, 0, &1_u32.to_be_bytes())),
        ("unknown frames", |_| frame(0xbb, 0, 0, &[0; 100])),
    ];
    for (name, next) in floods {
        let (sent, error) = flood(&site, &[], next).await;
        eprintln!("{name}: {sent} bytes, GOAWAY {error:?}");
        assert!(sent < most, "{name}: {sent} bytes");
    }
    site.join(WORKER, "node").yes();
}

// CVE-2023-44487, and headers that never end.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_and_endless_headers_end_the_connection() {
    const ENHANCE_YOUR_CALM: u32 = 11;
    let site = Site::new();
    let resets = |number: u32| {
        let stream = 1 + 2 * number;
        let mut frames = frame(HEADERS, END_HEADERS, stream, &join_headers(&[]));
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        frames
    };
    let (sent, error) = flood(&site, &[], resets).await;
    assert!(sent < CONNECTION_BYTES_MAX, "{sent} bytes of resets");
    assert_eq!(error, Some(ENHANCE_YOUR_CALM));

    let first = frame(HEADERS, 0, 1, &join_headers(&[]));
    let endless = |_| frame(CONTINUATION, 0, 1, &header("x", &"y".repeat(200)));
    let (sent, _) = flood(&site, &first, endless).await;
    assert!(sent < CONNECTION_BYTES_MAX, "{sent} bytes of headers");
    site.join(WORKER, "node").yes();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_may_do_is_said_and_kept() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    let site = Site::new();
    let (mut stream, settings) = connection(&site).await;
    for (number, value) in [
        (MAX_CONCURRENT_STREAMS, 1),
        (INITIAL_WINDOW_SIZE, 64 * 1024),
        (MAX_HEADER_LIST_SIZE, 8192),
    ] {
        assert!(settings.contains(&(number, value)), "{number}: {settings:?}");
    }
    // A second stream while the first is open.
    for number in [1, 3] {
        let headers = frame(HEADERS, END_HEADERS, number, &join_headers(&[]));
        stream.write_all(&headers).await.unwrap();
    }
    stream.flush().await.unwrap();
    let refused = async {
        loop {
            let (kind, number, payload) =
                read_frame(&mut stream).await.expect("refused, not ended");
            if kind == RST_STREAM && number == 3 {
                return u32::from_be_bytes(payload.try_into().unwrap());
            }
        }
    };
    assert_eq!(timeout(PATIENCE, refused).await.unwrap(), 7, "REFUSED_STREAM");

    // More headers than may be, in a connection of its own: 431, and no stream.
    let (mut stream, _) = connection(&site).await;
    let many: Vec<u8> =
        (0..60).flat_map(|number| header(&format!("x-{number}"), &"y".repeat(120))).collect();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &join_headers(&many))).await.unwrap();
    stream.flush().await.unwrap();
    let refused = async {
        loop {
            match read_frame(&mut stream).await {
                // `:status: 431` is not in the static table, so it comes as text, perhaps coded.
                Some((HEADERS, 1, payload)) => return payload.first() != Some(&0x88),
                Some((RST_STREAM | GOAWAY, ..)) | None => return true,
                Some(_) => {}
            }
        }
    };
    assert!(timeout(PATIENCE, refused).await.unwrap(), "8 KiB of headers were taken");
}

/// How long it takes until the server ends this connection.
async fn ends_after(mut stream: impl AsyncReadExt + Unpin) -> Duration {
    let watch = Stopwatch::start();
    let mut rest = Vec::new();
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it never ends");
    watch.elapsed()
}

// T36: each of these is silent at another moment.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_silent_is_shown_the_door() {
    let site = Site::new();
    let tcp = TcpStream::connect(site.address()).await.unwrap();
    let mut slow = TcpStream::connect(site.address()).await.unwrap();
    slow.write_all(&[0x16, 0x03, 0x01, 0x00, 0xc8]).await.unwrap();
    let tls = careless_connection(site.address()).await;
    let (http, _) = connection(&site).await;
    let (mut asking, _) = connection(&site).await;
    asking.write_all(&frame(HEADERS, END_HEADERS, 1, &join_headers(&[]))).await.unwrap();
    asking.flush().await.unwrap();
    let no_first_message = async {
        let watch = Stopwatch::start();
        // The status comes in the headers at the end of the stream.
        while let Some((kind, ..)) = read_frame(&mut asking).await {
            if kind == HEADERS && watch.elapsed() > Duration::from_secs(2) {
                break;
            }
        }
        watch.elapsed()
    };
    let silences = tokio::join!(
        ends_after(tcp),
        ends_after(slow),
        ends_after(tls),
        ends_after(http),
        timeout(PATIENCE, no_first_message),
    );
    let (tcp, slow, tls, http, asking) = silences;
    for (name, silence) in [
        ("without a byte", tcp),
        ("within the hello", slow),
        ("after the handshake", tls),
        ("after the settings", http),
        ("after the call", asking.unwrap()),
    ] {
        let seconds = silence.as_secs_f64();
        assert!((4.0..12.0).contains(&seconds), "{name}: {seconds} s");
    }
}

// A hello has a bound too: 2,000 half-open connections may hold one each.
#[tokio::test(flavor = "multi_thread")]
async fn a_hello_of_more_than_8_kib_is_refused() {
    let site = Site::new();
    let mut stream = TcpStream::connect(site.address()).await.unwrap();
    // Records of one hello that says it is 60,000 bytes long.
    let mut first = vec![0x01, 0x00, 0xea, 0x60, 0x03, 0x03];
    first.resize(4096, 0);
    let record = |body: &[u8]| {
        let mut record = vec![0x16, 0x03, 0x01];
        record.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        record.extend(body);
        record
    };
    stream.write_all(&record(&first)).await.unwrap();
    let rest = record(&[0; 4096]);
    let sending = async {
        stream.write_all(&rest).await?;
        stream.write_all(&rest).await
    };
    let _reset = sending.await;
    let silence = ends_after(stream).await;
    assert!(silence < Duration::from_secs(4), "it was waited for: {silence:?}");
}

// gRPC's compression is off: nobody sends little that becomes much.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_compressed_is_read() {
    let site = Site::new();
    let (mut stream, _) = connection(&site).await;
    let coded = header("grpc-encoding", "gzip");
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &join_headers(&coded))).await.unwrap();
    // Flagged as compressed: a minute of zeros in 40 bytes would be read here.
    let message = [&[1, 0, 0, 0, 4][..], &[0x1f, 0x8b, 0x08, 0x00]].concat();
    stream.write_all(&frame(0, 1, 1, &message)).await.unwrap();
    stream.flush().await.unwrap();
    let mut answers = Vec::new();
    let answer = async {
        loop {
            let Some((kind, _, payload)) = read_frame(&mut stream).await else { return };
            answers.extend(payload);
            if kind == HEADERS {
                return;
            }
        }
    };
    timeout(Duration::from_secs(4), answer).await.expect("an answer at once, not after a timeout");
    let (_, session) = stream.get_ref();
    assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
}

// T36: a chain of certificates is the longest thing that comes before anybody is known.
#[tokio::test]
async fn a_handshake_of_more_than_32_kib_is_cut_off() {
    let site = Site::with(|mut command| {
        command.args(["--log", "muster=debug"]);
        command
    });
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let filling = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 1], vec![0; 12_000]);
    params.custom_extensions.push(filling);
    let long = params.self_signed(&key).unwrap().der().clone();
    for (certificates, said) in
        [(2, "invalid peer certificate"), (3, "the peer sends more than anybody needs to")]
    {
        assert!(!site.server.log().contains(said));
        let chain = vec![long.clone(); certificates];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = careless(|builder| builder.with_client_auth_cert(chain, key).unwrap());
        let stream = TcpStream::connect(site.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        // For the client it is over before the server has looked at what it sent.
        let mut stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap_err();
        site.server.says(said);
    }
}

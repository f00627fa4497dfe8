//! Strangers in great number, and what they cost.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster::clock::Stopwatch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::harness::{
    OTHER_WORKER, Process, Site, WORKER, await_that, careless_connection, mortal,
};

/// How many strangers come, if this process may have so many files.
const CROWD_MAX: u64 = 10_000;
/// What other tests of this process need.
const OTHER_FILES: u64 = 500;
/// What the server may take at its peak, in MiB. A test build needs more than a release.
pub(crate) const MEMORY_MAX_MIB: u64 = 300;

/// The crowd comes by hundreds, with this pause between.
const PACE: Duration = Duration::from_millis(20);

/// A number of the server's page about itself.
pub(crate) fn proc_number(server: &Process, page: &str, line: &str, word: usize) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/{page}", server.id())).unwrap();
    let line = text.lines().find(|found| found.starts_with(line)).unwrap();
    line.split_whitespace().nth(word).unwrap().parse().unwrap()
}

/// Lets this process have as many files as it may; how many that is.
pub(crate) fn allow_many_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

/// The start of a `ClientHello`, of which each stranger sends a byte now and then.
const HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03];

/// Somebody who connects and never finishes a handshake: the odd ones send bytes, the others
/// nothing. Whoever is thrown out comes back.
struct Stranger {
    stream: TcpStream,
    sent: usize,
}

impl Stranger {
    fn new(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(Self { stream, sent: 0 })
    }

    fn is_thrown_out(&mut self) -> bool {
        match self.stream.peek(&mut [0; 1]) {
            Ok(_) => true,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    fn send_a_byte(&mut self) {
        if let Some(byte) = HELLO.get(self.sent)
            && self.stream.write(&[*byte]).is_ok()
        {
            self.sent += 1;
        }
    }
}

/// Keeps a crowd at the door until told to stop; `came` counts all connections.
fn crowd(address: &str, many: usize, came: &AtomicUsize, stop: &AtomicBool) {
    let mut strangers: Vec<Stranger> = Vec::new();
    while strangers.len() < many && !stop.load(Ordering::SeqCst) {
        strangers.extend(Stranger::new(address));
        came.fetch_add(1, Ordering::SeqCst);
        // A crowd that floods the queue of the listener waits a second for each one lost.
        if strangers.len().is_multiple_of(100) {
            std::thread::sleep(PACE);
        }
    }
    while !stop.load(Ordering::SeqCst) {
        for group in strangers.chunks_mut(100) {
            for (number, stranger) in group.iter_mut().enumerate() {
                if stranger.is_thrown_out() {
                    if let Some(again) = Stranger::new(address) {
                        *stranger = again;
                    }
                    came.fetch_add(1, Ordering::SeqCst);
                }
                if number % 2 == 1 {
                    stranger.send_a_byte();
                }
            }
            std::thread::sleep(PACE);
        }
    }
}

// T36, T55
#[test]
fn honest_nodes_join_through_a_crowd_that_never_finishes_its_handshakes() {
    let maximum = allow_many_files();
    let many = usize::try_from(CROWD_MAX.min(maximum.saturating_sub(OTHER_FILES))).unwrap();
    // As a login shell would start it.
    let site = Site::with(|server| {
        let mut command = mortal(Path::new("sh"));
        command.args(["-c", "ulimit -S -n 256 && exec \"$@\"", "sh"]);
        command.arg(server.get_program()).args(server.get_args());
        command
    });
    let soft = proc_number(&site.server, "limits", "Max open files", 3);
    assert_eq!(soft, maximum, "the server raises its limit of open files");
    let before = proc_number(&site.server, "status", "VmRSS:", 1) / 1024;

    let (came, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let waited = std::thread::scope(|scope| {
        scope.spawn(|| crowd(site.address(), many, &came, &stop));
        let _ends_with_us = StopAtEnd(&stop);
        await_that("the crowd is there", || came.load(Ordering::SeqCst) >= many);
        let watch = Stopwatch::start();
        site.join(WORKER, "node").yes();
        site.join(OTHER_WORKER, "other").yes();
        watch.elapsed()
    });

    let peak = proc_number(&site.server, "status", "VmHWM:", 1) / 1024;
    eprintln!(
        "{} connections of strangers, {many} at a time: two joins took {waited:.1?}; \
         the server had {before} MiB before and {peak} MiB at its peak",
        came.load(Ordering::SeqCst),
    );
    assert!(peak < MEMORY_MAX_MIB, "{peak} MiB");
    site.join(WORKER, "node").yes();
    assert_eq!(site.local(&["audit", "verify"]).yes()["ok"], true);
}

/// Ends the crowd even when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

// T55: the crowd finishes its handshakes, and then has nothing to ask.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_for_nothing_do_not_fill_the_server() {
    let keep = tempfile::tempdir().unwrap();
    let config = keep.path().join("server.toml");
    std::fs::write(&config, "[listen]\nconnections_max = 60\nhandshakes_max = 30\n").unwrap();
    let site = Arc::new(Site::with(|mut server| {
        server.arg("--config").arg(&config);
        server
    }));

    let mut strangers = Vec::new();
    for number in 0..100 {
        let mut stranger = careless_connection(site.address()).await;
        if number % 2 == 1 {
            stranger.write_all(b"P").await.unwrap();
        }
        strangers.push(stranger);
    }
    joins(&site).await;
    // The last one came too young to be pushed out, and is shown the door all the same.
    let mut rest = Vec::new();
    let _closed = strangers.pop().unwrap().read_to_end(&mut rest).await;
    joins(&site).await;
}

// T35
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_long_are_refused_and_disturb_nobody() {
    let site = Arc::new(Site::new());
    let before = proc_number(&site.server, "status", "VmRSS:", 1) / 1024;
    // Longer than a message may be, and one that only claims to be.
    let long = 33 * 1024_u32;
    let whole: Vec<u8> = [&[0][..], &long.to_be_bytes(), &vec![0x0a; long as usize]].concat();
    let claim: Vec<u8> = [&[0][..], &u32::MAX.to_be_bytes(), &[0x0a; 100]].concat();
    // Fields in fields in fields, which a parser that recurses would follow.
    let nested: Vec<u8> = [&[0][..], &30_000_u32.to_be_bytes(), &vec![0x0b; 30_000]].concat();
    for message in [whole, claim, nested] {
        for _ in 0..20 {
            let status =
                status_of(careless_connection(site.address()).await, message.clone()).await;
            assert!(["3", "11", "13"].contains(&status.as_str()), "grpc-status {status}");
        }
    }
    let after = proc_number(&site.server, "status", "VmHWM:", 1) / 1024;
    assert!(after < before + 50, "{before} MiB grew to {after} MiB");
    joins(&site).await;
}

/// Sends one message to `Join`; the gRPC status that comes back.
pub(crate) async fn status_of(
    stream: TlsStream<tokio::net::TcpStream>,
    message: Vec<u8>,
) -> String {
    let stream = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://muster/muster.v1.JoinService/Join")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(message)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let header = answer.headers().get("grpc-status").cloned();
    let rest = answer.into_body().collect().await.unwrap();
    let trailer = rest.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    header.or(trailer).expect("a status").to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_after_the_handshake_disturbs_nobody() {
    let site = Arc::new(Site::new());
    let garbage: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\nhost: muster\r\n\r\n",
        &[0xff; 5000],
        // A settings frame that claims 16 MiB.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00",
    ];
    for bytes in garbage {
        let mut stream = careless_connection(site.address()).await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // It is thrown out; with or without a goodbye.
        let _reset = stream.read_to_end(&mut answer).await;
    }
    // Neither does one who stays and says nothing.
    let _silent = careless_connection(site.address()).await;
    joins(&site).await;
}

async fn joins(site: &Arc<Site>) {
    let site = Arc::clone(site);
    tokio::task::spawn_blocking(move || site.join(WORKER, "node").yes().clone()).await.unwrap();
}

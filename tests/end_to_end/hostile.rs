//! Crowds that do more than knock: they send whole hellos, finish their handshakes, ask for
//! something, show documents. What they get is measured by counts, and what honest nodes get too.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;

use hyper::body::{Body, Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use muster::clock::Stopwatch;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::crowd::{MEMORY_MAX_MIB, allow_many_files, proc_number, status_of};
use crate::harness::{
    MORE_WORKERS, OTHER_WORKER, STRANGER, Site, WORKER, await_that, careless_config,
    careless_connection_from, tcp_connection_from,
};

/// Another network than that of the nodes, which is 127.0.0.0/24; and a neighbour of theirs.
const ELSEWHERE: &str = "127.0.9.1";
const NEXT_DOOR: &str = "127.0.0.77";

/// A crowd on threads of its own, until it is dropped.
struct Crowd {
    runtime: Option<Runtime>,
    served: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    /// So many who do this over and over. What it returns says whether the server did anything.
    fn of<F, D>(many: usize, deed: D) -> Self
    where
        D: Fn() -> F + Send + Sync + Clone + 'static,
        F: Future<Output = bool> + Send,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (served, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        for _ in 0..many {
            let (served, stop, deed) = (Arc::clone(&served), Arc::clone(&stop), deed.clone());
            runtime.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    if deed().await {
                        served.fetch_add(1, Ordering::SeqCst);
                    } else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            });
        }
        Self { runtime: Some(runtime), served, stop }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Waits until it is well under way.
    fn has_served(&self, many: usize) {
        await_that("it is under way", || self.served() >= many);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What everybody sends first.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(careless_config(), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// A number of the metrics page.
fn metric(site: &Site, name: &str) -> f64 {
    let page = site.page("/metrics");
    let line =
        page.lines().find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')));
    line.expect(name)[name.len()..].trim().parse().unwrap()
}

// T36, D6. A hello is a copy of another, and costs us a key exchange and a signature. Two hundred are
// always in line: first come, first served would have a node wait for all of them, twice.
#[test]
fn a_node_does_not_wait_for_a_crowd_of_hellos() {
    const CROWD: usize = 200;
    const NODES: usize = 20;
    let site = Site::new();
    let (address, hello) = (site.address().to_owned(), hello());
    let crowd = Crowd::of(CROWD, move || {
        let (address, hello) = (address.clone(), hello.clone());
        async move {
            let Ok(mut stream) = tcp_connection_from(ELSEWHERE, &address).await else {
                return false;
            };
            stream.write_all(&hello).await.is_ok()
                && stream.read(&mut [0; 1]).await.is_ok_and(|read| read > 0)
        }
    });
    crowd.has_served(1000);

    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut served_meanwhile = Vec::new();
    for _ in 0..NODES {
        let before = crowd.served();
        let shaken = runtime.block_on(careless_connection_from("127.0.0.1", site.address()));
        served_meanwhile.push(crowd.served() - before);
        drop(shaken.unwrap());
    }
    served_meanwhile.sort_unstable();
    let median = served_meanwhile[NODES / 2];
    eprintln!(
        "{CROWD} strangers in line: a node's handshake waits for {median} of them (median), {} at \
         worst; turns took {:.0} us on average",
        served_meanwhile[NODES - 1],
        metric(&site, "muster_turn_seconds_total") * 1e6
            / (metric(&site, r#"muster_turns_total{standing="distrusted"}"#)
                + metric(&site, r#"muster_turns_total{standing="unknown"}"#))
    );
    assert!(median < CROWD / 2, "{served_meanwhile:?}");
    site.join(WORKER, "node").yes();
    assert!(metric(&site, r#"muster_turns_total{standing="distrusted"}"#) > 500.0);
    assert!(metric(&site, r#"muster_networks{standing="distrusted"}"#) >= 1.0);
}

// The crowd finishes its handshakes, and sends what is no message; from elsewhere and from next door.
#[test]
fn nodes_join_through_a_crowd_that_sends_garbage() {
    const CROWD: usize = 32;
    let site = Site::new();
    let before = proc_number(&site.server, "status", "VmRSS:", 1) / 1024;
    let crowds = [ELSEWHERE, NEXT_DOOR].map(|source| {
        let address = site.address().to_owned();
        Crowd::of(CROWD, move || {
            let address = address.clone();
            async move {
                let Ok(stream) = careless_connection_from(source, &address).await else {
                    return false;
                };
                status_of(stream, [&[0, 0, 0, 0, 9][..], &[0xff; 9]].concat()).await != "0"
            }
        })
    });
    for crowd in &crowds {
        crowd.has_served(100);
    }
    for (number, worker) in [WORKER, OTHER_WORKER].into_iter().chain(MORE_WORKERS).enumerate() {
        site.join(worker, &format!("node-{number}")).yes();
    }
    let served = crowds.each_ref().map(Crowd::served);
    let peak = proc_number(&site.server, "status", "VmHWM:", 1) / 1024;
    eprintln!("{served:?} strangers served meanwhile; {before} MiB before, {peak} MiB at the peak");
    let garbage = r#"muster_joins_total{method="unknown",code="MALFORMED_REQUEST"}"#;
    assert!(metric(&site, garbage) >= 200.0);
    // What they left is a summary each minute, and no record of each.
    let records = site.local(&["audit", "ls", "--outcome", "refused"]);
    assert!(records.values.is_empty(), "{records:?}");
}

// Strangers with good documents of an account that no policy names, behind the nodes' own gateway.
#[test]
fn nodes_join_through_a_crowd_of_strangers_of_their_own_network() {
    const CROWD: usize = 6;
    let site = Site::new();
    let stop = AtomicBool::new(false);
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..CROWD {
            let (site, stop, refused) = (&site, &stop, &refused);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let answer = site.join(STRANGER, &format!("stranger-{number}"));
                    assert_eq!(answer.failure().1, "NOT_ADMITTED");
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _ends_with_us = StopAtEnd(&stop);
        await_that("strangers were refused", || refused.load(Ordering::SeqCst) >= 2 * CROWD);
        for (number, worker) in MORE_WORKERS.into_iter().enumerate() {
            site.join(worker, &format!("node-{number}")).yes();
        }
    });
    eprintln!("{} strangers were refused meanwhile", refused.load(Ordering::SeqCst));
    assert_eq!(site.local(&["audit", "verify"]).yes()["ok"], true);
}

/// Ends the crowd even when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Finishes the handshake, and then is silent or sends an HTTP/2 ping a second, until it is put out.
async fn finish_and_stay(source: &str, address: &str, pings: bool) -> bool {
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0pingpong";
    let Ok(stream) = careless_connection_from(source, address).await else { return false };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let pinging = async {
        if !pings || writer.write_all(HELLO).await.is_err() {
            return std::future::pending().await;
        }
        while writer.write_all(PING).await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut answers = Vec::new();
    tokio::select! {
        _put_out = reader.read_to_end(&mut answers) => {}
        () = pinging => {}
    }
    true
}

// T55, acceptance 4: thousands who have finished their handshakes, and ask for nothing.
#[test]
fn nodes_join_beside_thousands_who_finish_their_handshakes_and_stay() {
    const CROWD: usize = 3000;
    allow_many_files();
    let site = Site::new();
    let before = proc_number(&site.server, "status", "VmRSS:", 1) / 1024;
    let crowds = [(ELSEWHERE, true), (NEXT_DOOR, false)].map(|(source, pings)| {
        let address = site.address().to_owned();
        Crowd::of(CROWD / 2, move || {
            let address = address.clone();
            async move { finish_and_stay(source, &address, pings).await }
        })
    });
    for crowd in &crowds {
        crowd.has_served(CROWD / 10);
    }
    for (number, worker) in [WORKER, OTHER_WORKER].into_iter().enumerate() {
        site.join(worker, &format!("node-{number}")).yes();
    }
    let peak = proc_number(&site.server, "status", "VmHWM:", 1) / 1024;
    eprintln!(
        "{} connections of strangers, {CROWD} at a time, of which {} were shown the door; {before} \
         MiB before, {peak} MiB at the peak",
        metric(&site, "muster_connections_total"),
        crowds.iter().map(Crowd::served).sum::<usize>(),
    );
    assert!(peak < MEMORY_MAX_MIB, "{peak} MiB");
}

/// A request whose body never comes.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Calls Join, says nothing, and pings every second so that nobody takes it for dead; until it is
/// put out.
async fn ping_and_say_nothing(source: &str, address: &str, settled: &AtomicUsize) -> bool {
    let Ok(stream) = careless_connection_from(source, address).await else { return false };
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(1)))
        .keep_alive_while_idle(true);
    let Ok((mut sender, connection)) = http.handshake(TokioIo::new(stream)).await else {
        return false;
    };
    let request = Request::post("https://muster/muster.v1.JoinService/Join")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Silent)
        .unwrap();
    let asking = sender.send_request(request);
    settled.fetch_add(1, Ordering::SeqCst);
    let (_put_out, _answer) = tokio::join!(connection, asking);
    settled.fetch_sub(1, Ordering::SeqCst);
    true
}

// T55, acceptance 4: the crowd has every place, keeps each for as long as it can, and comes back.
#[test]
fn nodes_join_when_every_place_is_taken_by_somebody_who_only_pings() {
    const PLACES: usize = 300;
    const CROWD: usize = 400;
    static SETTLED: AtomicUsize = AtomicUsize::new(0);
    let keep = tempfile::tempdir().unwrap();
    let config = keep.path().join("server.toml");
    let text = format!("[listen]\nconnections_max = {PLACES}\nhandshakes_max = 50\n");
    std::fs::write(&config, text).unwrap();
    let site = Site::with(|mut server| {
        server.arg("--config").arg(&config);
        server
    });
    let before = proc_number(&site.server, "status", "VmRSS:", 1) / 1024;
    let crowds = [ELSEWHERE, NEXT_DOOR].map(|source| {
        let address = site.address().to_owned();
        Crowd::of(CROWD / 2, move || {
            let address = address.clone();
            async move {
                let was_in = ping_and_say_nothing(source, &address, &SETTLED).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                was_in
            }
        })
    });
    // Nearly every place is of somebody who has asked, and the rest of the crowd wants them too.
    let is_settled = || SETTLED.load(Ordering::SeqCst) >= PLACES * 4 / 5;
    await_that("the crowd has the places", is_settled);
    std::thread::sleep(Duration::from_secs(1));
    let watch = Stopwatch::start();
    for (number, worker) in [WORKER, OTHER_WORKER].into_iter().enumerate() {
        site.join(worker, &format!("node-{number}")).yes();
    }
    let waited = watch.elapsed();
    let peak = proc_number(&site.server, "status", "VmHWM:", 1) / 1024;
    assert!(peak < MEMORY_MAX_MIB, "{peak} MiB");
    eprintln!(
        "{} connections came for {PLACES} places, {} were put out, and two nodes joined in {waited:.1?}; \
         {before} MiB before, {peak} MiB at the peak",
        metric(&site, "muster_connections_total"),
        crowds.iter().map(Crowd::served).sum::<usize>(),
    );
}

//! What happens to a node, third part: the server has decided and dies before the node hears of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use crate::agent::{agent_command_for, await_status};
use crate::harness::{Process, Site, WORKER, await_that};
use crate::what_happens::{assert_no_harm, history, hurry, key, node};

/// Of all that a node sends, its evidence alone makes a TLS record as long as this.
const EVIDENCE_BYTES: usize = 2000;
/// A certificate is longer than all that HTTP/2 says beside it.
const REPLY_BYTES: usize = 1000;
const APPLICATION_DATA: u8 = 23;

/// What stands between node and server, and loses the server's replies when it is told to.
struct Network {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    server: Mutex<SocketAddr>,
    loses_replies: AtomicBool,
    lost_bytes: AtomicUsize,
}

impl Network {
    fn to(site: &Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server: Mutex::new(site.address().parse().unwrap()),
            loses_replies: AtomicBool::new(false),
            lost_bytes: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        spawn(move || {
            for near in listener.incoming() {
                let server = *shared.server.lock().unwrap();
                // A dead server: the node's connection ends at once.
                if let Ok(far) = TcpStream::connect(server) {
                    carry(&near.unwrap(), &far, &shared);
                }
            }
        });
        Self { address, state }
    }

    fn lose_replies(&self, is_it: bool) {
        self.state.loses_replies.store(is_it, Ordering::SeqCst);
        self.state.lost_bytes.store(0, Ordering::SeqCst);
    }

    fn has_lost_a_reply(&self) -> bool {
        self.state.lost_bytes.load(Ordering::SeqCst) >= REPLY_BYTES
    }

    /// The server is killed, and another one has its data. What becomes of replies is settled before
    /// any node can reach it.
    fn kill_server(&self, site: &mut Site, loses_replies: bool) {
        site.restart(|command| command);
        self.lose_replies(loses_replies);
        *self.state.server.lock().unwrap() = site.address().parse().unwrap();
    }
}

/// Carries the bytes of one connection, both ways.
fn carry(near: &TcpStream, far: &TcpStream, state: &Arc<State>) {
    let is_silent = Arc::new(AtomicBool::new(false));
    let (mut node, mut server) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let (silences, shared) = (Arc::clone(&is_silent), Arc::clone(state));
    spawn(move || {
        let mut records = Records::default();
        copy(&mut node, &mut server, |bytes| {
            // Before the server gets the evidence, so that its answer cannot slip through.
            if records.have_evidence(bytes) && shared.loses_replies.load(Ordering::SeqCst) {
                silences.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    let (mut node, mut server) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let shared = Arc::clone(state);
    spawn(move || {
        copy(&mut server, &mut node, |bytes| {
            let is_lost = is_silent.load(Ordering::SeqCst);
            if is_lost {
                shared.lost_bytes.fetch_add(bytes.len(), Ordering::SeqCst);
            }
            !is_lost
        });
    });
}

/// Copies until one side ends, and then ends both; `passes` says of all bytes whether they do.
fn copy(from: &mut TcpStream, to: &mut TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if passes(&buffer[..length]) && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _may_be_over_already = stream.shutdown(Shutdown::Both);
    }
}

/// The TLS records of one direction, by their headers.
#[derive(Default)]
struct Records {
    header: Vec<u8>,
    rest: usize,
}

impl Records {
    fn have_evidence(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while let Some((first, others)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.header.push(*first);
            bytes = others;
            if let [kind, _, _, high, low] = self.header[..] {
                self.rest = usize::from(u16::from_be_bytes([high, low]));
                found |= kind == APPLICATION_DATA && self.rest >= EVIDENCE_BYTES;
                self.header.clear();
            }
        }
        found
    }
}

fn agent_through(site: &Site, network: &Network) -> Process {
    let server = network.address.to_string();
    let command = agent_command_for(site, &server, WORKER, "node");
    Process::launch(command, &site.path("agent.log"))
}

// I5
#[test]
fn lost_reply_at_join() {
    let mut site = Site::new();
    let network = Network::to(&site);
    network.lose_replies(true);
    let agent = agent_through(&site, &network);
    await_that("a reply is lost", || network.has_lost_a_reply());
    let recorded = node(&site)["serial"].clone();
    let asked_with = fs::read(site.path("node/pending/key.pem")).unwrap();
    assert!(!site.path("node/current").exists(), "it heard nothing");
    network.kill_server(&mut site, false);

    let status = await_status(&site, "node", |status| status["joined"] == true);
    assert_eq!(status["serial"], recorded);
    assert_eq!(key(&site, "node"), asked_with);
    assert_eq!(history(&site), ["enrolled"]);
    assert_no_harm(&site);
    drop(agent);
}

// T64, N2
#[test]
fn lost_reply_at_renewal_three_times_with_the_server_killed_between() {
    let mut site = Site::new();
    let network = Network::to(&site);
    let agent = agent_through(&site, &network);
    let first = await_status(&site, "node", |status| status["joined"] == true);
    let mut asked_with = BTreeSet::new();
    network.lose_replies(true);
    for loses_more in [true, true, false] {
        hurry(&site, &agent, "node", |_| network.has_lost_a_reply());
        asked_with.insert(fs::read(site.path("node/pending/key.pem")).unwrap());
        network.kill_server(&mut site, loses_more);
    }
    assert_eq!(asked_with.len(), 1, "one key, however often it asks");

    let renewed = hurry(&site, &agent, "node", |status| {
        status["serial"] != first["serial"] && status["last_error"].is_null()
    });
    assert!(asked_with.contains(&key(&site, "node")));
    // One order, whose certificate was handed out four times.
    assert_eq!(history(&site), ["enrolled", "renewed"]);
    assert_eq!(node(&site)["history"][1]["serial"], renewed["serial"]);
    assert_no_harm(&site);

    // And it goes on from there.
    hurry(&site, &agent, "node", |status| status["serial"] != renewed["serial"]);
    assert_eq!(history(&site), ["enrolled", "renewed", "renewed"]);
    assert_no_harm(&site);
}

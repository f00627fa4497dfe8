//! The revocation list as relying parties see it, and addresses as a balancer tells them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use muster::clock::Stopwatch;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::harness::{Answer, OTHER_WORKER, Site, WORKER, is_missing, join_command};

/// What a lock is given until it is on the list (acceptance 3).
const ON_THE_LIST_WITHIN: Duration = Duration::from_secs(5);

fn site() -> Site {
    Site::with(|mut command| {
        command.args(["--crl-listen", "127.0.0.1:0"]);
        command
    })
}

/// The body of the answer to a request, and its status line.
fn ask(site: &Site, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(site.server.said("crl")).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end + 4..].to_vec())
}

fn serials(list: &[u8]) -> Vec<String> {
    let (_, list) = CertificateRevocationList::from_der(list).unwrap();
    list.iter_revoked_certificates().map(|one| hex::encode_upper(one.raw_serial())).collect()
}

fn wait_for(site: &Site, wanted: &[&str]) {
    let watch = Stopwatch::start();
    loop {
        let (_, list) = ask(site, "GET /crl.der");
        if serials(&list) == wanted {
            assert_eq!(fs::read(site.path("data/crl.der")).unwrap(), list);
            return;
        }
        assert!(
            watch.elapsed() < ON_THE_LIST_WITHIN,
            "{:?}\n{}",
            serials(&list),
            site.server.log()
        );
        sleep(Duration::from_millis(50));
    }
}

// Acceptance 3, T29: a locked node is on the list within seconds, and from the first moment of the
// next process; an unlocked one is off it.
#[test]
fn a_locked_node_is_on_the_list() {
    let mut site = site();
    let (head, list) = ask(&site, "GET /crl.der");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/pkix-crl"), "{head}");
    assert_eq!(serials(&list), [] as [&str; 0]);

    let node = site.join(WORKER, "node").yes().clone();
    site.join(OTHER_WORKER, "other").yes();
    let serial = node["serial"].as_str().unwrap();
    site.local(&["nodes", "lock", "--instance", WORKER, "--reason", "INC-42"]).yes();
    wait_for(&site, &[serial]);

    // OpenSSL reads it, and refuses the certificate by it.
    if !is_missing("openssl") {
        assert!(!openssl_verifies(&site), "a locked certificate");
    }

    site.restart(|mut command| {
        command.args(["--crl-listen", "127.0.0.1:0"]);
        command
    });
    assert_eq!(serials(&ask(&site, "GET /crl.der").1), [serial]);
    assert_eq!(site.join(WORKER, "node").failure(), (1, "NOT_ADMITTED"));

    site.local(&["nodes", "unlock", "--instance", WORKER, "--reason", "closed"]).yes();
    wait_for(&site, &[]);
    if !is_missing("openssl") {
        assert!(openssl_verifies(&site), "no lock stands");
    }
}

fn openssl_verifies(site: &Site) -> bool {
    let pem = site.path("crl.pem");
    let converted = Command::new("openssl")
        .args(["crl", "-inform", "DER", "-in"])
        .arg(site.path("data/crl.der"))
        .arg("-out")
        .arg(&pem)
        .output()
        .unwrap();
    assert!(converted.status.success(), "{converted:?}");
    let current = site.path("node/current");
    Command::new("openssl")
        .args(["verify", "-crl_check", "-CAfile"])
        .arg(current.join("bundle.pem"))
        .arg("-CRLfile")
        .arg(pem)
        .arg(current.join("certificate.pem"))
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
fn the_list_is_all_that_the_listener_has() {
    let site = site();
    for (request, status) in [
        ("HEAD /crl.der", "200"),
        ("POST /crl.der", "405"),
        ("GET /", "404"),
        ("GET /metrics", "404"),
        ("GET /../muster.db", "404"),
    ] {
        let (head, _) = ask(&site, request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
}

// A list is made again after a take-over, and a certificate that was forgotten is on it.
#[test]
fn a_forgotten_node_is_on_the_list() {
    let site = site();
    let node = site.join(WORKER, "node").yes().clone();
    site.local(&["nodes", "forget", WORKER, "--reason", "decommissioned"]).yes();
    wait_for(&site, &[node["serial"].as_str().unwrap()]);
}

// Behind a TCP balancer: the address on record is the node's, and nobody else can claim one.
#[test]
fn a_balancer_tells_where_nodes_come_from() {
    let keep = tempfile::tempdir().unwrap();
    let config = keep.path().join("server.toml");
    fs::write(&config, "[listen]\nproxy_protocol_from = ['127.0.0.0/8']\n").unwrap();
    let site = Site::with(|mut command| {
        command.arg("--config").arg(&config);
        command
    });
    let proxy = balancer(site.address().parse().unwrap());
    let mut join = site.join_command(WORKER, "node");
    join.args(["--server", &proxy.to_string(), "--pin", site.pin()]);
    Answer::of(&mut join).yes();
    let shown = site.local(&["nodes", "show", WORKER]);
    assert_eq!(shown.yes()["source"], "192.0.2.7");
    // Without the header a connection from there gets nowhere.
    let endpoint = site.simulator.ready["imds"][OTHER_WORKER].as_str().unwrap();
    let mut join = join_command(endpoint, &site.path("other"), "2s");
    join.args(["--server", site.address(), "--pin", site.pin()]);
    assert_eq!(Answer::of(&mut join).exit, 3);
}

/// A TCP balancer that says that everybody comes from 192.0.2.7.
fn balancer(server: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut near, mut far) = (stream.unwrap(), TcpStream::connect(server).unwrap());
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
            header.extend([192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 0x1d, 0x13]);
            far.write_all(&header).unwrap();
            let (mut near_too, mut far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || drop(std::io::copy(&mut near_too, &mut far_too)));
            std::thread::spawn(move || drop(std::io::copy(&mut far, &mut near)));
        }
    });
    address
}

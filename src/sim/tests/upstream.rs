//! What reaches an emulator behind the simulator, and what does not.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::corpus::{Signing, send};
use super::*;

const LIST: &str = "Action=ListRoles&Version=2010-05-08";

/// An emulator that answers every request in the same way, and how often it was asked.
async fn emulator() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.ends_with(LIST) {
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                request.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
            sender.send(request).unwrap();
            let answer = "HTTP/1.1 418 x\r\nx-kept: yes\r\ncontent-length: 5\r\n\r\nroles";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

fn before(upstream: SocketAddr) -> Arc<Simulator> {
    let simulator = Simulator::new(&Scenario::parse(SCENARIO).unwrap(), Clock::fixed(NOW)).unwrap();
    Arc::new(simulator.with_upstream(upstream).unwrap())
}

fn listing(credentials: &Credentials) -> Signing<'_> {
    Signing::new(credentials, "iam", LIST)
}

#[tokio::test]
async fn the_emulator_is_told_the_account_of_the_signer_and_no_other() {
    let (address, mut asked) = emulator().await;
    let simulator = before(address);
    let own = simulator.server_credentials();
    let mut request = listing(&own).request();
    for name in ["x-moto-account-id", "x_moto_account_id"] {
        request.headers_mut().append(name, "999999999999".parse().unwrap());
    }
    let (status, body) = send(&simulator, request).await;
    assert_eq!((status, body.as_str()), (418, "roles"));
    let seen = asked.recv().await.unwrap();
    assert!(seen.contains("x-moto-account-id: 111122223333\r\n"), "{seen}");
    assert!(!seen.contains("999999999999"), "{seen}");
    assert!(seen.contains("Credential=AKIA"), "{seen}");
}

#[tokio::test]
async fn nothing_unsigned_and_no_identity_role_reaches_the_emulator() {
    let (address, mut asked) = emulator().await;
    let simulator = before(address);
    let own = simulator.server_credentials();
    let wrong = Credentials::new(own.access_key_id(), "wrong", None, None, "test");
    assert_eq!(send(&simulator, listing(&wrong).request()).await.0, 403);
    let instance = simulator.identity_credentials(&id("i-0123456789abcdef0")).unwrap();
    assert_eq!(send(&simulator, listing(&instance).request()).await.0, 403);
    let mut unsigned = listing(&own).request();
    unsigned.headers_mut().remove("authorization");
    assert_eq!(send(&simulator, unsigned).await.0, 403);
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn without_an_emulator_it_says_so() {
    let simulator = simulator(&Clock::fixed(NOW));
    let own = simulator.server_credentials();
    let (status, body) = send(&simulator, listing(&own).request()).await;
    assert_eq!(status, 501);
    assert!(body.contains("--upstream"), "{body}");
}

#[test]
fn an_emulator_elsewhere_is_refused() {
    let scenario = Scenario::default();
    let simulator = Simulator::new(&scenario, Clock::fixed(NOW)).unwrap();
    let elsewhere = simulator.with_upstream("192.0.2.1:5000".parse().unwrap());
    assert!(matches!(elsewhere, Err(SimulationFailed::NotLoopback(_))));
}

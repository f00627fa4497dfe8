//! Where AWS is, is said by the configuration alone: the environment may say whose credentials the
//! server has, and nothing else (T75).
//!
//! Each test runs itself again as a child, because a process cannot change its environment safely.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster::aws::{
    AwsHttp, CallStatistics, Ec2Client, Endpoints, HttpSettings, LookUpBy, OwnCredentials, Place,
    Service,
};
use muster::clock::Clock;
use muster::domain::{Partition, Timestamp};
use muster::sim::{self, Scenario, Simulator};
use tokio::net::TcpListener;

const CLOUD: &str = r#"
[server]
account = "999900001111"

[[instances]]
account = "111122223333"
region = "us-west-2"
id = "i-00000000000000001"

[[roles]]
account = "111122223333"
name = "verifier"
"#;
/// Tells a child where the simulator is.
const ADDRESS: &str = "MUSTER_TEST_ADDRESS";

/// Somebody whom the environment names as AWS, its proxy and everything else.
struct Trap {
    address: String,
    visits: Arc<AtomicUsize>,
}

impl Trap {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let visits = Arc::new(AtomicUsize::new(0));
        let counted = visits.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, visits }
    }
}

/// Runs the child with this environment and the trap's; whether it found the instance.
async fn child_finds(trap: &Trap, environment: Vec<(&'static str, String)>) -> bool {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child"]).env("HOME", empty.path());
    for name in [
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
        "AWS_ENDPOINT_URL_EC2",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "ALL_PROXY",
        "https_proxy",
        "http_proxy",
        "all_proxy",
    ] {
        command.env(name, &trap.address);
    }
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env(name, empty.path().join("nothing"));
    }
    command.env("NO_PROXY", "").env("AWS_USE_FIPS_ENDPOINT", "true");
    command.env("AWS_EC2_METADATA_DISABLED", "true").envs(environment);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    output.status.success()
}

#[tokio::test]
async fn addresses_of_the_environment_are_not_followed() {
    let clock = Clock::system();
    let scenario = Scenario::parse(CLOUD).unwrap();
    let simulator = Arc::new(Simulator::new(&scenario, clock).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(sim::serve(simulator.clone(), listener, std::future::pending()));
    let own = simulator.server_credentials();
    let trap = Trap::start().await;
    let environment = vec![
        (ADDRESS, address.clone()),
        ("AWS_ACCESS_KEY_ID", own.access_key_id().to_owned()),
        ("AWS_SECRET_ACCESS_KEY", own.secret_access_key().to_owned()),
    ];
    assert!(child_finds(&trap, environment).await);
    assert_eq!(trap.visits.load(Ordering::SeqCst), 0);
    assert_eq!(simulator.calls().sts["AssumeRole"], 1);
}

// The SDK's chain of credentials makes STS clients of its own, which obey these variables.
#[tokio::test]
async fn the_chain_of_credentials_is_not_led_away() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "canary").unwrap();
    let trap = Trap::start().await;
    let environment = vec![
        (ADDRESS, "http://127.0.0.1:1".to_owned()),
        ("AWS_REGION", "us-west-2".to_owned()),
        ("AWS_ROLE_ARN", "arn:aws:iam::999900001111:role/muster".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap().to_owned()),
    ];
    assert!(!child_finds(&trap, environment).await);
    assert_eq!(trap.visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn child() {
    #[expect(clippy::disallowed_methods, reason = "a child is told by its parent")]
    let Ok(address) = std::env::var(ADDRESS) else {
        // Alone it has nothing to say: the tests above run it.
        return;
    };
    let mut endpoints = Endpoints::new(false);
    for service in [Service::Sts, Service::Ec2] {
        endpoints.replace(service, None, &address, true).unwrap();
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.pem()).unwrap();
    let settings = HttpSettings { roots_file: Some(file.path().to_owned()), proxy: None };
    let http = AwsHttp::new(&settings).unwrap();
    let clock = Clock::system();
    let own = OwnCredentials::of_machine(&http, &endpoints, clock.clone());
    let statistics = Arc::new(CallStatistics::default());
    let client = Ec2Client::new(http, endpoints, own, clock, statistics);
    let place = Place {
        partition: Partition::Aws,
        account: "111122223333".parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
    };
    let arn = "arn:aws:iam::111122223333:role/verifier".to_owned();
    let by = LookUpBy::Role { arn, external_id: None };
    let id = "i-00000000000000001".parse().unwrap();
    let started = Timestamp::from_unix_seconds(0);
    let found = client.describe(&place, &by, &id, started).await.unwrap();
    assert_eq!(found.unwrap().owner_id.as_str(), "111122223333");
}

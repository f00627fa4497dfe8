mod cloud;
mod corpus;
mod faults;
mod ssm;
mod upstream;

use super::*;
use crate::aws::Imds;
use crate::domain::Lifetime;
use crate::methods::ec2::IdentityDocument;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
const SCENARIO: &str = r#"
[[instances]]
account = "111122223333"
region = "us-west-2"
id = "i-0123456789abcdef0"

[[instances]]
account = "444455556666"
region = "cn-north-1"
id = "i-0123456789abcdef1"

[[instances]]
account = "444455556666"
region = "xx-moon-1"
id = "i-0123456789abcdef2"
hop_limit = 0
"#;

fn simulator(clock: &Clock) -> Arc<Simulator> {
    Arc::new(Simulator::new(&Scenario::parse(SCENARIO).unwrap(), clock.clone()).unwrap())
}

fn trust(simulator: &Simulator) -> RegionCertificates {
    let directory = tempfile::tempdir().unwrap();
    let certificates = simulator.write(directory.path(), "127.0.0.1:1".parse().unwrap()).unwrap();
    RegionCertificates::only_directory(&certificates).unwrap()
}

async fn served(simulator: &Arc<Simulator>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(simulator.clone(), listener, std::future::pending()));
    format!("http://{address}")
}

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

#[test]
fn its_documents_verify_with_its_certificates_and_with_no_others() {
    let simulator = simulator(&Clock::fixed(NOW));
    let trusted = trust(&simulator);
    for instance in simulator.instances() {
        let text = simulator.document(&instance).unwrap();
        let document = IdentityDocument::verify(text.as_bytes(), &trusted).unwrap();
        assert_eq!(*document.instance_id(), instance.instance_id);
        assert_eq!(*document.region(), instance.region);
        assert_eq!(document.pending_time(), NOW);
        let embedded = RegionCertificates::embedded();
        assert!(IdentityDocument::verify(text.as_bytes(), &embedded).is_err());
    }
    assert_eq!(trusted.list().len(), 40);
}

#[test]
fn its_messages_have_the_shape_of_a_genuine_one() {
    use base64::Engine;
    let simulator = simulator(&Clock::fixed(NOW));
    let text = simulator.document(&simulator.instances()[0]).unwrap();
    assert!(text.lines().all(|line| line.len() <= 76));
    let dense = text.replace('\n', "");
    let bytes = base64::engine::general_purpose::STANDARD.decode(dense).unwrap();
    let genuine_start = "308006092a864886f70d010702a0803080020101310f300d0609608648016503040201\
                         0500308006092a864886f70d010701a080248004820";
    assert!(hex::encode(&bytes).starts_with(genuine_start));
    assert!(bytes.ends_with(&[0; 6]));
}

#[test]
fn a_restart_gives_a_later_document() {
    let simulator = simulator(&Clock::fixed(NOW));
    let later = NOW.plus(Lifetime::from_hours(1));
    assert!(simulator.restart(&id("i-0123456789abcdef0"), later));
    assert_eq!(simulator.instances()[0].pending_time, later);
    assert!(!simulator.restart(&id("i-00000000000000000"), later));
}

#[tokio::test]
async fn each_instance_has_its_own_metadata_service() {
    let simulator = simulator(&Clock::fixed(NOW));
    let address = served(&simulator).await;
    let imds = Imds::at(&format!("{address}/i-0123456789abcdef1")).unwrap();
    let session = imds.session().await.unwrap();
    assert_eq!(session.instance_id().await.unwrap(), id("i-0123456789abcdef1"));
    let text = session.rsa2048_document().await.unwrap();
    let document = IdentityDocument::verify(text.as_bytes(), &trust(&simulator)).unwrap();
    assert_eq!(document.partition(), crate::domain::Partition::China);

    let unknown = Imds::at(&format!("{address}/i-00000000000000000")).unwrap();
    assert!(unknown.session().await.is_err());
}

/// The status of one request by hand.
async fn status(url: &str, method: &str, header: Option<(&str, &str)>) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let header = header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    let request =
        format!("{method} /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn session_tokens_are_enforced_as_aws_does() {
    const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    const TOKEN: &str = "x-aws-ec2-metadata-token";
    let clock = Clock::fixed(NOW);
    let base = served(&simulator(&clock)).await;
    let put = format!("{base}/i-0123456789abcdef0/latest/api/token");
    let get = format!("{base}/i-0123456789abcdef0/latest/meta-data/instance-id");
    let other = format!("{base}/i-0123456789abcdef1/latest/meta-data/instance-id");
    let pkcs7 = format!("{base}/i-0123456789abcdef0/latest/dynamic/instance-identity/pkcs7");

    for ttl in [None, Some((TTL, "0")), Some((TTL, "21601")), Some((TTL, "x"))] {
        assert_eq!(status(&put, "PUT", ttl).await.0, 400, "{ttl:?}");
    }
    let (code, token) = status(&put, "PUT", Some((TTL, "60"))).await;
    assert_eq!(code, 200);
    assert_eq!(status(&get, "GET", None).await.0, 401);
    assert_eq!(status(&get, "GET", Some((TOKEN, "wrong"))).await.0, 401);
    assert_eq!(status(&other, "GET", Some((TOKEN, &token))).await.0, 401);
    assert_eq!(status(&get, "GET", Some((TOKEN, &token))).await.0, 200);
    assert_eq!(status(&pkcs7, "GET", Some((TOKEN, &token))).await.0, 404);
    clock.advance(Lifetime::from_seconds(60));
    assert_eq!(status(&get, "GET", Some((TOKEN, &token))).await.0, 401);
}

#[tokio::test]
async fn an_instance_without_hops_never_answers() {
    let base = served(&simulator(&Clock::fixed(NOW))).await;
    let silent = format!("{base}/i-0123456789abcdef2/latest/api/token");
    let others = async {
        for _ in 0..50 {
            let other = format!("{base}/i-0123456789abcdef0/latest/api/token");
            assert_eq!(status(&other, "PUT", None).await.0, 400);
        }
    };
    tokio::select! {
        biased;
        (code, _) = status(&silent, "PUT", None) => panic!("it answered {code}"),
        () = others => {}
    }
}

#[tokio::test]
async fn it_serves_on_loopback_only() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve(simulator(&Clock::fixed(NOW)), listener, std::future::pending()).await;
    assert!(matches!(refused, Err(SimulationFailed::NotLoopback(_))));
}

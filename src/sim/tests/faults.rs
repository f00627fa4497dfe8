//! Faults on demand, quotas, and the controls below `/_sim/`.

use serde_json::Value;

use super::corpus::{BODY, Signing, send};
use super::*;

const DESCRIBE: &str = "Action=DescribeInstances&Version=2016-11-15";

async fn answered(simulator: &Arc<Simulator>, service: &str, body: &str) -> (u16, String) {
    let own = simulator.server_credentials();
    send(simulator, Signing::new(&own, service, body).request()).await
}

#[tokio::test]
async fn every_fault_is_what_it_says() {
    let simulator = simulator(&Clock::fixed(NOW));
    for (kind, status, expected) in [
        (FaultKind::Html, 200, "<!DOCTYPE html>"),
        (FaultKind::TwoResults, 200, "\"GetCallerIdentityResult\":[{"),
        (FaultKind::Throttled, 400, "Throttling"),
        (FaultKind::Unavailable, 503, "<Code>ServiceUnavailable</Code>"),
        (FaultKind::OtherAction, 200, "{\\\"GetCallerIdentityResponse\\\""),
        (FaultKind::ErrorWith200, 200, "\"Error\":{"),
        (
            FaultKind::DuplicateKeys,
            200,
            "\"account\":\"999999999999\",\"Account\":\"111122223333\"",
        ),
        (FaultKind::Redirect, 302, ""),
        (FaultKind::Empty, 200, ""),
        (FaultKind::Huge, 200, "xxxxxx"),
    ] {
        simulator.set_fault(Service::Sts, Some(Fault::new(kind)));
        let (found, body) = answered(&simulator, "sts", BODY).await;
        let start = body.get(..300).unwrap_or(&body);
        assert_eq!(found, status, "{kind:?} {start}");
        assert!(body.contains(expected), "{kind:?} {start}");
        assert_eq!(body.is_empty(), expected.is_empty(), "{kind:?} {start}");
        assert_eq!(body.len() > 1024 * 1024, kind == FaultKind::Huge);
        if matches!(kind, FaultKind::TwoResults | FaultKind::Huge | FaultKind::OtherAction) {
            assert!(serde_json::from_str::<Value>(&body).is_ok(), "{kind:?} {start}");
        }
    }
    simulator.set_fault(Service::Sts, Some(Fault::new(FaultKind::OtherAction)));
    let (_, body) = answered(&simulator, "sts", BODY).await;
    assert!(body.contains("<GetCallerIdentityResponse xmlns="), "{body}");
    assert!(body.starts_with("{\"DecodeAuthorizationMessageResponse\""), "{body}");
    simulator.set_fault(Service::Sts, None);
    assert_eq!(answered(&simulator, "sts", BODY).await.0, 200);
}

#[tokio::test]
async fn faults_of_ec2_are_xml() {
    let simulator = simulator(&Clock::fixed(NOW));
    for (kind, status, expected) in [
        (FaultKind::Throttled, 503, "RequestLimitExceeded"),
        (FaultKind::Unavailable, 503, "ServiceUnavailable"),
        (FaultKind::DuplicateKeys, 200, "<ownerId>999999999999</ownerId><ownerId>111122223333"),
        (FaultKind::ErrorWith200, 200, "<Errors>"),
        (FaultKind::Huge, 200, "<!-- xxx"),
        (FaultKind::TwoResults, 200, "<item><reservationId>"),
    ] {
        simulator.set_fault(Service::Ec2, Some(Fault::new(kind)));
        let (found, body) = answered(&simulator, "ec2", DESCRIBE).await;
        let start = body.get(..300).unwrap_or(&body);
        assert_eq!(found, status, "{kind:?} {start}");
        assert!(body.contains(expected), "{kind:?} {start}");
        assert_eq!(body.matches("<instanceId>").count() == 2, kind == FaultKind::TwoResults);
        let parsed = quick_xml::de::from_str::<serde::de::IgnoredAny>(&body);
        assert!(parsed.is_ok(), "{kind:?} {start}");
    }
}

#[tokio::test]
async fn a_fault_ends_after_its_count() {
    let simulator = simulator(&Clock::fixed(NOW));
    let fault = Fault { count: Some(2), ..Fault::new(FaultKind::Unavailable) };
    simulator.set_fault(Service::Sts, Some(fault));
    for status in [503, 503, 200] {
        assert_eq!(answered(&simulator, "sts", BODY).await.0, status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_right_and_late() {
    let simulator = simulator(&Clock::fixed(NOW));
    simulator.set_fault(Service::Sts, Some(Fault::new(FaultKind::Slow)));
    let start = tokio::time::Instant::now();
    assert_eq!(answered(&simulator, "sts", BODY).await.0, 200);
    assert_eq!(start.elapsed(), std::time::Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_scenario_makes_a_service_slow() {
    let text = format!("[latency]\nec2 = \"250ms\"\n{SCENARIO}");
    let scenario = Scenario::parse(&text).unwrap();
    let simulator = Arc::new(Simulator::new(&scenario, Clock::fixed(NOW)).unwrap());
    let start = tokio::time::Instant::now();
    assert_eq!(answered(&simulator, "sts", BODY).await.0, 200);
    assert_eq!(start.elapsed(), std::time::Duration::ZERO);
    assert_eq!(answered(&simulator, "ec2", DESCRIBE).await.0, 200);
    assert_eq!(start.elapsed(), std::time::Duration::from_millis(250));
}

#[tokio::test]
async fn quotas_are_kept_and_refusals_counted() {
    let text = format!("[limits]\nsts = {{bucket = 2, refill = 1}}\n{SCENARIO}");
    let clock = Clock::fixed(NOW);
    let simulator = Simulator::new(&Scenario::parse(&text).unwrap(), clock.clone()).unwrap();
    let simulator = Arc::new(simulator);
    for status in [200, 200, 400] {
        assert_eq!(answered(&simulator, "sts", BODY).await.0, status);
    }
    clock.advance(Lifetime::from_seconds(1));
    assert_eq!(answered(&simulator, "sts", BODY).await.0, 200);
    assert_eq!(simulator.calls().sts["GetCallerIdentity"], 4);
}

/// Status and body of one request by hand.
async fn controlled(base: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[tokio::test]
async fn tests_steer_a_running_simulation_over_http() {
    let simulator = simulator(&Clock::fixed(NOW));
    let base = served(&simulator).await;
    let fault = r#"{"service":"sts","fault":"error_with_200","delay":"1s","count":1}"#;
    assert_eq!(controlled(&base, "PUT", "/_sim/faults", fault).await.0, 204);
    let (_, body) = answered(&simulator, "sts", BODY).await;
    assert!(body.contains("\"Error\""), "{body}");
    for (path, document) in [
        ("/_sim/faults", r#"{"service":"iam","fault":null}"#),
        ("/_sim/faults", r#"{"service":"sts","fault":"loud"}"#),
        ("/_sim/instances/i-0123456789abcdef0", r#"{"tags":{"aws:x":"y"}}"#),
    ] {
        assert_eq!(controlled(&base, "PUT", path, document).await.0, 400, "{document}");
    }
    let change = r#"{"state":"stopped","tags":{"a":"b"}}"#;
    let path = "/_sim/instances/i-0123456789abcdef0";
    assert_eq!(controlled(&base, "PUT", path, change).await.0, 204);
    assert_eq!(simulator.instances()[0].record.state, InstanceState::Stopped);
    let started = r#"{"pending_time":"2030-01-02T03:04:05Z","state":"running"}"#;
    assert_eq!(controlled(&base, "PUT", path, started).await.0, 204);
    let instance = simulator.instances().swap_remove(0);
    assert_eq!(instance.pending_time.to_string(), "2030-01-02T03:04:05Z");
    assert_eq!(instance.record.state, InstanceState::Running);
    assert_eq!(controlled(&base, "PUT", "/_sim/instances/i-0", change).await.0, 404);
    let (status, calls) = controlled(&base, "GET", "/_sim/calls", "").await;
    let calls: Value = serde_json::from_str(&calls).unwrap();
    assert_eq!((status, &calls["sts"]["GetCallerIdentity"]), (200, &1.into()));
    let unknown = controlled(&base, "POST", "/", BODY).await;
    assert_eq!(unknown.0, 403);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_ends_the_connection() {
    let simulator = simulator(&Clock::fixed(NOW));
    simulator.set_fault(Service::Sts, Some(Fault::new(FaultKind::CutOff)));
    let base = served(&simulator).await;
    let own = simulator.server_credentials();
    let request = Signing::new(&own, "sts", BODY).request();
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
        .collect::<Vec<_>>()
        .concat();
    let length = BODY.len();
    let text = format!("POST / HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{BODY}");
    let answer = {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = base.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let promised: usize =
        head.split_once("content-length: ").unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.len() < promised, "{answer}");
}

#[tokio::test]
async fn the_metadata_service_has_the_credentials_of_the_identity_role() {
    let simulator = simulator(&Clock::fixed(NOW));
    let base = served(&simulator).await;
    let path = "/i-0123456789abcdef0/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
    let (_, token) = status(
        &format!("{base}/i-0123456789abcdef0/latest/api/token"),
        "PUT",
        Some(("x-aws-ec2-metadata-token-ttl-seconds", "60")),
    )
    .await;
    let header = Some(("x-aws-ec2-metadata-token", token.as_str()));
    let (code, body) = status(&format!("{base}{path}"), "GET", header).await;
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &document["Code"]), (200, &"Success".into()));
    assert_eq!(document["Type"], "AWS-HMAC");
    let credentials = simulator.identity_credentials(&id("i-0123456789abcdef0")).unwrap();
    assert_eq!(document["AccessKeyId"], credentials.access_key_id());
    assert_eq!(document["SecretAccessKey"], credentials.secret_access_key());
    assert_eq!(document["Token"], credentials.session_token().unwrap());
    let ends: Timestamp = document["Expiration"].as_str().unwrap().parse().unwrap();
    assert!(ends >= NOW.plus(Lifetime::from_hours(5)));
}

#[test]
fn the_directory_says_where_everything_is_and_keeps_the_keys_private() {
    use std::os::unix::fs::PermissionsExt;
    let simulator = simulator(&Clock::fixed(NOW));
    let directory = tempfile::tempdir().unwrap();
    for _again in 0..2 {
        simulator.write(directory.path(), "127.0.0.1:4711".parse().unwrap()).unwrap();
    }
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(directory.path().join(name)).unwrap()).unwrap()
    };
    assert_eq!(
        read("simulation.json"),
        json!({"certificates": "certificates", "sts": "http://127.0.0.1:4711",
               "ec2": "http://127.0.0.1:4711", "ssm": "http://127.0.0.1:4711", "credentials": "server-credentials.json"})
    );
    let keys = read("server-credentials.json");
    assert_eq!(keys["access_key_id"], simulator.server_credentials().access_key_id());
    assert!(keys["session_token"].is_null());
    let file = fs::metadata(directory.path().join("server-credentials.json")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

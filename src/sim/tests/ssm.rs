//! Parameters in the simulator's own memory, and who may touch them.

use serde_json::{Value, json};

use super::corpus::{Signing, send};
use super::*;
use crate::domain::Partition;
use crate::sim::credentials::{Principal, PrincipalKind};

const TOKEN: &str = "/muster/test/web/token";

async fn ask(
    simulator: &Arc<Simulator>,
    credentials: &Credentials,
    action: &'static str,
    body: Value,
) -> (u16, Value) {
    let target = match action {
        "PutParameter" => "AmazonSSM.PutParameter",
        "GetParameter" => "AmazonSSM.GetParameter",
        "GetParameters" => "AmazonSSM.GetParameters",
        "GetParametersByPath" => "AmazonSSM.GetParametersByPath",
        "AddTagsToResource" => "AmazonSSM.AddTagsToResource",
        _ => "AmazonSSM.DeleteParameter",
    };
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
    let signing =
        Signing { headers: &headers, ..Signing::new(credentials, "ssm", &body.to_string()) };
    let (status, body) = send(simulator, signing.request()).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
}

fn put(name: &str, value: &str) -> Value {
    json!({"Name": name, "Value": value, "Type": "SecureString", "Overwrite": true})
}

#[tokio::test]
async fn a_secure_string_is_shown_only_to_who_asks_for_decryption() {
    let simulator = simulator(&Clock::fixed(NOW));
    let own = simulator.server_credentials();
    for version in 1..=2 {
        let (status, body) = ask(&simulator, &own, "PutParameter", put(TOKEN, "canary")).await;
        assert_eq!((status, &body["Version"]), (200, &json!(version)));
    }
    let get = |decrypt| json!({"Name": TOKEN, "WithDecryption": decrypt});
    let (_, open) = ask(&simulator, &own, "GetParameter", get(true)).await;
    assert_eq!(open["Parameter"]["Value"], "canary");
    assert_eq!(open["Parameter"]["Version"], 2);
    let arn = "arn:aws:ssm:us-west-2:111122223333:parameter/muster/test/web/token";
    assert_eq!(open["Parameter"]["ARN"], arn);
    let (_, sealed) = ask(&simulator, &own, "GetParameter", get(false)).await;
    assert!(!sealed.to_string().contains("canary"), "{sealed}");
    let many = json!({"Names": [TOKEN, "/none"], "WithDecryption": true});
    let (_, many) = ask(&simulator, &own, "GetParameters", many).await;
    assert_eq!(many["Parameters"][0]["Value"], "canary");
    assert_eq!(many["InvalidParameters"], json!(["/none"]));
}

#[tokio::test]
async fn refusals_have_the_names_of_aws() {
    let simulator = simulator(&Clock::fixed(NOW));
    let own = simulator.server_credentials();
    let first = json!({"Name": "/a/b", "Value": "v", "Type": "String"});
    assert_eq!(ask(&simulator, &own, "PutParameter", first.clone()).await.0, 200);
    let tagged = json!({"Name": "/a/b", "Value": "v", "Type": "String", "Overwrite": true,
        "Tags": [{"Key": "k", "Value": "v"}]});
    let long = "v".repeat(4097);
    let nowhere = json!({"ResourceType": "Parameter", "ResourceId": "/none",
        "Tags": [{"Key": "k", "Value": "v"}]});
    for (action, body, code) in [
        ("PutParameter", first, "ParameterAlreadyExists"),
        ("PutParameter", tagged, "ValidationException"),
        ("PutParameter", put("a/b", "v"), "ValidationException"),
        ("PutParameter", put("/aws/b", "v"), "ValidationException"),
        ("PutParameter", put("/a", ""), "ValidationException"),
        ("PutParameter", put("/a", &long), "ValidationException"),
        ("PutParameter", json!({"Name": "/a", "Wrong": 1}), "SerializationException"),
        ("GetParameter", json!({"Name": "/none"}), "ParameterNotFound"),
        ("DeleteParameter", json!({"Name": "/none"}), "ParameterNotFound"),
        ("AddTagsToResource", nowhere, "InvalidResourceId"),
        ("GetParameters", json!({"Names": []}), "ValidationException"),
    ] {
        let (status, answer) = ask(&simulator, &own, action, body).await;
        assert_eq!((status, &answer["__type"]), (400, &json!(code)), "{action} {answer}");
    }
    let wrong = Credentials::new(own.access_key_id(), "wrong", None, None, "test");
    let (status, answer) = ask(&simulator, &wrong, "PutParameter", put("/a/c", "v")).await;
    assert_eq!((status, &answer["__type"]), (400, &json!("InvalidSignatureException")));
}

#[tokio::test]
async fn a_path_is_read_in_pages() {
    let simulator = simulator(&Clock::fixed(NOW));
    let own = simulator.server_credentials();
    for n in 0..13 {
        let name = format!("/muster/web/{n:02}");
        assert_eq!(ask(&simulator, &own, "PutParameter", put(&name, "canary")).await.0, 200);
    }
    assert_eq!(ask(&simulator, &own, "PutParameter", put("/muster/web/a/b", "v")).await.0, 200);
    let page = |next: Value| json!({"Path": "/muster/web", "NextToken": next});
    let (_, first) = ask(&simulator, &own, "GetParametersByPath", page(Value::Null)).await;
    assert_eq!(first["Parameters"].as_array().unwrap().len(), 10);
    let next = first["NextToken"].clone();
    let (_, second) = ask(&simulator, &own, "GetParametersByPath", page(next)).await;
    assert_eq!(second["Parameters"].as_array().unwrap().len(), 3);
    assert_eq!(second["NextToken"], Value::Null);
    assert!(!format!("{first}{second}").contains("canary"));
}

// I12: nothing of one account is seen from another, and a session may do what its policy says.
#[tokio::test]
async fn who_may_touch_a_parameter() {
    let simulator = simulator(&Clock::fixed(NOW));
    let own = simulator.server_credentials();
    assert_eq!(ask(&simulator, &own, "PutParameter", put(TOKEN, "canary")).await.0, 200);
    let get = json!({"Name": TOKEN, "WithDecryption": true});
    let web = id("i-0123456789abcdef0");
    assert!(simulator.change(&web, |record| record.instance_profile = Some("web".to_owned())));
    let profile = simulator.profile_credentials(&web).unwrap();
    assert_eq!(ask(&simulator, &profile, "GetParameter", get.clone()).await.0, 200);
    let (status, answer) = ask(&simulator, &profile, "PutParameter", put(TOKEN, "v")).await;
    assert_eq!((status, &answer["__type"]), (400, &json!("AccessDeniedException")));
    let identity = simulator.identity_credentials(&web).unwrap();
    assert_eq!(ask(&simulator, &identity, "GetParameter", get.clone()).await.0, 400);
    let session = |account: &str, policy: &str| {
        let kind = PrincipalKind::RoleSession {
            partition: Partition::Aws,
            role: "r".to_owned(),
            session: "s".to_owned(),
            policy: Some(policy.to_owned()),
        };
        let principal = Principal { account: account.parse().unwrap(), kind };
        let ends = NOW.plus(Lifetime::from_hours(1));
        simulator.mint.role_session(principal, ends).unwrap()
    };
    let policy = |resource: &str| {
        json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": ["ssm:PutParameter", "kms:Encrypt"], "Resource": resource},
        ]})
        .to_string()
    };
    let another = session("444455556666", &policy("*"));
    assert_eq!(ask(&simulator, &another, "PutParameter", put(TOKEN, "other")).await.0, 200);
    let narrow = policy("arn:aws:ssm:us-west-2:444455556666:parameter/muster/test/other/*");
    let narrow = session("444455556666", &narrow);
    assert_eq!(ask(&simulator, &narrow, "PutParameter", put(TOKEN, "v")).await.0, 400);
    let (_, answer) = ask(&simulator, &own, "GetParameter", get).await;
    assert_eq!(answer["Parameter"]["Value"], "canary");
}

// What crash tests lean on: a refusal does nothing, a lost answer is about something that was done.
#[tokio::test]
async fn a_refused_call_did_nothing_and_a_lost_one_did_it() {
    let simulator = simulator(&Clock::fixed(NOW));
    let own = simulator.server_credentials();
    let fault = |kind| Fault { action: Some("PutParameter"), ..Fault::new(kind) };
    for (kind, code) in [
        (FaultKind::Throttled, "ThrottlingException"),
        (FaultKind::Unavailable, "ServiceUnavailable"),
    ] {
        simulator.set_fault(Service::Ssm, Some(fault(kind)));
        let (_, answer) = ask(&simulator, &own, "PutParameter", put(TOKEN, "v")).await;
        assert_eq!(answer["__type"], code);
        let (status, _) = ask(&simulator, &own, "GetParameter", json!({"Name": TOKEN})).await;
        assert_eq!(status, 400, "nothing was written, and other actions are not struck");
    }
    let lost = Fault { count: Some(1), ..fault(FaultKind::CutOff) };
    simulator.set_fault(Service::Ssm, Some(lost));
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "AmazonSSM.PutParameter"),
    ];
    let body = put(TOKEN, "v").to_string();
    let signing = Signing { headers: &headers, ..Signing::new(&own, "ssm", &body) };
    let response = api::answer(axum::extract::State(simulator.clone()), signing.request());
    let body = axum::body::to_bytes(response.await.into_body(), usize::MAX).await;
    assert!(body.is_err(), "the answer is cut off");
    assert_eq!(ask(&simulator, &own, "GetParameter", json!({"Name": TOKEN})).await.0, 200);
}

#[tokio::test]
async fn a_fault_strikes_about_as_often_as_it_says() {
    let simulator = simulator(&Clock::fixed(NOW));
    let fault = Fault { percent: Some(20), ..Fault::new(FaultKind::Throttled) };
    simulator.set_fault(Service::Ssm, Some(fault));
    let struck = (0..1000).filter(|_| simulator.faults.next(Service::Ssm, None).is_some()).count();
    assert!((100..=300).contains(&struck), "{struck}");
}

//! Roles and instances, as callers of the simulated services see them.

use super::corpus::{Signing, send};
use super::*;

const CLOUD: &str = r#"
[server]
account = "999900001111"

[[instances]]
account = "111122223333"
region = "us-west-2"
id = "i-00000000000000001"
instance_profile = "web"
auto_scaling_group = "web-asg"
tags = {Name = "a <b> & c"}
launch_time = "2026-01-02T03:04:05Z"

[[instances]]
account = "444455556666"
region = "us-west-2"
id = "i-00000000000000002"
visible_after = "30s"

[[instances]]
account = "111122223333"
region = "eu-west-1"
id = "i-00000000000000003"

[[roles]]
account = "111122223333"
name = "muster-verifier"
external_id = "muster-example"

[[roles]]
account = "444455556666"
name = "open"

[[roles]]
account = "444455556666"
name = "others"
trusted = ["111122223333"]
"#;
const ROLE: &str = "arn:aws:iam::111122223333:role/muster-verifier";
const OPEN: &str = "arn:aws:iam::444455556666:role/open";
const DESCRIBE: &str = "Action=DescribeInstances&Version=2016-11-15";

fn cloud() -> (Arc<Simulator>, Clock) {
    let clock = Clock::fixed(NOW);
    let scenario = Scenario::parse(CLOUD).unwrap();
    (Arc::new(Simulator::new(&scenario, clock.clone()).unwrap()), clock)
}

async fn call(
    simulator: &Arc<Simulator>,
    credentials: &Credentials,
    service: &str,
    body: &str,
) -> (u16, String) {
    let at = simulator.clock.now();
    send(simulator, Signing { at, ..Signing::new(credentials, service, body) }.request()).await
}

/// What stands between the first such tags.
fn inside<'a>(body: &'a str, name: &str) -> &'a str {
    let (_, rest) = body.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{body}"));
    rest.split_once(&format!("</{name}>")).unwrap().0
}

async fn assume(
    simulator: &Arc<Simulator>,
    credentials: &Credentials,
    role: &str,
    more: &str,
) -> Result<Credentials, (u16, String)> {
    let body =
        format!("Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=muster{more}");
    let (status, body) = call(simulator, credentials, "sts", &body).await;
    if status != 200 {
        return Err((status, body));
    }
    Ok(Credentials::new(
        inside(&body, "AccessKeyId"),
        inside(&body, "SecretAccessKey"),
        Some(inside(&body, "SessionToken").to_owned()),
        None,
        "test",
    ))
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_alone() {
    let (simulator, _) = cloud();
    let own = simulator.server_credentials();
    let session = assume(&simulator, &own, ROLE, "&ExternalId=muster-example").await.unwrap();
    let identity = "Action=GetCallerIdentity&Version=2011-06-15";
    let (_, body) = call(&simulator, &session, "sts", identity).await;
    assert!(
        body.contains("arn:aws:sts::111122223333:assumed-role/muster-verifier/muster"),
        "{body}"
    );
    for more in ["", "&ExternalId=muster-exampl", "&ExternalId=muster-example2"] {
        let (status, body) = assume(&simulator, &own, ROLE, more).await.unwrap_err();
        assert_eq!(status, 403);
        assert!(body.contains("AccessDenied"), "{body}");
    }
    assert!(assume(&simulator, &own, OPEN, "").await.is_ok());
    assert!(assume(&simulator, &own, OPEN, "&ExternalId=any").await.is_ok());
}

#[tokio::test]
async fn only_whom_a_role_trusts_assumes_it() {
    let (simulator, _) = cloud();
    let own = simulator.server_credentials();
    let others = "arn:aws:iam::444455556666:role/others";
    let unknown = "arn:aws:iam::444455556666:role/muster-verifier";
    let china = "arn:aws-cn:iam::444455556666:role/open";
    let instance = simulator.identity_credentials(&id("i-00000000000000001")).unwrap();
    for (credentials, role) in
        [(&own, others), (&own, unknown), (&own, china), (&instance, others), (&instance, OPEN)]
    {
        assert_eq!(assume(&simulator, credentials, role, "").await.unwrap_err().0, 403, "{role}");
    }
    let session = assume(&simulator, &own, ROLE, "&ExternalId=muster-example").await.unwrap();
    assert!(assume(&simulator, &session, others, "").await.is_ok());
    for wrong in [
        "&DurationSeconds=899",
        "&DurationSeconds=43201",
        "&ExternalId=x",
        "&Policy=x",
        "&Tags.member.1.Key=x",
        "&RoleArn=again",
    ] {
        let (status, body) = assume(&simulator, &own, OPEN, wrong).await.unwrap_err();
        assert_eq!(status, 400, "{wrong}: {body}");
    }
}

#[tokio::test]
async fn sessions_end() {
    let clock = Clock::fixed(NOW);
    let text = format!("session_life = \"5s\"\n{CLOUD}");
    let simulator = Simulator::new(&Scenario::parse(&text).unwrap(), clock.clone()).unwrap();
    let simulator = Arc::new(simulator);
    let own = simulator.server_credentials();
    let session = assume(&simulator, &own, OPEN, "").await.unwrap();
    clock.advance(Lifetime::from_seconds(4));
    assert_eq!(call(&simulator, &session, "ec2", DESCRIBE).await.0, 200);
    clock.advance(Lifetime::from_seconds(1));
    let (status, body) = call(&simulator, &session, "ec2", DESCRIBE).await;
    assert_eq!((status, inside(&body, "Code")), (400, "RequestExpired"));
}

#[tokio::test]
async fn an_instance_is_described_as_aws_does() {
    let (simulator, _) = cloud();
    let own = simulator.server_credentials();
    let session = assume(&simulator, &own, ROLE, "&ExternalId=muster-example").await.unwrap();
    let one = format!("{DESCRIBE}&InstanceId.1=i-00000000000000001");
    let (status, body) = call(&simulator, &session, "ec2", &one).await;
    assert_eq!(status, 200);
    assert_eq!(inside(&body, "ownerId"), "111122223333");
    assert_eq!(inside(&body, "instanceId"), "i-00000000000000001");
    assert_eq!(inside(&body, "instanceState"), "<code>16</code><name>running</name>");
    assert_eq!(inside(&body, "launchTime"), "2026-01-02T03:04:05.000Z");
    assert_eq!(inside(&body, "arn"), "arn:aws:iam::111122223333:instance-profile/web");
    assert_eq!(
        inside(&body, "tagSet"),
        "<item><key>aws:autoscaling:groupName</key><value>web-asg</value></item>\
         <item><key>Name</key><value>a &lt;b&gt; &amp; c</value></item>"
    );
    assert_eq!(inside(&body, "httpTokens"), "required");
    assert!(quick_xml::de::from_str::<serde::de::IgnoredAny>(&body).is_ok());

    assert!(simulator.change(&id("i-00000000000000001"), |record| {
        record.state = InstanceState::Terminated;
    }));
    let (_, body) = call(&simulator, &session, "ec2", &one).await;
    assert_eq!(inside(&body, "instanceState"), "<code>48</code><name>terminated</name>");
    assert!(!body.contains("vpcId"));
    let calls = simulator.calls();
    assert_eq!((calls.ec2["DescribeInstances"], calls.instances_described), (2, 2));
    assert_eq!(calls.by_account["111122223333"], AccountCalls { sts: 0, ec2: 2, ssm: 0 });
    assert_eq!(calls.by_account["999900001111"], AccountCalls { sts: 1, ec2: 0, ssm: 0 });
}

#[tokio::test]
async fn unknown_ids_fail_the_call_and_others_are_left_out() {
    let (simulator, clock) = cloud();
    let own = simulator.server_credentials();
    let session = assume(&simulator, &own, ROLE, "&ExternalId=muster-example").await.unwrap();
    let ask = async |ids: &[u32]| {
        let ids = ids.iter().zip(1..).map(|(id, at)| format!("&InstanceId.{at}=i-{id:017x}"));
        let body = format!("{DESCRIBE}{}", ids.collect::<Vec<_>>().concat());
        call(&simulator, &session, "ec2", &body).await
    };
    for (ids, message) in [
        (&[1, 9][..], "The instance ID 'i-00000000000000009' does not exist"),
        (&[9, 8, 7, 1], "The instance IDs 'i-00000000000000007, i-00000000000000008' do not exist"),
        // In another region, and not visible yet.
        (&[3], "The instance ID 'i-00000000000000003' does not exist"),
        (&[2], "The instance ID 'i-00000000000000002' does not exist"),
    ] {
        let (status, body) = ask(ids).await;
        assert_eq!((status, inside(&body, "Code")), (400, "InvalidInstanceID.NotFound"));
        assert_eq!(inside(&body, "Message"), message);
    }
    clock.advance(Lifetime::from_seconds(30));
    let (status, body) = ask(&[1, 1, 2]).await;
    assert_eq!((status, body.matches("<instanceId>").count()), (200, 1), "{body}");
}

#[tokio::test]
async fn filters_and_pages_never_fail_on_unknown_ids() {
    let instances = "[server]\naccount = \"111122223333\"\n[[instances]]\n\
                     account = \"111122223333\"\nregion = \"us-west-2\"\ncount = 12\n";
    let scenario = Scenario::parse(instances).unwrap();
    let simulator = Arc::new(Simulator::new(&scenario, Clock::fixed(NOW)).unwrap());
    let own = simulator.server_credentials();
    let values = simulator
        .instances()
        .iter()
        .map(|instance| instance.instance_id.to_string())
        .chain(["i-00000000000000009".to_owned(), "nonsense".to_owned()])
        .zip(1..)
        .map(|(id, at)| format!("&Filter.1.Value.{at}={id}"))
        .collect::<Vec<_>>()
        .concat();
    let filter = format!("{DESCRIBE}&Filter.1.Name=instance-id{values}");
    let mut seen = 0;
    let mut token = String::new();
    for page in [5, 5, 2] {
        let body = format!("{filter}&MaxResults=5{token}");
        let (status, body) = call(&simulator, &own, "ec2", &body).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body.matches("<instanceId>").count(), page);
        seen += page;
        token = if seen == 12 {
            String::new()
        } else {
            format!("&NextToken={}", inside(&body, "nextToken"))
        };
        assert_eq!(body.contains("nextToken"), seen < 12);
    }
}

#[tokio::test]
async fn wrong_requests_of_ec2_are_refused_as_aws_does() {
    let (simulator, _) = cloud();
    let own = simulator.server_credentials();
    let many = (1..=201).map(|at| format!("&Filter.1.Value.{at}=i-1"));
    let many = many.collect::<Vec<_>>().concat();
    for (more, code) in [
        ("&InstanceId.1=i-x", "InvalidInstanceID.Malformed"),
        ("&InstanceId.1=i-0123abcd&MaxResults=5", "InvalidParameterCombination"),
        ("&Colour=red", "UnknownParameter"),
        ("&MaxResults=4", "InvalidParameterValue"),
        ("&NextToken=x", "InvalidParameterValue"),
        ("&Filter.1.Name=tag:Name&Filter.1.Value.1=x", "InvalidParameterValue"),
        (&format!("&Filter.1.Name=instance-id{many}"), "FilterLimitExceeded"),
    ] {
        let (status, body) = call(&simulator, &own, "ec2", &format!("{DESCRIBE}{more}")).await;
        assert_eq!((status, inside(&body, "Code")), (400, code), "{more}");
    }
    let wrong = Credentials::new(own.access_key_id(), "wrong", None, None, "test");
    let (status, body) = call(&simulator, &wrong, "ec2", DESCRIBE).await;
    assert_eq!((status, inside(&body, "Code")), (401, "AuthFailure"));
    assert!(body.contains("<Response><Errors><Error>"), "{body}");
}

#[tokio::test]
async fn instances_and_narrow_sessions_may_not_describe() {
    let (simulator, _) = cloud();
    let own = simulator.server_credentials();
    let instance = simulator.identity_credentials(&id("i-00000000000000001")).unwrap();
    let (status, body) = call(&simulator, &instance, "ec2", DESCRIBE).await;
    assert_eq!((status, inside(&body, "Code")), (403, "UnauthorizedOperation"));
    for (action, status) in [("ec2:DescribeInstances", 200), ("ec2:DescribeTags", 403)] {
        let policy = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"{action}","Resource":"*"}}]}}"#
        );
        let policy = policy.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let more = format!("&Policy={policy}");
        let session = assume(&simulator, &own, OPEN, &more).await.unwrap();
        assert_eq!(call(&simulator, &session, "ec2", DESCRIBE).await.0, status, "{action}");
    }
}

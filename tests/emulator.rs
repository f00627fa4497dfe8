//! AWS as `localstack/up` plays it, asked by the SDK that the server uses.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[path = "support/emulator.rs"]
mod support;

use aws_sdk_sts::Client;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use muster::aws::{
    AwsHttp, CallFailed, Ec2Client, Endpoints, Failure, LookUpBy, OwnCredentials, Place,
    PutParameter, Service, Ssm, SsmAccess, SsmRole,
};
use muster::clock::Clock;
use muster::domain::{InstanceId, Partition, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::Emulator;
use tokio::task::JoinSet;

impl Emulator {
    /// What the simulator in front has counted.
    fn calls(&self) -> Value {
        serde_json::from_str(&self.control("GET", "/_sim/calls", "")).unwrap()
    }

    fn account(&self, name: &str) -> &str {
        self.ready["accounts"][name].as_str().unwrap()
    }

    fn pids(&self) -> Vec<i64> {
        self.ready["pids"].as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect()
    }

    fn server_credentials(&self) -> Credentials {
        let simulation = Path::new(self.ready["simulation"].as_str().unwrap());
        let text = fs::read(simulation.join("server-credentials.json")).unwrap();
        let keys: Value = serde_json::from_slice(&text).unwrap();
        let key = |name: &str| keys[name].as_str().unwrap().to_owned();
        Credentials::new(key("access_key_id"), key("secret_access_key"), None, None, "test")
    }

    fn sts(&self, credentials: Credentials) -> Client {
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .endpoint_url(self.endpoint())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .build();
        Client::from_conf(config)
    }

    async fn assumed(&self, account: &str, role: &str, external_id: Option<&str>) -> Assumed {
        let arn = format!("arn:aws:iam::{}:role/{role}", self.account(account));
        let answer = self
            .sts(self.server_credentials())
            .assume_role()
            .role_arn(arn)
            .role_session_name("muster")
            .set_external_id(external_id.map(str::to_owned))
            .send()
            .await;
        let answer = answer.map_err(|error| code(&error))?;
        let keys = answer.credentials.unwrap();
        let token = Some(keys.session_token);
        Ok(Credentials::new(keys.access_key_id, keys.secret_access_key, token, None, "test"))
    }

    /// One request to another service, signed by hand; status and body.
    fn ask(
        &self,
        credentials: &Credentials,
        service: &str,
        target: &str,
        body: &str,
    ) -> (u16, String) {
        let host = self.endpoint().strip_prefix("http://").unwrap();
        let mut headers = vec![("host", host)];
        if target.is_empty() {
            headers.push(("content-type", "application/x-www-form-urlencoded"));
        } else {
            headers.push(("content-type", "application/x-amz-json-1.1"));
            headers.push(("x-amz-target", target));
        }
        let mut text = format!(
            "POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\
             x-moto-account-id: 123456789012\r\n",
            body.len()
        );
        let headers_of_signature = signed(credentials, service, &headers, body);
        let headers_of_signature =
            headers_of_signature.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (name, value) in headers.iter().copied().chain(headers_of_signature) {
            let _infallible = write!(text, "{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "{text}\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

/// Credentials of a role, or the code of the refusal.
type Assumed = Result<Credentials, String>;

fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    error.code().unwrap_or("no code").to_owned()
}

/// The headers that a signature adds.
fn signed(
    credentials: &Credentials,
    service: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Vec<(String, String)> {
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    #[expect(clippy::disallowed_methods, reason = "the emulator's clock is the machine's")]
    let now = SystemTime::now();
    let identity = credentials.clone().into();
    let parameters = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region("us-west-2")
        .name(service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let body = SignableBody::Bytes(body.as_bytes());
    let url = format!("http://{}/", headers[0].1);
    let request = SignableRequest::new("POST", url, headers.iter().copied(), body).unwrap();
    let (instructions, _) = sign(request, &parameters).unwrap().into_parts();
    instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

// One emulator for all stories: each takes seconds to start.
#[tokio::test]
async fn the_sdk_is_answered_as_by_aws() {
    let Some(emulator) = Emulator::start(&[]) else { return };
    wrong_secrets_are_refused(&emulator).await;
    roles_of_other_accounts_are_assumed(&emulator).await;
    other_services_answer_in_the_account_of_the_signer(&emulator).await;
    parameters_are_written_by_a_role(&emulator).await;
    a_role_name_of_two_accounts_is_two_roles(&emulator).await;
    everything_listens_on_loopback_alone(&emulator);
}

// Whatever does not refuse this makes every other test of it worthless.
async fn wrong_secrets_are_refused(emulator: &Emulator) {
    let own = emulator.server_credentials();
    let answer = emulator.sts(own.clone()).get_caller_identity().send().await.unwrap();
    assert_eq!(answer.account(), Some(emulator.account("management")));
    assert!(answer.arn().unwrap().ends_with(":user/muster-server"));

    let wrong = Credentials::new(own.access_key_id(), "wrong", None, None, "test");
    let refused = emulator.sts(wrong.clone()).get_caller_identity().send().await.unwrap_err();
    assert_eq!(code(&refused), "SignatureDoesNotMatch");
    let stranger = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wrong", None, None, "test");
    let refused = emulator.sts(stranger.clone()).get_caller_identity().send().await.unwrap_err();
    assert_eq!(code(&refused), "InvalidClientTokenId");
    for credentials in [wrong, stranger] {
        let list = "Action=ListRoles&Version=2010-05-08";
        let (status, body) = emulator.ask(&credentials, "iam", "", list);
        assert_eq!(status, 403, "{body}");
    }
}

async fn roles_of_other_accounts_are_assumed(emulator: &Emulator) {
    let shop = emulator.assumed("shop", "muster-verifier", Some("muster-example")).await.unwrap();
    let answer = emulator.sts(shop).get_caller_identity().send().await.unwrap();
    assert_eq!(answer.account(), Some(emulator.account("shop")));
    let expected =
        format!("arn:aws:sts::{}:assumed-role/muster-verifier/muster", emulator.account("shop"));
    assert_eq!(answer.arn(), Some(expected.as_str()));
    assert!(answer.user_id().unwrap().starts_with("AROA"));

    assert!(emulator.assumed("shop", "inventory", None).await.is_ok());
    for (account, role, external_id) in [
        ("shop", "muster-verifier", None),
        ("shop", "muster-verifier", Some("lab-example")),
        ("lab", "muster-verifier", Some("muster-example")),
        ("lab", "nobody", None),
        ("management", "muster-verifier", None),
    ] {
        let refused = emulator.assumed(account, role, external_id).await.unwrap_err();
        assert_eq!(refused, "AccessDenied", "{account} {role} {external_id:?}");
    }
}

async fn other_services_answer_in_the_account_of_the_signer(emulator: &Emulator) {
    let shop = emulator.assumed("shop", "inventory", None).await.unwrap();
    let lab = emulator.assumed("lab", "inventory", None).await.unwrap();
    let list = "Action=ListRoles&Version=2010-05-08";
    for (credentials, own, other) in [(&shop, "shop", "lab"), (&lab, "lab", "shop")] {
        let (status, body) = emulator.ask(credentials, "iam", "", list);
        assert_eq!(status, 200, "{body}");
        let role = |name: &str| format!("arn:aws:iam::{}:role/inventory", emulator.account(name));
        assert!(body.contains(&role(own)), "{body}");
        assert!(!body.contains(&role(other)), "{body}");
    }
    let parameter = json!({"Name": "/muster/x", "Value": "of shop", "Type": "String"}).to_string();
    let (status, body) = emulator.ask(&shop, "ssm", "AmazonSSM.PutParameter", &parameter);
    assert_eq!(status, 200, "{body}");
    let name = json!({"Name": "/muster/x"}).to_string();
    let (status, body) = emulator.ask(&shop, "ssm", "AmazonSSM.GetParameter", &name);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["Parameter"]["Value"]), (200, &"of shop".into()));
    let (status, body) = emulator.ask(&lab, "ssm", "AmazonSSM.GetParameter", &name);
    assert!(status == 400 && body.contains("ParameterNotFound"), "{status} {body}");
}

/// The server's own client of EC2, towards the emulator.
/// muster's own client of SSM, through the front: a role's session, sealed values, tags, deletion.
async fn parameters_are_written_by_a_role(emulator: &Emulator) {
    let simulation = Path::new(emulator.ready["simulation"].as_str().unwrap());
    let own = OwnCredentials::of_file(&simulation.join("server-credentials.json")).unwrap();
    let mut endpoints = Endpoints::new(false);
    for service in [Service::Sts, Service::Ssm] {
        endpoints.replace(service, None, emulator.endpoint(), true).unwrap();
    }
    let ssm = Ssm::new(AwsHttp::plain().unwrap(), endpoints, own, Clock::system(), Arc::default());
    let account = emulator.account("shop");
    let access = |names: &str| SsmAccess {
        region: "us-west-2".parse().unwrap(),
        role: Some(SsmRole {
            partition: Partition::Aws,
            account: account.parse().unwrap(),
            arn: format!("arn:aws:iam::{account}:role/muster-verifier"),
            external_id: Some("muster-example".to_owned()),
            names: vec![names.to_owned()],
        }),
    };
    let (name, folder) = ("/muster/test/web/token", access("/muster/test/web/*"));
    let tags = BTreeMap::from([("Owner".to_owned(), "platform".to_owned())]);
    let put = |value| PutParameter {
        name,
        value,
        is_secure: true,
        kms_key: None,
        tags: &tags,
        description: "a token",
    };
    assert_eq!(ssm.put(&folder, &put("canary-1")).await, Ok(1));
    assert_eq!(ssm.put(&folder, &put("canary-2")).await, Ok(2));
    let found = ssm.get(&folder, &[name, "/muster/test/web/none"], true).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].value.as_str(), found[0].version), ("canary-2", 2));
    assert_eq!(found[0].arn, format!("arn:aws:ssm:us-west-2:{account}:parameter{name}"));
    let elsewhere = ssm.put(&access("/muster/test/db/*"), &put("canary")).await.unwrap_err();
    assert_eq!(elsewhere.kind, Failure::Forbidden);
    assert_eq!(ssm.delete(&folder, name).await, Ok(true));
    assert_eq!(ssm.delete(&folder, name).await, Ok(false));
}

fn ec2_client(emulator: &Emulator) -> Ec2Client {
    let mut endpoints = Endpoints::default();
    for service in [Service::Sts, Service::Ec2] {
        endpoints.replace(service, None, emulator.endpoint(), true).unwrap();
    }
    let simulation = Path::new(emulator.ready["simulation"].as_str().unwrap());
    let own = OwnCredentials::of_file(&simulation.join("server-credentials.json")).unwrap();
    let http = AwsHttp::plain().unwrap();
    Ec2Client::new(http, endpoints, own, Clock::system(), Arc::default())
}

/// The ids of the instances that a role sees.
fn ids_of(emulator: &Emulator, credentials: &Credentials) -> Vec<String> {
    let list = "Action=DescribeInstances&Version=2016-11-15";
    let (status, body) = emulator.ask(credentials, "ec2", "", list);
    assert_eq!(status, 200, "{body}");
    let listed = body.split("<instanceId>").skip(1);
    listed.map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

/// Asks for many at once; how many are known, and how many are not.
async fn look_at(
    emulator: &Emulator,
    client: &Ec2Client,
    ids: &[String],
    external_id: &str,
) -> Result<(usize, usize), CallFailed> {
    let account = emulator.account("lab");
    let place = Place {
        partition: Partition::Aws,
        account: account.parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
    };
    let arn = format!("arn:aws:iam::{account}:role/muster-verifier");
    let by = LookUpBy::Role { arn, external_id: Some(external_id.to_owned()) };
    let long_ago = Timestamp::from_unix_seconds(1_700_000_000);
    let mut asking = JoinSet::new();
    for id in ids {
        let id: InstanceId = id.parse().unwrap();
        let (client, place, by) = (client.clone(), place.clone(), by.clone());
        asking.spawn(async move {
            let found = client.describe(&place, &by, &id, long_ago).await?;
            assert!(found.as_ref().is_none_or(|found| found.instance_id == id));
            Ok::<_, CallFailed>(found.is_some())
        });
    }
    let mut known = 0;
    while let Some(found) = asking.join_next().await {
        known += usize::from(found.unwrap()?);
    }
    Ok((known, ids.len() - known))
}

// Acceptance 4 of part 2, T25, T77: 450 ids with 3 unknown ones through a role of a second account;
// a warm session does not serve another external id; sessions end meanwhile and are made anew.
#[tokio::test]
async fn many_instances_are_looked_at_while_sessions_end() {
    let Some(emulator) = Emulator::start(&["--session-life", "5s"]) else { return };
    let lab = emulator.assumed("lab", "muster-verifier", Some("lab-example")).await.unwrap();
    let mut ids = ids_of(&emulator, &lab);
    ids.truncate(447);
    ids.extend((1..=3).map(|number| format!("i-0000000000000000{number}")));
    assert_eq!(ids.len(), 450);

    let client = ec2_client(&emulator);
    let before = emulator.calls();
    assert_eq!(look_at(&emulator, &client, &ids, "lab-example").await, Ok((447, 3)));
    let calls = emulator.calls();
    let ec2 = calls["ec2"]["DescribeInstances"].as_u64().unwrap()
        - before["ec2"]["DescribeInstances"].as_u64().unwrap();
    assert!(ec2 <= 8, "450 ids, 3 of them unknown, cost {ec2} calls");

    let refused = look_at(&emulator, &client, &ids[..2], "muster-example").await.unwrap_err();
    assert_eq!(refused.kind, Failure::Forbidden, "{refused}");

    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(look_at(&emulator, &client, &ids, "lab-example").await, Ok((447, 3)));
    let assumed = |calls: &Value| calls["sts"]["AssumeRole"].as_u64().unwrap();
    assert!(assumed(&emulator.calls()) > assumed(&calls) + 1, "a session was made anew");
}

/// Who owns an instance, as the role `inventory` of an account sees it.
async fn owner(emulator: &Emulator, client: &Ec2Client, account: &str, id: &str) -> Option<String> {
    let account = emulator.account(account);
    let place = Place {
        partition: Partition::Aws,
        account: account.parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
    };
    let arn = format!("arn:aws:iam::{account}:role/inventory");
    let by = LookUpBy::Role { arn, external_id: None };
    let long_ago = Timestamp::from_unix_seconds(1_700_000_000);
    let found = client.describe(&place, &by, &id.parse().unwrap(), long_ago).await.unwrap();
    found.map(|found| found.owner_id.to_string())
}

// T3, T4: one role name in two accounts. Whoever is warm, the other account's role never sees what
// the first one sees: in both orders, and at once.
async fn a_role_name_of_two_accounts_is_two_roles(emulator: &Emulator) {
    let shop = emulator.assumed("shop", "inventory", None).await.unwrap();
    let lab = emulator.assumed("lab", "inventory", None).await.unwrap();
    let (of_shop, of_lab) = (ids_of(emulator, &shop), ids_of(emulator, &lab));
    let (of_shop, of_lab) = (of_shop[0].as_str(), of_lab[0].as_str());
    let own = |name: &str| Some(emulator.account(name).to_owned());
    for order in [["shop", "lab"], ["lab", "shop"]] {
        let client = ec2_client(emulator);
        for account in order {
            let (mine, theirs) =
                if account == "shop" { (of_shop, of_lab) } else { (of_lab, of_shop) };
            assert_eq!(owner(emulator, &client, account, mine).await, own(account));
            assert_eq!(owner(emulator, &client, account, theirs).await, None, "{order:?}");
        }
    }
    let client = ec2_client(emulator);
    let (a, b, c, d) = tokio::join!(
        owner(emulator, &client, "shop", of_shop),
        owner(emulator, &client, "lab", of_lab),
        owner(emulator, &client, "shop", of_lab),
        owner(emulator, &client, "lab", of_shop),
    );
    assert_eq!((a, b, c, d), (own("shop"), own("lab"), None, None));
}

fn everything_listens_on_loopback_alone(emulator: &Emulator) {
    let sockets: BTreeSet<PathBuf> = emulator
        .pids()
        .iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap())
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    let mut listening = 0;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (fields[1], fields[3], fields[9]);
            // 0A is LISTEN.
            if state == "0A" && sockets.contains(Path::new(&format!("socket:[{inode}]"))) {
                listening += 1;
                assert!(address.starts_with("0100007F:"), "{address}");
            }
        }
    }
    assert_eq!(listening, 2);
}

#[test]
fn it_stops_and_leaves_nothing_behind() {
    for by_signal in [true, false] {
        let Some(mut emulator) = Emulator::start(&[]) else { return };
        let (pids, directory) = (emulator.pids(), emulator.directory.path().to_owned());
        assert!(fs::read_dir(&directory).unwrap().count() == 2, "pid file and state");
        if by_signal {
            kill_process(Pid::from_child(&emulator.child), Signal::TERM).unwrap();
        } else {
            drop(emulator.child.stdin.take());
        }
        assert_eq!(emulator.child.wait().unwrap().code(), Some(0));
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} runs on");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }
}

#[test]
fn a_second_one_is_not_started_beside_the_first_and_down_stops_it() {
    let Some(mut emulator) = Emulator::start(&[]) else { return };
    let pid_file = emulator.directory.path().join("pid");
    let run = |name: &str| {
        let mut command = Command::new(name);
        command.arg("--pid-file").arg(&pid_file).env("MUSTER", env!("CARGO_BIN_EXE_muster"));
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(!run("localstack/up"));
    assert!(run("localstack/down"));
    assert_eq!(emulator.child.wait().unwrap().code(), Some(0));
    assert!(run("localstack/down"), "nothing to stop is no failure");
}

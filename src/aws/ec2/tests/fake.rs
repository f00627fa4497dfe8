//! STS and EC2 as far as these tests need them: they believe every signature, and remember which
//! key made it. The simulator checks signatures.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::aws::{
    AwsHttp, CallStatistics, Ec2Client, Endpoints, HttpSettings, OwnCredentials, Service,
};
use crate::clock::Clock;
use crate::domain::Timestamp;

/// The account of the server's own credentials.
pub(super) const OWN_ACCOUNT: &str = "111122223333";
pub(super) const NOW: i64 = 1_800_000_000;

/// A request that came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) host: String,
    pub(super) key: String,
    pub(super) form: BTreeMap<String, String>,
}

impl Seen {
    pub(super) fn is_filter(&self) -> bool {
        self.form.contains_key("Filter.1.Name")
    }

    pub(super) fn ids(&self) -> Vec<String> {
        let prefix = if self.is_filter() { "Filter.1.Value." } else { "InstanceId." };
        let values = self.form.iter().filter(|(name, _)| name.starts_with(prefix));
        values.map(|(_, value)| value.clone()).collect()
    }
}

/// An answer that is given once, instead of the right one.
#[derive(Debug, Clone)]
pub(super) enum Canned {
    Answer(u16, &'static str, String),
    Silence,
    CutOff,
}

impl Canned {
    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::Answer(status, "text/xml;charset=UTF-8", error_body(code, "said AWS"))
    }
}

pub(super) fn error_body(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
         <Message>{message}</Message></Error></Errors><RequestID>r</RequestID></Response>"
    )
}

#[derive(Default)]
pub(super) struct State {
    pub(super) sts: Vec<Seen>,
    pub(super) ec2: Vec<Seen>,
    pub(super) unknown: BTreeSet<String>,
    /// How many unknown ids an error names.
    pub(super) named: usize,
    pub(super) canned_ec2: VecDeque<Canned>,
    pub(super) canned_sts: VecDeque<String>,
    pub(super) expired_keys: BTreeSet<String>,
    pub(super) external_ids: BTreeMap<String, String>,
    /// What STS says it gave, instead of what was asked for.
    pub(super) assumed: Option<String>,
    pub(super) page: usize,
    roles: BTreeMap<String, String>,
}

pub(super) struct Fake {
    pub(super) state: Arc<Mutex<State>>,
    /// Calls to EC2 wait for a permit.
    pub(super) gate: Arc<Semaphore>,
    pub(super) endpoints: Endpoints,
    pub(super) statistics: Arc<CallStatistics>,
    pub(super) clock: Clock,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { named: 1_000, page: 1_000, ..State::default() }));
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2));
        let mut endpoints = Endpoints::new(false);
        endpoints.replace(Service::Sts, None, &address, true).unwrap();
        endpoints.replace(Service::Ec2, None, &address, true).unwrap();
        let (served, gates) = (state.clone(), gate.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, served.clone(), gates.clone()));
            }
        });
        let statistics = Arc::default();
        let clock = Clock::fixed(Timestamp::from_unix_seconds(NOW));
        Self { state, gate, endpoints, statistics, clock }
    }

    pub(super) fn client(&self) -> Ec2Client {
        let own = OwnCredentials::fixed("AKIAOWN", "canary-secret", None);
        Ec2Client::new(
            http(),
            self.endpoints.clone(),
            own,
            self.clock.clone(),
            self.statistics.clone(),
        )
    }

    pub(super) fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) {
        edit(&mut self.state.lock().unwrap());
    }

    pub(super) fn ec2(&self) -> Vec<Seen> {
        self.state.lock().unwrap().ec2.clone()
    }

    pub(super) fn sts(&self) -> Vec<Seen> {
        self.state.lock().unwrap().sts.clone()
    }

    pub(super) fn close(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(super) fn open(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    /// Until this many calls to EC2 have come.
    pub(super) async fn until_calls(&self, calls: usize) {
        while self.ec2().len() < calls {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A client that trusts nobody: these tests speak plain HTTP.
pub(super) fn http() -> AwsHttp {
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.pem()).unwrap();
    let roots_file = Some(file.path().to_owned());
    AwsHttp::new(&HttpSettings { roots_file, proxy: None }).unwrap()
}

async fn serve(mut stream: tokio::net::TcpStream, state: Arc<Mutex<State>>, gate: Arc<Semaphore>) {
    let service = hyper::service::service_fn(|request| async {
        let answer = answer(seen(request).await, &state, &gate).await;
        let (status, media_type, body) = answer.ok_or_else(|| std::io::Error::other("cut off"))?;
        let response = Response::builder().status(status).header("content-type", media_type);
        Ok::<_, std::io::Error>(response.body(Full::new(Bytes::from(body))).unwrap())
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(&mut stream), service);
    if connection.await.is_err_and(|error| error.is_user()) {
        // Half an answer, and then nothing.
        let half = b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: 900\r\n\r\n<Desc";
        let _gone = stream.write_all(half).await;
    }
}

async fn seen(request: Request<Incoming>) -> Seen {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (host, authorization) = (header("host"), header("authorization"));
    let key = authorization.split("Credential=").nth(1).unwrap_or_default();
    let key = key.split('/').next().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let form = std::str::from_utf8(&body).unwrap().split('&');
    let form = form.filter_map(|pair| pair.split_once('='));
    let form = form.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
    Seen { host, key, form }
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            let digits = std::str::from_utf8(&digits).unwrap().to_owned();
            bytes.push(u8::from_str_radix(&digits, 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

type Given = (u16, &'static str, String);

/// `None` breaks the connection.
async fn answer(seen: Seen, state: &Mutex<State>, gate: &Semaphore) -> Option<Given> {
    if seen.form["Action"] == "AssumeRole" {
        return Some(assume_role(&seen, &mut state.lock().unwrap()));
    }
    state.lock().unwrap().ec2.push(seen.clone());
    gate.acquire().await.unwrap().forget();
    let canned = state.lock().unwrap().canned_ec2.pop_front();
    match canned {
        Some(Canned::Answer(status, media_type, body)) => Some((status, media_type, body)),
        Some(Canned::Silence) => std::future::pending().await,
        Some(Canned::CutOff) => None,
        None => Some(describe(&seen, &state.lock().unwrap())),
    }
}

fn assume_role(seen: &Seen, state: &mut State) -> Given {
    state.sts.push(seen.clone());
    let xml = "text/xml";
    if let Some(code) = state.canned_sts.pop_front() {
        let body = format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>The requested \
             DurationSeconds</Message></Error><RequestId>r</RequestId></ErrorResponse>"
        );
        return (400, xml, body);
    }
    let (arn, name) = (&seen.form["RoleArn"], &seen.form["RoleSessionName"]);
    if state.external_ids.get(arn) != seen.form.get("ExternalId") {
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not \
                    authorized</Message></Error><RequestId>r</RequestId></ErrorResponse>";
        return (403, xml, body.to_owned());
    }
    let key = format!("ASIA{:012}", state.sts.len());
    state.roles.insert(key.clone(), arn.clone());
    let assumed = arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/");
    let assumed = state.assumed.clone().unwrap_or_else(|| format!("{assumed}/{name}"));
    let seconds: u32 = seen.form["DurationSeconds"].parse().unwrap();
    let end = Timestamp::from_unix_seconds(NOW + i64::from(seconds));
    let body = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
         <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>{assumed}</Arn>\
         </AssumedRoleUser><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s\
         </SecretAccessKey><SessionToken>t</SessionToken><Expiration>{end}</Expiration>\
         </Credentials></AssumeRoleResult><ResponseMetadata><RequestId>r</RequestId>\
         </ResponseMetadata></AssumeRoleResponse>"
    );
    (200, xml, body)
}

fn describe(seen: &Seen, state: &State) -> Given {
    let xml = "text/xml;charset=UTF-8";
    if state.expired_keys.contains(&seen.key) {
        return (400, xml, error_body("RequestExpired", "Request has expired."));
    }
    let account = match state.roles.get(&seen.key) {
        Some(arn) => arn.split(':').nth(4).unwrap().to_owned(),
        None => OWN_ACCOUNT.to_owned(),
    };
    let (unknown, mut known): (Vec<_>, Vec<_>) =
        seen.ids().into_iter().partition(|id| state.unknown.contains(id));
    if !seen.is_filter() && !unknown.is_empty() {
        let named: Vec<_> = unknown.iter().take(state.named).map(String::as_str).collect();
        let message = format!("The instance IDs &apos;{}&apos; do not exist", named.join(", "));
        return (400, xml, error_body("InvalidInstanceID.NotFound", &message));
    }
    let mut next = String::new();
    if seen.is_filter() {
        let from: usize = seen.form.get("NextToken").map_or(0, |token| token[2..].parse().unwrap());
        known.sort();
        let rest = known.split_off(from.min(known.len()));
        if rest.len() > state.page {
            next = format!("<nextToken>+/{}</nextToken>", from + state.page);
        }
        known = rest.into_iter().take(state.page).collect();
    }
    let items: String = known.iter().map(|id| instance(id, &account)).collect();
    (200, xml, format!("{HEAD}<reservationSet>{items}</reservationSet>{next}{TAIL}"))
}

pub(super) const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse \
    xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n    <requestId>r</requestId>\n    ";
pub(super) const TAIL: &str = "\n</DescribeInstancesResponse>";

/// A reservation with one instance.
pub(super) fn instance(id: &str, account: &str) -> String {
    let mut item = String::new();
    write!(
        item,
        "<item><reservationId>r-1</reservationId><ownerId>{account}</ownerId><groupSet/>\
         <instancesSet><item><instanceId>{id}</instanceId><imageId>ami-0123456789abcdef0</imageId>\
         <instanceState><code>16</code><name>running</name></instanceState><privateDnsName/>\
         <instanceType>m7g.large</instanceType><launchTime>2027-01-15T07:16:10.000Z</launchTime>\
         <placement><availabilityZone>us-west-2b</availabilityZone><tenancy>default</tenancy>\
         </placement><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId>\
         <privateIpAddress>10.0.0.7</privateIpAddress><groupSet><item><groupId>sg-1</groupId>\
         <groupName>web</groupName></item></groupSet><iamInstanceProfile>\
         <arn>arn:aws:iam::{account}:instance-profile/web</arn><id>AIPA1</id></iamInstanceProfile>\
         <tagSet><item><key>Name</key><value>a &amp; b</value></item>\
         <item><key>aws:autoscaling:groupName</key><value>web</value></item></tagSet>\
         <metadataOptions><state>applied</state><httpTokens>required</httpTokens>\
         <httpPutResponseHopLimit>1</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>\
         </metadataOptions></item></instancesSet></item>"
    )
    .unwrap();
    item
}

//! Tokens that the server publishes into SSM, through the real processes: what is there, what happens
//! when SSM does not answer, and what a server finds that was killed in the middle.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use muster::aws::{AwsHttp, Endpoints, OwnCredentials, PutParameter, Service, Ssm, SsmAccess};
use muster::clock::{Clock, Stopwatch};
use muster::domain::TokenSecret;
use serde_json::{Value, json};

use crate::harness::Site;

/// Longer than a lease of a server that was killed, and a few failures after it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
const FOLDER: &str = "/muster/simulation.internal/web";
const TOKEN: &str = "/muster/simulation.internal/web/token";
const POLICY: &str = r"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: by token, owner: platform}
spec:
  method: token
  roles: [node]
  allow: [{tokens: any}]
";

/// The policy, and a publication of it with this period in these regions.
pub(crate) fn policies(period: &str, regions: &[&str]) -> String {
    let targets = regions.iter().map(|region| format!("    - region: {region}\n"));
    let targets = targets.collect::<Vec<_>>().concat();
    format!(
        "{POLICY}---\napiVersion: muster/v1\nkind: TokenPublication\n\
         metadata: {{name: web, owner: platform}}\nspec:\n  policy: web\n  targets:\n{targets}  \
         period: {period}\n  token: {{life: 60d, max_uses: unlimited}}\n"
    )
}

/// SSM as the server's own user asks it.
pub(crate) struct Parameters(Ssm, tokio::runtime::Runtime);

impl Parameters {
    pub(crate) fn of(site: &Site) -> Self {
        let url = site.simulator.said("ssm");
        let mut endpoints = Endpoints::new(false);
        endpoints.replace(Service::Ssm, None, url, true).unwrap();
        let own = OwnCredentials::of_file(&site.path("sim/server-credentials.json")).unwrap();
        let http = AwsHttp::plain().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self(Ssm::new(http, endpoints, own, Clock::system(), std::sync::Arc::default()), runtime)
    }

    pub(crate) fn get(&self, region: &str, name: &str, decrypt: bool) -> Option<String> {
        let access = SsmAccess { region: region.parse().unwrap(), role: None };
        let found = self.1.block_on(self.0.get(&access, &[name], decrypt)).unwrap();
        found.first().map(|parameter| parameter.value.as_str().to_owned())
    }

    pub(crate) fn overwrite(&self, name: &str, value: &str) {
        let access = SsmAccess { region: "us-west-2".parse().unwrap(), role: None };
        let tags = std::collections::BTreeMap::new();
        let put = PutParameter {
            name,
            value,
            is_secure: true,
            kms_key: None,
            tags: &tags,
            description: "by somebody else",
        };
        self.1.block_on(self.0.put(&access, &put)).unwrap();
    }

    pub(crate) fn token(&self) -> Option<TokenSecret> {
        self.get("us-west-2", TOKEN, true).map(|text| TokenSecret::parse(&text).ok().unwrap())
    }
}

/// Asks the simulator itself.
fn steer(site: &Site, method: &str, path: &str, body: &str) -> String {
    let address = site.simulator.said("ssm").strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("{method} /_sim/{path} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Tells the simulator how SSM misbehaves.
pub(crate) fn fault(site: &Site, fault: &Value) {
    let answer = steer(site, "PUT", "faults", &fault.to_string());
    assert!(answer.contains(" 204 "), "{answer}");
}

/// How many reads of parameters have come.
pub(crate) fn reads(site: &Site) -> u64 {
    let answer = steer(site, "GET", "calls", "");
    let calls: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    calls["ssm"]["GetParameters"].as_u64().unwrap()
}

pub(crate) fn publications(site: &Site) -> Vec<Value> {
    let listed = site.local(&["publications", "ls"]);
    listed.yes()["publications"].as_array().unwrap().clone()
}

/// Waits until it is so.
pub(crate) fn wait_until<T>(site: &Site, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look() {
            return found;
        }
        let listed = publications(site);
        assert!(watch.elapsed() < PATIENCE, "{what}: {listed:#?}\n{}", site.server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until every target is published and has no error.
pub(crate) fn wait_for_all(site: &Site) -> Vec<Value> {
    wait_until(site, "everything is published", || {
        let listed = publications(site);
        let is_good = |one: &Value| one["state"] == "published" && one["error"].is_null();
        (!listed.is_empty() && listed.iter().all(is_good)).then_some(listed)
    })
}

/// The names of all tokens on record.
pub(crate) fn tokens(site: &Site) -> Vec<String> {
    let listed = site.local(&["tokens", "ls"]);
    let tokens = listed.yes()["tokens"].as_array().unwrap();
    tokens.iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect()
}

/// The kinds of all audit records about publications, with their tokens, and the whole text.
pub(crate) fn audit(site: &Site) -> (Vec<(String, String)>, String) {
    let listed = site.local(&["audit", "ls", "--class", "security"]);
    let kinds = listed.values.iter().filter_map(|record| {
        let kind = record["kind"].as_str()?.strip_prefix("publication-")?;
        let token = record["detail"]["token"].as_str().unwrap_or_default();
        Some((kind.to_owned(), token.to_owned()))
    });
    (kinds.collect(), format!("{:?}", listed.values))
}

// I10: a token that is read back, its companions, and nothing secret anywhere else.
#[test]
fn a_token_is_published_with_what_nodes_need_and_shown_nowhere() {
    let site = Site::under(&policies("10m", &["us-west-2"]));
    let [one] = &wait_for_all(&site)[..] else { panic!("one target") };
    let parameters = Parameters::of(&site);
    let secret = parameters.token().unwrap();
    assert_eq!(one["token"], secret.name().as_str());
    assert_eq!((&one["parameter"], &one["version"]), (&json!(TOKEN), &json!(1)));
    assert_eq!(one["target"], "aws/us-west-2/own");
    let arn = "arn:aws:ssm:us-west-2:111122223333:parameter/muster/simulation.internal/web/token";
    assert_eq!(one["arn"], arn);
    assert_eq!(tokens(&site), [secret.name().as_str()]);
    let sealed = parameters.get("us-west-2", TOKEN, false).unwrap();
    assert!(TokenSecret::parse(&sealed).is_err(), "it is a SecureString");

    let beside = |name: &str| parameters.get("us-west-2", &format!("{FOLDER}/{name}"), false);
    assert_eq!(beside("pin").as_deref(), Some(site.pin()));
    assert_eq!(beside("server").as_deref(), Some(site.address()));
    assert_eq!(beside("policy").as_deref(), Some("web"));
    assert!(beside("bundle").unwrap().starts_with("-----BEGIN CERTIFICATE-----"));

    let (kinds, text) = audit(&site);
    let name = secret.name().to_string();
    assert_eq!(kinds, [("create".to_owned(), name.clone()), ("publish".to_owned(), name)]);
    assert!(text.contains(arn) && text.contains("\"version\": Number(1)"), "{text}");
    let digits = secret.to_text().rsplit('.').next().unwrap().to_owned();
    let needle = &digits[..32];
    let metrics = site.page("/metrics");
    assert!(metrics.contains("muster_publication_age_seconds{publication=\"web\""), "{metrics}");
    let printed = [
        text,
        metrics,
        site.server.log(),
        format!("{:?}", publications(&site)),
        format!("{:?}", site.local(&["publications", "show", "web"])),
        format!("{:?}", site.local(&["tokens", "show", secret.name().as_str()])),
    ];
    assert!(printed.iter().all(|text| !text.contains(needle)));
    for file in ["data/muster.db", "data/muster.db-wal", "sim.log"] {
        let bytes = fs::read(site.path(file)).unwrap_or_default();
        assert!(!bytes.windows(needle.len()).any(|part| part == needle.as_bytes()), "{file}");
    }
}

#[test]
fn the_token_before_lives_for_its_overlap_and_never_more_than_two_do() {
    let site = Site::under(&policies("4s", &["us-west-2"]));
    let mut seen = std::collections::BTreeSet::new();
    wait_until(&site, "four rotations", || {
        let live = tokens(&site);
        assert!(live.len() <= 2, "{live:?}");
        seen.extend(live);
        (seen.len() >= 4).then_some(())
    });
    let (kinds, _) = audit(&site);
    let count = |kind: &str| kinds.iter().filter(|(found, _)| found == kind).count();
    assert!(count("publish") >= 3 && count("revoke") >= 2, "{kinds:?}");
    assert_eq!(count("leftover"), 0, "{kinds:?}");
    // What is fetched is what is on record.
    let fetched = Parameters::of(&site).token().unwrap();
    assert!(
        seen.contains(fetched.name().as_str())
            || tokens(&site).contains(&fetched.name().to_string())
    );
}

#[test]
fn an_operator_publishes_at_once_and_hears_when_ssm_does_not_answer() {
    let site = Site::under(&policies("10m", &["us-west-2"]));
    let before = wait_for_all(&site)[0]["token"].clone();
    let published = site.local(&["publications", "publish", "web"]);
    let after = &published.yes()["publications"][0];
    assert_ne!(after["token"], before);
    assert_eq!((&after["version"], &after["state"]), (&json!(2), &json!("published")));
    assert_eq!(after["previous"]["token"], before);
    assert_eq!(tokens(&site).len(), 2);

    fault(&site, &json!({"service": "ssm", "fault": "unavailable"}));
    let refused = site.local(&["publication", "publish", "web"]);
    assert_eq!(refused.failure(), (3, "SSM_UNAVAILABLE"));
    let unknown = site.local(&["publications", "publish", "wbe"]);
    assert_eq!(unknown.failure().1, "NOT_FOUND");
    wait_until(&site, "the error is shown", || {
        publications(&site)[0]["error"].as_str().map(str::to_owned)
    });
    fault(&site, &json!({"service": "ssm", "fault": null}));
    let again = wait_for_all(&site);
    assert_eq!(again[0]["token"], after["token"], "an outage costs no token");
    // A token that an operator removes is replaced.
    let name = after["token"].as_str().unwrap();
    site.local(&["tokens", "rm", name, "--reason", "leaked"]).yes();
    wait_until(&site, "another one", || {
        let now = Parameters::of(&site).token().unwrap().name().to_string();
        (now != name).then_some(())
    });
}

#[test]
fn a_target_that_fails_stops_no_other() {
    // The simulator knows no such key, and every region by itself: one of them is full of requests.
    let text = policies("10m", &["us-west-2", "eu-west-1"]).replace(
        "    - region: us-west-2\n",
        "    - {region: us-west-2, account: \"444455556666\", external_id: nobody, role: \
         \"arn:aws:iam::444455556666:role/none\"}\n",
    );
    let site = Site::under(&text);
    let listed = wait_until(&site, "one of the two", || {
        let listed = publications(&site);
        let is_there = listed.iter().any(|one| one["state"] == "published");
        let has_failed = listed.iter().any(|one| one["error"].is_string());
        (is_there && has_failed).then_some(listed)
    });
    let [good, bad] = &listed[..] else { panic!("two targets") };
    assert_eq!((&good["target"], &good["error"]), (&json!("aws/eu-west-1/own"), &Value::Null));
    assert_eq!(bad["target"], "aws/us-west-2/444455556666");
    assert!(bad["error"].as_str().unwrap().contains("role/none"), "{bad}");
    assert_eq!(tokens(&site).len(), 1, "without SSM no token is made");
    let metrics = site.page("/metrics");
    let errors = "muster_publication_errors_total{publication=\"web\",target=\"aws/us-west-2/4";
    assert!(metrics.contains(errors), "{metrics}");
}

// I12: into another account by its role, whose session may touch these parameters alone.
#[test]
fn a_role_writes_in_its_own_account_in_the_layout_that_is_asked_for() {
    let text = policies("10m", &["us-west-2"]).replace(
        "    - region: us-west-2\n",
        "    - region: us-west-2\n      account: \"444455556666\"\n      external_id: \
         muster-example\n      role: arn:aws:iam::444455556666:role/muster-publisher\n      \
         kms_key: alias/muster\n      tags: {Owner: platform}\n",
    ) + "  layout: {teleport: {cluster: prod, role: node}}\n";
    let site = Site::under(&text);
    let one = &wait_for_all(&site)[0];
    assert_eq!(one["target"], "aws/us-west-2/444455556666");
    let arn = "arn:aws:ssm:us-west-2:444455556666:parameter/teleport/prod/tokens/node";
    assert_eq!(
        (&one["arn"], &one["parameter"]),
        (&json!(arn), &json!("/teleport/prod/tokens/node"))
    );
    let (_, text) = audit(&site);
    assert!(text.contains("444455556666"), "{text}");
    let parameters = Parameters::of(&site);
    let own = parameters.get("us-west-2", "/teleport/prod/tokens/node", true);
    assert_eq!(own, None, "nothing of it is in the server's account");
    let calls = steer(&site, "GET", "calls", "");
    let calls: Value = serde_json::from_str(calls.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(calls["sts"]["AssumeRole"], 1);
    assert_eq!(calls["ssm"]["AddTagsToResource"], 1);
    assert_eq!(calls["ssm"]["PutParameter"], 2, "the pin and the token");
}

#[test]
fn a_parameter_that_somebody_overwrites_is_seen_and_mended() {
    let mut site = Site::under(&policies("10m", &["us-west-2"]));
    let before = wait_for_all(&site)[0]["token"].clone();
    let parameters = Parameters::of(&site);
    parameters.overwrite(TOKEN, "something else");
    parameters.overwrite(&format!("{FOLDER}/server"), "evil.example:7443");
    // A server looks at its start, and then every minute.
    site.restart(|command| command);
    wait_until(&site, "another token", || {
        let text = parameters.get("us-west-2", TOKEN, true)?;
        let token = TokenSecret::parse(&text).ok()?;
        (token.name().as_str() != before).then_some(())
    });
    let server = parameters.get("us-west-2", &format!("{FOLDER}/server"), true);
    assert_eq!(server.as_deref(), Some(site.address()), "and what stands beside it");
}

// By pin and server a node chooses whom it trusts: whoever changes them is seen although the token stands.
#[test]
fn what_stands_beside_the_token_is_looked_at_too() {
    let mut site = Site::under(&policies("10m", &["us-west-2"]));
    let before = wait_for_all(&site)[0]["token"].clone();
    let parameters = Parameters::of(&site);
    parameters.overwrite(&format!("{FOLDER}/pin"), "sha256:somebody-else");
    // A server looks at its start, and then every minute.
    site.restart(|command| command);
    wait_until(&site, "the pin is the server's", || {
        let pin = parameters.get("us-west-2", &format!("{FOLDER}/pin"), false)?;
        (pin.trim() == site.pin()).then_some(())
    });
    assert_eq!(publications(&site)[0]["token"], before, "the token stays");
    let (kinds, text) = audit(&site);
    assert!(kinds.iter().any(|(kind, _)| kind == "mended"), "{text}");
}

#[test]
fn terms_that_are_narrowed_hold_for_the_next_token_at_once() {
    let site = Site::under(&policies("10m", &["us-west-2"]));
    let before = wait_for_all(&site)[0]["token"].clone();
    let narrower = policies("10m", &["us-west-2"]).replace("max_uses: unlimited", "max_uses: 7");
    fs::write(site.path("policies/policies.yaml"), narrower).unwrap();
    let token = wait_until(&site, "another token", || {
        let token = publications(&site)[0]["token"].clone();
        (token != before && publications(&site)[0]["state"] == "published").then_some(token)
    });
    let shown = site.local(&["tokens", "show", token.as_str().unwrap()]);
    assert_eq!(shown.yes()["max_uses"], 7);
}

#[test]
fn what_nobody_wants_any_more_is_revoked_and_taken_out_of_ssm() {
    let site = Site::under(&policies("10m", &["us-west-2"]));
    wait_for_all(&site);
    let parameters = Parameters::of(&site);
    fs::write(site.path("policies/policies.yaml"), POLICY).unwrap();
    wait_until(&site, "it is gone", || publications(&site).is_empty().then_some(()));
    assert!(tokens(&site).is_empty());
    assert!(parameters.token().is_none());
    let (kinds, text) = audit(&site);
    assert_eq!(kinds.last().unwrap().0, "retire");
    assert!(text.contains("deleted"), "{text}");
}

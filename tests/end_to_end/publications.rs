//! Tokens that the server publishes into SSM, through the real processes: what is there, what happens
//! when SSM does not answer, and what a server finds that was killed in the middle.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use muster::aws::{AwsHttp, Endpoints, OwnCredentials, PutParameter, Service, Ssm, SsmAccess};
use muster::clock::{Clock, Stopwatch};
use muster::domain::TokenSecret;
use serde_json::{Value, json};

use crate::harness::{Answer, MUSTER, Process, Site, local_command, mortal};

/// Longer than a lease of a server that was killed, and a few failures after it.
const PATIENCE: Duration = Duration::from_mins(2);
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
fn policies(period: &str, regions: &[&str]) -> String {
    let targets = regions.iter().map(|region| format!("    - region: {region}\n"));
    let targets = targets.collect::<Vec<_>>().concat();
    format!(
        "{POLICY}---\napiVersion: muster/v1\nkind: TokenPublication\n\
         metadata: {{name: web, owner: platform}}\nspec:\n  policy: web\n  targets:\n{targets}  \
         period: {period}\n  token: {{life: 60d, max_uses: unlimited}}\n"
    )
}

/// SSM as the server's own user asks it.
struct Parameters(Ssm, tokio::runtime::Runtime);

impl Parameters {
    fn of(site: &Site) -> Self {
        let url = site.simulator.said("ssm");
        let mut endpoints = Endpoints::new(false);
        endpoints.replace(Service::Ssm, None, url, true).unwrap();
        let own = OwnCredentials::of_file(&site.path("sim/server-credentials.json")).unwrap();
        let http = AwsHttp::plain().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self(Ssm::new(http, endpoints, own, Clock::system(), std::sync::Arc::default()), runtime)
    }

    fn get(&self, region: &str, name: &str, decrypt: bool) -> Option<String> {
        let access = SsmAccess { region: region.parse().unwrap(), role: None };
        let found = self.1.block_on(self.0.get(&access, &[name], decrypt)).unwrap();
        found.first().map(|parameter| parameter.value.as_str().to_owned())
    }

    fn overwrite(&self, name: &str, value: &str) {
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

    fn token(&self) -> Option<TokenSecret> {
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
fn fault(site: &Site, fault: &Value) {
    let answer = steer(site, "PUT", "faults", &fault.to_string());
    assert!(answer.contains(" 204 "), "{answer}");
}

/// How many reads of parameters have come.
fn reads(site: &Site) -> u64 {
    let answer = steer(site, "GET", "calls", "");
    let calls: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    calls["ssm"]["GetParameters"].as_u64().unwrap()
}

fn publications(site: &Site) -> Vec<Value> {
    let listed = site.local(&["publications", "ls"]);
    listed.yes()["publications"].as_array().unwrap().clone()
}

/// Waits until it is so.
fn wait_until<T>(site: &Site, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
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
fn wait_for_all(site: &Site) -> Vec<Value> {
    wait_until(site, "everything is published", || {
        let listed = publications(site);
        let is_good = |one: &Value| one["state"] == "published" && one["error"].is_null();
        (!listed.is_empty() && listed.iter().all(is_good)).then_some(listed)
    })
}

/// The names of all tokens on record.
fn tokens(site: &Site) -> Vec<String> {
    let listed = site.local(&["tokens", "ls"]);
    let tokens = listed.yes()["tokens"].as_array().unwrap();
    tokens.iter().map(|token| token["name"].as_str().unwrap().to_owned()).collect()
}

/// The kinds of all audit records about publications, with their tokens, and the whole text.
fn audit(site: &Site) -> (Vec<(String, String)>, String) {
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

/// Publishes once, makes the next rotation stop with this fault, kills the server there, and starts
/// it again; everything that the audit log says of the publication, in the order of the alphabet.
fn killed(stop: &Value, is_there: impl Fn(&Site) -> bool) -> Vec<String> {
    let mut site = Site::under(&policies("10m", &["us-west-2"]));
    wait_for_all(&site);
    let old = tokens(&site).remove(0);
    fault(&site, stop);
    let directory = site.directory.path().to_owned();
    let asking = std::thread::spawn(move || {
        let mut command = mortal(Path::new(MUSTER));
        command.args(["publications", "publish", "web", "--data-dir"]).arg(directory.join("data"));
        command.output().unwrap()
    });
    wait_until(&site, "the moment", || {
        (publications(&site)[0]["state"] == "creating" && is_there(&site)).then_some(())
    });
    site.server.kill();
    assert!(!asking.join().unwrap().status.success());
    fault(&site, &json!({"service": "ssm", "fault": null}));
    site.restart(|command| command);
    wait_until(&site, "the next server publishes", || {
        let listed = publications(&site);
        let one = &listed[0];
        let is_whole = one["state"] == "published" && one["error"].is_null();
        (is_whole && !audit(&site).0.iter().all(|(_, token)| *token == old || token.is_empty()))
            .then_some(())
    });
    // Without a rotation that is due it stays so: what is on record is what is published, and the
    // token before, if there is one, is on its way out.
    let one = publications(&site)[0].clone();
    let published = Parameters::of(&site).token().unwrap();
    assert_eq!(one["token"], published.name().as_str(), "what is published is on record");
    let mut known = vec![published.name().to_string()];
    known.extend(one["previous"]["token"].as_str().map(str::to_owned));
    known.sort();
    let mut live = tokens(&site);
    live.sort();
    assert_eq!(live, known, "no token is orphaned");
    // Each process has a chain of its own, and chains of one second have no order.
    let mut kinds: Vec<String> = audit(&site).0.into_iter().map(|(kind, _)| kind).collect();
    // The next server listens on another port, and writes that beside the token.
    kinds.retain(|kind| kind != "mended");
    kinds.sort();
    kinds
}

// Acceptance 4, in its three windows: the audit log tells each.
#[test]
fn a_server_killed_before_its_put_leaves_nothing() {
    let stop = json!({"service": "ssm", "fault": "slow", "action": "PutParameter", "delay": "60s"});
    assert_eq!(killed(&stop, |_| true), ["create", "create", "leftover", "publish"]);
}

#[test]
fn a_server_killed_after_its_put_has_published() {
    let stop = json!({"service": "ssm", "fault": "late", "action": "PutParameter", "delay": "60s"});
    let is_put = |site: &Site| {
        Parameters::of(site).token().unwrap().name().as_str() != publications(site)[0]["token"]
    };
    assert_eq!(killed(&stop, is_put), ["adopt", "create", "create", "publish"]);
}

#[test]
fn a_server_killed_at_its_read_back_has_published() {
    let stop = json!({"service": "ssm", "fault": "late", "action": "PutParameter", "delay": "3s"});
    let reads_back = |site: &Site| {
        let fetched = Parameters::of(site).token().unwrap();
        if fetched.name().as_str() == publications(site)[0]["token"] {
            return false;
        }
        // From here on no read is answered; the server's next one is that of the token.
        fault(site, &json!({"service": "ssm", "fault": "slow", "action": "GetParameters"}));
        let before = reads(site);
        wait_until(site, "the read-back", || (reads(site) > before).then_some(()));
        true
    };
    assert_eq!(killed(&stop, reads_back), ["adopt", "create", "create", "publish"]);
}

#[test]
fn a_lost_answer_is_looked_for_and_costs_no_token() {
    let site = Site::under(&policies("10m", &["us-west-2"]));
    wait_for_all(&site);
    fault(
        &site,
        &json!({"service": "ssm", "fault": "cut_off", "action": "PutParameter", "count": 1}),
    );
    let lost = site.local(&["publications", "publish", "web"]);
    assert_eq!(lost.failure(), (3, "SSM_UNAVAILABLE"));
    wait_for_all(&site);
    let (kinds, _) = audit(&site);
    let kinds: Vec<String> = kinds.into_iter().skip(2).map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["create", "adopt"]);
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

#[test]
fn ssm_failing_a_fifth_of_its_calls_only_costs_time() {
    let site = Site::under(&policies("3s", &["us-west-2"]));
    wait_for_all(&site);
    fault(&site, &json!({"service": "ssm", "fault": "throttled", "percent": 20}));
    let mut seen = std::collections::BTreeSet::new();
    wait_until(&site, "five rotations", || {
        let live = tokens(&site);
        assert!(live.len() <= 2, "{live:?}");
        seen.extend(live);
        (audit(&site).0.iter().filter(|(kind, _)| kind == "publish").count() >= 5).then_some(())
    });
}

// Without an address that nodes can use nothing is published, and the operator reads what to do.
#[test]
fn without_a_join_address_nothing_is_published() {
    let site = Site::with(|command| command);
    let config = site.path("server.toml");
    let url = site.simulator.said("ssm").to_owned();
    let certificates = site.path("sim/certificates");
    let text = format!(
        "[aws]\ncertificates_dir = '{}'\ninsecure_endpoints = true\n\
         [aws.endpoints]\nsts = '{url}'\nec2 = '{url}'\nssm = '{url}'\n",
        certificates.display()
    );
    fs::write(&config, text).unwrap();
    fs::create_dir(site.path("policies-2")).unwrap();
    fs::write(site.path("policies-2/p.yaml"), policies("10m", &["us-west-2"])).unwrap();
    let keys: Value =
        serde_json::from_slice(&fs::read(site.path("sim/server-credentials.json")).unwrap())
            .unwrap();
    let mut command = mortal(Path::new(MUSTER));
    command.args(["server", "--trust-domain", "test.internal", "--config"]).arg(&config);
    command.arg("--data-dir").arg(site.path("data-2"));
    command.arg("--policies").arg(site.path("policies-2"));
    command.args(["--listen", "127.0.0.1:0", "--diagnostics-listen", "127.0.0.1:0"]);
    command.env("AWS_ACCESS_KEY_ID", keys["access_key_id"].as_str().unwrap());
    command.env("AWS_SECRET_ACCESS_KEY", keys["secret_access_key"].as_str().unwrap());
    let server = Process::start(command, &site.path("server-2.log"));
    let site = Site { server, ..site };
    let data = site.path("data-2");
    let watch = Stopwatch::start();
    loop {
        let mut command = local_command(mortal(Path::new(MUSTER)), &["publications", "ls"], &data);
        let listed = Answer::of(&mut command);
        let one = &listed.yes()["publications"][0];
        if let Some(error) = one["error"].as_str() {
            assert!(error.contains("publisher.join_address"), "{error}");
            assert!(site.server.log().contains("publisher.join_address"));
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "{}", site.server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

//! Publications when a server is killed in the middle, SSM does not answer, or nobody says where nodes
//! join.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Answer, MUSTER, Process, Site, await_that, local_command, mortal};
use crate::publications::{
    Parameters, audit, fault, policies, publications, reads, tokens, wait_for_all, wait_until,
};

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
    let mut said = None;
    await_that("the operator reads what to do", || {
        let mut command = local_command(mortal(Path::new(MUSTER)), &["publications", "ls"], &data);
        let listed = Answer::of(&mut command);
        said = listed.yes()["publications"][0]["error"].as_str().map(str::to_owned);
        said.is_some()
    });
    let said = said.unwrap();
    assert!(said.contains("publisher.join_address"), "{said}");
    site.server.says("publisher.join_address");
}

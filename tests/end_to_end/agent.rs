//! `muster agent` as a process: it joins, stays, and finds its way back to the same key.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use muster::clock::Stopwatch;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Answer, MUSTER, OTHER_WORKER, Process, STRANGER, Site, WORKER, mortal};

/// An agent of this instance with this state directory.
pub(crate) fn agent_command(site: &Site, instance: &str, state: &str) -> Command {
    agent_command_for(site, site.address(), instance, state)
}

/// Likewise, of a server at this address.
pub(crate) fn agent_command_for(site: &Site, server: &str, instance: &str, state: &str) -> Command {
    let mut command = mortal(Path::new(MUSTER));
    command.args(["agent", "--policy", "web", "--server", server, "--pin", site.pin()]);
    command.args(["--imds-endpoint", site.simulator.ready["imds"][instance].as_str().unwrap()]);
    command.arg("--state").arg(site.path(state));
    command
}

pub(crate) fn start(site: &Site, instance: &str, state: &str) -> Process {
    let log = site.path(&format!("{state}.log"));
    Process::start(agent_command(site, instance, state), &log)
}

/// `muster agent status`, `leave` and so on.
pub(crate) fn ask(site: &Site, arguments: &[&str], state: &str) -> Answer {
    let mut command = Command::new(MUSTER);
    command.arg("agent").args(arguments).args(["--output", "json", "--state"]);
    Answer::of(command.arg(site.path(state)))
}

/// Waits until the status says what is wanted.
pub(crate) fn await_status(site: &Site, state: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let watch = Stopwatch::start();
    loop {
        let status = ask(site, &["status"], state).values.remove(0);
        if is_it(&status) {
            return status;
        }
        assert!(watch.elapsed() < Duration::from_secs(30), "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn stop(agent: Process) {
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended(), Some(0));
}

fn identity(site: &Site, state: &str) -> [Vec<u8>; 3] {
    ["key.pem", "certificate.pem", "node.json"]
        .map(|name| fs::read(site.path(state).join("current").join(name)).unwrap())
}

#[test]
fn an_agent_joins_says_so_and_keeps_what_it_has_when_it_starts_again() {
    let site = Site::new();
    let nobody = ask(&site, &["status"], "node");
    assert_eq!((nobody.exit, &nobody.values[0]["joined"]), (1, &json!(false)));

    let agent = start(&site, WORKER, "node");
    assert_eq!(agent.said("instance_id"), WORKER);
    let status = ask(&site, &["status"], "node");
    let said = status.yes().clone();
    assert_eq!(said["joined"], true, "while it runs: {said}");
    for name in ["node_id", "spiffe_id", "policy", "serial", "not_after", "renew_after"] {
        assert_eq!(said[name], agent.ready[name], "{name}");
    }
    assert!(said["last_success"].is_string() && said["next_try"].is_string(), "{said}");
    assert_eq!((&said["last_error"], &said["last_reload"]), (&Value::Null, &Value::Null));
    let before = identity(&site, "node");
    let node = site.local(&["nodes", "show", WORKER]).yes().clone();
    stop(agent);
    assert_eq!(ask(&site, &["status"], "node").yes()["next_try"], Value::Null, "nobody tries");

    let agent = start(&site, WORKER, "node");
    assert_eq!(identity(&site, "node"), before);
    // It may be killed at any time.
    agent.signal(Signal::KILL);
    assert_eq!(agent.ended(), None);
    let agent = start(&site, WORKER, "node");
    assert_eq!(agent.ready["serial"], said["serial"]);
    assert_eq!(identity(&site, "node"), before);
    assert_eq!(site.local(&["nodes", "show", WORKER]).yes(), &node, "the server was not asked");
    // A join by hand would come in its way.
    assert_eq!(site.join(WORKER, "node").failure(), (2, "STATE_UNUSABLE"));
    stop(agent);
}

// T62
#[test]
fn an_agent_on_a_copied_disk_is_a_node_of_its_own() {
    let site = Site::new();
    stop(start(&site, WORKER, "node"));
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(site.path("node")).arg(site.path("copy"));
    assert!(copy.status().unwrap().success());

    let agent = start(&site, OTHER_WORKER, "copy");
    assert_eq!(agent.said("instance_id"), OTHER_WORKER);
    assert_ne!(identity(&site, "copy")[0], identity(&site, "node")[0]);
    let names = fs::read_dir(site.path("copy")).unwrap();
    let set_aside = names.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("set-aside-")
    });
    assert_eq!(set_aside.count(), 1);
}

#[test]
fn a_refused_node_waits_for_a_better_policy_and_shows_why() {
    let site = Site::new();
    let mut agent = agent_command(&site, STRANGER, "node")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = await_status(&site, "node", |status| status["last_error"].is_object());
    assert_eq!(status["joined"], false);
    assert_eq!(status["last_error"]["code"], "NOT_ADMITTED");
    assert!(status["last_error"]["correlation_id"].is_string(), "{status}");
    assert!(status["next_try"].is_string() && status["not_after"].is_null(), "{status}");
    assert_eq!(ask(&site, &["status"], "node").exit, 1);
    assert_eq!(agent.try_wait().unwrap(), None, "it goes on");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn leaving_takes_everything_away_and_not_from_under_a_running_agent() {
    let site = Site::new();
    let agent = start(&site, WORKER, "node");
    for command in ["leave", "seal"] {
        assert_eq!(ask(&site, &[command, "--yes"], "node").failure(), (2, "STATE_UNUSABLE"));
    }
    let node_id = agent.ready["node_id"].clone();
    stop(agent);

    let unconfirmed = ask(&site, &["leave"], "node");
    assert_eq!((unconfirmed.exit, &unconfirmed.values[0]["removed"]), (1, &json!(false)));
    assert!(site.path("node/current/key.pem").exists());
    let left = ask(&site, &["leave", "--yes"], "node");
    let advice = left.yes()["advice"].as_str().unwrap();
    assert_eq!(left.yes()["node_id"], node_id);
    assert!(advice.contains("muster nodes forget") && advice.contains("enrollment"), "{advice}");
    let names: Vec<_> = fs::read_dir(site.path("node"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["lock"]);
    assert_eq!(ask(&site, &["status"], "node").exit, 1);
    let again = ask(&site, &["seal"], "node");
    assert!(again.yes()["advice"].as_str().unwrap().contains("image"), "{again:?}");
    assert_eq!(ask(&site, &["leave"], "nowhere").yes()["files"], json!([]));
}

#[test]
fn a_configuration_file_says_what_the_flags_say() {
    let site = Site::new();
    let file = site.path("agent.toml");
    let imds = site.simulator.ready["imds"][WORKER].as_str().unwrap();
    let text = format!(
        "server = '{}'\npolicy = 'web'\npins = ['{}']\nstate = '{}'\nimds_endpoint = '{imds}'\n",
        site.address(),
        site.pin(),
        site.path("node").display(),
    );
    fs::write(&file, &text).unwrap();
    let with_file = || {
        let mut command = mortal(Path::new(MUSTER));
        command.arg("agent").arg("--config").arg(&file);
        command
    };
    stop(Process::start(with_file(), &site.path("agent.log")));

    fs::write(&file, format!("{text}secret = 'canary'\n")).unwrap();
    let wrong = Answer::of(with_file().args(["--output", "json"]));
    assert_eq!(wrong.failure(), (2, "CONFIGURATION_INVALID"));
    assert!(!format!("{wrong:?}").contains("canary"));
    let nothing = Answer::of(Command::new(MUSTER).args(["agent", "--output", "json"]));
    assert_eq!(nothing.failure(), (2, "CONFIGURATION_INVALID"));

    let example = Command::new(MUSTER).args(["agent", "config", "--example"]).output().unwrap();
    fs::write(&file, &example.stdout).unwrap();
    let pins = [("--server", site.address()), ("--pin", site.pin()), ("--policy", "web")];
    let mut command = with_file();
    for (flag, value) in pins {
        command.args([flag, value]);
    }
    command.args(["--imds-endpoint", imds, "--state"]).arg(site.path("node"));
    stop(Process::start(command, &site.path("agent.log")));
}

#[test]
fn the_service_manager_hears_when_it_is_ready_and_when_it_ends() {
    let site = Site::new();
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = agent_command(&site, WORKER, "node");
    command.env("NOTIFY_SOCKET", site.path("notify"));
    let agent = Process::start(command, &site.path("agent.log"));
    let mut heard = String::new();
    let hear_until = |heard: &mut String, wanted: &str| {
        let mut buffer = [0; 4096];
        while !heard.contains(wanted) {
            let length = socket.recv(&mut buffer).unwrap();
            heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    };
    hear_until(&mut heard, "READY=1");
    hear_until(&mut heard, "STATUS=certificate until");
    agent.signal(Signal::TERM);
    hear_until(&mut heard, "STOPPING=1");
    assert_eq!(agent.ended(), Some(0));
}

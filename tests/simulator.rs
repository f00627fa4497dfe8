//! `muster sim` as its callers see it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use muster::aws::{Imds, RegionCertificates};
use muster::methods::ec2::IdentityDocument;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

struct Simulation {
    child: Child,
    ready: Value,
}

impl Simulation {
    fn start(arguments: &[&str], directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["sim", "--output", "json"])
            .args(arguments)
            .current_dir(directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn a_simulation_says_when_it_is_ready_and_ends_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let scenario = "[[instances]]\naccount = \"123456789012\"\nregion = \"eu-west-3\"\n\
                    id = \"i-0123456789abcdef0\"\npending_time = \"2026-01-02T03:04:05Z\"\n";
    std::fs::write(directory.path().join("scenario.toml"), scenario).unwrap();
    let mut simulation = Simulation::start(&["--scenario", "scenario.toml"], directory.path());
    let ready = &simulation.ready;
    assert_eq!(ready["ready"], true);
    let endpoint = ready["sts"].as_str().unwrap();
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
    assert_eq!(ready["ec2"], endpoint);
    let written = directory.path().canonicalize().unwrap().join("sim");
    assert_eq!(ready["simulation"], written.to_str().unwrap());

    let imds = Imds::at(ready["imds"]["i-0123456789abcdef0"].as_str().unwrap()).unwrap();
    let text = imds.session().await.unwrap().rsa2048_document().await.unwrap();
    let certificates = Path::new(ready["certificates_dir"].as_str().unwrap());
    let trusted = RegionCertificates::only_directory(certificates).unwrap();
    let document = IdentityDocument::verify(text.as_bytes(), &trusted).unwrap();
    assert_eq!(document.account_id().as_str(), "123456789012");
    let description = std::fs::read(directory.path().join("sim/simulation.json")).unwrap();
    let description: Value = serde_json::from_slice(&description).unwrap();
    assert_eq!(description["certificates"], "certificates");
    assert_eq!(description["sts"], ready["sts"]);
    assert_eq!(description["credentials"], "server-credentials.json");

    let pid = Pid::from_child(&simulation.child);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(simulation.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    simulation.child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "with json exactly one value is printed");
}

#[test]
fn other_addresses_and_broken_scenarios_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("broken.toml"), "[[instances]]\nx = 1\n").unwrap();
    for arguments in [
        ["--listen", "0.0.0.0:0"],
        ["--scenario", "broken.toml"],
        ["--upstream", "http://192.0.2.1:5000"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["sim", "--output", "json"])
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["error"]["code"], "CONFIGURATION_INVALID");
        assert!(!directory.path().join("sim").exists());
    }
}

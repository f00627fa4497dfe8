//! `localstack/up` for a test: moto, and the simulator in front of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running emulator. It ends when this does, even if the test is killed: its stdin closes then.
pub(crate) struct Emulator {
    pub(crate) child: Child,
    pub(crate) ready: Value,
    /// Holds the pid file, and whatever the emulator makes.
    pub(crate) directory: tempfile::TempDir,
}

impl Emulator {
    /// `None` where moto is not installed, which the CI does not accept.
    pub(crate) fn start(more: &[&str]) -> Option<Self> {
        let installed = Command::new("localstack/venv").arg("--check").status().unwrap();
        if !installed.success() {
            let is_ci = std::env::vars().any(|(name, value)| name == "CI" && value == "true");
            assert!(!is_ci, "on the CI: moto is not installed, see scripts/install-test-tools");
            eprintln!("skipped: moto is not installed; `make deps` installs it");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("localstack/up")
            .args(["--until-stdin-closes", "--pid-file"])
            .arg(directory.path().join("pid"))
            .args(more)
            .env("MUSTER", env!("CARGO_BIN_EXE_muster"))
            .env("TMPDIR", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Some(Self { child, ready, directory })
    }

    pub(crate) fn endpoint(&self) -> &str {
        let endpoint = self.ready["endpoint"].as_str().unwrap();
        assert!(endpoint.starts_with("http://127.0.0.1:"), "not on loopback: {endpoint}");
        endpoint
    }

    /// A request to the controls of the simulator in front; what it answers.
    pub(crate) fn control(&self, method: &str, path: &str, body: &str) -> String {
        let address = self.endpoint().strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        let request = format!("{head}content-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _reaped = self.child.wait();
    }
}

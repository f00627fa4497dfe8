//! Acceptance 9, T38, T22, I10: what is secret, and what a stranger sends, is printed nowhere, at
//! any level.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use muster::aws::Imds;

use crate::harness::{Answer, OTHER_WORKER, STRANGER, Site, WORKER, join_command};

const PASSPHRASE: &str = "canary-passphrase-5d1f";
const CANARY: &str = "CANARY-of-malformed-input";

/// Text that must not appear, with a name for the failure.
struct Needles(Vec<(String, String)>);

impl Needles {
    fn add(&mut self, name: &str, text: &str) {
        assert!(text.len() >= 16, "{name} is too short to be a canary");
        self.0.push((name.to_owned(), text.to_owned()));
    }

    /// Every line of base64, and the first bytes in hexadecimal.
    fn add_pem(&mut self, name: &str, pem: &str) {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        for line in &lines {
            if line.len() >= 32 {
                self.add(name, line);
            }
        }
        let der = STANDARD.decode(lines.concat()).unwrap();
        // Past the algorithm identifier, within the private scalar.
        self.add(name, &hex::encode(&der[36..52]));
    }

    fn absent_from(&self, place: &str, haystack: &[u8]) {
        let haystack = String::from_utf8_lossy(haystack);
        for (name, needle) in &self.0 {
            assert!(!haystack.contains(needle), "{name} stands in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_strangers_bytes_are_printed_anywhere() {
    let keep = tempfile::tempdir().unwrap();
    let passphrase = keep.path().join("passphrase");
    fs::write(&passphrase, format!("{PASSPHRASE}\n")).unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    let copy = keep.path().join("audit.jsonl");
    let config = keep.path().join("server.toml");
    let text = format!(
        "[ca]\npassphrase_file = {passphrase:?}\n[audit]\nfile = {copy:?}\nstdout = false\n"
    );
    fs::write(&config, text).unwrap();
    let site = Site::with(|mut command| {
        command.args(["--log", "trace", "--config"]).arg(&config);
        command
    });

    let mut printed = Vec::new();
    let mut answers = vec![
        site.join(WORKER, "node"),
        site.join(WORKER, "thief"),
        site.join(STRANGER, "stranger"),
    ];
    for document in malformed_documents() {
        answers.push(join_with(&site, &document));
    }
    answers.push(site.local(&["nodes", "show", WORKER]));
    for answer in &answers {
        let id = answer.values[0].pointer("/error/correlation_id").and_then(|id| id.as_str());
        if let Some(id) = id {
            printed.push(format!("{:?}", site.local(&["audit", "show", id])));
        }
    }
    printed.push(format!("{answers:?}"));
    printed.push(garbage_on_the_socket(&site.path("data/muster.sock")));
    printed.push(site.server.log());
    printed.push(metrics(site.server.said("diagnostics")));
    printed.push(command_lines_during_a_join(&site));
    // Longer than the sink's interval.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    printed.push(fs::read_to_string(&copy).unwrap());
    assert!(printed.last().unwrap().contains("ENROLLMENT_CONFLICT"), "the copy is not empty");

    let needles = needles(&site, &passphrase).await;
    for text in &printed {
        needles.absent_from("what was printed", text.as_bytes());
    }

    for file in ["data/muster.db", "data/muster.db-wal", "data/installation.json"] {
        needles.absent_from(file, &fs::read(site.path(file)).unwrap());
    }
}

async fn needles(site: &Site, passphrase: &Path) -> Needles {
    let mut needles = Needles(Vec::new());
    needles.add("the passphrase", PASSPHRASE);
    needles.add("malformed input", CANARY);
    needles.add("malformed input in base64", &STANDARD.encode(CANARY)[..20]);
    needles.add("malformed input in hexadecimal", &hex::encode(CANARY));
    needles
        .add_pem("the node key", &fs::read_to_string(site.path("node/current/key.pem")).unwrap());
    for authority in ["join-root", "node-ca", "user-ca"] {
        let output = Command::new("openssl")
            .args(["pkcs8", "-in"])
            .arg(site.path(&format!("data/ca/{authority}.key")))
            .args(["-passin", &format!("file:{}", passphrase.display())])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        needles.add_pem(authority, &String::from_utf8(output.stdout).unwrap());
    }
    let endpoint = site.simulator.ready["imds"][WORKER].as_str().unwrap();
    let imds = Imds::at(endpoint).unwrap();
    let document = imds.session().await.unwrap().rsa2048_document().await.unwrap();
    // The end of the document is its signature: the part that makes it a bearer paper.
    let lines: Vec<&str> = document.lines().filter(|line| line.len() >= 60).collect();
    for line in lines.iter().rev().take(4) {
        needles.add("the document", line);
    }
    needles
}

/// One document for each layer of the parser, each with the canary in it.
fn malformed_documents() -> Vec<String> {
    let octets = |tag: u8, content: &[u8]| {
        let mut bytes = vec![tag, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    };
    vec![
        format!("{CANARY} is not base64 !"),
        STANDARD.encode(CANARY),
        STANDARD.encode(octets(0x30, CANARY.as_bytes())),
        STANDARD.encode(octets(0x30, &octets(0x04, CANARY.as_bytes()))),
        format!("-----BEGIN PKCS7-----\n{CANARY}\n-----END PKCS7-----"),
        format!("{{\"accountId\" : \"{CANARY}\"}}"),
        CANARY.repeat(400),
    ]
}

/// Joins with a metadata service that answers with this document.
fn join_with(site: &Site, document: &str) -> Answer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let document = document.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer_metadata(stream, &document);
        }
    });
    let mut command = join_command(&endpoint, &site.path("malformed"), "1s");
    Answer::of(command.args(["--server", site.address(), "--pin", site.pin()]))
}

/// Pretends to be a metadata service whose document is whatever it is given.
fn answer_metadata(mut stream: TcpStream, document: &str) {
    let mut request = [0; 4096];
    let Ok(length) = stream.read(&mut request) else { return };
    let line = String::from_utf8_lossy(&request[..length]).into_owned();
    let body = if line.starts_with("PUT") {
        "a-session-token"
    } else if line.contains("/instance-id") {
        OTHER_WORKER
    } else if line.contains("/placement/region") {
        "us-west-2"
    } else {
        document
    };
    let head = "HTTP/1.1 200 OK\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nConnection: close";
    let _gone = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
}

fn garbage_on_the_socket(path: &Path) -> String {
    let mut answers = String::new();
    for line in [
        format!("{CANARY}\n"),
        format!("{{\"command\":\"{CANARY}\"}}\n"),
        format!("{{\"command\":\"policy-status\",\"{CANARY}\":1}}\n"),
    ] {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.read_to_string(&mut answers).unwrap();
    }
    assert_eq!(answers.matches("MALFORMED_REQUEST").count(), 3, "{answers}");
    answers
}

fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("muster_joins_total"), "{text}");
    text
}

/// The command lines and environments of all processes while a node waits for its server.
fn command_lines_during_a_join(site: &Site) -> String {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = site.simulator.ready["imds"][WORKER].as_str().unwrap();
    let mut waiting = join_command(endpoint, &site.path("waiting"), "30s")
        .args(["--server", &silent.local_addr().unwrap().to_string(), "--pin", site.pin()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (_stream, _) = silent.accept().unwrap();
    let mut found = String::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(process.path().join(file)).unwrap_or_default();
            found.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert!(found.contains("--imds-endpoint"), "the join was seen");
    found
}

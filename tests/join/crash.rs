//! T46, acceptance 8: SIGKILL in each window. A second process joins nodes on a store in a file and
//! is killed where it says it stands; then a new server opens the same files.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use muster::audit::{Class, verify};
use muster::aws::RegionCertificates;
use muster::ca::{
    BuiltinCa, Capabilities, CertificateAuthority, IssueError, IssuedCertificate, RevocationList,
    TrustAnchors,
};
use muster::clock::Clock;
use muster::domain::{Code, KeyDigest};
use muster::registry::Recorded;
use muster::store::SqliteStore;
use rcgen::KeyPair;

use super::world::{
    ALLOWED, NOWHERE, Node, POLICIES, World, serial, simulator, sources, start_of_story,
};

/// How many nodes join in the storm.
const STORM: u64 = 48;
/// Names the window to the process that is killed.
const WINDOW: &str = "MUSTER_TEST_CRASH_WINDOW";
const DIRECTORY: &str = "MUSTER_TEST_CRASH_DIRECTORY";

/// A backend that stops for ever before or after it has signed.
struct StopsAt {
    inner: BuiltinCa,
    after_signing: bool,
}

#[async_trait::async_trait]
impl CertificateAuthority for StopsAt {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn issue(&self, recorded: &Recorded) -> Result<IssuedCertificate, IssueError> {
        if self.after_signing {
            self.inner.issue(recorded).await?;
        }
        stand_here().await
    }

    async fn sign_revocation_list(&self, list: &RevocationList) -> Result<Vec<u8>, IssueError> {
        self.inner.sign_revocation_list(list).await
    }

    async fn trust_anchors(&self) -> Result<TrustAnchors, IssueError> {
        self.inner.trust_anchors().await
    }

    fn issuer(&self) -> KeyDigest {
        self.inner.issuer()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn check(&self) -> Result<(), IssueError> {
        self.inner.check().await
    }
}

/// Says that the window is reached, and waits for the end.
async fn stand_here() -> ! {
    eprintln!("standing in the window");
    std::future::pending().await
}

/// Not a test of its own: the body of the process that is killed.
#[test]
fn the_process_that_is_killed() {
    let (Ok(window), Ok(directory)) = (std::env::var(WINDOW), std::env::var(DIRECTORY)) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let world = open(&directory, &window);
        if window == "storm" {
            let world = Arc::new(world);
            let joins = (0..STORM).map(|number| {
                let (world, node) = (Arc::clone(&world), node(&directory, number));
                tokio::spawn(async move { world.admitted(&node, "web").await })
            });
            let joins: Vec<_> = joins.collect();
            eprintln!("standing in the window");
            for join in joins {
                join.await.unwrap();
            }
        } else {
            world.admitted(&node(&directory, 0), "web").await;
        }
        stand_here().await
    });
}

/// The server in `directory`, with a backend that stops in the window.
fn open(directory: &Path, window: &str) -> World {
    let store = Arc::new(SqliteStore::open(&directory.join("muster.db")).unwrap());
    let certificates = RegionCertificates::only_directory(&directory.join("certificates")).unwrap();
    let ca = directory.join("ca");
    std::fs::create_dir_all(&ca).unwrap();
    let authority = |node_ca| -> Arc<dyn CertificateAuthority> {
        let inner = BuiltinCa::new(node_ca);
        match window {
            "before-issue" => Arc::new(StopsAt { inner, after_signing: false }),
            "after-issue" => Arc::new(StopsAt { inner, after_signing: true }),
            _ => Arc::new(inner),
        }
    };
    let clock = Clock::fixed(start_of_story());
    let sources = sources(certificates, &clock);
    World::in_directory(store, POLICIES, authority, &sources, clock, &ca, None)
}

/// Prepares nodes and the simulator's certificates, so that both processes have the same.
fn prepare(directory: &Path, nodes: u64) {
    simulator().write(directory, NOWHERE).unwrap();
    for number in 0..nodes {
        let node = Node::new(ALLOWED, number);
        std::fs::write(directory.join(format!("{number}.document")), &node.document).unwrap();
        std::fs::write(directory.join(format!("{number}.key")), node.key.serialize_der()).unwrap();
    }
}

fn node(directory: &Path, number: u64) -> Node {
    let read = |kind: &str| std::fs::read(directory.join(format!("{number}.{kind}"))).unwrap();
    let template = Node::new(ALLOWED, number);
    Node {
        instance: template.instance,
        document: String::from_utf8(read("document")).unwrap(),
        key: KeyPair::try_from(read("key").as_slice()).unwrap(),
    }
}

/// Starts the other process and returns when it stands in the window.
fn run_to(window: &str, directory: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::the_process_that_is_killed", "--nocapture"])
        .env(WINDOW, window)
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let reached = lines.any(|line| line.unwrap().contains("standing in the window"));
    assert!(reached, "{window}: the process ended before its window");
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn killed_in_any_window_the_same_key_finishes_and_another_is_refused() {
    for window in ["before-issue", "after-issue", "before-reply"] {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path(), 1);
        kill(run_to(window, directory.path()));

        let world = open(directory.path(), "none");
        let node = node(directory.path(), 0);
        assert_eq!(
            world.refused(&node.copied(), "web").await,
            Code::EnrollmentConflict,
            "{window}"
        );
        let admission = world.admitted(&node, "web").await;
        let orders = world.records(Class::Admission).await;
        let joins: Vec<_> = orders.iter().filter(|one| one.record.kind == "join").collect();
        assert_eq!(joins.len(), 2, "{window}: the join before and the join after");
        for join in joins {
            assert_eq!(join.record.serial, Some(serial(&admission)), "{window}: one certificate");
        }
        assert!(verify(world.store.as_ref(), &[]).await.unwrap().ok, "{window}");
    }
}

#[tokio::test]
async fn killed_inside_group_commits_nothing_is_half_done() {
    // Each round is killed a little later, so that the kills fall into different commits.
    for round in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path(), STORM);
        let child = run_to("storm", directory.path());
        std::thread::sleep(std::time::Duration::from_millis(round * 7));
        kill(child);

        let world = open(directory.path(), "none");
        assert!(verify(world.store.as_ref(), &[]).await.unwrap().ok, "round {round}");
        let before: Vec<_> = world
            .records(Class::Admission)
            .await
            .into_iter()
            .filter(|one| one.record.kind == "join")
            .collect();
        for number in 0..STORM {
            let node = node(directory.path(), number);
            let admission = world.admitted(&node, "web").await;
            let instance = node.instance.instance_id.to_string();
            let earlier =
                before.iter().find(|one| one.record.instance_id == Some(instance.clone()));
            if let Some(earlier) = earlier {
                assert_eq!(earlier.record.serial, Some(serial(&admission)), "round {round}");
            }
            assert_eq!(world.refused(&node.copied(), "web").await, Code::EnrollmentConflict);
        }
        assert!(verify(world.store.as_ref(), &[]).await.unwrap().ok, "round {round}");
    }
}

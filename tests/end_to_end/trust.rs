//! Which servers a node believes, and that it sends nothing to the others.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use muster::clock::Stopwatch;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, version};

use crate::harness::{
    Answer, OTHER_WORKER, Site, WORKER, careless_connection, certificates, join_command, provider,
};

const WRONG_PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A join of the worker with this server and these flags.
fn join(site: &Site, server: &str, state: &str, trust: &[&str]) -> Command {
    let mut command = site.join_command(WORKER, state);
    command.args(["--server", server]).args(trust);
    command
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A TLS server with this certificate that notes what it is sent after the handshake.
struct FakeServer {
    address: SocketAddr,
    heard: JoinHandle<Vec<u8>>,
}

impl FakeServer {
    fn start(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(tls_server(chain, key));
        let heard = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
            let mut heard = Vec::new();
            let ended = tls.read_to_end(&mut heard);
            assert!(tls.conn.is_handshaking(), "the node finished the handshake: {ended:?}");
            heard
        });
        Self { address, heard }
    }

    /// Everything that the server was told. The caller's process has ended.
    fn heard(self) -> Vec<u8> {
        // In case nobody came.
        drop(TcpStream::connect(self.address));
        self.heard.join().unwrap()
    }
}

fn tls_server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

// T57
#[test]
fn a_node_certificate_is_never_taken_for_a_servers() {
    let site = Site::new();
    // Some other node of the same account went bad, and sits where it can answer for the server.
    let mut bad = site.join_command(OTHER_WORKER, "bad");
    Answer::of(bad.args(["--server", site.address(), "--pin", site.pin()])).yes();
    let current = site.path("bad/current");
    let own = certificates(&current.join("certificate.pem"));
    let join_root = certificates(&site.path("data/ca/join-root.pem"));
    let bundle = current.join("bundle.pem");
    let with = |more: &[CertificateDer<'static>]| [own.clone(), more.to_vec()].concat();
    let chains = [own.clone(), with(&join_root), with(&certificates(&bundle))];

    for chain in chains {
        // The last one is a mistake of the operator: the node CA in place of the join root.
        for trust in [["--pin", site.pin()], ["--ca-file", shown(&bundle)]] {
            let key = PrivateKeyDer::from_pem_file(current.join("key.pem")).unwrap();
            let fake = FakeServer::start(chain.clone(), key);

            let answer = Answer::of(&mut join(&site, &fake.address.to_string(), "node", &trust));

            assert_eq!(answer.failure(), (1, "SERVER_UNTRUSTED"), "{trust:?}");
            assert!(fake.heard().is_empty(), "nothing was sent");
        }
    }
    assert!(!site.path("node/current").exists());
}

#[test]
fn a_pin_decides() {
    let site = Site::new();
    let server = site.address();
    let wrong = Answer::of(&mut join(&site, server, "node", &["--pin", WRONG_PIN]));
    assert_eq!(wrong.failure(), (1, "SERVER_UNTRUSTED"));
    // While the join root is changed there are two.
    let two = ["--pin", WRONG_PIN, "--pin", site.pin()];
    Answer::of(&mut join(&site, server, "node", &two)).yes();
}

#[test]
fn the_join_root_as_a_file_will_do_and_another_root_will_not() {
    let site = Site::new();
    let root = site.path("data/ca/join-root.pem");
    Answer::of(&mut join(&site, site.address(), "node", &["--ca-file", shown(&root)])).yes();
    let stranger = PublicCa::new(site.directory.path()).root;
    let answer =
        Answer::of(&mut join(&site, site.address(), "other", &["--ca-file", shown(&stranger)]));
    assert_eq!(answer.failure(), (1, "SERVER_UNTRUSTED"));
}

/// A CA that stands for the public ones, with a certificate for `localhost`.
struct PublicCa {
    root: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl PublicCa {
    fn new(directory: &Path) -> Self {
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root_certificate = root.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(root, root_key);
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        Self {
            root: write("public-root.pem", root_certificate.pem()),
            certificate: write("public.pem", leaf.pem()),
            key: write("public-key.pem", key.serialize_pem()),
        }
    }
}

/// `localhost` with the port of an address.
fn by_name(address: &str) -> String {
    format!("localhost:{}", address.rsplit_once(':').unwrap().1)
}

#[test]
fn a_public_certificate_serves_nodes_that_have_neither_pin_nor_file() {
    let keep = tempfile::tempdir().unwrap();
    let public = PublicCa::new(keep.path());
    let config = keep.path().join("server.toml");
    let section = format!(
        "[listen]\ncertificate_file = '{}'\nkey_file = '{}'\n",
        shown(&public.certificate),
        shown(&public.key)
    );
    fs::write(&config, section).unwrap();
    let site = Site::with(|mut command| {
        command.arg("--config").arg(&config);
        command
    });
    let server = by_name(site.address());
    let known = |mut command: Command| {
        Answer::of(command.env("SSL_CERT_FILE", &public.root).env_remove("SSL_CERT_DIR"))
    };

    let joined = known(join(&site, &server, "node", &["--system-roots"]));
    let kept = fs::read(site.path("node/current/join_root.pem")).unwrap();
    assert_eq!(joined.yes()["instance_id"], WORKER);
    assert_eq!(
        certificates(&site.path("data/ca/join-root.pem")),
        CertificateDer::pem_slice_iter(&kept).collect::<Result<Vec<_>, _>>().unwrap(),
        "the node learns the join root for the next time"
    );

    let mut unknown = join(&site, &server, "other", &["--system-roots"]);
    let own = site.path("data/ca/join-root.pem");
    let unknown = Answer::of(unknown.env("SSL_CERT_FILE", own).env_remove("SSL_CERT_DIR"));
    assert_eq!(unknown.failure(), (1, "SERVER_UNTRUSTED"), "{unknown:?}");
    // The certificate is for a name, not for whoever has the address.
    let by_address = known(join(&site, site.address(), "other", &["--system-roots"]));
    assert_eq!(by_address.failure(), (1, "SERVER_UNTRUSTED"));
    // The other nodes are served as before, by that name too.
    Answer::of(&mut join(&site, &server, "node", &["--pin", site.pin()])).yes();
}

// T59: the relay ends TLS and passes on every message, nonce and name of the real server.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_through_a_relay_is_refused_though_the_node_trusts_the_relay() {
    let site = Site::new();
    let public = PublicCa::new(site.directory.path());
    let config = tls_server(
        certificates(&public.certificate),
        PrivateKeyDer::from_pem_file(&public.key).unwrap(),
    );
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = listener.local_addr().unwrap().to_string();
    let server = site.address().to_owned();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                let mut node = acceptor.accept(stream).await.unwrap();
                let mut server = careless_connection(&server).await;
                let _ended = tokio::io::copy_bidirectional(&mut node, &mut server).await;
            });
        }
    });

    let mut through = join(&site, &by_name(&relay), "node", &["--system-roots"]);
    through.env("SSL_CERT_FILE", &public.root).env_remove("SSL_CERT_DIR");
    let refused = tokio::task::spawn_blocking(move || Answer::of(&mut through)).await.unwrap();

    assert_eq!(refused.failure(), (1, "POSSESSION_NOT_PROVEN"), "{refused:?}");
    assert_eq!(site.local(&["nodes", "ls"]).yes()["nodes"], serde_json::json!([]));
}

#[test]
fn a_node_that_is_not_told_whom_to_trust_does_not_start() {
    let site = Site::new();
    for trust in [&[][..], &["--system-roots", "--pin", site.pin()], &["--pin", "sha256:abc"]] {
        let output = join(&site, site.address(), "node", trust).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{trust:?}");
        assert!(!output.stderr.is_empty());
    }
    let mut missing = join(&site, site.address(), "node", &["--ca-file", "/nonexistent"]);
    assert_eq!(Answer::of(&mut missing).failure(), (2, "FILE_UNREADABLE"));
    assert!(!site.path("node").exists());
}

#[test]
fn a_server_that_is_not_there_is_given_up_in_time() {
    let site = Site::new();
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap();

    for (address, code) in [(nobody, "SERVER_UNREACHABLE"), (silent_address, "TIMED_OUT")] {
        let watch = Stopwatch::start();
        let imds = site.simulator.ready["imds"][WORKER].as_str().unwrap();
        let mut command = join_command(imds, &site.path("node"), "2s");
        command.args(["--server", &address.to_string(), "--pin", site.pin()]);
        let answer = Answer::of(&mut command);
        assert_eq!(answer.failure(), (3, code));
        assert!(watch.elapsed() < Duration::from_secs(6), "{:?}", watch.elapsed());
    }
    silent.set_nonblocking(true).unwrap();
    let (mut stream, _) = silent.accept().unwrap();
    let mut hello = Vec::new();
    match stream.read_to_end(&mut hello) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    let instance = WORKER.as_bytes();
    assert!(!hello.windows(instance.len()).any(|window| window == instance));
}

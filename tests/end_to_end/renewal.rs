//! Renewals by a client of the test's own: whom the listener lets ask, and what a whole account is
//! told that was taken out of the policy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use muster::aws::Imds;
use muster::client::{
    Attester, Challenged, ClientIdentity, Connection, Contact, JoinError, Request, ServerTrust,
    parse_pin,
};
use muster::clock::Stopwatch;
use muster::domain::{Code, PublicKey};
use muster::methods::ec2;
use rcgen::{
    CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair, PublicKeyData, SigningKey,
};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, version};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;

use crate::harness::{
    Answer, Careless, MUSTER, POLICY, Process, Site, WORKER, certificates, join_command, mortal,
    provider, server_command, write_policy,
};

/// How many nodes lose their account at once (acceptance 3).
const NODES: usize = 100;

/// A node that shows its document, and a new key.
struct Node {
    document: String,
    key: KeyPair,
}

impl Attester for Node {
    fn evidence(&self, _: &Challenged<'_>) -> Result<Vec<u8>, JoinError> {
        Ok(ec2::evidence(&self.document, None))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoinError> {
        Ok(self.key.sign(message).unwrap())
    }
}

/// What a node has on its disk after a join.
struct Joined {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Joined {
    fn read(state: &Path) -> Self {
        let pem = fs::read_to_string(state.join("current/key.pem")).unwrap();
        Self {
            chain: certificates(&state.join("current/certificate.pem")),
            key: KeyPair::from_pem(&pem).unwrap(),
        }
    }

    fn identity(&self) -> ClientIdentity {
        identity(self.chain.clone(), &self.key)
    }
}

fn identity(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> ClientIdentity {
    ClientIdentity::new(chain, key.serialize_der().into())
}

/// The document of an instance, as its metadata service has it.
async fn document(endpoint: &str) -> String {
    let imds = Imds::at(endpoint).unwrap();
    imds.session().await.unwrap().rsa2048_document().await.unwrap()
}

/// Asks for a renewal over this certificate, or over none.
async fn renew(
    site: &Site,
    identity: Option<&ClientIdentity>,
    document: &str,
) -> Result<(), JoinError> {
    let (endpoint, pin) = (site.address().parse().unwrap(), parse_pin(site.pin()).unwrap());
    let trust = ServerTrust::Pins(vec![pin]);
    let contact =
        Contact { endpoint: &endpoint, trust: &trust, trust_domain: None, identity, source: None };
    let node = Node { document: document.to_owned(), key: KeyPair::generate().unwrap() };
    let public_key = PublicKey::from_spki_der(&node.key.subject_public_key_info()).unwrap();
    let request = Request { policy: "web", method: "ec2", public_key: &public_key, facts: "test" };
    Connection::to(&contact).await?.renew(&request, &node).await.map(|_| ())
}

/// The code of a renewal that is refused.
async fn refused(site: &Site, identity: Option<&ClientIdentity>, document: &str) -> Code {
    renew(site, identity, document).await.expect_err("must be refused").code
}

// T9, T27, T28, T41: only a certificate of the node CA opens a renewal, and it opens its own node's.
#[tokio::test]
async fn only_a_node_certificate_opens_a_renewal() {
    let site = Site::new();
    site.join(WORKER, "node").yes();
    let state = site.path("node");
    let document = document(site.simulator.ready["imds"][WORKER].as_str().unwrap()).await;
    let joined = Joined::read(&state);

    assert_eq!(refused(&site, None, &document).await, Code::CertificateRequired);
    // Of the same name and key, by another CA: by the node itself, whose certificate is no CA's.
    let own = Issuer::from_ca_cert_der(&joined.chain[0], &joined.key).unwrap();
    let other_ca = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name = DistinguishedName::new();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let other = Issuer::new(ca.clone(), &other_ca);
    let leaf = || {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(
            "spiffe://simulation.internal/node/ec2/web/x".try_into().unwrap(),
        )];
        params
    };
    let key = KeyPair::generate().unwrap();
    let wrapped = leaf().signed_by(&key, &own).unwrap().der().clone();
    let foreign = leaf().signed_by(&key, &other).unwrap().der().clone();
    // A certificate of an authority as the client's own (T41).
    let authority = ca.self_signed(&key).unwrap().der().clone();
    for (name, chain) in [
        ("signed by a node", vec![wrapped, joined.chain[0].clone()]),
        ("signed by another CA", vec![foreign]),
        ("an authority", vec![authority]),
    ] {
        let identity = identity(chain, &key);
        let code = refused(&site, Some(&identity), &document).await;
        assert_eq!(code, Code::CertificateRequired, "{name}");
    }
    // The node CA's own certificate, of whose key the node has nothing, is worth nothing either.
    let bundle = certificates(&state.join("current/bundle.pem"));
    let identity = identity(bundle, &joined.key);
    assert!(renew(&site, Some(&identity), &document).await.is_err());
    // And the honest one still renews.
    renew(&site, Some(&joined.identity()), &document).await.unwrap();
}

// T9: a resumed session would skip what a full handshake checks, so there is none to resume.
#[tokio::test]
async fn no_session_is_resumed() {
    let site = Site::new();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_sni = false;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    for connection in 0..3 {
        let stream = tokio::net::TcpStream::connect(site.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
        // The server's settings come after any ticket it would send.
        let mut settings = [0; 9];
        tls.read_exact(&mut settings).await.unwrap();
        let (_, session) = tls.get_ref();
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full), "connection {connection}");
        assert_eq!(session.tls13_tickets_received(), 0, "connection {connection}");
    }
}

// T29: a lock of before holds the first connection of the next process.
#[tokio::test]
async fn a_lock_holds_the_first_renewal_after_a_restart() {
    let mut site = Site::new();
    site.join(WORKER, "node").yes();
    let document = document(site.simulator.ready["imds"][WORKER].as_str().unwrap()).await;
    let joined = Joined::read(&site.path("node"));
    site.local(&["nodes", "lock", "--instance", WORKER, "--reason", "INC-42"]).yes();
    site.restart(|command| command);
    let code = refused(&site, Some(&joined.identity()), &document).await;
    assert_eq!(code, Code::NotAdmitted);
    let counted = r#"muster_renewals_total{method="ec2",code="LOCKED"} 1"#;
    assert!(site.page("/metrics").contains(counted), "{}", site.page("/metrics"));
}

/// A site with so many nodes of one account, all joined.
fn crowd() -> (Site, Vec<(PathBuf, String)>) {
    let directory = tempfile::tempdir().unwrap();
    let instances = (0..NODES).map(|number| {
        format!(
            "[[instances]]\nid = \"i-{number:017x}\"\naccount = \"111122223333\"\n\
             region = \"us-west-2\"\n"
        )
    });
    let scenario = instances.collect::<Vec<_>>().concat();
    let file = directory.path().join("scenario.toml");
    fs::write(&file, scenario).unwrap();
    let mut command = mortal(Path::new(MUSTER));
    command.args(["sim", "--scenario"]).arg(file).arg("--out").arg(directory.path().join("sim"));
    let simulator = Process::start(command, &directory.path().join("sim.log"));
    write_policy(directory.path(), POLICY);
    let command = server_command(mortal(Path::new(MUSTER)), directory.path());
    let server = Process::start(command, &directory.path().join("server.log"));
    let site = Site { server, simulator, directory };
    let nodes: Vec<_> = (0..NODES)
        .map(|number| {
            let instance = format!("i-{number:017x}");
            let endpoint = site.simulator.ready["imds"][&instance].as_str().unwrap().to_owned();
            let state = site.path(&format!("node-{number}"));
            let mut join = join_command(&endpoint, &state, "30s");
            Answer::of(join.args(["--server", site.address(), "--pin", site.pin()])).yes();
            (state, endpoint)
        })
        .collect();
    (site, nodes)
}

// T51, I8, acceptance 3: the account goes, all its nodes lose renewal, and the log says how many and
// until when.
#[tokio::test]
async fn an_account_that_is_removed_loses_all_its_renewals() {
    let (site, nodes) = crowd();
    let (state, endpoint) = &nodes[0];
    let document_of_first = document(endpoint).await;
    renew(&site, Some(&Joined::read(state).identity()), &document_of_first).await.unwrap();

    write_policy(site.directory.path(), &POLICY.replace("111122223333", "444455556666"));
    let watch = Stopwatch::start();
    let effect = loop {
        let records = site.local(&["audit", "ls", "--class", "security"]).values;
        if let Some(found) = records.into_iter().find(|one| one["kind"] == "policy-effect") {
            break found;
        }
        assert!(watch.elapsed() < Duration::from_secs(10), "{}", site.server.log());
        sleep(Duration::from_millis(50));
    };
    assert_eq!(effect["detail"]["nodes"], NODES);
    site.server.says("nodes=100");

    let mut ends = Vec::new();
    for (state, endpoint) in &nodes {
        let (identity, document) = (Joined::read(state).identity(), document(endpoint).await);
        let code = refused(&site, Some(&identity), &document).await;
        assert_eq!(code, Code::NotAdmitted);
        let record = fs::read_to_string(state.join("current/node.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        ends.push(record["not_after"].as_str().unwrap().to_owned());
    }
    // The first node was renewed once more, after all others had joined: its next certificate is the
    // last of all, and ends within one lifetime of the change.
    let last = effect["detail"]["last_not_after"].as_str().unwrap();
    assert!(ends.iter().all(|end| end.as_str() <= last), "{last}");
    let nodes = site.local(&["nodes", "ls", "--limit", "1000"]);
    assert_eq!(nodes.yes()["nodes"].as_array().unwrap().len(), NODES);
}

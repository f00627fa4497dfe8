//! Which server gets to see that there is a token: none that is not authenticated (red team B2).

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, version};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::agent::machine::MachineId;
use crate::agent::method::{Method, MethodList, Way};
use crate::agent::network::{Means, Network};
use crate::agent::outside::{Ask, Outside};
use crate::agent::state::NodeKey;
use crate::agent::token::{SsmSettings, TokenReader};
use crate::aws::Imds;
use crate::client::ServerTrust;
use crate::clock::Clock;
use crate::domain::{Code, KeyDigest, TokenSecret};

/// A join server that hangs up after the first words.
struct Server {
    address: SocketAddr,
    pin: KeyDigest,
    sent: tokio::task::JoinHandle<Vec<u8>>,
}

impl Server {
    async fn start() -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_der = root.self_signed(&root_key).unwrap().der().clone();
        let issuer = Issuer::new(root, root_key);
        let mut leaf = CertificateParams::new(Vec::new()).unwrap();
        let id = "spiffe://prod.example.org/muster/server".try_into().unwrap();
        leaf.subject_alt_names = vec![SanType::URI(id)];
        let leaf = leaf.signed_by(&key, &issuer).unwrap().der().clone();
        let (_, parsed) = x509_parser::parse_x509_certificate(&root_der).unwrap();
        let pin = KeyDigest::of_spki(parsed.public_key().raw);
        let acceptor = acceptor(vec![leaf, root_der.clone()], &key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent = tokio::spawn(async move {
            let mut sent = Vec::new();
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut tls) = acceptor.accept(stream).await {
                let _ended = tls.read_buf(&mut sent).await;
            }
            sent
        });
        Self { address, pin, sent }
    }
}

fn acceptor(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(crate::proto::provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A source that notes that it was opened.
struct Watched(Arc<AtomicUsize>, std::io::Cursor<Vec<u8>>);

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Read::read(&mut self.1, buffer)
    }
}

/// How a join ends, how often the source was read, and what the server was sent.
async fn join(way: Way, wrong_pin: bool, text: &str) -> (Code, usize, Vec<u8>) {
    let server = Server::start().await;
    let pin = if wrong_pin { KeyDigest::of_spki(b"another") } else { server.pin };
    let means = Means {
        server: Some(server.address.to_string().parse().unwrap()),
        trust: Some(ServerTrust::Pins(vec![pin])),
        policy: Some("web".to_owned()),
        methods: MethodList::only(Method::Token),
        token_source: None,
        from_ssm: None,
        ssm: SsmSettings::default(),
        imds: Imds::at("http://127.0.0.1:1").unwrap(),
    };
    let reads = Arc::new(AtomicUsize::new(0));
    let source = Watched(Arc::clone(&reads), std::io::Cursor::new(text.as_bytes().to_vec()));
    let reader = TokenReader::with_stdin(source);
    let network = Network::new(means, Clock::system()).with_token(reader);
    let (key, instance) = (NodeKey::generate().unwrap(), "i-0123456789abcdef0");
    let instance: MachineId = instance.parse().unwrap();
    let ask = Ask {
        instance: &instance,
        way,
        key: &key,
        policy: "web",
        identity: None,
        join_root: None,
        trust_domain: None,
    };
    let error = network.ask(&ask).await.map(drop).unwrap_err();
    // A node that gave up before it came has sent nothing.
    let sent = tokio::time::timeout(Duration::from_secs(30), server.sent).await;
    let sent = sent.map(Result::unwrap).unwrap_or_default();
    (error.code, reads.load(Ordering::SeqCst), sent)
}

fn token() -> String {
    let name = "web-1".parse().unwrap();
    TokenSecret::from_seed(name, Zeroizing::new([7; 32])).unwrap().to_text().to_string()
}

// B2
#[tokio::test]
async fn a_token_is_not_even_read_for_a_server_that_is_not_authenticated() {
    let (code, reads, sent) = join(Way::Token, true, &token()).await;
    assert_eq!((code, reads), (Code::ServerUntrusted, 0));
    assert_eq!(sent, b"");
    // The same with the right pin: the source is read, so the test above would see it.
    let (code, reads, _) = join(Way::Token, false, &token()).await;
    assert_eq!(code, Code::ServerUnreachable, "the server hangs up");
    assert!(reads > 0);
}

#[tokio::test]
async fn a_node_that_has_its_key_reads_no_token() {
    let (_, reads, _) = join(Way::KeyAlone, false, &token()).await;
    assert_eq!(reads, 0);
}

// Nothing of what is no token is sent, not even to the right server.
#[tokio::test]
async fn garbage_is_refused_before_the_join_begins() {
    let (code, reads, sent) = join(Way::Token, false, "canary").await;
    assert_eq!(code, Code::TokenMalformed);
    assert!(reads > 0);
    assert!(!sent.windows(6).any(|part| part == b"canary"));
    // HTTP/2 says hello by itself; no request follows.
    assert!(!sent.windows(4).any(|part| part == b"Join"), "{sent:?}");
}

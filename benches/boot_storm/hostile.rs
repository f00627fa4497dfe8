//! Strangers: they finish their handshakes and send garbage, or the genuine document of an account
//! that nobody lists, or they never finish. All come from one network, and at once again. Nodes go
//! before them on this program's processor: the strangers' own work is not what is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster::client::{Attester, Challenged, Connection, Contact, JoinError, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};

use crate::node::Node;
use crate::site::Server;

/// Where they come from; nodes come from 127.0.0.1.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 6);
/// The start of a `ClientHello`, of which the slow ones send a byte a second.
const HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03];
/// How long who was turned away waits before he comes again.
const PAUSE: Duration = Duration::from_millis(50);

/// A crowd that goes on until it is dropped.
pub(crate) struct Crowd {
    runtime: Option<Runtime>,
    came: Arc<AtomicU64>,
}

impl Crowd {
    /// Starts `many` strangers, a third of each kind.
    pub(crate) fn gather(many: usize, nodes: &[Arc<Node>], server: &Arc<Server>) -> Self {
        let came = Arc::<AtomicU64>::default();
        let behind_nodes = || {
            rustix::process::nice(19).unwrap();
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(behind_nodes)
            .enable_all()
            .build()
            .unwrap();
        for number in 0..many {
            let (server, came) = (Arc::clone(server), Arc::clone(&came));
            let node = Arc::clone(&nodes[number % nodes.len()]);
            runtime.spawn(async move {
                loop {
                    came.fetch_add(1, Ordering::Relaxed);
                    match number % 3 {
                        0 => slowly(&server).await,
                        kind => node.intrude(&server, kind == 1).await,
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { runtime: Some(runtime), came }
    }

    /// How many connections it has made.
    pub(crate) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Begins a handshake and does not finish it.
async fn slowly(server: &Server) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((SOURCE, 0))).unwrap();
    let Ok(mut stream) = socket.connect(server.address).await else { return };
    for byte in HELLO {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Node {
    /// One attempt that cannot succeed.
    async fn intrude(&self, server: &Server, with_garbage: bool) {
        let contact = Contact {
            endpoint: &server.endpoint,
            trust: &server.trust,
            trust_domain: None,
            identity: None,
            source: Some(IpAddr::V4(SOURCE)),
        };
        let Ok(connection) = Connection::to(&contact).await else { return };
        let request = Request {
            policy: "document",
            method: "ec2",
            public_key: self.public_key(),
            facts: "boot=storm",
        };
        let intruder = Intruder { node: self, with_garbage };
        let refused = connection.join(&request, &intruder).await;
        assert!(refused.is_err(), "a stranger was admitted");
    }
}

struct Intruder<'a> {
    node: &'a Node,
    with_garbage: bool,
}

impl Attester for Intruder<'_> {
    fn evidence(&self, _challenged: &Challenged<'_>) -> Result<Vec<u8>, JoinError> {
        Ok(if self.with_garbage { vec![0x30; 2048] } else { self.node.document_alone() })
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoinError> {
        self.node.signature(message)
    }
}

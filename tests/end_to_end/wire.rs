//! The join listener as a gRPC client sees it.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use muster::client::{Attester, Challenged, Connection, JoinError, Request, ServerTrust};
use muster::clock::Stopwatch;
use muster::domain::{Code, PublicKey};
use rcgen::{KeyPair, PublicKeyData};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower_service::Service;

use crate::harness::{Site, WORKER, careless_connection, certificates};

#[tokio::test]
async fn the_trust_bundle_is_the_one_that_nodes_keep() {
    let site = Site::new();
    site.join(WORKER, "node").yes();
    let pin = site.pin().strip_prefix("sha256:").unwrap().parse().unwrap();
    let endpoint = site.address().parse().unwrap();

    let trust = ServerTrust::Pins(vec![pin]);
    let mut connection = Connection::open(&endpoint, &trust).await.unwrap();
    let trust_domain = connection.trust_domain().unwrap();
    assert_eq!(trust_domain.as_str(), "simulation.internal", "it is learnt from the server");
    let bundle = connection.trust_bundle().await.unwrap();

    assert_eq!(bundle, certificates(&site.path("node/current/bundle.pem")));
    assert_eq!(connection.trust_bundle().await.unwrap(), bundle, "the connection can go on");
}

#[tokio::test]
async fn a_server_that_is_ready_is_healthy() {
    let site = Site::new();
    for service in ["", "muster.v1.JoinService"] {
        let mut client = HealthClient::with_origin(
            http2(site.address()).await,
            format!("https://{}", site.address()).parse().unwrap(),
        );
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
}

/// A node whose metadata service takes its time.
struct Late;

impl Attester for Late {
    fn evidence(&self, _: &Challenged<'_>) -> Result<Vec<u8>, JoinError> {
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_secs(32)));
        Ok(Vec::new())
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, JoinError> {
        Ok(Vec::new())
    }
}

// B7: a challenge is open for 30 s. The node hears that it was late, and not that nobody is there.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_a_challenge_too_late_is_told_so() {
    let site = Site::new();
    let pin = site.pin().strip_prefix("sha256:").unwrap().parse().unwrap();
    let trust = ServerTrust::Pins(vec![pin]);
    let connection = Connection::open(&site.address().parse().unwrap(), &trust).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let public_key = PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap();
    let request = Request { policy: "web", method: "ec2", public_key: &public_key, facts: "" };
    let watch = Stopwatch::start();
    let refused = connection.join(&request, &Late).await.unwrap_err();
    assert_eq!(refused.code, Code::ChallengeExpired, "{refused:?}");
    assert!(refused.correlation_id.is_some(), "{refused:?}");
    assert!(watch.elapsed() < Duration::from_secs(40), "{:?}", watch.elapsed());
}

/// One HTTP/2 connection as a service.
pub(crate) struct Http2(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

pub(crate) async fn http2(address: &str) -> Http2 {
    let stream = TokioIo::new(careless_connection(address).await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    Http2(sender)
}

impl Service<http::Request<tonic::body::Body>> for Http2 {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send + 'static>,
    >;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

//! `muster.v1.JoinService`: messages in and out, no decisions.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, info, info_span};

use super::listener::Connection;
use super::metrics::{JoinLabels, Metrics};
use super::node_record;
use super::status::{refused, status};
use crate::clock::Stopwatch;
use crate::domain::Code;
use crate::join::{Admission, Attempt, InvalidStart, JoinService as Joins, Refusal, Start};
use crate::proto::join_request::Step as Sent;
use crate::proto::join_response::Step as Answered;
use crate::proto::join_service_server::JoinService;
use crate::proto::{
    Challenge, GetTrustBundleRequest, GetTrustBundleResponse, JoinRequest, JoinResponse, JoinResult,
};

/// How long a node has for its first message, for its evidence, and for the whole stream.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(30);
const STREAM_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest message: evidence, a CSR and some names.
pub(super) const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Joins at a time; more are asked to come back.
const IN_FLIGHT_MAX: usize = 1024;
/// When a node should ask for the trust bundle again, in seconds, before its own jitter.
const RETRY_SECONDS: u32 = 5;

/// The join service on the wire.
pub(super) struct JoinApi {
    joins: Arc<Joins>,
    metrics: Arc<Metrics>,
    in_flight: Arc<Semaphore>,
    fips_wanted: bool,
}

impl JoinApi {
    /// Serves these joins. `fips_wanted`: nodes sign for STS's FIPS endpoint where there is one.
    pub(super) fn new(joins: Arc<Joins>, metrics: Arc<Metrics>, fips_wanted: bool) -> Self {
        Self { joins, metrics, in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)), fips_wanted }
    }
}

type Replies = mpsc::Sender<Result<JoinResponse, Status>>;

#[tonic::async_trait]
impl JoinService for JoinApi {
    type JoinStream = ReceiverStream<Result<JoinResponse, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let connection = request
            .extensions()
            .get::<Connection>()
            .cloned()
            .ok_or_else(|| status(Code::Internal, None, None, None))?;
        let source = connection.peer.ip().to_canonical();
        if !connection.take_stream() {
            let hint = "a connection serves one join; open another".to_owned();
            return Err(self.refuse(Code::MalformedRequest, Some(hint), source).await);
        }
        let (replies, stream) = mpsc::channel(2);
        let exchange = Exchange {
            joins: Arc::clone(&self.joins),
            metrics: Arc::clone(&self.metrics),
            channel: connection.channel,
            source,
            method: "unknown",
            in_flight: Arc::clone(&self.in_flight),
            fips_wanted: self.fips_wanted,
            sent: request.into_inner(),
        };
        let span = info_span!("join", rpc.method = "Join", source = %connection.peer);
        let answering = async move {
            let answer = exchange.answer(&replies).await;
            // A node that went away finds its answer by asking again.
            let _gone = replies.send(answer).await;
        };
        tokio::spawn(answering.instrument(span));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_trust_bundle(
        &self,
        _request: Request<GetTrustBundleRequest>,
    ) -> Result<Response<GetTrustBundleResponse>, Status> {
        let anchors = self.joins.authority.trust_anchors().await;
        let anchors =
            anchors.map_err(|_| status(Code::CaUnavailable, None, None, Some(RETRY_SECONDS)))?;
        let trust_bundle = anchors.0.iter().map(|anchor| anchor.to_vec()).collect();
        Ok(Response::new(GetTrustBundleResponse { trust_bundle }))
    }
}

impl JoinApi {
    async fn refuse(&self, code: Code, hint: Option<String>, source: IpAddr) -> Status {
        let refusal = self.joins.refuse_unread(code, hint, &source.to_string()).await;
        let labels = JoinLabels { method: "unknown", code: code.as_str() };
        self.metrics.joins.get_or_create(&labels).inc();
        refused(&refusal)
    }
}

/// One stream: one start, one challenge, one evidence, one answer.
struct Exchange {
    joins: Arc<Joins>,
    metrics: Arc<Metrics>,
    channel: [u8; 32],
    source: IpAddr,
    method: &'static str,
    in_flight: Arc<Semaphore>,
    fips_wanted: bool,
    sent: Streaming<JoinRequest>,
}

impl Exchange {
    /// Runs the exchange, counts how it ended, and says so on the wire.
    async fn answer(mut self, replies: &Replies) -> Result<JoinResponse, Status> {
        let outcome = match timeout(STREAM_TIMEOUT, self.run(replies)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.refuse(Code::TimedOut, None).await),
        };
        let code = outcome.as_ref().map_or_else(|refusal| refusal.recorded.as_str(), |_| "OK");
        let labels = JoinLabels { method: self.method, code };
        self.metrics.joins.get_or_create(&labels).inc();
        outcome.map_err(|refusal| refused(&refusal))
    }

    async fn run(&mut self, replies: &Replies) -> Result<JoinResponse, Refusal> {
        let Sent::Start(start) = self.next(START_TIMEOUT, Code::TimedOut).await? else {
            return Err(self.malformed("the first message must be JoinStart").await);
        };
        let parsed = Start::parse(&start.policy, &start.method, &start.public_key, &start.facts);
        let start = match parsed {
            Ok(start) => start,
            Err(InvalidStart::Malformed(problem)) => return Err(self.malformed(problem).await),
            Err(InvalidStart::PublicKey(problem)) => {
                let hint = Some(problem.to_string());
                return Err(self.refuse(Code::PublicKeyUnsupported, hint).await);
            }
        };
        self.method = self.method_label(&start.method);
        // The nonce lives in this stream only and serves one Evidence (red team B7).
        let mut nonce = [0; 32];
        if aws_lc_rs::rand::fill(&mut nonce).is_err() {
            return Err(self.refuse(Code::Internal, None).await);
        }
        let challenge = Challenge {
            nonce: nonce.to_vec(),
            csr_wanted: false,
            server_time: self.joins.clock.now().unix_seconds(),
            fips_wanted: self.fips_wanted,
        };
        let challenge = JoinResponse { step: Some(Answered::Challenge(challenge)) };
        if replies.send(Ok(challenge)).await.is_err() {
            return Err(self.malformed("the node went away").await);
        }
        let answered = self.next(EVIDENCE_TIMEOUT, Code::ChallengeExpired).await?;
        let Sent::Evidence(evidence) = answered else {
            return Err(self.malformed("the second message must be Evidence").await);
        };
        let attempt = Attempt {
            start,
            channel: self.channel,
            nonce,
            evidence: evidence.evidence,
            pop: evidence.pop,
            source: self.source,
        };
        // From here on it is the server's own time. Whoever waits for a node holds no place: silent
        // streams would otherwise shut everybody out.
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(self.refuse(Code::Overloaded, None).await);
        };
        let watch = Stopwatch::start();
        let outcome = self.joins.admit(&attempt).await;
        self.metrics.join_seconds.observe(watch.elapsed().as_secs_f64());
        let admission = outcome?;
        info!(join.correlation_id = %admission.correlation_id,
            node = %admission.enrollment.node_id,
            serial = %admission.enrollment.order.serial, "join admitted");
        Ok(result(&admission))
    }

    async fn next(&mut self, within: Duration, too_late: Code) -> Result<Sent, Refusal> {
        match timeout(within, self.sent.message()).await {
            Err(_) => Err(self.refuse(too_late, None).await),
            Ok(Ok(Some(JoinRequest { step: Some(step) }))) => Ok(step),
            Ok(Ok(_)) => Err(self.malformed("the stream ended, or a message was empty").await),
            Ok(Err(_)) => Err(self.malformed("a message cannot be read or is too long").await),
        }
    }

    async fn malformed(&self, problem: &str) -> Refusal {
        self.refuse(Code::MalformedRequest, Some(problem.to_owned())).await
    }

    async fn refuse(&self, code: Code, hint: Option<String>) -> Refusal {
        self.joins.refuse_unread(code, hint, &self.source.to_string()).await
    }

    fn method_label(&self, name: &str) -> &'static str {
        let known = self.joins.methods.iter().map(|method| method.declaration().name);
        known.into_iter().find(|method| *method == name).unwrap_or("unknown")
    }
}

fn result(admission: &Admission) -> JoinResponse {
    let enrollment = &admission.enrollment;
    let record = node_record::of(enrollment, Some(&admission.correlation_id));
    let result = JoinResult {
        certificate_chain: admission.chain.clone(),
        trust_bundle: admission.trust_bundle.iter().map(|anchor| anchor.to_vec()).collect(),
        join_root: admission.join_root.to_vec(),
        renew_after: enrollment.order.renew_after.unix_seconds(),
        node_id: enrollment.node_id.to_string(),
        correlation_id: admission.correlation_id.to_string(),
        node_record: record.to_string(),
    };
    JoinResponse { step: Some(Answered::Result(result)) }
}

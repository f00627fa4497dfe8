//! `muster.v1.JoinService` and `muster.v1.NodeService`: messages in and out, no decisions.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, info_span};

use super::exchange::{Answer, Exchange, Kind, Messages, Sent};
use super::listener::Connection;
use super::metrics::{JoinLabels, Metrics};
use super::status::{refused, status};
use crate::domain::Code;
use crate::join::JoinService as Joins;
use crate::proto::join_service_server::JoinService;
use crate::proto::node_service_server::NodeService;
use crate::proto::{
    GetTrustBundleRequest, GetTrustBundleResponse, JoinRequest, JoinResponse, RenewRequest,
    RenewResponse, join_request, join_response, renew_request, renew_response,
};

/// The longest message: evidence, a CSR and some names.
pub(super) const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// The longest answer: a chain, anchors and a record.
pub(super) const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// When a node should ask for the trust bundle again, in seconds, before its own jitter.
const RETRY_SECONDS: u32 = 5;

/// The services on the wire.
#[derive(Clone)]
pub(super) struct Api {
    joins: Arc<Joins>,
    metrics: Arc<Metrics>,
    answering: TaskTracker,
    fips_wanted: bool,
}

impl Api {
    /// Serves these joins, each as a task of `answering`. `fips_wanted`: nodes sign for STS's FIPS
    /// endpoint where there is one.
    pub(super) fn new(
        joins: Arc<Joins>,
        metrics: Arc<Metrics>,
        answering: TaskTracker,
        fips_wanted: bool,
    ) -> Self {
        Self { joins, metrics, answering, fips_wanted }
    }

    /// Starts the exchange of a stream; its answers come by the receiver.
    async fn start(
        &self,
        connection: Option<Connection>,
        kind: Kind,
        sent: Messages,
    ) -> Result<ReceiverStream<Result<Answer, Status>>, Status> {
        let connection = connection.ok_or_else(|| status(Code::Internal, None, None, None))?;
        let span = info_span!("exchange", rpc.method = kind.name(), source = %connection.peer);
        if !connection.take_stream() {
            return Err(self.refuse_second(&connection, kind).await);
        }
        let (replies, stream) = mpsc::channel(2);
        let exchange = Exchange {
            joins: Arc::clone(&self.joins),
            metrics: Arc::clone(&self.metrics),
            fips_wanted: self.fips_wanted,
            connection,
            kind,
            sent,
            method: "unknown",
        };
        let answering = async move {
            let answer = exchange.answer(&replies).await;
            // A node that went away finds its answer by asking again.
            let _gone = replies.send(answer).await;
        };
        self.answering.spawn(answering.instrument(span));
        Ok(ReceiverStream::new(stream))
    }

    async fn refuse_second(&self, connection: &Connection, kind: Kind) -> Status {
        let hint = "a connection serves one join or renewal; open another".to_owned();
        let source = connection.peer.ip().to_canonical();
        let (kind_in_audit, code) = (kind.in_audit(), Code::MalformedRequest);
        let refusal = self.joins.refuse_unread(kind_in_audit, code, Some(hint), source).await;
        let labels = JoinLabels { method: "unknown", code: Code::MalformedRequest.as_str() };
        self.metrics.count(kind, &labels);
        refused(&refusal)
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl JoinService for Api {
    type JoinStream = Replies<JoinResponse>;

    async fn join(
        &self,
        request: Request<Streaming<JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let connection = request.extensions().get::<Connection>().cloned();
        let sent = request.into_inner().map(|message| {
            message.map(|message| match message.step {
                Some(join_request::Step::Start(start)) => Some(Sent::Join(start)),
                Some(join_request::Step::Evidence(evidence)) => Some(Sent::Evidence(evidence)),
                None => None,
            })
        });
        let answers = self.start(connection, Kind::Join, Box::pin(sent)).await?;
        let answers = answers.map(|answer| {
            answer.map(|answer| match answer {
                Answer::Challenge(challenge) => join_response::Step::Challenge(challenge),
                Answer::Result(result) => join_response::Step::Result(result),
            })
        });
        let answers = answers.map(|step| step.map(|step| JoinResponse { step: Some(step) }));
        Ok(Response::new(Box::pin(answers)))
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

#[tonic::async_trait]
impl NodeService for Api {
    type RenewStream = Replies<RenewResponse>;

    async fn renew(
        &self,
        request: Request<Streaming<RenewRequest>>,
    ) -> Result<Response<Self::RenewStream>, Status> {
        let connection = request.extensions().get::<Connection>().cloned();
        let sent = request.into_inner().map(|message| {
            message.map(|message| match message.step {
                Some(renew_request::Step::Start(start)) => Some(Sent::Renew(start)),
                Some(renew_request::Step::Evidence(evidence)) => Some(Sent::Evidence(evidence)),
                None => None,
            })
        });
        let answers = self.start(connection, Kind::Renewal, Box::pin(sent)).await?;
        let answers = answers.map(|answer| {
            answer.map(|answer| match answer {
                Answer::Challenge(challenge) => renew_response::Step::Challenge(challenge),
                Answer::Result(result) => renew_response::Step::Result(result),
            })
        });
        let answers = answers.map(|step| step.map(|step| RenewResponse { step: Some(step) }));
        Ok(Response::new(Box::pin(answers)))
    }
}

//! What a join costs before muster does anything: the same listener with nobody behind it. A
//! benchmark's measure of the transport, which no server offers by itself.

use std::pin::Pin;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::grpc::{ANSWER_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::proto::join_service_server::{JoinService, JoinServiceServer};
use crate::proto::{
    Challenge, GetTrustBundleRequest, GetTrustBundleResponse, JoinRequest, JoinResponse,
    JoinResult, join_response,
};

/// How long the parts of an empty answer are, in bytes: those of the answer that it stands for.
#[derive(Debug, Clone, Copy)]
pub struct AnswerSizes {
    /// The certificate.
    pub certificate: usize,
    /// The trust anchor of the node CA.
    pub anchor: usize,
    /// The join root.
    pub join_root: usize,
    /// The node's record.
    pub record: usize,
}

/// The join service, with empty answers and no questions asked.
pub(super) fn routes(sizes: AnswerSizes) -> Routes {
    let service = JoinServiceServer::new(Empty(sizes))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    Routes::new(service).prepare()
}

struct Empty(AnswerSizes);

impl Empty {
    fn challenge() -> JoinResponse {
        let challenge = Challenge { nonce: vec![0; 32], ..Challenge::default() };
        JoinResponse { step: Some(join_response::Step::Challenge(challenge)) }
    }

    fn result(&self) -> JoinResponse {
        let Self(AnswerSizes { certificate, anchor, join_root, record }) = *self;
        let result = JoinResult {
            certificate_chain: vec![vec![0; certificate]],
            trust_bundle: vec![vec![0; anchor]],
            join_root: vec![0; join_root],
            node_record: " ".repeat(record),
            ..JoinResult::default()
        };
        JoinResponse { step: Some(join_response::Step::Result(result)) }
    }
}

#[tonic::async_trait]
impl JoinService for Empty {
    type JoinStream = Pin<Box<dyn Stream<Item = Result<JoinResponse, Status>> + Send>>;

    /// Four messages, as a join has: start, challenge, evidence, result.
    async fn join(
        &self,
        request: Request<Streaming<JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let mut messages = request.into_inner();
        let (replies, stream) = tokio::sync::mpsc::channel(2);
        let (challenge, result) = (Self::challenge(), self.result());
        tokio::spawn(async move {
            for reply in [challenge, result] {
                if !matches!(messages.next().await, Some(Ok(_))) {
                    return;
                }
                if replies.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_trust_bundle(
        &self,
        _request: Request<GetTrustBundleRequest>,
    ) -> Result<Response<GetTrustBundleResponse>, Status> {
        Ok(Response::new(GetTrustBundleResponse { trust_bundle: Vec::new() }))
    }
}

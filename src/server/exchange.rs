//! One stream of the join protocol: one start, one challenge, one evidence, one answer. A join and a
//! renewal differ in how they start and in who judges them.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;
use tracing::info;

use super::listener::Connection;
use super::metrics::{JoinLabels, Metrics};
use super::node_record;
use super::status::refused;
use super::tls::presented;
use crate::clock::Stopwatch;
use crate::domain::{Class, Code};
use crate::join::{
    Admission, Attempt, InvalidStart, JoinService as Joins, Refusal, Renewal, Start,
};
use crate::proto::{Challenge, Evidence, JoinResult, JoinStart, RenewStart};
use crate::registry::PresentedCertificate;
use crate::turns::Showing;

/// How long a node has for its first message, for its evidence, and for the whole stream.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const EVIDENCE_TIMEOUT: Duration = Duration::from_secs(30);
const STREAM_TIMEOUT: Duration = Duration::from_mins(1);

/// What a node sends.
pub(super) enum Sent {
    Join(JoinStart),
    Renew(RenewStart),
    Evidence(Evidence),
}

/// What it hears.
pub(super) enum Answer {
    Challenge(Challenge),
    Result(JoinResult),
}

/// What a node sends, one message after the other; an empty message is nothing.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<Option<Sent>, Status>> + Send + Sync>>;

/// One stream.
pub(super) struct Exchange {
    pub(super) joins: Arc<Joins>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fips_wanted: bool,
    pub(super) connection: Connection,
    pub(super) kind: Kind,
    pub(super) sent: Messages,
    /// The method, for the metrics: one of this build, or `unknown`.
    pub(super) method: &'static str,
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Join,
    Renewal,
}

/// A first message that can be judged.
enum Begun {
    Join(Start),
    Renewal { start: Start, certificate: PresentedCertificate },
}

impl Exchange {
    /// Runs the exchange, counts how it ended, and says so on the wire.
    pub(super) async fn answer(
        mut self,
        replies: &mpsc::Sender<Result<Answer, Status>>,
    ) -> Result<Answer, Status> {
        let outcome = match timeout(STREAM_TIMEOUT, self.run(replies)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.refuse(Code::TimedOut, None).await),
        };
        if let Some(showing) = showing(outcome.as_ref().err()) {
            self.joins.turns.note(self.source(), showing);
        }
        let code = outcome.as_ref().map_or_else(|refusal| refusal.recorded.as_str(), |_| "OK");
        let labels = JoinLabels { method: self.method, code };
        self.metrics.count(self.kind, &labels);
        outcome.map_err(|refusal| refused(&refusal))
    }

    async fn run(
        &mut self,
        replies: &mpsc::Sender<Result<Answer, Status>>,
    ) -> Result<Answer, Refusal> {
        let begun = self.begin().await?;
        let early = self.joins.refuse_early(self.kind.in_audit(), self.source()).await;
        if let Some(refusal) = early {
            return Err(refusal);
        }
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
        if replies.send(Ok(Answer::Challenge(challenge))).await.is_err() {
            return Err(self.malformed("the node went away").await);
        }
        let answered = self.next(EVIDENCE_TIMEOUT, Code::ChallengeExpired).await?;
        let Sent::Evidence(Evidence { evidence, pop, csr: _ }) = answered else {
            return Err(self.malformed("the second message must be Evidence").await);
        };
        // From here on it is the server's own time. Whoever keeps us waiting can be put out for
        // others: silent streams would otherwise shut everybody out.
        let _judged = self.connection.presence.waits_for_us();
        let (channel, source) = (self.connection.channel, self.source());
        let watch = Stopwatch::start();
        let outcome = match begun {
            Begun::Join(start) => {
                let attempt = Attempt { start, channel, nonce, evidence, pop, source };
                self.joins.admit(&attempt).await
            }
            Begun::Renewal { start: Start { public_key, facts, .. }, certificate } => {
                self.joins
                    .renew(Renewal {
                        certificate,
                        public_key,
                        facts,
                        channel,
                        nonce,
                        evidence,
                        pop,
                        source,
                    })
                    .await
            }
        };
        self.metrics.join_seconds.observe(watch.elapsed().as_secs_f64());
        // A renewal is by the method that its node joined by, which only the judge has looked up.
        self.method = self.method_label(match &outcome {
            Ok(admission) => &admission.enrollment.method,
            Err(refusal) => &refusal.method,
        });
        let admission = outcome?;
        info!(join.correlation_id = %admission.correlation_id,
            node = %admission.enrollment.node_id, serial = %admission.order.serial,
            "{}", self.kind.done());
        Ok(Answer::Result(result(&admission)))
    }

    /// Reads the first message.
    async fn begin(&mut self) -> Result<Begun, Refusal> {
        let first = self.next(START_TIMEOUT, Code::TimedOut).await?;
        let parsed = match (&first, self.kind) {
            (Sent::Join(start), Kind::Join) => {
                self.method = self.method_label(&start.method);
                Start::parse(&start.policy, &start.method, &start.public_key, &start.facts)
            }
            // Whom a renewal is of, the registry knows.
            (Sent::Renew(start), Kind::Renewal) => {
                Start::parse("", "", &start.public_key, &start.facts)
            }
            _ => {
                return Err(self
                    .malformed("the first message must be JoinStart or RenewStart")
                    .await);
            }
        };
        let start = match parsed {
            Ok(start) => start,
            Err(InvalidStart::Malformed(problem)) => return Err(self.malformed(problem).await),
            Err(InvalidStart::PublicKey(problem)) => {
                let hint = Some(problem.to_string());
                return Err(self.refuse(Code::PublicKeyUnsupported, hint).await);
            }
        };
        if self.kind == Kind::Join {
            return Ok(Begun::Join(start));
        }
        let Some(leaf) = &self.connection.certificate else {
            return Err(self.refuse(Code::CertificateRequired, None).await);
        };
        match presented(&CertificateDer::from(leaf.as_ref())) {
            Some(certificate) => Ok(Begun::Renewal { start, certificate }),
            None => Err(self.refuse(Code::NodeUnknown, None).await),
        }
    }

    async fn next(&mut self, within: Duration, too_late: Code) -> Result<Sent, Refusal> {
        match timeout(within, self.sent.next()).await {
            Err(_) => Err(self.refuse(too_late, None).await),
            Ok(Some(Ok(Some(sent)))) => Ok(sent),
            Ok(None | Some(Ok(None))) => {
                Err(self.malformed("the stream ended, or a message was empty").await)
            }
            Ok(Some(Err(_))) => {
                Err(self.malformed("a message cannot be read or is too long").await)
            }
        }
    }

    async fn malformed(&self, problem: &str) -> Refusal {
        self.refuse(Code::MalformedRequest, Some(problem.to_owned())).await
    }

    async fn refuse(&self, code: Code, hint: Option<String>) -> Refusal {
        self.joins.refuse_unread(self.kind.in_audit(), code, hint, self.source()).await
    }

    fn source(&self) -> IpAddr {
        self.connection.peer.ip().to_canonical()
    }

    fn method_label(&self, name: &str) -> &'static str {
        let known = self.joins.methods.iter().map(|method| method.declaration().name);
        known.into_iter().find(|method| *method == name).unwrap_or("unknown")
    }
}

impl Kind {
    /// The name of the call.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Join => "Join",
            Self::Renewal => "Renew",
        }
    }

    /// The kind of its audit records.
    pub(super) const fn in_audit(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Renewal => "renew",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Join => "join admitted",
            Self::Renewal => "certificate renewed",
        }
    }
}

/// What an exchange says of the network that it came from. An outage says nothing of it.
fn showing(refusal: Option<&Refusal>) -> Option<Showing> {
    let Some(refusal) = refusal else { return Some(Showing::Admitted) };
    match refusal.recorded.class() {
        Class::Denied | Class::Invalid => Some(Showing::Worthless),
        _ if matches!(refusal.recorded, Code::TimedOut | Code::ChallengeExpired) => {
            Some(Showing::Worthless)
        }
        Class::Stale | Class::Throttled | Class::Unavailable => None,
    }
}

fn result(admission: &Admission) -> JoinResult {
    let record =
        node_record::of(&admission.enrollment, &admission.order, Some(&admission.correlation_id));
    JoinResult {
        certificate_chain: admission.chain.clone(),
        trust_bundle: admission.trust_bundle.iter().map(|anchor| anchor.to_vec()).collect(),
        join_root: admission.join_root.to_vec(),
        renew_after: admission.order.renew_after.unix_seconds(),
        node_id: admission.enrollment.node_id.to_string(),
        correlation_id: admission.correlation_id.to_string(),
        node_record: record.to_string(),
    }
}

//! One join: evidence, the node's key, the server's answer, files.

use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::attester::{Ec2Attester, IdentityRole};
use super::state::{InstanceIdentity, Joined, NodeKey, StateDirectory};
use crate::aws::{Imds, MetadataUnavailable};
use crate::client::{Connection, Endpoint, JoinError, Request, ServerTrust};
use crate::clock::{Clock, Stopwatch};
use crate::domain::{Class, Code, Timestamp};
use crate::proto::JoinResult;

/// The first pause after an outage, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How often "stale" may follow itself at once.
const STALE_MAX: u32 = 2;

/// What a join needs to know.
pub struct JoinOptions {
    /// Where the server is.
    pub server: Endpoint,
    /// How it is known.
    pub trust: ServerTrust,
    /// The policy asked for; empty if the server may choose the only one.
    pub policy: String,
    /// Where key and certificate are kept.
    pub state: PathBuf,
    /// The metadata service.
    pub imds: Imds,
    /// How long to go on when the answer is "not now".
    pub timeout: Duration,
}

/// Joins and keeps the result; returns what `node.json` says. `report` hears of waiting.
pub async fn join(
    options: &JoinOptions,
    clock: &Clock,
    report: &(dyn Fn(&str) + Sync),
) -> Result<Value, JoinError> {
    let watch = Stopwatch::start();
    let mut backoff = BACKOFF_FIRST;
    let mut stale = 0;
    loop {
        // The last attempt is cut off too: who waits for us was promised an answer by then.
        let left = options.timeout.saturating_sub(watch.elapsed());
        let error = match timeout(left, attempt(options, clock, report)).await {
            Ok(Ok(record)) => return Ok(record),
            Ok(Err(error)) => error,
            Err(_) => return Err(local(Code::TimedOut, &"the time given for the join is over")),
        };
        let pause = match error.code.class() {
            Class::Denied | Class::Invalid => return Err(error),
            Class::Stale if stale < STALE_MAX => {
                stale += 1;
                continue;
            }
            Class::Stale | Class::Throttled | Class::Unavailable => {
                error.retry_after.unwrap_or_default() + jitter(backoff)
            }
        };
        if watch.elapsed() + pause >= options.timeout {
            return Err(error);
        }
        report(&format!("{} [{}], trying again in {pause:.1?}", error.message, error.code));
        sleep(pause).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Full jitter: anything from nothing to the whole pause, so that a crowd spreads.
fn jitter(most: Duration) -> Duration {
    let mut random = [0; 4];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        return most;
    }
    most.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

async fn attempt(
    options: &JoinOptions,
    clock: &Clock,
    report: &(dyn Fn(&str) + Sync),
) -> Result<Value, JoinError> {
    let metadata = |error: MetadataUnavailable| local(error.code(), &error);
    let session = options.imds.session().await.map_err(metadata)?;
    let instance_id = session.instance_id().await.map_err(metadata)?;
    let document = session.rsa2048_document().await.map_err(metadata)?;
    let identity_role = IdentityRole::read(&session).await;
    // State that belongs to another instance is set aside before the server is asked (T62).
    let identity = InstanceIdentity { instance_id };
    let state = StateDirectory::open(&options.state, &identity, clock.now())
        .map_err(|error| local(Code::StateUnusable, &error))?;
    if let Some(path) = state.set_aside() {
        report(&format!("the state of another instance is kept in {}", path.display()));
    }
    let key = state.key().map_err(|error| local(Code::StateUnusable, &error))?;
    let connection = Connection::open(&options.server, &options.trust).await?;
    let facts = format!("muster/{} instance={}", env!("CARGO_PKG_VERSION"), identity.instance_id);
    let request = Request {
        policy: &options.policy,
        method: "ec2",
        public_key: key.public_key(),
        facts: &facts,
    };
    let attester = Ec2Attester::new(document, identity_role, &key, clock);
    let result = connection.join(&request, &attester).await;
    let result = result.map_err(|error| attester.explain(error))?;
    let record = accept(&result, &key, clock.now())
        .map_err(|problem| JoinError::rejected(Code::ResultRejected, problem))?;
    let joined = Joined {
        chain: result.certificate_chain,
        bundle: result.trust_bundle,
        join_root: result.join_root,
        node_json: result.node_record,
    };
    state.install(&joined).map_err(|error| local(Code::StateUnusable, &error))?;
    Ok(record)
}

pub(super) fn local(code: Code, error: &dyn std::fmt::Display) -> JoinError {
    JoinError::rejected(code, error.to_string())
}

/// Checks that the answer is a certificate for this key that chains to the bundle beside it.
fn accept(result: &JoinResult, key: &NodeKey, now: Timestamp) -> Result<Value, &'static str> {
    let (leaf, intermediates) =
        result.certificate_chain.split_first().ok_or("the server sent no certificate")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|_| "the server sent something that is no certificate")?;
    if parsed.public_key().raw != key.public_key().spki_der() {
        return Err("the certificate is for another key");
    }
    let bundle: Vec<CertificateDer<'_>> =
        result.trust_bundle.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let anchors: Vec<_> =
        bundle.iter().filter_map(|anchor| anchor_from_trusted_cert(anchor).ok()).collect();
    let intermediates: Vec<CertificateDer<'_>> =
        intermediates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let leaf = CertificateDer::from(leaf.as_slice());
    // A clock that is a little behind is no reason to throw away what was just issued.
    let seconds = now.unix_seconds().max(parsed.validity().not_before.timestamp());
    let seconds = u64::try_from(seconds).unwrap_or_default();
    EndEntityCert::try_from(&leaf)
        .and_then(|leaf| {
            leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &intermediates,
                UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map(|_| ())
        })
        .map_err(
            |_| "the certificate does not chain to the bundle, or this machine's clock is off",
        )?;
    let record: Value =
        serde_json::from_str(&result.node_record).map_err(|_| "the node record is no JSON")?;
    if record.is_object() { Ok(record) } else { Err("the node record is no object") }
}

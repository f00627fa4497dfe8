//! One attempt: ask by the right method with the right key, look at the answer, keep it.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::Value;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::method::{MethodList, Way, moves_on};
use super::outside::{Answer, Ask, Outside};
use super::state::{CurrentIdentity, Joined, NodeKey, NodeRecord, StateDirectory, StateUnusable};
use crate::client::{ClientIdentity, JoinError, ServerTrust, trust_domain_of};
use crate::domain::{Code, Timestamp};

/// An attempt that brought no certificate.
pub(super) struct Failed {
    /// How the node asked last; nothing if it did not come so far.
    pub(super) way: Option<Way>,
    /// What came of it.
    pub(super) error: JoinError,
    /// The ways before it, each of which was denied.
    pub(super) earlier: Vec<Denied>,
}

/// A way that was denied, after which another was tried.
pub(super) struct Denied {
    pub(super) way: Way,
    pub(super) error: JoinError,
}

impl Failed {
    /// Every code of the attempt.
    pub(super) fn codes(&self) -> impl Iterator<Item = Code> {
        self.earlier.iter().map(|denied| denied.error.code).chain([self.error.code])
    }
}

impl From<JoinError> for Failed {
    fn from(error: JoinError) -> Self {
        Self { way: None, error, earlier: Vec::new() }
    }
}

impl From<StateUnusable> for Failed {
    fn from(error: StateUnusable) -> Self {
        JoinError::from(error).into()
    }
}

/// Joins by the methods of the list in their order, and returns what `node.json` says.
pub(super) async fn join(
    state: &StateDirectory,
    outside: &impl Outside,
    methods: &MethodList,
) -> Result<Value, Failed> {
    // A current identity that cannot be read is no reason not to get a new one.
    let current = state.current().ok().flatten();
    let record = current.as_ref().and_then(CurrentIdentity::record);
    let starts_over = state.starts_over()?;
    let key = state.key()?;
    let mut earlier = Vec::new();
    let next_key = state.unanswered_key()?;
    let mut ways = methods.ways(record.as_ref(), starts_over, outside.now());
    ways.retain(|way| *way != Way::NextKeyAlone || next_key.is_some());
    let mut ways = ways.into_iter().peekable();
    while let Some(way) = ways.next() {
        let joined = async {
            let policy = match (way, &record) {
                // Its enrollment's: a node comes back to where it was.
                (Way::KeyAlone | Way::NextKeyAlone, Some(record)) => record.policy.clone(),
                (Way::KeyAlone | Way::NextKeyAlone, None) | (Way::Ec2 | Way::Token, _) => {
                    outside.policy(way.method()).await?
                }
            };
            let key = match (way, &next_key) {
                (Way::NextKeyAlone, Some(next_key)) => next_key,
                (Way::NextKeyAlone, None) | (Way::Ec2 | Way::Token | Way::KeyAlone, _) => &key,
            };
            ask(state, outside, &Question { way, key, policy: &policy }, current.as_ref(), None)
                .await
        };
        match joined.await {
            Ok(record) => return Ok(record),
            Err(error) if ways.peek().is_some() && moves_on(error.code) => {
                tracing::warn!(
                    error.type = %error.code,
                    join.method = way.as_str(),
                    detail = error.message,
                    correlation_id = error.correlation_id,
                    "denied; the next method of the list is tried"
                );
                earlier.push(Denied { way, error });
            }
            Err(error) => return Err(Failed { way: Some(way), error, earlier }),
        }
    }
    Err(JoinError::rejected(Code::Internal, "no method was left to try").into())
}

/// Renews the current certificate by the method that it is of, and returns what the new `node.json`
/// says.
pub(super) async fn renew(state: &StateDirectory, outside: &impl Outside) -> Result<Value, Failed> {
    let missing = || JoinError::rejected(Code::StateUnusable, "there is no certificate to renew");
    let current = state.current()?.ok_or_else(missing)?;
    let record = current.record().ok_or_else(missing)?;
    // On disk before the server hears of it (I5).
    let key = state.next_key()?;
    let own = state.current_key()?.ok_or_else(missing)?;
    let identity = ClientIdentity::new(current.chain(), own.pkcs8_der());
    let way = Way::to_renew(record.method);
    let question = Question { way, key: &key, policy: &record.policy };
    let renewed = ask(state, outside, &question, Some(&current), Some(&identity)).await;
    renewed.map_err(|error| Failed { way: Some(way), error, earlier: Vec::new() })
}

/// What the node asks for.
struct Question<'a> {
    way: Way,
    key: &'a NodeKey,
    policy: &'a str,
}

async fn ask(
    state: &StateDirectory,
    outside: &impl Outside,
    question: &Question<'_>,
    current: Option<&CurrentIdentity>,
    identity: Option<&ClientIdentity>,
) -> Result<Value, JoinError> {
    let Question { way, key, policy } = *question;
    let join_root = current.map(CurrentIdentity::join_root).filter(|roots| !roots.is_empty());
    let join_root = join_root.map(ServerTrust::Roots);
    let trust_domain = current.and_then(CurrentIdentity::trust_domain);
    let ask = Ask {
        instance: state.instance_id(),
        way,
        key,
        policy,
        identity,
        join_root: join_root.as_ref(),
        trust_domain: trust_domain.as_ref(),
    };
    let answer = outside.ask(&ask).await?;
    let record = accept(&answer, key, outside.now())
        .map_err(|problem| JoinError::rejected(Code::ResultRejected, problem))?;
    let joined = Joined {
        chain: answer.result.certificate_chain,
        bundle: answer.result.trust_bundle,
        join_root: answer.result.join_root,
        node_json: answer.result.node_record,
    };
    state.install(key, &joined)?;
    Ok(record)
}

/// Checks that the answer is a certificate for this key that chains to the bundle beside it.
fn accept(answer: &Answer, key: &NodeKey, now: Timestamp) -> Result<Value, &'static str> {
    let Answer { result, trust_domain } = answer;
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
    // The node takes the trust domain that it demands later from its own certificate.
    let own_domain = trust_domain_of(&leaf).ok_or("the certificate has no SPIFFE ID")?;
    if trust_domain.as_ref().is_some_and(|shown| *shown != own_domain) {
        return Err("the certificate is of another trust domain than the server");
    }
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
    let read: Result<NodeRecord, _> = serde_json::from_value(record.clone());
    read.map(|_| record).map_err(|_| "the node record lacks what a node needs")
}

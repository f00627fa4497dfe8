//! What a backend must do, one case for each thing. They look at what came back with their own eyes
//! and not with `ca::check`, whose verdict stands beside them.

use std::fmt::Write;
use std::future::poll_fn;
use std::pin::Pin;
use std::process::Command;
use std::task::Poll;
use std::time::Duration;

use muster::ca::{
    CertificateAuthority, IssueError, IssuedCertificate, RevocationList, RevokedCertificate,
    TrustAnchors, check_revocation_list,
};
use muster::domain::{Lifetime, PublicKey, Serial};
use muster::policy::Order;
use muster::registry::Recorded;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use x509_parser::prelude::X509Certificate;

use crate::world::start_of_story;

/// How long a backend may take here; less than a join gives it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How many orders come at one time.
const CROWD: usize = 64;

/// The cases, in the order of the table.
pub(super) const CASES: [&str; 19] = [
    "answers in time",
    "the answer is a certificate",
    "of the ordered key",
    "with the ordered names and no other, of any kind",
    "with the ordered subject",
    "with the ordered serial",
    "for the ordered time",
    "for digital signatures alone",
    "for TLS servers and clients",
    "not of an authority",
    "without another critical extension",
    "signed by the node CA, with nothing beside it",
    "the same order is the same content again",
    "an order for another issuer is refused",
    "the health check says yes",
    "64 orders at once are answered alike",
    "a revocation list is as asked for",
    "OpenSSL verifies the trust anchors",
    "OpenSSL refuses what the list revokes, and only that",
];

/// How a case came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    Fails(String),
    /// There is nothing to judge.
    Silent,
}

impl Verdict {
    /// Its cell of the table.
    pub(super) fn sign(&self) -> &'static str {
        match self {
            Self::Holds => "  ✓",
            Self::Fails(_) => "  ✗",
            Self::Silent => "  ·",
        }
    }

    fn of(holds: bool, why: impl std::fmt::Debug) -> Self {
        if holds { Self::Holds } else { Self::Fails(format!("{why:?}")) }
    }
}

/// All cases but the refusal of another issuer's order, which needs another order.
pub(super) async fn examine(
    backend: &dyn CertificateAuthority,
    recorded: &Recorded,
    foreign_order: Verdict,
    is_genuine: bool,
) -> (Vec<Verdict>, Option<IssuedCertificate>) {
    let order = recorded.order();
    let anchors = backend.trust_anchors().await.unwrap();
    let first = timeout(ANSWER_WITHIN, backend.issue(recorded)).await;
    let answer = match &first {
        Ok(Ok(issued)) => Some(issued.clone()),
        _ => None,
    };
    let mut verdicts = vec![Verdict::of(answer.is_some(), &first)];
    let chain = answer.as_ref().map(|issued| issued.chain.as_slice());
    verdicts.extend(contents(order, chain, &anchors));
    let chain = chain.unwrap_or_default();
    let (again, crowd) = if answer.is_some() {
        (again(backend, recorded, chain).await, crowd(backend, recorded).await)
    } else {
        (Verdict::Silent, Verdict::Silent)
    };
    verdicts.extend([again, foreign_order]);
    let health = backend.check().await;
    verdicts.push(Verdict::of(health.is_ok(), &health));
    verdicts.push(crowd);
    verdicts.push(revocation_list(backend, &anchors).await);
    verdicts.push(openssl_anchors(&anchors));
    verdicts.push(if is_genuine {
        openssl_revocation(backend, order, chain, &anchors).await
    } else {
        Verdict::Silent
    });
    assert_eq!(verdicts.len(), CASES.len());
    (verdicts, answer)
}

/// The cases on the certificate itself.
fn contents(
    order: &Order,
    chain: Option<&[CertificateDer<'static>]>,
    anchors: &TrustAnchors,
) -> Vec<Verdict> {
    let mut silent = vec![Verdict::Silent; 11];
    let Some(chain) = chain else { return silent };
    let Some(leaf) = chain.first() else {
        silent[10] = Verdict::Fails("no certificate".to_owned());
        return silent;
    };
    let Ok(([], found)) = x509_parser::parse_x509_certificate(leaf) else {
        silent[0] = Verdict::Fails("not a certificate".to_owned());
        return silent;
    };
    let validity = found.validity();
    let times = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let usage = found.key_usage().unwrap();
    let eku = found.extended_key_usage().unwrap();
    let basic = found.basic_constraints().unwrap();
    let subject = found.subject().to_string();
    vec![
        Verdict::Holds,
        Verdict::of(found.public_key().raw == order.public_key.spki_der(), "another key"),
        Verdict::of(names(&found) == ordered_names(order), names(&found)),
        Verdict::of(subject == format!("CN={}", order.common_name), &subject),
        Verdict::of(found.raw_serial() == order.serial.as_bytes(), found.raw_serial()),
        Verdict::of(
            times == (order.not_before.unix_seconds(), order.not_after.unix_seconds()),
            times,
        ),
        Verdict::of(usage.as_ref().is_some_and(|one| one.critical && one.value.flags == 1), &usage),
        Verdict::of(
            eku.as_ref().is_some_and(|one| one.value.server_auth && one.value.client_auth),
            &eku,
        ),
        Verdict::of(basic.as_ref().is_some_and(|one| !one.value.ca), &basic),
        Verdict::of(unknown_critical(&found).is_empty(), unknown_critical(&found)),
        Verdict::of(is_signed_by(&found, anchors) && chain.len() == 1, chain.len()),
    ]
}

fn names(found: &X509Certificate<'_>) -> Vec<String> {
    let san = found.subject_alternative_name().unwrap().unwrap();
    let mut names: Vec<_> = san.value.general_names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

fn ordered_names(order: &Order) -> Vec<String> {
    let mut names = vec![format!("URI({})", order.spiffe_id.as_str())];
    names.extend(order.dns_names.iter().map(|name| format!("DNSName({name})")));
    names.sort_unstable();
    names
}

fn unknown_critical(found: &X509Certificate<'_>) -> Vec<String> {
    let known = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.37"];
    let critical = found.extensions().iter().filter(|one| one.critical);
    let ids = critical.map(|one| one.oid.to_id_string());
    ids.filter(|id| !known.contains(&id.as_str())).collect()
}

fn is_signed_by(found: &X509Certificate<'_>, anchors: &TrustAnchors) -> bool {
    let (_, anchor) = x509_parser::parse_x509_certificate(&anchors.0[0]).unwrap();
    let key = PublicKey::from_spki_der(anchor.public_key().raw).unwrap();
    found.issuer().as_raw() == anchor.subject().as_raw()
        && key.has_signed(found.tbs_certificate.as_ref(), &found.signature_value.data)
}

/// The signed content without the signature, which is random.
fn content(issued: &IssuedCertificate) -> Vec<Vec<u8>> {
    let parsed = issued.chain.iter().map(|der| {
        x509_parser::parse_x509_certificate(der)
            .map(|(_, found)| found.tbs_certificate.as_ref().to_vec())
            .unwrap_or_default()
    });
    parsed.collect()
}

async fn again(
    backend: &dyn CertificateAuthority,
    recorded: &Recorded,
    chain: &[CertificateDer<'static>],
) -> Verdict {
    let first = content(&IssuedCertificate { chain: chain.to_vec() });
    let again = backend.issue(recorded).await.map(|issued| content(&issued));
    Verdict::of(again.as_ref() == Ok(&first), "another content")
}

async fn crowd(backend: &dyn CertificateAuthority, recorded: &Recorded) -> Verdict {
    let answers = all((0..CROWD).map(|_| timeout(ANSWER_WITHIN, backend.issue(recorded)))).await;
    let lengths: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map(|issued| issued.map(|issued| issued.chain.len())))
        .collect();
    let are_alike = lengths.iter().all(|one| matches!(one, Ok(Ok(_))) && *one == lengths[0]);
    Verdict::of(are_alike, &lengths)
}

/// A list of two entries, of which `revoked` is the first.
fn list(revoked: Serial) -> RevocationList {
    let now = start_of_story();
    let entry = |serial| RevokedCertificate { serial, revoked_at: now };
    RevocationList {
        // Above one byte, and with its highest bit set.
        number: 0xfedc,
        this_update: now,
        next_update: now.plus(Lifetime::from_hours(2)),
        entries: vec![entry(revoked), entry(Serial::from_random([0xee; 16]))],
    }
}

async fn revocation_list(backend: &dyn CertificateAuthority, anchors: &TrustAnchors) -> Verdict {
    let empty = RevocationList { entries: Vec::new(), ..list(Serial::from_random([1; 16])) };
    for asked in [list(Serial::from_random([0x11; 16])), empty] {
        let signed = match backend.sign_revocation_list(&asked).await {
            Ok(signed) => signed,
            Err(error) => return Verdict::Fails(error.to_string()),
        };
        let compared = check_revocation_list(&asked, &signed, backend.issuer(), anchors);
        if let Err(error) = compared {
            return Verdict::Fails(error.0.to_owned());
        }
    }
    Verdict::Holds
}

/// Runs `openssl` in a directory with the anchors as `anchors.pem`; what it printed, and whether it
/// said yes.
struct OpenSsl(tempfile::TempDir);

impl OpenSsl {
    fn new(anchors: &TrustAnchors) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.write("anchors.pem", anchors.to_pem().as_bytes());
        this
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn run(&self, arguments: &str) -> (bool, String) {
        let at = start_of_story().plus(Lifetime::from_minutes(2)).unix_seconds().to_string();
        let mut command = Command::new("openssl");
        command.current_dir(self.0.path());
        for argument in arguments.split(' ') {
            command.arg(if argument == "AT" { &at } else { argument });
        }
        let output = command.output().unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        write!(text, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
        (output.status.success(), text)
    }
}

fn openssl_anchors(anchors: &TrustAnchors) -> Verdict {
    let (is_good, text) = OpenSsl::new(anchors)
        .run("verify -x509_strict -check_ss_sig -attime AT -CAfile anchors.pem anchors.pem");
    let are_read = anchors.0.iter().all(|der| x509_parser::parse_x509_certificate(der).is_ok());
    Verdict::of(is_good && are_read, text)
}

async fn openssl_revocation(
    backend: &dyn CertificateAuthority,
    order: &Order,
    chain: &[CertificateDer<'static>],
    anchors: &TrustAnchors,
) -> Verdict {
    const VERIFY: &str = "verify -x509_strict -purpose sslclient -crl_check -attime AT \
                          -CAfile anchors.pem -CRLfile list.pem leaf.pem";
    let openssl = OpenSsl::new(anchors);
    openssl.write("leaf.pem", TrustAnchors(vec![chain[0].clone()]).to_pem().as_bytes());
    for (revoked, is_accepted) in [(Serial::from_random([0x22; 16]), true), (order.serial, false)] {
        let signed = backend.sign_revocation_list(&list(revoked)).await.unwrap();
        openssl.write("list.der", &signed);
        let (is_read, text) =
            openssl.run("crl -inform DER -in list.der -text -CAfile anchors.pem -out list.pem");
        let is_whole = is_read && text.contains("verify OK") && !text.contains("CRL Number: 0\n");
        let (is_good, said) = openssl.run(VERIFY);
        let is_right = is_good == is_accepted && (is_good || said.contains("certificate revoked"));
        if !(is_whole && is_right) {
            return Verdict::Fails(format!("{text}\n{said}"));
        }
    }
    Verdict::Holds
}

/// A foreign order must be refused, not signed.
pub(super) async fn refuses(backend: &dyn CertificateAuthority, recorded: &Recorded) -> Verdict {
    match timeout(ANSWER_WITHIN, backend.issue(recorded)).await {
        Ok(Err(IssueError::Refused(_))) => Verdict::Holds,
        Ok(Ok(_)) => Verdict::Fails("it signed an order for another key".to_owned()),
        _ => Verdict::Silent,
    }
}

/// Waits for all, side by side.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, place) in waiting.iter_mut().zip(&mut done) {
            if place.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *place = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().map(Option::unwrap).collect()
}

//! What comes back from a CA, and what it is good for.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use muster::audit::Class;
use muster::domain::{Code, Lifetime};
use muster::store::MemoryStore;

use super::authority::{Fault, FaultyCa};
use super::world::{ALLOWED, Node, POLICIES, World, serial};

// T54, T40, T13, T31, I7: another certificate than the one ordered is discarded, with an alarm, and
// the same key may try again.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_was_not_ordered_is_discarded_and_the_slot_stays_free() {
    for (fault, code) in [
        (Fault::OtherKey, Code::CertificateRejected),
        (Fault::ExtraDnsName, Code::CertificateRejected),
        (Fault::ExtraUri, Code::CertificateRejected),
        (Fault::OtherId, Code::CertificateRejected),
        (Fault::MissingDnsName, Code::CertificateRejected),
        (Fault::Authority, Code::CertificateRejected),
        (Fault::LongerLife, Code::CertificateRejected),
        (Fault::EarlierStart, Code::CertificateRejected),
        (Fault::OtherSerial, Code::CertificateRejected),
        (Fault::OtherCommonName, Code::CertificateRejected),
        (Fault::ExtraAttribute, Code::CertificateRejected),
        (Fault::KeyCertSign, Code::CertificateRejected),
        (Fault::OnlyClientAuth, Code::CertificateRejected),
        (Fault::TwoLeaves, Code::CertificateRejected),
        (Fault::ForeignIssuer, Code::CertificateRejected),
        (Fault::Empty, Code::CertificateRejected),
        (Fault::Garbage, Code::CertificateRejected),
        (Fault::Refuses, Code::CaUnavailable),
        (Fault::Hangs, Code::CaUnavailable),
    ] {
        let backend = Arc::new(FaultyCa::new(fault));
        let authority = Arc::clone(&backend);
        let world = World::with(Arc::new(MemoryStore::new()), POLICIES, move |_| {
            Arc::clone(&authority) as Arc<dyn muster::ca::CertificateAuthority>
        });
        let node = Node::new(ALLOWED, 1);
        let refusal = world.join(&node, "web").await.unwrap_err();
        assert_eq!(refusal.code, code, "{fault:?}");
        assert!(refusal.retry_after_seconds.is_some(), "{fault:?}");
        let alarms = world.records(Class::Security).await.len();
        assert_eq!(alarms, usize::from(code == Code::CertificateRejected), "{fault:?}");

        // T21: the slot is the same key's, and nobody else's.
        backend.is_mended.store(true, Ordering::SeqCst);
        assert_eq!(world.refused(&node.copied(), "web").await, Code::EnrollmentConflict);
        let recorded = world.records(Class::Admission).await[0].record.serial;
        let admission = world.admitted(&node, "web").await;
        assert_eq!(
            Some(serial(&admission)),
            recorded,
            "{fault:?}: the order on record is finished"
        );
    }
}

// I5: what was issued is on record, so a lost reply is repeated even while there is no CA.
#[tokio::test]
async fn a_stored_answer_needs_no_ca() {
    let backend = Arc::new(FaultyCa::new(Fault::Refuses));
    let authority = Arc::clone(&backend);
    let world = World::with(Arc::new(MemoryStore::new()), POLICIES, move |_| {
        Arc::clone(&authority) as Arc<dyn muster::ca::CertificateAuthority>
    });
    let node = Node::new(ALLOWED, 1);
    backend.is_mended.store(true, Ordering::SeqCst);
    let first = world.admitted(&node, "web").await;
    backend.is_mended.store(false, Ordering::SeqCst);
    assert_eq!(world.admitted(&node, "web").await.chain, first.chain);
    assert_eq!(world.refused(&Node::new(ALLOWED, 2), "web").await, Code::CaUnavailable);
}

// I6: the certificate is what the policy says, and names nothing that the node could choose.
#[tokio::test]
async fn the_certificate_is_an_svid_that_others_accept() {
    let world = World::new();
    let node = Node::new(ALLOWED, 1);
    let admission = world.admitted(&node, "web").await;
    let leaf = &admission.chain[0];

    // The `spiffe` crate parses it.
    let svid = spiffe::X509Svid::parse_from_der(leaf, &node.key.serialize_der()).unwrap();
    assert_eq!(
        svid.spiffe_id().to_string(),
        "spiffe://prod.example.org/node/ec2/web/aws/111122223333/us-west-2/i-00000000000000001"
    );

    // IAM Roles Anywhere takes the CN as source identity, and wants `cA: false` written out.
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).unwrap();
    assert_eq!(parsed.subject().to_string(), "CN=i-00000000000000001");
    assert!(parsed.basic_constraints().unwrap().is_some_and(|found| !found.value.ca));

    // OpenSSL accepts it under its strict rules.
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, der: &[u8]| {
        let path = directory.path().join(name);
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        std::fs::write(&path, pem).unwrap();
        path
    };
    let leaf_path = write("leaf.pem", leaf);
    let bundle_path = write("bundle.pem", &admission.trust_bundle[0]);
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslclient", "-attime"])
        .arg(world.clock.now().plus(Lifetime::from_minutes(1)).unix_seconds().to_string())
        .arg("-CAfile")
        .arg(&bundle_path)
        .arg(&leaf_path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// X1: issuing an order twice signs the same content.
#[tokio::test]
async fn one_order_is_one_certificate() {
    let world = World::new();
    let admission = world.admitted(&Node::new(ALLOWED, 1), "web").await;
    let order = &admission.order;
    let (_, parsed) = x509_parser::parse_x509_certificate(&admission.chain[0]).unwrap();
    assert_eq!(parsed.raw_serial(), order.serial.as_bytes());
    assert_eq!(parsed.public_key().raw, order.public_key.spki_der());
    assert_eq!(parsed.validity().not_after.timestamp(), order.not_after.unix_seconds());
}

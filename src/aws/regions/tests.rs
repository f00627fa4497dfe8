use std::fs;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

use super::*;
use crate::domain::Code;

fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap()
}

fn pem(key: &KeyPair, serial: u64, name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.self_signed(key).unwrap().pem()
}

fn refused(files: &[(&str, &str)]) -> (Code, String) {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    let error = RegionCertificates::embedded().with_directory(directory.path()).unwrap_err();
    (error.code(), error.to_string())
}

#[test]
fn each_embedded_certificate_is_the_one_of_the_fingerprints_table() {
    let certificates = RegionCertificates::embedded();
    let table: BTreeMap<&str, Vec<&str>> = embedded::FINGERPRINTS
        .lines()
        .skip(1)
        .map(|line| (line.split('\t').next().unwrap(), line.split('\t').collect()))
        .collect();
    assert_eq!(table.len(), 39);
    let list = certificates.list();
    assert_eq!(list.len(), 36);
    for certificate in list {
        let row = &table[certificate.region().as_str()];
        assert_eq!(certificate.serial(), row[1], "{}", certificate.region());
        assert_eq!(certificate.not_after().to_string()[..10], *row[2], "{}", certificate.region());
        assert_eq!(certificate.sha256(), row[3], "{}", certificate.region());
        assert_eq!(row[4], "both", "{}", certificate.region());
    }
}

// T44: a certificate's partition is its region's.
#[test]
fn known_regions_are_those_of_the_table_each_in_its_partition() {
    let certificates = RegionCertificates::embedded();
    let known = certificates.known_regions();
    assert_eq!(known.len(), 39);
    assert_eq!(known["cn-north-1"], Partition::China);
    assert_eq!(known["us-gov-west-1"], Partition::GovCloud);
    assert_eq!(known["eusc-de-east-1"], Partition::EuropeanSovereign);
    assert_eq!(known["ap-east-2"], Partition::Aws);
    let china = certificates.list().into_iter().find(|c| c.region().as_str() == "cn-north-1");
    assert_eq!(china.unwrap().partition(), Partition::China);
}

#[test]
fn a_directory_adds_certificates_and_makes_its_regions_known() {
    let directory = tempfile::tempdir().unwrap();
    let key = rsa_key();
    let two = format!("some text\n{}{}", pem(&key, 1, "ours"), pem(&key, 2, "ours"));
    fs::write(directory.path().join("xx-moon-1.pem"), two).unwrap();
    fs::write(directory.path().join(".hidden"), "skipped").unwrap();

    let added = RegionCertificates::embedded().with_directory(directory.path()).unwrap();
    assert_eq!((added.list().len(), added.known_regions().len()), (38, 40));

    let alone = RegionCertificates::only_directory(directory.path()).unwrap();
    assert_eq!((alone.list().len(), alone.known_regions().len()), (2, 40));
    assert!(matches!(alone.list()[0].source(), CertificateSource::File(_)));
}

#[test]
fn the_same_certificate_twice_is_no_error_and_another_one_of_its_name_is() {
    let (key, other) = (rsa_key(), rsa_key());
    let first = pem(&key, 7, "ours");
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("us-west-2.pem"), format!("{first}{first}")).unwrap();
    let added = RegionCertificates::embedded().with_directory(directory.path()).unwrap();
    assert_eq!(added.list().len(), 37);

    let both = format!("{first}{}", pem(&other, 7, "ours"));
    let (code, message) = refused(&[("us-west-2.pem", &both)]);
    assert_eq!(code, Code::CertificatesInvalid);
    assert!(message.contains("us-west-2.pem"), "{message}");

    let (code, message) = refused(&[("us-east-1.pem", &first), ("us-west-2.pem", &first)]);
    assert_eq!(code, Code::CertificatesInvalid);
    assert!(message.contains("another region"), "{message}");
}

// T37, T42: an elliptic curve, RSA-1024, RSA-4096 or an exponent of 3 is never pinned.
#[test]
fn only_rsa_2048_with_exponent_65537_is_pinned() {
    let curve = KeyPair::generate().unwrap();
    let large =
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072).unwrap();
    let small_exponent = include_str!("../../../tests/data/rsa2048-exponent-3.pem");
    let small_modulus = include_str!("../../../tests/data/rsa1024.pem");
    for text in [&pem(&curve, 1, "x"), &pem(&large, 1, "x"), small_exponent, small_modulus] {
        let (code, message) = refused(&[("us-west-2.pem", text)]);
        assert_eq!(code, Code::CertificatesInvalid);
        assert!(message.contains("RSA-2048"), "{message}");
    }
}

#[test]
fn files_that_are_no_region_certificates_are_refused_by_name() {
    let key = rsa_key();
    let good = pem(&key, 1, "x");
    let many = good.repeat(17);
    let huge = format!("{good}{}", " ".repeat(64 * 1024));
    let private = key.serialize_pem();
    for (name, contents) in [
        ("us-west-2.txt", good.as_str()),
        ("US-WEST-2.pem", &good),
        ("us-west-2.pem", ""),
        ("us-west-2.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
        ("us-west-2.pem", "-----BEGIN CERTIFICATE-----\n"),
        ("us-west-2.pem", &private),
        ("us-west-2.pem", &many),
        ("us-west-2.pem", &huge),
    ] {
        let (code, message) = refused(&[(name, contents)]);
        assert_eq!(code, Code::CertificatesInvalid, "{message}");
        assert!(message.contains(name), "{message}");
    }
}

// The signer of a message is found by encoding, so a certificate has only one.
#[test]
fn a_certificate_that_writes_out_its_default_version_is_refused() {
    let key = rsa_key();
    let good = pem(&key, 1, "x");
    let mut der = directory::certificates(good.as_bytes()).unwrap().remove(0);
    let version = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap();
    der[version + 4] = 0;
    let region: Region = "us-west-2".parse().unwrap();
    let refused = RegionCertificate::from_der(region, &der, CertificateSource::Embedded);
    assert_eq!(refused.err(), Some("it holds a certificate that is not DER"));
}

#[test]
fn a_directory_that_is_not_there_is_unreadable() {
    let missing = Path::new("/nonexistent/certificates");
    let error = RegionCertificates::embedded().with_directory(missing).unwrap_err();
    assert_eq!(error.code(), Code::FileUnreadable);
}

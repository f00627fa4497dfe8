//! Documents that `openssl` signed with a fresh key: an implementation that is not ours.

use std::path::Path;
use std::process::{Command, Output};

use muster::aws::RegionCertificates;
use muster::domain::Code;
use muster::methods::ec2::IdentityDocument;

use crate::flips;
use crate::forge::DOCUMENT;

const DOCUMENTS: usize = 200;

fn openssl(arguments: &[&str], directory: &Path) {
    let output =
        Command::new("openssl").args(arguments).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A fresh key, and its certificate for us-west-2 in `certificates/`.
fn fresh_key(directory: &Path) {
    std::fs::create_dir(directory.join("certificates")).unwrap();
    let subject = "/C=US/ST=Washington State/L=Seattle/O=Fresh key of a test";
    openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "key.pem",
            "-subj",
            subject,
            "-days",
            "3650",
            "-out",
            "certificates/us-west-2.pem",
        ],
        directory,
    );
}

/// Signs `content` as the issue says; with `-binary` line feeds stay, without it they do not.
fn sign(directory: &Path, content: &str, binary: bool) -> Vec<u8> {
    std::fs::write(directory.join("content"), content).unwrap();
    let mut arguments = vec![
        "cms",
        "-sign",
        "-indef",
        "-nodetach",
        "-nocerts",
        "-outform",
        "DER",
        "-md",
        "sha256",
        "-signer",
        "certificates/us-west-2.pem",
        "-inkey",
        "key.pem",
        "-in",
        "content",
        "-out",
        "message",
    ];
    if binary {
        arguments.push("-binary");
    }
    openssl(&arguments, directory);
    std::fs::read(directory.join("message")).unwrap()
}

fn muster(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

#[test]
fn documents_of_openssl_verify_with_their_certificate_and_never_without() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    fresh_key(directory);
    let embedded = RegionCertificates::embedded();
    let added =
        RegionCertificates::embedded().with_directory(&directory.join("certificates")).unwrap();
    for number in 0..DOCUMENTS {
        let account = format!("{number:012}");
        let instance = format!("i-{number:017x}");
        let content =
            DOCUMENT.replace("111122223333", &account).replace("i-0123456789abcdef0", &instance);
        let message = sign(directory, &content, number % 2 == 0);
        let document = IdentityDocument::verify(&message, &added).unwrap();
        assert_eq!(document.account_id().as_str(), account);
        assert_eq!(document.instance_id().as_str(), instance);
        let rejection = IdentityDocument::verify(&message, &embedded).unwrap_err();
        assert_eq!(rejection.code, Code::DocumentSignerUnknown);
    }
    let verify = ["iid", "verify", "message", "--output", "json"];
    let with = [&verify[..], &["--certificates-dir", "certificates"]].concat();
    assert_eq!(muster(&verify, directory).status.code(), Some(1));
    assert_eq!(muster(&with, directory).status.code(), Some(0));
}

#[test]
fn flips_of_a_document_of_openssl_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    fresh_key(directory.path());
    let certificates = directory.path().join("certificates");
    let trusted = RegionCertificates::only_directory(&certificates).unwrap();
    let message = sign(directory.path(), DOCUMENT, true);
    flips::every_flip(&message, &trusted, DOCUMENT.as_bytes());
}

// The `pkcs7` path answers DSA with SHA-1, in the outer set of digest algorithms too.
#[test]
fn a_document_signed_with_dsa_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::create_dir(directory.join("certificates")).unwrap();
    openssl(&["dsaparam", "-genkey", "-out", "key.pem", "1024"], directory);
    let certificate = "certificates/us-west-2.pem";
    openssl(
        &["req", "-x509", "-new", "-key", "key.pem", "-subj", "/O=DSA", "-out", certificate],
        directory,
    );
    std::fs::write(directory.join("content"), DOCUMENT).unwrap();
    for digest in ["sha1", "sha256"] {
        openssl(
            &[
                "cms",
                "-sign",
                "-indef",
                "-nodetach",
                "-nocerts",
                "-outform",
                "DER",
                "-binary",
                "-md",
                digest,
                "-signer",
                certificate,
                "-inkey",
                "key.pem",
                "-in",
                "content",
                "-out",
                "message",
            ],
            directory,
        );
        let message = std::fs::read(directory.join("message")).unwrap();
        let embedded = RegionCertificates::embedded();
        let rejection = IdentityDocument::verify(&message, &embedded).unwrap_err();
        assert_eq!(rejection.code, Code::DocumentFormUnsupported, "{digest}");
    }
}

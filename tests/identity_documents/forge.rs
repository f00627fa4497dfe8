//! Makes signed messages in AWS's shape, and every wrong one too. It knows nothing of the code
//! under test: the encodings are written by hand.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest::{SHA256, digest};
use muster::aws::{
    AwsHttp, CallStatistics, Ec2Client, Endpoints, OwnCredentials, RegionCertificates, Service, Sts,
};
use muster::clock::Clock;
use muster::methods::Sources;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, RsaKeySize, SigningKey,
};
use tempfile::TempDir;

pub(crate) const SIGNED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
pub(crate) const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
pub(crate) const CONTENT_TYPE: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
pub(crate) const MESSAGE_DIGEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
pub(crate) const SIGNING_TIME: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05";
pub(crate) const PROTECTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x34";
pub(crate) const SHA_256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01";
pub(crate) const SHA_512: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03";
pub(crate) const SHA_1: &[u8] = b"\x06\x05\x2b\x0e\x03\x02\x1a";
pub(crate) const MD5: &[u8] = b"\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05";
pub(crate) const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
pub(crate) const RSA_SHA_1: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05";
pub(crate) const RSA_PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
pub(crate) const RSA_SHA_256: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
pub(crate) const DSA_SHA_1: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x38\x04\x03";
pub(crate) const NULL: &[u8] = b"\x05\x00";

pub(crate) const REGION: &str = "us-west-2";

/// A key and a certificate of it that stand for AWS's in `us-west-2`.
pub(crate) static AWS: LazyLock<Forge> = LazyLock::new(|| Forge::new("Amazon stand-in", REGION));

/// Somebody else with a key and a certificate.
pub(crate) static ATTACKER: LazyLock<Forge> = LazyLock::new(|| Forge::new("Attacker", REGION));

pub(crate) struct Forge {
    pub(crate) key: KeyPair,
    pub(crate) certificate: Vec<u8>,
    /// DER of issuer and serial.
    pub(crate) name: Vec<u8>,
    pub(crate) trusted: RegionCertificates,
    pub(crate) directory: TempDir,
}

/// The parts of a message; tests change them before it is signed.
pub(crate) struct Parts {
    pub(crate) content_type: Vec<u8>,
    pub(crate) content: Option<Vec<u8>>,
    /// Whole elements between content and signers.
    pub(crate) extra: Vec<u8>,
    pub(crate) signers: usize,
    pub(crate) name: Vec<u8>,
    pub(crate) digest_algorithm: Vec<u8>,
    /// Sent in this order; signed in the order of DER.
    pub(crate) attributes: Option<Vec<Vec<u8>>>,
    pub(crate) signature_algorithm: Vec<u8>,
    /// Overrides the signature.
    pub(crate) signature: Option<Vec<u8>>,
}

impl Forge {
    pub(crate) fn new(organization: &str, region: &str) -> Self {
        let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let value = DnValue::PrintableString(organization.try_into().unwrap());
        params.distinguished_name.push(DnType::OrganizationName, value);
        params.serial_number = Some(0x2a_u64.into());
        let certificate = params.self_signed(&key).unwrap();
        let issuer_name = element(0x13, &[organization.as_bytes()]);
        let attribute = element(0x30, &[b"\x06\x03\x55\x04\x0a", &issuer_name]);
        let issuer = element(0x30, &[&element(0x31, &[&attribute])]);
        let name = element(0x30, &[&issuer, b"\x02\x01\x2a"]);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(format!("{region}.pem"));
        std::fs::write(file, certificate.pem()).unwrap();
        let trusted = RegionCertificates::only_directory(directory.path()).unwrap();
        Self { key, certificate: certificate.der().to_vec(), name, trusted, directory }
    }

    /// A whole message as AWS makes them.
    pub(crate) fn message(&self, content: &str) -> Vec<u8> {
        self.forged(content, |_| {})
    }

    /// A message of which some part is changed before it is signed.
    pub(crate) fn forged(&self, content: &str, change: impl FnOnce(&mut Parts)) -> Vec<u8> {
        let mut parts = Parts {
            content_type: DATA.to_vec(),
            content: Some(content.as_bytes().to_vec()),
            extra: Vec::new(),
            signers: 1,
            name: self.name.clone(),
            digest_algorithm: algorithm(SHA_256),
            attributes: Some(attributes(content.as_bytes())),
            signature_algorithm: algorithm(RSA_SHA_256),
            signature: None,
        };
        change(&mut parts);
        parts.build(&self.key)
    }
}

impl Parts {
    fn build(self, key: &KeyPair) -> Vec<u8> {
        let signed = match (self.attributes.clone(), &self.content) {
            (Some(mut attributes), _) => {
                attributes.sort();
                element(0x31, &[&attributes.concat()])
            }
            (None, content) => content.clone().unwrap_or_default(),
        };
        let signature = self.signature.unwrap_or_else(|| key.sign(&signed).unwrap());
        let attributes = self.attributes.map(|all| element(0xa0, &[&all.concat()]));
        let signer_info = element(
            0x30,
            &[
                b"\x02\x01\x01",
                &self.name,
                &self.digest_algorithm,
                &attributes.unwrap_or_default(),
                &self.signature_algorithm,
                &element(0x04, &[&signature]),
            ],
        );
        let content = self
            .content
            .map(|content| indefinite(0xa0, &[&indefinite(0x24, &[&element(0x04, &[&content])])]));
        let signed_data = indefinite(
            0x30,
            &[
                b"\x02\x01\x01",
                &element(0x31, &[&algorithm(SHA_256)]),
                &indefinite(0x30, &[&self.content_type, &content.unwrap_or_default()]),
                &self.extra,
                &element(0x31, &[&signer_info.repeat(self.signers)]),
            ],
        );
        indefinite(0x30, &[SIGNED_DATA, &indefinite(0xa0, &[&signed_data])])
    }
}

/// The signed attributes that AWS has.
pub(crate) fn attributes(content: &[u8]) -> Vec<Vec<u8>> {
    let protection = [algorithm(SHA_256), element(0xa1, &[RSA_SHA_256, NULL])].concat();
    vec![
        attribute(CONTENT_TYPE, &[DATA]),
        attribute(SIGNING_TIME, &[b"\x17\x0d261002030408Z"]),
        attribute(PROTECTION, &[&element(0x30, &[&protection])]),
        digest_attribute(content),
    ]
}

pub(crate) fn digest_attribute(content: &[u8]) -> Vec<u8> {
    let value = element(0x04, &[digest(&SHA256, content).as_ref()]);
    attribute(MESSAGE_DIGEST, &[&value])
}

pub(crate) fn attribute(kind: &[u8], values: &[&[u8]]) -> Vec<u8> {
    element(0x30, &[kind, &element(0x31, values)])
}

pub(crate) fn algorithm(identifier: &[u8]) -> Vec<u8> {
    element(0x30, &[identifier, NULL])
}

pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u16::try_from(contents.len()).unwrap();
    let [high, low] = length.to_be_bytes();
    let header = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        0x100.. => vec![tag, 0x82, high, low],
    };
    [header, contents].concat()
}

pub(crate) fn indefinite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat()
}

/// A document as AWS writes them, of account 111122223333 in us-west-2.
pub(crate) const DOCUMENT: &str = r#"{
  "accountId" : "111122223333",
  "architecture" : "x86_64",
  "availabilityZone" : "us-west-2a",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "ami-0123456789abcdef0",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "t3.micro",
  "kernelId" : null,
  "pendingTime" : "2026-10-02T03:04:05Z",
  "privateIp" : "10.0.0.209",
  "ramdiskId" : null,
  "region" : "us-west-2",
  "version" : "2017-09-30"
}"#;

/// Verifies with these certificates, and asks nobody: there is nobody at that port.
pub(crate) fn sources(certificates: RegionCertificates) -> Sources {
    let mut nowhere = Endpoints::default();
    nowhere.replace(Service::Sts, None, "http://127.0.0.1:9", true).unwrap();
    let (http, calls) = (AwsHttp::plain().unwrap(), Arc::<CallStatistics>::default());
    let sts = Sts::new(http.clone(), nowhere.clone(), Clock::system(), calls.clone());
    let nobody = OwnCredentials::fixed("AKIA", "nobody", None);
    let ec2 = Ec2Client::new(http, nowhere, nobody, Clock::system(), calls);
    Sources { certificates: certificates.into(), sts, ec2 }
}

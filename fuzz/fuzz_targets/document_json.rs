//! The signed content, as if AWS had signed whatever comes, and the JSON of evidence.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::aws::{Json, RegionCertificates};
use muster::domain::{KeyBinding, PublicKey, Purpose, Timestamp};
use muster::methods::ec2::{Ec2, IdentityDocument};
use muster::methods::{JoinMethod, Presented, Remembered};
use rcgen::PublicKeyData;

#[path = "../../tests/identity_documents/forge.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod forge;

static CERTIFICATES: LazyLock<RegionCertificates> = LazyLock::new(certificates);

static METHOD: LazyLock<Ec2> = LazyLock::new(|| Ec2::new(forge::sources(certificates())));

fn certificates() -> RegionCertificates {
    let directory = forge::AWS.directory.path();
    RegionCertificates::only_directory(directory).expect("the forge's certificate")
}

static BINDING_KEY: LazyLock<PublicKey> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key");
    PublicKey::from_spki_der(&key.subject_public_key_info()).expect("a public key")
});

static BINDING: LazyLock<KeyBinding> =
    LazyLock::new(|| KeyBinding::new(Purpose::Join, &[0; 32], &[0; 32], "ec2", "", &BINDING_KEY));

fuzz_target!(|input: &[u8]| {
    let strict = Json::parse(input);
    let lenient = serde_json::from_slice::<serde_json::Value>(input);
    assert!(strict.is_err() || lenient.is_ok(), "strict JSON is JSON");
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let (key, remembered) = (BINDING_KEY.digest(), &Remembered::default());
    let presented =
        Presented { evidence: input, binding: &BINDING, key, remembered, source: None, now };
    let _answer = METHOD.verify(&presented);
    let Some(content) = std::str::from_utf8(input).ok().filter(|text| text.len() < 12_000) else {
        return;
    };
    let message = forge::AWS.message(content);
    if let Ok(document) = IdentityDocument::verify(&message, &CERTIFICATES) {
        assert_eq!(document.region().as_str(), forge::REGION);
        // What was accepted is what every other reader of this JSON sees.
        let lenient = lenient.expect("strict JSON is JSON");
        assert_eq!(lenient["accountId"], document.account_id().as_str());
        assert_eq!(lenient["instanceId"], document.instance_id().as_str());
    }
});

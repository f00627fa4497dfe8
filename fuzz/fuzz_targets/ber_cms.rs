//! Documents in every form. The seeds are signed by a key that was thrown away, so whatever is
//! accepted has to say what a seed says.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::aws::RegionCertificates;
use muster::methods::ec2::IdentityDocument;

static TRUSTED: LazyLock<RegionCertificates> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("certificates");
    RegionCertificates::only_directory(&directory).expect("the certificate of the seeds")
});

fuzz_target!(|input: &[u8]| {
    if let Ok(document) = IdentityDocument::verify(input, &TRUSTED) {
        assert_eq!(document.account_id().as_str(), "111122223333");
        assert_eq!(document.instance_id().as_str(), "i-0123456789abcdef0");
    }
});

//! Policy files are reviewed, but a review reads text and this reads bytes: whatever they are, the
//! set loads as a whole or not at all, and says so without a panic.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::aws::RegionCertificates;
use muster::methods;
use muster::policy::{self, PolicyFile, Vocabulary};

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| Vocabulary {
    methods: methods::ALL,
    regions: RegionCertificates::embedded().known_regions().clone(),
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let file = PolicyFile { name: "a.yaml".to_owned(), text: text.to_owned() };
    let loaded = policy::load(&[file.clone()], &VOCABULARY, None);
    let has_errors = loaded.findings.iter().any(policy::Finding::is_error);
    assert_eq!(loaded.set.is_none(), has_errors);
    let again = policy::load(&[file], &VOCABULARY, None);
    assert_eq!(loaded.hash, again.hash);
    assert_eq!(loaded.findings, again.findings);
});

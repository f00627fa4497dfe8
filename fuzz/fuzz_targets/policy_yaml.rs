//! Policy files are reviewed, but a review reads text and this reads bytes: whatever they are, the
//! set loads as a whole or not at all, and says so without a panic. The tests that it holds can be run.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::aws::RegionCertificates;
use muster::domain::Timestamp;
use muster::methods;
use muster::policy::{self, PolicyFile, PolicyTest, Vocabulary};

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
    if let Some(set) = &loaded.set {
        let now = Timestamp::from_unix_seconds(1_780_000_000);
        for case in set.tests().flat_map(PolicyTest::cases) {
            let _ = case.run(set, now);
        }
    }
    let again = policy::load(&[file], &VOCABULARY, None);
    assert_eq!(loaded.hash, again.hash);
    assert_eq!(loaded.findings, again.findings);
});

//! What EC2, or whoever stands in for it, answers: nothing but what was asked for is accepted.

#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::aws::parse_descriptions;
use muster::domain::InstanceId;

static ASKED: LazyLock<BTreeSet<InstanceId>> = LazyLock::new(|| {
    ["i-0123456789abcdef0", "i-0123abcd"].map(|id| id.parse().expect("an id")).into()
});

fuzz_target!(|body: &[u8]| {
    if let Ok(parsed) = parse_descriptions(body, &ASKED) {
        for (id, found) in parsed.found {
            assert!(ASKED.contains(&id));
            assert_eq!(id, found.instance_id);
            assert!(found.tags.len() <= 100 && found.security_groups.len() <= 100);
        }
    }
});

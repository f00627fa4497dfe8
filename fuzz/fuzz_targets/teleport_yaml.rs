//! Teleport's documents: whatever comes, the policies that come of it are read, and admit nobody whom no
//! account was written for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::policy::{Import, import_teleport};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut import = Import::default();
    import_teleport("fuzz.yaml", text, &mut import);
    for policy in &import.policies {
        assert!(!policy.text.contains("accounts: any"));
        if policy.text.contains("method: ec2") {
            assert!(policy.text.contains("- accounts: [\""));
        }
    }
});

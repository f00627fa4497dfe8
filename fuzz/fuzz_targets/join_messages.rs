//! The parts of a join that a stranger sends before anything is known of him: the first message and
//! the evidence.

#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::join::Start;

fuzz_target!(|input: (&str, &str, &[u8], &str)| {
    let (policy, method, key, facts) = input;
    if let Ok(start) = Start::parse(policy, method, key, facts) {
        // What was accepted is bounded, and its key has one encoding.
        assert!(start.policy.len() <= 63 && start.method.len() <= 63 && start.facts.len() <= 1024);
        assert_eq!(start.public_key.spki_der(), key);
        assert!(!start.public_key.has_signed(b"message", b"signature"));
    }
});

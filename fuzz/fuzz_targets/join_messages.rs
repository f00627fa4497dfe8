//! The first message of a join, which a stranger sends before anything is known of him. The input is
//! three lines, policy, method and facts, and the key is what follows them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::join::Start;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(4, |&byte| byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (policy, method, facts, key) = (next(), next(), next(), next());
    let text = |bytes| std::str::from_utf8(bytes);
    // The wire has no other text than UTF-8.
    let (Ok(policy), Ok(method), Ok(facts)) = (text(policy), text(method), text(facts)) else {
        return;
    };
    if let Ok(start) = Start::parse(policy, method, key, facts) {
        // What was accepted is bounded, and its key has one encoding.
        assert!(start.policy.len() <= 63 && start.method.len() <= 63 && start.facts.len() <= 1024);
        assert_eq!(start.public_key.spki_der(), key);
        assert!(!start.public_key.has_signed(b"message", b"signature"));
    }
});

//! A line of an exported audit log, which an auditor gets from somebody else, and the checkpoint in
//! it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::audit::{Checkpoint, LINE_BYTES_MAX, parse_line};
use muster::domain::PublicKey;

/// An Ed25519 key: the second vector of RFC 8032.
const KEY: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0x3d, 0x40, 0x17, 0xc3,
    0xe8, 0x43, 0x89, 0x5a, 0x92, 0xb7, 0x0a, 0xa7, 0x4d, 0x1b, 0x7e, 0xbc, 0x9c, 0x98, 0x2c, 0xcf,
    0x2e, 0xc4, 0x96, 0x8c, 0xc0, 0xcd, 0x55, 0xf1, 0x2a, 0xf4, 0x66, 0x0c,
];

fuzz_target!(|input: &[u8]| {
    let Ok(entry) = parse_line(input) else { return };
    assert!(input.len() <= LINE_BYTES_MAX && entry.seq > 0 && entry.chain.starts_with("audit/"));
    // What was read can be written and read again, in the same place.
    let line = serde_json::to_vec(&entry).expect("a record is JSON");
    if line.len() <= LINE_BYTES_MAX {
        let again = parse_line(&line).expect("a written record is read");
        assert_eq!(
            (again.chain, again.seq, again.hash),
            (entry.chain.clone(), entry.seq, entry.hash.clone())
        );
    }
    if let Some(Ok(checkpoint)) = Checkpoint::read(&entry) {
        let key = PublicKey::from_spki_der(KEY).expect("a key");
        // Nobody has the key of that vector, here.
        assert!(!checkpoint.is_signed_by(&key));
        assert!(checkpoint.heads().count() <= 65);
    }
});

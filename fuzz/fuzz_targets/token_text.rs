//! The text of a join token, and the evidence of the method.

#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::domain::TokenSecret;
use muster::methods::JoinMethod;
use muster::methods::token::ByToken;

fuzz_target!(|input: &[u8]| {
    let _named = ByToken.token_named(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(secret) = TokenSecret::parse(text) {
        // There is one spelling of every token.
        assert_eq!(secret.to_text().as_str(), text.trim_ascii());
    }
});

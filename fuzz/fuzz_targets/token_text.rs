//! The text of a join token, and the evidence of the method.

#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::domain::TokenSecret;
use muster::methods::JoinMethod;
use muster::methods::token::ByToken;

fuzz_target!(|input: &[u8]| {
    let _named = ByToken.token_named(input);
    if let Some((secret, text)) = parsed(input) {
        // There is one spelling of every token.
        assert_eq!(secret.to_text().as_str(), text.trim_ascii());
    }
    // No mutation gets past the checksum, so the input is also a seed and a name.
    let Some((seed, name)) = input.split_first_chunk::<32>() else { return };
    let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
    let Some(name) = name else { return };
    let secret = TokenSecret::from_seed(name, (*seed).into()).expect("every seed makes a key");
    let again = TokenSecret::parse(&secret.to_text()).expect("a written token is read");
    assert!(again.name() == secret.name() && again.public_key() == secret.public_key());
});

fn parsed(input: &[u8]) -> Option<(TokenSecret, &str)> {
    let text = std::str::from_utf8(input).ok()?;
    Some((TokenSecret::parse(text).ok()?, text))
}

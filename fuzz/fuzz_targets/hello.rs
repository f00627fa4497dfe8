//! The first bytes of a connection: what is heard of them before TLS begins.

#![no_main]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use muster::server::{HELLO_BYTES_MAX, read_hello};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    if let Some(heard) = heard(&mut rest) {
        assert!(heard.len() <= HELLO_BYTES_MAX);
        // Nothing is lost between the hello and what follows it.
        assert!([&heard, rest].concat() == input);
    }
});

fn heard(rest: &mut &[u8]) -> Option<Vec<u8>> {
    match pin!(read_hello(rest)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(heard) => heard.ok(),
        Poll::Pending => panic!("nobody waits for bytes that are there"),
    }
}

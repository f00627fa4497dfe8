//! The header that a balancer puts before a connection.

#![no_main]

use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use muster::server::read_proxy_header;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    if let Some(source) = source(&mut rest) {
        // What follows is not read, and has no say in it.
        let mut header = &input[..input.len() - rest.len()];
        assert_eq!(self::source(&mut header), Some(source));
        assert!(header.is_empty());
    }
});

fn source(rest: &mut &[u8]) -> Option<SocketAddr> {
    let balancer = ([10, 0, 0, 1], 7443).into();
    let reading = pin!(read_proxy_header(rest, balancer));
    match reading.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(source) => source.ok(),
        Poll::Pending => panic!("nobody waits for bytes that are there"),
    }
}

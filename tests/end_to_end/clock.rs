//! A server whose clock is wrong issues nothing, and says whose clock it is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::harness::{Answer, OTHER_WORKER, Site, WORKER, is_missing, join_command};

fn readiness(site: &Site) -> String {
    let mut stream = TcpStream::connect(site.server.said("diagnostics")).unwrap();
    write!(stream, "GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The same command with a clock that is off by so much.
fn by_a_clock(offset: &str, command: &Command) -> Command {
    let mut faked = Command::new("faketime");
    faked.args(["-f", offset]).arg(command.get_program()).args(command.get_args());
    faked.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    faked
}

/// How a join ends that is given no time to wait.
fn join(site: &Site, instance: &str) -> Answer {
    let endpoint = site.simulator.ready["imds"][instance].as_str().unwrap();
    let mut join = join_command(endpoint, &site.path(instance), "2s");
    Answer::of(join.args(["--server", site.address(), "--pin", site.pin()]))
}

// T53, N10: nothing else of this server shows that its clock is ahead; AWS's answers do.
#[test]
fn a_clock_that_is_not_the_clouds_issues_nothing() {
    if is_missing("faketime") {
        return;
    }
    let mut site = Site::with(|command| by_a_clock("+3m", &command));
    // The first answer of STS brings the other time.
    join(&site, WORKER).yes();
    let mut looks = 0;
    while !readiness(&site).contains("ahead of AWS's") {
        looks += 1;
        assert!(looks < 200, "{}", site.server.log());
        sleep(Duration::from_millis(100));
    }
    assert!(readiness(&site).starts_with("HTTP/1.0 503"));
    assert_eq!(join(&site, OTHER_WORKER).failure(), (3, "SERVER_CLOCK_WRONG"));

    // T53: with the right clock it is behind what it has said before.
    site.restart(|command| command);
    assert!(readiness(&site).contains("not ready: the clock says"), "{}", readiness(&site));
    assert_eq!(join(&site, OTHER_WORKER).failure(), (3, "SERVER_CLOCK_WRONG"));
}

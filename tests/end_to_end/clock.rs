//! A server whose clock is wrong issues nothing, and says whose clock it is.

use std::process::Command;

use crate::harness::{Answer, OTHER_WORKER, Site, WORKER, await_that, is_missing, join_command};

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
    let is_told = || site.page("/readyz").contains("ahead of AWS's");
    await_that("the server says that its clock is ahead", is_told);
    assert!(site.page("/readyz").starts_with("HTTP/1.0 503"));
    assert_eq!(join(&site, OTHER_WORKER).failure(), (3, "SERVER_CLOCK_WRONG"));

    // T53: with the right clock it is behind what it has said before.
    site.restart(|command| command);
    assert!(site.page("/readyz").contains("not ready: the clock says"), "{}", site.page("/readyz"));
    assert_eq!(join(&site, OTHER_WORKER).failure(), (3, "SERVER_CLOCK_WRONG"));
}

//! The look at the instance: what rules may ask, what must agree, and what an outage is.

use muster::audit::Class;
use muster::domain::{Class as Kind, Code, Lifetime};
use muster::sim::{Fault, FaultKind, InstanceState, Service};

use crate::cloud::{Cloud, POLICIES, SCENARIO, WORKER};
use crate::renewal::{Proof, joined, new_key};

/// The code on record of a join by `seen`, or nothing if it was admitted.
async fn code(cloud: &Cloud) -> Option<Code> {
    let node = cloud.node(WORKER);
    match cloud.send(&node, &cloud.honest(&node, "seen")).await {
        Ok(_) => None,
        Err(refusal) => Some(cloud.world.code_of(&refusal).await),
    }
}

fn change(cloud: &Cloud, change: impl FnOnce(&mut muster::sim::InstanceRecord)) {
    assert!(cloud.simulator.change(&WORKER.parse().unwrap(), change));
}

#[tokio::test]
async fn a_tag_that_a_rule_asks_for_decides() {
    let cloud = Cloud::new().await;
    change(&cloud, |record| record.tags = [("Tier".to_owned(), "db".to_owned())].into());
    assert_eq!(code(&cloud).await, Some(Code::PolicyNoMatch));
    change(&cloud, |record| record.tags.clear());
    assert_eq!(code(&cloud).await, Some(Code::PolicyNoMatch));
    change(&cloud, |record| {
        record.tags = [("Tier", "web"), ("Quarantine", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    });
    assert_eq!(code(&cloud).await, Some(Code::PolicyDenied));
    change(&cloud, |record| {
        record.tags.remove("Quarantine");
        record.v2_only = false;
    });
    assert_eq!(code(&cloud).await, Some(Code::PolicyNoMatch));
    // No answer of EC2 is kept: the next join sees the change at once.
    change(&cloud, |record| record.v2_only = true);
    assert_eq!(code(&cloud).await, None);
}

// T12, T11: whoever may tag an instance chooses text, and text is all that it ever is.
#[tokio::test]
async fn a_tag_value_is_never_more_than_text() {
    let cloud = Cloud::new().await;
    for value in [
        "*",
        "web*",
        "w?b",
        "web, api",
        "[web]",
        "web\"}",
        "web</value><value>web",
        "&#119;eb",
        "WEB",
        " web",
        "web ",
        "",
        "present",
        "any",
        "{region}",
        "../web",
        "w\u{435}b",
    ] {
        change(&cloud, |record| record.tags = [("Tier".to_owned(), value.to_owned())].into());
        assert_eq!(code(&cloud).await, Some(Code::PolicyNoMatch), "{value:?}");
    }
}

#[tokio::test]
async fn only_an_instance_that_runs_joins() {
    let cloud = Cloud::new().await;
    for state in [
        InstanceState::Stopping,
        InstanceState::Stopped,
        InstanceState::ShuttingDown,
        InstanceState::Terminated,
    ] {
        change(&cloud, |record| record.state = state);
        assert_eq!(code(&cloud).await, Some(Code::InstanceNotRunning), "{state:?}");
    }
    change(&cloud, |record| record.state = InstanceState::Pending);
    assert_eq!(code(&cloud).await, None);
}

// R5: a security event, with both words in the record.
#[tokio::test]
async fn what_ec2_says_must_agree_with_the_document() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let honest = cloud.honest(&node, "seen");
    // The document was copied before the instance got another image.
    let mut changed = node.instance.clone();
    changed.image_id = "ami-0123456789abcdef9".to_owned();
    cloud.simulator.start(changed);
    let refusal = cloud.refused(&node, &honest).await;
    assert_eq!((refusal.code, refusal.code.class()), (Code::EvidenceDisagrees, Kind::Denied));
    let records = cloud.world.records(Class::Security).await;
    let message = records.first().unwrap().record.detail["message"].as_str().unwrap();
    let old = format!("image `{}`", node.instance.image_id);
    assert!(message.contains(&old) && message.contains("`ami-0123456789abcdef9`"), "{message}");
}

// K2: the cloud remembers the last start, so nobody else needs to.
#[tokio::test]
async fn a_document_from_before_the_last_start_is_refused() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let before = cloud.honest(&node, "seen");
    cloud.later(Lifetime::from_hours(1));
    let now = cloud.world.clock.now();
    cloud.simulator.restart(&WORKER.parse().unwrap(), now);
    let mut proposal = cloud.honest(&node, "seen");
    proposal.document = before.document;
    let refusal = cloud.refused(&node, &proposal).await;
    assert_eq!(cloud.world.code_of(&refusal).await, Code::EpochStale);
    assert_eq!(code(&cloud).await, None);
}

// K2: the start by EC2's word may be two minutes after that by the document, and not a second more.
#[tokio::test]
async fn a_document_may_be_two_minutes_older_than_the_start() {
    let cloud = Cloud::new().await;
    cloud.later(Lifetime::from_hours(1));
    let started = cloud.world.clock.now();
    assert!(cloud.simulator.restart(&WORKER.parse().unwrap(), started));
    for (seconds, expected) in [(121, Some(Code::EpochStale)), (120, None)] {
        let mut node = cloud.node(WORKER);
        node.instance.pending_time = started.minus(Lifetime::from_seconds(seconds));
        node.document = cloud.simulator.document(&node.instance).unwrap();
        let answer = cloud.send(&node, &cloud.honest(&node, "seen")).await;
        assert_eq!(answer.err().map(|refusal| refusal.recorded), expected, "{seconds}");
    }
}

// K2, I4: what was seen once is remembered: the old document does not get in by a policy that does not
// look, and the sight of it is a record.
#[tokio::test]
async fn a_later_start_that_was_seen_raises_the_floor() {
    let cloud = Cloud::new().await;
    let node = cloud.node(WORKER);
    let first = cloud.honest(&node, "seen");
    cloud.send(&node, &first).await.unwrap();
    cloud.later(Lifetime::from_hours(1));
    cloud.simulator.restart(&WORKER.parse().unwrap(), cloud.world.clock.now());
    let old = |policy: &str| {
        let mut proposal = cloud.honest(&node, policy);
        proposal.document = first.document.clone();
        proposal
    };
    let security = cloud.world.records(Class::Security).await.len();
    for policy in ["seen", "proven", "seen"] {
        let refusal = cloud.refused(&node, &old(policy)).await;
        assert_eq!(refusal.code, Code::EpochStale, "{policy}");
    }
    let events = cloud.world.records(Class::Security).await;
    assert_eq!(events.len(), security + 1, "once for each start");
    assert_eq!(events.last().unwrap().record.kind, "floor");
    let today = cloud.node(WORKER);
    cloud.admitted(&today, "proven").await;
}

// The same at a renewal.
#[tokio::test]
async fn a_later_start_that_a_renewal_shows_raises_the_floor() {
    let (cloud, node, first) = joined("seen").await;
    cloud.later(Lifetime::from_hours(1));
    let started = cloud.world.clock.now();
    assert!(cloud.simulator.restart(&WORKER.parse().unwrap(), started));
    let code = cloud.renewal_refused(&node, &first, &new_key(), Proof::By(WORKER)).await;
    assert_eq!(code, Code::EpochStale);
    let floor = cloud.world.enrollment(&first).await.floor;
    assert_eq!(floor, started.minus(Lifetime::from_minutes(2)));
}

#[tokio::test]
async fn an_instance_that_ec2_does_not_know() {
    let scenario = SCENARIO.replacen(
        "tags = {Tier = \"web\"}",
        "tags = {Tier = \"web\"}\nvisible_after = \"20h\"",
        1,
    );
    let cloud = Cloud::of(&scenario, POLICIES).await;
    // Old enough to be known: it is gone, or the role looks elsewhere.
    cloud.later(Lifetime::from_hours(1));
    let found = code(&cloud).await;
    assert_eq!(found, Some(Code::InstanceUnknown));
    assert_eq!(found.unwrap().class(), Kind::Denied);
}

// T3, T77: without the role, or with another external id, nothing is read and nobody is admitted.
#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_an_outage() {
    for scenario in [
        SCENARIO.replace("muster-verifier", "another-role"),
        SCENARIO.replace("external_id = \"muster-example\"", "external_id = \"another\""),
    ] {
        let cloud = Cloud::of(&scenario, POLICIES).await;
        let found = code(&cloud).await;
        assert_eq!(found, Some(Code::Ec2Unavailable));
        assert_eq!(found.unwrap().class(), Kind::Unavailable);
        assert_eq!(cloud.calls().1, 0);
    }
}

/// Everything that EC2, or something in its place, may answer instead.
const FAULTS: &[(FaultKind, Code)] = &[
    (FaultKind::Html, Code::Ec2Unavailable),
    (FaultKind::TwoResults, Code::Ec2Unavailable),
    (FaultKind::Huge, Code::Ec2Unavailable),
    (FaultKind::Throttled, Code::Ec2Throttled),
    (FaultKind::CutOff, Code::Ec2Unavailable),
    (FaultKind::Unavailable, Code::Ec2Unavailable),
    (FaultKind::OtherAction, Code::Ec2Unavailable),
    (FaultKind::ErrorWith200, Code::Ec2Unavailable),
    (FaultKind::DuplicateKeys, Code::Ec2Unavailable),
    (FaultKind::Redirect, Code::Ec2Unavailable),
    (FaultKind::Empty, Code::Ec2Unavailable),
    (FaultKind::Slow, Code::Ec2Unavailable),
];

// T49, T65: an outage, named, and never an admission: the prohibition on a tag was not checked.
#[tokio::test]
async fn whatever_ec2_answers_instead_admits_nobody() {
    let cloud = Cloud::new().await;
    for (kind, expected) in FAULTS {
        cloud.simulator.set_fault(Service::Ec2, Some(Fault::new(*kind)));
        assert_eq!(code(&cloud).await, Some(*expected), "{kind:?}");
        assert!(matches!(expected.class(), Kind::Throttled | Kind::Unavailable));
    }
    cloud.simulator.set_fault(Service::Ec2, None);
    assert_eq!(code(&cloud).await, None);
}

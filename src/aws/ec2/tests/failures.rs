//! Whatever EC2 answers instead of descriptions: an outage of the right kind, never an instance.

use super::fake::{Canned, Fake, HEAD, TAIL, error_body, instance};
use super::*;

async fn kind_of(canned: Canned) -> (Failure, usize) {
    let fake = Fake::start().await;
    fake.edit(|state| state.canned_ec2 = std::iter::repeat_n(canned, 9).collect());
    let failure = ask(&fake.client(), 1).await.unwrap_err();
    assert!(failure.detail.chars().count() < 300, "{failure}");
    assert!(!failure.detail.contains('\n'), "{failure}");
    (failure.kind, fake.ec2().len())
}

#[tokio::test]
async fn codes_and_status_tell_the_kind() {
    for (status, code, expected) in [
        (403, "UnauthorizedOperation", Failure::Forbidden),
        (401, "AuthFailure", Failure::Forbidden),
        (403, "AccessDenied", Failure::Forbidden),
        (401, "OptInRequired", Failure::Forbidden),
        (403, "InvalidClientTokenId", Failure::Forbidden),
        (403, "SignatureDoesNotMatch", Failure::Forbidden),
        (500, "UnauthorizedOperation", Failure::Unavailable),
        (500, "InternalError", Failure::Unavailable),
        (503, "Unavailable", Failure::Unavailable),
        (400, "InvalidParameterValue", Failure::Unavailable),
        (500, "InvalidInstanceID.NotFound", Failure::Unavailable),
        (200, "InvalidInstanceID.NotFound", Failure::Unavailable),
        (302, "Moved", Failure::Unavailable),
        (400, "RequestExpired", Failure::Unavailable),
    ] {
        assert_eq!(kind_of(Canned::error(status, code)).await, (expected, 1), "{status} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_is_made_twice_more() {
    for (status, code) in [
        (503, "RequestLimitExceeded"),
        (400, "Throttling"),
        (400, "ThrottlingException"),
        (400, "EC2ThrottledException"),
        (429, "Whatever"),
    ] {
        let begun = Instant::now();
        let result = kind_of(Canned::error(status, code)).await;
        assert_eq!(result, (Failure::Throttled, 3), "{status} {code}");
        assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let fake = Fake::start().await;
    fake.edit(|state| state.canned_ec2 = [Canned::error(503, "RequestLimitExceeded")].into());
    assert!(ask(&fake.client(), 1).await.unwrap().is_some());
    assert_eq!(fake.statistics.ec2.throttled(), 1);
}

// T49: what a proxy, a portal or a broken EC2 answers with status 200.
#[tokio::test]
async fn an_answer_that_is_no_description_is_no_answer() {
    let good = format!(
        "{HEAD}<reservationSet>{}</reservationSet>{TAIL}",
        instance(id(1).as_str(), OWN_ACCOUNT)
    );
    let xml = "text/xml;charset=UTF-8";
    let huge = format!("{good}{}", " ".repeat(8 * 1024 * 1024));
    for (media_type, body) in [
        ("text/html", "<html><body>Sign in</body></html>".to_owned()),
        ("text/html", good.clone()),
        ("application/json", "{}".to_owned()),
        (xml, String::new()),
        (xml, "<html><body>Sign in</body></html>".to_owned()),
        (xml, error_body("UnauthorizedOperation", "x")),
        (xml, good.replace("DescribeInstancesResponse", "DescribeImagesResponse")),
        (xml, format!("{good}{good}")),
        (xml, good[..good.len() - 5].to_owned()),
        (xml, good.replace(id(1).as_str(), id(2).as_str())),
        (xml, huge),
    ] {
        let canned = Canned::Answer(200, media_type, body.clone());
        let shown = &body[..body.len().min(100)];
        assert_eq!(kind_of(canned).await, (Failure::Unavailable, 1), "{media_type} {shown}");
    }
    let fake = Fake::start().await;
    fake.edit(|state| state.canned_ec2 = [Canned::Answer(200, xml, good)].into());
    assert!(ask(&fake.client(), 1).await.unwrap().is_some());
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_no_answer() {
    assert_eq!(kind_of(Canned::CutOff).await.0, Failure::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_after_ten_seconds() {
    let begun = Instant::now();
    assert_eq!(kind_of(Canned::Silence).await.0, Failure::Unavailable);
    assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_there_is_an_outage() {
    let fake = Fake::start().await;
    let mut endpoints = Endpoints::new(false);
    endpoints.replace(Service::Ec2, None, "http://127.0.0.1:1", true).unwrap();
    let own = OwnCredentials::fixed("AKIA", "canary-secret", None);
    let client =
        Ec2Client::new(fake::http(), endpoints, own, fake.clock.clone(), fake.statistics.clone());
    let failure = ask(&client, 1).await.unwrap_err();
    assert_eq!(failure.kind, Failure::Unavailable);
    assert!(!failure.to_string().contains("canary"));
    assert_eq!(fake.statistics.ec2.failed(), 1);
}

#[tokio::test]
async fn a_failure_is_not_kept() {
    let fake = Fake::start().await;
    fake.edit(|state| state.canned_ec2 = [Canned::error(500, "InternalError")].into());
    let client = fake.client();
    assert!(ask(&client, 1).await.is_err());
    assert!(ask(&client, 1).await.unwrap().is_some());
}

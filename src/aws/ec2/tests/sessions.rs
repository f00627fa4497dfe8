//! Whose credentials sign which call.

use crate::domain::Lifetime;

use super::fake::Fake;
use super::*;

const A: &str = "444455556666";
const B: &str = "777788889999";

fn arn(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/web")
}

fn role(account: &str, external_id: Option<&str>) -> LookUpBy {
    LookUpBy::Role { arn: arn(account), external_id: external_id.map(ToOwned::to_owned) }
}

async fn owner(client: &Ec2Client, account: &str, external_id: Option<&str>) -> String {
    let by = role(account, external_id);
    let found = client.describe(&place(account), &by, &id(1), long_ago()).await.unwrap().unwrap();
    found.owner_id.to_string()
}

#[tokio::test]
async fn a_session_is_asked_for_whole_and_held() {
    let fake = Fake::start().await;
    fake.edit(|state| state.external_ids.insert(arn(A), "e1".to_owned()));
    let client = fake.client();
    for _ in 0..3 {
        assert_eq!(owner(&client, A, Some("e1")).await, A);
    }
    let [asked] = &fake.sts()[..] else { panic!("{:?}", fake.sts()) };
    assert_eq!(asked.host, "sts.us-west-2.amazonaws.com");
    assert_eq!(asked.key, "AKIAOWN");
    assert_eq!(asked.form["DurationSeconds"], "3600");
    assert!(asked.form["Policy"].contains(r#""Action":"ec2:DescribeInstances""#));
    let name = asked.form["RoleSessionName"].strip_prefix("muster-").unwrap();
    assert!(name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    assert!(fake.ec2().iter().all(|call| call.key.starts_with("ASIA")));
    assert_eq!(fake.statistics.sts.calls(), 1);
}

// I12, T3, T4: the same role name and instance id in two accounts, in both orders and at once.
#[tokio::test]
async fn two_accounts_never_share_a_session() {
    for order in [[A, B], [B, A]] {
        let fake = Fake::start().await;
        let client = fake.client();
        for account in order.into_iter().chain(order) {
            assert_eq!(owner(&client, account, None).await, account);
        }
        assert_eq!(fake.sts().len(), 2);
    }
    let fake = Fake::start().await;
    let client = fake.client();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let client = client.clone();
        let account = if n % 2 == 0 { A } else { B };
        tasks.spawn(async move { assert_eq!(owner(&client, account, None).await, account) });
    }
    tasks.join_all().await;
    assert_eq!(fake.sts().len(), 2);
}

// T77: a policy without the external id must not ride on another's session, whoever is first.
#[tokio::test]
async fn two_external_ids_never_share_a_session() {
    let wrong = [None, Some("e2"), Some("")];
    for wrong_first in [false, true] {
        let fake = Fake::start().await;
        fake.edit(|state| state.external_ids.insert(arn(A), "e1".to_owned()));
        let client = fake.client();
        if !wrong_first {
            assert_eq!(owner(&client, A, Some("e1")).await, A);
        }
        for external_id in wrong {
            let by = role(A, external_id);
            let refused = client.describe(&place(A), &by, &id(1), long_ago()).await.unwrap_err();
            assert_eq!(refused.kind, Failure::Forbidden);
            assert_eq!(refused.service, Service::Sts);
            assert!(refused.detail.contains(&arn(A)), "{refused}");
            assert!(refused.detail.contains("trust policy"), "{refused}");
        }
        assert_eq!(owner(&client, A, Some("e1")).await, A);
    }
}

#[tokio::test]
async fn a_region_has_a_session_of_its_own() {
    let fake = Fake::start().await;
    let client = fake.client();
    owner(&client, A, None).await;
    let paris = Place { region: "eu-west-3".parse().unwrap(), ..place(A) };
    client.describe(&paris, &role(A, None), &id(1), long_ago()).await.unwrap();
    let hosts: Vec<_> = fake.sts().iter().map(|asked| asked.host.clone()).collect();
    assert_eq!(hosts, ["sts.us-west-2.amazonaws.com", "sts.eu-west-3.amazonaws.com"]);
    let keys: Vec<_> = fake.ec2().iter().map(|asked| asked.key.clone()).collect();
    assert_ne!(keys[0], keys[1]);
}

// P8: STS, or who stands in for it, gives something else than was asked for.
#[tokio::test]
async fn a_session_of_another_role_is_not_used() {
    for assumed in [
        "arn:aws:sts::777788889999:assumed-role/web/muster",
        "arn:aws-cn:sts::444455556666:assumed-role/web/muster",
        "arn:aws:sts::444455556666:assumed-role/other/muster",
        "arn:aws:sts::444455556666:assumed-role/web/another",
        "arn:aws:iam::444455556666:user/web",
    ] {
        let fake = Fake::start().await;
        fake.edit(|state| state.assumed = Some(assumed.to_owned()));
        let client = fake.client();
        let found = client.describe(&place(A), &role(A, None), &id(1), long_ago()).await;
        assert_eq!(found.unwrap_err().kind, Failure::Unavailable, "{assumed}");
        assert!(fake.ec2().is_empty());
    }
}

#[tokio::test]
async fn a_session_is_renewed_before_its_end_and_when_ec2_says_so() {
    let fake = Fake::start().await;
    let client = fake.client();
    owner(&client, A, None).await;
    fake.clock.advance(Lifetime::from_seconds(3_600 - 301));
    owner(&client, A, None).await;
    assert_eq!(fake.sts().len(), 1);
    // The fake's sessions all end at the same time, so this one is kept for two thirds of a rest.
    fake.clock.advance(Lifetime::from_seconds(1));
    owner(&client, A, None).await;
    assert_eq!(fake.sts().len(), 2);
    fake.edit(|state| state.expired_keys.insert("ASIA000000000002".to_owned()));
    assert_eq!(owner(&client, A, None).await, A);
    assert_eq!(fake.sts().len(), 3);
    let keys: Vec<_> = fake.ec2().iter().map(|call| call.key.clone()).collect();
    assert_eq!(keys[3..], ["ASIA000000000002", "ASIA000000000003"]);
}

#[tokio::test]
async fn a_session_that_is_never_taken_is_renewed_once() {
    let fake = Fake::start().await;
    fake.edit(|state| {
        state.expired_keys = (1..10).map(|n| format!("ASIA{n:012}")).collect();
    });
    let client = fake.client();
    let found = client.describe(&place(A), &role(A, None), &id(1), long_ago()).await;
    assert_eq!(found.unwrap_err().kind, Failure::Unavailable);
    assert_eq!((fake.sts().len(), fake.ec2().len()), (2, 2));
}

#[tokio::test]
async fn a_crowd_shares_one_refusal_and_an_operator_waits_ten_seconds() {
    let fake = Fake::start().await;
    fake.edit(|state| state.external_ids.insert(arn(A), "e1".to_owned()));
    let client = fake.client();
    for _ in 0..20 {
        let found = client.describe(&place(A), &role(A, None), &id(1), long_ago()).await;
        assert!(found.is_err());
    }
    assert_eq!(fake.sts().len(), 1);
    fake.edit(|state| state.external_ids.clear());
    fake.clock.advance(Lifetime::from_seconds(10));
    assert_eq!(owner(&client, A, None).await, A);
}

#[tokio::test]
async fn codes_of_sts_tell_the_kind() {
    for (code, kind, calls) in [
        ("Throttling", Failure::Throttled, 1),
        ("AccessDenied", Failure::Forbidden, 1),
        ("InvalidClientTokenId", Failure::Forbidden, 1),
        ("InternalFailure", Failure::Unavailable, 1),
        ("ValidationError", Failure::Forbidden, 2),
    ] {
        let fake = Fake::start().await;
        fake.edit(|state| state.canned_sts = std::iter::repeat_n(code.to_owned(), 5).collect());
        let client = fake.client();
        let found = client.describe(&place(A), &role(A, None), &id(1), long_ago()).await;
        assert_eq!(found.unwrap_err().kind, kind, "{code}");
        assert_eq!(fake.sts().len(), calls, "{code}");
        assert_eq!(fake.statistics.sts.calls(), calls as u64);
    }
    let fake = Fake::start().await;
    fake.edit(|state| state.canned_sts = ["ValidationError".to_owned()].into());
    assert_eq!(owner(&fake.client(), A, None).await, A);
    assert_eq!(fake.sts()[1].form["DurationSeconds"], "900");
}

//! The client against a small STS and EC2 of our own.

mod answers;
mod batches;
mod failures;
mod fake;
mod sessions;

use self::fake::{Fake, OWN_ACCOUNT};
use super::*;

fn place(account: &str) -> Place {
    Place {
        partition: Partition::Aws,
        account: account.parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
    }
}

fn own() -> Place {
    place(OWN_ACCOUNT)
}

fn id(n: usize) -> InstanceId {
    format!("i-{n:017x}").parse().unwrap()
}

/// A start so long ago that an unknown instance is unknown.
fn long_ago() -> Timestamp {
    Timestamp::from_unix_seconds(fake::NOW - 3_600)
}

async fn ask(client: &Ec2Client, n: usize) -> Result<Option<InstanceDescription>, CallFailed> {
    client.describe(&own(), &LookUpBy::Own, &id(n), long_ago()).await
}

/// Asks for all of them at once; whether each was found.
async fn ask_all(
    client: &Ec2Client,
    ids: impl IntoIterator<Item = usize>,
) -> Vec<Result<bool, CallFailed>> {
    let mut tasks = tokio::task::JoinSet::new();
    for (place, n) in ids.into_iter().enumerate() {
        let client = client.clone();
        tasks.spawn(async move {
            let found = ask(&client, n).await;
            if let Ok(Some(found)) = &found {
                assert_eq!(found.instance_id, id(n));
            }
            (place, found.map(|found| found.is_some()))
        });
    }
    let mut results = tasks.join_all().await;
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

#[tokio::test]
async fn an_instance_is_described() {
    let fake = Fake::start().await;
    let client = fake.client();
    let found = ask(&client, 7).await.unwrap().unwrap();
    assert_eq!(found.instance_id, id(7));
    assert_eq!(found.owner_id.as_str(), OWN_ACCOUNT);
    let seen = &fake.ec2()[0];
    assert_eq!(seen.host, "ec2.us-west-2.amazonaws.com");
    assert_eq!(seen.key, "AKIAOWN");
    assert_eq!(fake.statistics.ec2.calls(), 1);
    assert!(!format!("{client:?}").contains("canary"));
}

// P8, R5: a role of another account, or a partition that the region is not in.
#[tokio::test]
async fn parts_that_disagree_are_never_asked_about() {
    let fake = Fake::start().await;
    let client = fake.client();
    let china = Place { partition: Partition::China, ..own() };
    let roles = [
        "arn:aws:iam::444455556666:role/web",
        "arn:aws-cn:iam::111122223333:role/web",
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:user/web",
        "web",
    ];
    let by = |arn: &str| LookUpBy::Role { arn: arn.to_owned(), external_id: None };
    let places = roles.iter().map(|arn| (own(), by(arn))).chain([(china, LookUpBy::Own)]);
    for (place, by) in places {
        let failure = client.describe(&place, &by, &id(1), long_ago()).await.unwrap_err();
        assert_eq!(failure.kind, Failure::Forbidden, "{by:?}");
    }
    assert!(fake.sts().is_empty() && fake.ec2().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fresh_instance_is_asked_for_again_and_an_old_one_is_not() {
    let fake = Fake::start().await;
    fake.edit(|state| state.unknown.insert(id(1).to_string()));
    let client = fake.client();
    assert_eq!(ask(&client, 1).await, Ok(None));
    assert_eq!(fake.ec2().len(), 1);
    let begun = Instant::now();
    let started = Timestamp::from_unix_seconds(fake::NOW - 10);
    let found = client.describe(&own(), &LookUpBy::Own, &id(1), started).await;
    assert_eq!(found, Ok(None));
    assert_eq!(fake.ec2().len(), 6);
    assert!((13..=15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.describe(&own(), &LookUpBy::Own, &id(1), started).await }
    });
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    fake.edit(|state| state.unknown.clear());
    assert!(asked.await.unwrap().unwrap().is_some());
}

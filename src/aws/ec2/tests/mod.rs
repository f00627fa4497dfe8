//! The client against a small STS and EC2 of our own.

mod fake;

use self::fake::{Fake, OWN_ACCOUNT};
use super::*;
use crate::aws::InstanceState;

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

fn role(account: &str, external_id: Option<&str>) -> LookUp {
    LookUp::Role {
        arn: format!("arn:aws:iam::{account}:role/web"),
        external_id: external_id.map(ToOwned::to_owned),
    }
}

fn id(n: usize) -> InstanceId {
    format!("i-{n:017x}").parse().unwrap()
}

/// A start so long ago that an unknown instance is unknown.
fn long_ago() -> Timestamp {
    Timestamp::from_unix_seconds(fake::NOW - 3_600)
}

async fn ask(client: &Ec2Client, n: usize) -> Result<Option<InstanceDescription>, CallFailed> {
    client.describe(&own(), &LookUp::Own, &id(n), long_ago()).await
}

#[tokio::test]
async fn an_instance_is_described() {
    let fake = Fake::start().await;
    let client = fake.client();
    let found = ask(&client, 7).await.unwrap().unwrap();
    assert_eq!(found.instance_id, id(7));
    assert_eq!(found.owner_id.as_str(), OWN_ACCOUNT);
    assert_eq!(found.state, InstanceState::Running);
    assert_eq!(found.tags["Name"], "a & b");
    let seen = &fake.ec2()[0];
    assert_eq!(seen.host, "ec2.us-west-2.amazonaws.com");
    assert_eq!(seen.key, "AKIAOWN");
    assert_eq!(fake.statistics.ec2.calls(), 1);
    assert!(!format!("{client:?}").contains("canary"));
}

#[tokio::test]
async fn a_role_is_assumed_in_the_account() {
    let fake = Fake::start().await;
    let account = "444455556666";
    fake.edit(|state| {
        state.external_ids.insert(format!("arn:aws:iam::{account}:role/web"), "e1".to_owned());
    });
    let client = fake.client();
    let by = role(account, Some("e1"));
    let found = client.describe(&place(account), &by, &id(7), long_ago()).await.unwrap();
    assert_eq!(found.unwrap().owner_id.as_str(), account);
    let sts = &fake.sts()[0];
    assert_eq!(sts.host, "sts.us-west-2.amazonaws.com");
    assert!(sts.form["Policy"].contains("ec2:DescribeInstances"));
    assert_eq!(fake.statistics.sts.calls(), 1);
}

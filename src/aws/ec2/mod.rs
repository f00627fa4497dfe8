//! What EC2 says of an instance, now: one `DescribeInstances` for many who ask at once, signed with
//! the server's own credentials or with those of a role in the instance's account.
//!
//! Nothing is decided here, and no answer is kept: a look is always younger than its question.

mod answer;
mod batch;
mod describe;
mod xml;

pub use answer::{
    Descriptions, InstanceDescription, InstanceState, MetadataOptions, parse_descriptions,
};
pub use xml::InvalidDescriptions;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::time::Instant;

use self::batch::Queue;
use self::describe::Caller;
use super::{AwsHttp, CallFailed, CallStatistics, Endpoints, Failure, OwnCredentials, Service};
use crate::clock::Clock;
use crate::domain::{AccountId, InstanceId, Lifetime, Partition, Region, Timestamp};

/// The longest that a question waits for its answer, repetitions included.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// An instance younger than this may be unknown to EC2 for a while: eventual consistency.
const FRESH: Lifetime = Lifetime::from_minutes(5);
/// How long before an unknown fresh instance is asked for again.
const FRESH_PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// What the last of them leaves of the wait, for its call.
const LAST_CALL: Duration = Duration::from_secs(2);
/// The most queues that are kept, and for how long without a question.
const QUEUES_MAX: u64 = 10_000;
const QUEUE_IDLE: Duration = Duration::from_mins(10);

/// Where an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The partition of the account and the region.
    pub partition: Partition,
    /// The account that should own it.
    pub account: AccountId,
    /// The region.
    pub region: Region,
}

/// Who looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LookUpBy {
    /// The server itself: the instance is in its own account.
    Own,
    /// A role of the instance's account.
    Role {
        /// `arn:<partition>:iam::<account>:role/<name>`, of the place's partition and account.
        arn: String,
        /// What the role's trust policy asks for.
        external_id: Option<String>,
    },
}

/// A place and who looks there: what one call, one session and one queue are for, and never more
/// (I12).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    place: Place,
    by: LookUpBy,
}

/// Asks EC2; cheap to clone.
#[derive(Clone)]
pub struct Ec2Client {
    caller: Arc<Caller>,
    clock: Clock,
    queues: Cache<Scope, Arc<Queue>>,
}

impl Ec2Client {
    /// A client with these credentials. Makes no call yet.
    pub fn new(
        http: AwsHttp,
        endpoints: Endpoints,
        credentials: OwnCredentials,
        clock: Clock,
        statistics: Arc<CallStatistics>,
    ) -> Self {
        let caller = Arc::new(Caller::new(http, endpoints, credentials, clock.clone(), statistics));
        let queues = Cache::builder().max_capacity(QUEUES_MAX).time_to_idle(QUEUE_IDLE).build();
        Self { caller, clock, queues }
    }

    /// What EC2 says of `instance` in a call that begins after now; `None` if it does not know it.
    /// Takes 15 s at most.
    ///
    /// `started` is the instance's last start as its document tells it: a fresh one is asked for
    /// again for as long as the time allows. The caller compares owner and identity.
    pub async fn describe(
        &self,
        place: &Place,
        by: &LookUpBy,
        instance: &InstanceId,
        started: Timestamp,
    ) -> Result<Option<InstanceDescription>, CallFailed> {
        let scope = scope_of(place, by)?;
        let until = Instant::now() + WAIT_MAX;
        let mut pauses = FRESH_PAUSES.into_iter();
        loop {
            let found = self.queue(&scope).await.ask(instance, until).await?;
            let now = Instant::now();
            let again = pauses.next().map(|pause| (now + pause).min(until - LAST_CALL));
            let is_fresh = self.clock.now().since(started) < FRESH;
            match again {
                Some(again) if found.is_none() && is_fresh && now < again => {
                    tokio::time::sleep_until(again).await;
                }
                Some(_) | None => return Ok(found),
            }
        }
    }

    async fn queue(&self, scope: &Scope) -> Arc<Queue> {
        let new = async { Arc::new(Queue::new(self.caller.clone(), scope.clone())) };
        self.queues.entry_by_ref(scope).or_insert_with(new).await.into_value()
    }
}

impl fmt::Debug for Ec2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ec2Client").finish_non_exhaustive()
    }
}

/// The scope, if its parts agree: a role of another account would look into the wrong one
/// (findings P8, R5).
fn scope_of(place: &Place, by: &LookUpBy) -> Result<Scope, CallFailed> {
    let Place { partition, account, region } = place;
    let forbidden = |detail| CallFailed::new(Service::Ec2, Failure::Forbidden, detail);
    if Partition::of_region(region) != *partition {
        return Err(forbidden(format!("{region} is not a region of partition {partition}")));
    }
    if let LookUpBy::Role { arn, .. } = by {
        let prefix = format!("arn:{partition}:iam::{account}:role/");
        if arn.strip_prefix(&prefix).is_none_or(str::is_empty) {
            return Err(forbidden(format!("{arn} is not a role of account {account}")));
        }
    }
    Ok(Scope { place: place.clone(), by: by.clone() })
}

#[cfg(test)]
mod tests;

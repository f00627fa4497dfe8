//! One `DescribeInstances` call: built, signed, sent, counted; again if EC2 throttles it or if its
//! credentials ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use http::{Method, Request, header};
use moka::future::Cache;
use tokio::time::Instant;

use super::answer::{self, Descriptions, NotAnswered, Reply};
use super::{LookUpBy, Place, Scope};
use crate::aws::credentials::{OwnCredentials, RoleRequest, RoleSessions};
use crate::aws::{
    AnswerLimits, AwsHttp, Bucket, CallFailed, CallStatistics, Endpoints, Failure, Rate, Service,
    sigv4,
};
use crate::clock::Clock;
use crate::domain::InstanceId;

const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// One call, and the longest answer: 200 instances have about 1 MiB.
const LIMITS: AnswerLimits = AnswerLimits { time: Duration::from_secs(10), bytes: 8 * 1024 * 1024 };
/// What a session of a role may do, whatever else the role may.
const SESSION_POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:DescribeInstances","Resource":"*"}]}"#;
/// How often a throttled call is made again.
const THROTTLED_AGAIN: u32 = 2;
/// The most pages of one question. 200 values fit on one; a few empty ones may come before it.
const PAGES_MAX: usize = 10;
/// AWS's bucket for calls by id, which it counts for each account and region.
const RATE: Rate = Rate { capacity: 50.0, refill: 10.0 };
/// The most buckets that are kept, and for how long: longer than one takes to fill.
const BUCKETS_MAX: u64 = 10_000;
const BUCKET_IDLE: Duration = Duration::from_mins(10);

/// Makes calls.
pub(super) struct Caller {
    http: AwsHttp,
    endpoints: Endpoints,
    own: OwnCredentials,
    sessions: RoleSessions,
    clock: Clock,
    statistics: Arc<CallStatistics>,
    buckets: Cache<Place, Arc<Bucket>>,
}

impl Caller {
    pub(super) fn new(
        http: AwsHttp,
        endpoints: Endpoints,
        own: OwnCredentials,
        clock: Clock,
        statistics: Arc<CallStatistics>,
    ) -> Self {
        let sessions = RoleSessions::new(
            http.clone(),
            endpoints.clone(),
            own.clone(),
            clock.clone(),
            statistics.clone(),
        );
        let buckets = Cache::builder().max_capacity(BUCKETS_MAX).time_to_idle(BUCKET_IDLE).build();
        Self { http, endpoints, own, sessions, clock, statistics, buckets }
    }

    /// Asks for instances by id. One that EC2 does not know fails the whole call. No call begins
    /// after `until`.
    pub(super) async fn by_id(
        &self,
        scope: &Scope,
        ids: &BTreeSet<InstanceId>,
        until: Instant,
    ) -> Result<Reply, CallFailed> {
        let mut form = form_of("DescribeInstances");
        for (n, id) in (1..).zip(ids) {
            push(&mut form, &format!("InstanceId.{n}"), id.as_str());
        }
        self.ask(scope, &form, ids, until).await
    }

    /// Asks by filter: an id that EC2 does not know is absent. Slow in large accounts, so only
    /// where ids failed (finding D7).
    pub(super) async fn by_filter(
        &self,
        scope: &Scope,
        ids: &BTreeSet<InstanceId>,
        until: Instant,
    ) -> Result<Descriptions, CallFailed> {
        let mut form = form_of("DescribeInstances");
        push(&mut form, "MaxResults", "1000");
        push(&mut form, "Filter.1.Name", "instance-id");
        for (n, id) in (1..).zip(ids) {
            push(&mut form, &format!("Filter.1.Value.{n}"), id.as_str());
        }
        let mut all = Descriptions::default();
        let mut page = form.clone();
        for _ in 0..PAGES_MAX {
            let Reply::Found(found) = self.ask(scope, &page, ids, until).await? else {
                return Err(unusable("a filter was answered like an id"));
            };
            for (id, description) in found.found {
                if all.found.insert(id, description).is_some() {
                    return Err(unusable("an instance on two pages"));
                }
            }
            let Some(next) = found.next_token else { return Ok(all) };
            page.clone_from(&form);
            push(&mut page, "NextToken", &next);
        }
        Err(unusable("more pages than 200 instances have"))
    }

    /// Asks, and asks again for what a repetition mends.
    async fn ask(
        &self,
        scope: &Scope,
        form: &str,
        asked: &BTreeSet<InstanceId>,
        until: Instant,
    ) -> Result<Reply, CallFailed> {
        let bucket = self.bucket(&scope.place).await;
        let (mut throttled, mut has_renewed) = (0, false);
        loop {
            let credentials = self.credentials(scope).await?;
            if !bucket.take(until).await {
                return Err(CallFailed::new(
                    Service::Ec2,
                    Failure::Throttled,
                    format!(
                        "too many calls in account {} and {}",
                        scope.place.account, scope.place.region
                    ),
                ));
            }
            let result = self.exchange(scope, form, asked, credentials.clone()).await;
            let NotAnswered { failure, wants_new_credentials } = match result {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if wants_new_credentials && !has_renewed && self.renew(scope, &credentials).await {
                has_renewed = true;
            } else if failure.kind == Failure::Throttled && throttled < THROTTLED_AGAIN {
                // Doubling, and for everybody of this account: the next token is that far off.
                bucket.empty_for(Duration::from_secs(1 << throttled));
                throttled += 1;
            } else {
                return Err(failure);
            }
        }
    }

    async fn bucket(&self, place: &Place) -> Arc<Bucket> {
        let new = async { Arc::new(Bucket::new(RATE)) };
        self.buckets.entry_by_ref(place).or_insert_with(new).await.into_value()
    }

    async fn credentials(&self, scope: &Scope) -> Result<Credentials, CallFailed> {
        match role_of(scope) {
            None => self.own.get(Service::Ec2).await,
            Some(role) => self.sessions.session(&role).await,
        }
    }

    /// Lets go of credentials; `false` if there can be no others.
    async fn renew(&self, scope: &Scope, stale: &Credentials) -> bool {
        match role_of(scope) {
            None => self.own.renew(stale).await,
            Some(role) => {
                self.sessions.forget(&role, stale).await;
                true
            }
        }
    }

    async fn exchange(
        &self,
        scope: &Scope,
        form: &str,
        asked: &BTreeSet<InstanceId>,
        credentials: Credentials,
    ) -> Result<Reply, NotAnswered> {
        let request = self.request(&scope.place, form, credentials)?;
        let answer = self.http.send(request, LIMITS).await;
        let result = match answer {
            Ok(answer) => {
                self.statistics.compare(self.clock.now(), answer.date);
                answer::read(&answer, asked)
            }
            Err(error) => Err(CallFailed::no_answer(Service::Ec2, &error).into()),
        };
        let counted = result.as_ref().map_err(|error| error.failure.clone());
        self.statistics.ec2.count(&counted, self.clock.now());
        result
    }

    /// The signed request. It names AWS's host even where the configuration says to connect
    /// elsewhere, because that is what EC2 signs for.
    fn request(
        &self,
        place: &Place,
        form: &str,
        credentials: Credentials,
    ) -> Result<Request<Vec<u8>>, CallFailed> {
        let region = &place.region;
        let host = self.endpoints.host(Service::Ec2, region);
        let host = host.ok_or_else(|| unusable("this region has no such endpoint"))?;
        let uri = self.endpoints.uri(Service::Ec2, region, &host);
        let uri = uri.ok_or_else(|| unusable("this endpoint is no address"))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::HOST, &host)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(form.as_bytes().to_vec())
            .map_err(|_| unusable("this endpoint is no host"))?;
        let headers = [("host", host.as_str()), ("content-type", CONTENT_TYPE)];
        let (service, now) = (Service::Ec2, self.clock.now());
        let signed = sigv4::sign(credentials, region, service, now, &headers, form.as_bytes());
        let (instructions, _) = signed.ok_or_else(|| unusable("the request cannot be signed"))?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

fn unusable(detail: &str) -> CallFailed {
    CallFailed::new(Service::Ec2, Failure::Unavailable, detail)
}

fn role_of(scope: &Scope) -> Option<RoleRequest> {
    match &scope.by {
        LookUpBy::Own => None,
        LookUpBy::Role { arn, external_id } => Some(RoleRequest {
            partition: scope.place.partition,
            account: scope.place.account.clone(),
            region: scope.place.region.clone(),
            arn: arn.clone(),
            external_id: external_id.clone(),
            may: SESSION_POLICY.to_owned(),
        }),
    }
}

/// The beginning of a Query API form.
fn form_of(action: &str) -> String {
    format!("Action={action}&Version=2016-11-15")
}

fn push(form: &mut String, name: &str, value: &str) {
    form.push('&');
    form.push_str(name);
    form.push('=');
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                form.push(char::from(byte));
            }
            _ => {
                form.push('%');
                form.push_str(&hex::encode_upper([byte]));
            }
        }
    }
}

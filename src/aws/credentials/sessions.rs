//! Sessions of roles, one for each whole request: partition, account, region, role, external id and
//! what the session may do (I12). Vault's client cache forgot the account and answered for a stranger's (T3, T4); one
//! without the external id would let a policy ride on another's session (T77, finding P8).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_sdk_sts::config::BehaviorVersion;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::{AssumeRoleError, AssumeRoleOutput};
use moka::future::Cache;
use moka::ops::compute::Op;

use super::{ClockSource, FAILURE_HELD, OwnCredentials, WAIT_MAX, last_use, route};
use crate::aws::quote::{quoted, with_causes};
use crate::aws::{AwsHttp, CallFailed, CallStatistics, Endpoints, Failure, Service};
use crate::clock::Clock;
use crate::domain::{AccountId, Lifetime, Partition, Region, Timestamp};

/// The most sessions that are held.
const SESSIONS_MAX: u64 = 10_000;
/// The longest life of a session without role chaining, in seconds, and the shortest that a role
/// may be limited to.
const DURATIONS: [i32; 2] = [3600, 900];
/// How long a refusal is repeated without asking again: an operator who mends it waits no longer.
const REFUSAL_HELD: Lifetime = Lifetime::from_seconds(10);

/// Everything that a session depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::aws) struct RoleRequest {
    pub(in crate::aws) partition: Partition,
    pub(in crate::aws) account: AccountId,
    pub(in crate::aws) region: Region,
    pub(in crate::aws) arn: String,
    pub(in crate::aws) external_id: Option<String>,
    /// The session policy, JSON: what the session may do, whatever else the role may.
    pub(in crate::aws) may: String,
}

/// Assumes roles and holds their sessions.
pub(in crate::aws) struct RoleSessions {
    http: AwsHttp,
    endpoints: Endpoints,
    own: OwnCredentials,
    clock: Clock,
    statistics: Arc<CallStatistics>,
    session_name: String,
    held: Cache<RoleRequest, Held>,
}

/// A session, or why there is none, and until when that is so.
#[derive(Clone)]
struct Held {
    session: Result<Credentials, CallFailed>,
    until: Timestamp,
}

impl RoleSessions {
    pub(in crate::aws) fn new(
        http: AwsHttp,
        endpoints: Endpoints,
        own: OwnCredentials,
        clock: Clock,
        statistics: Arc<CallStatistics>,
    ) -> Self {
        let held = Cache::builder()
            .max_capacity(SESSIONS_MAX)
            .time_to_idle(Duration::from_hours(1))
            .build();
        let session_name = session_name();
        Self { http, endpoints, own, clock, statistics, session_name, held }
    }

    /// The session of this request. Those who ask at once share one `AssumeRole`, or its failure.
    pub(in crate::aws) async fn session(
        &self,
        request: &RoleRequest,
    ) -> Result<Credentials, CallFailed> {
        if let Some(held) = self.held.get(request).await
            && self.clock.now() < held.until
        {
            return held.session;
        }
        let entry = self.held.entry_by_ref(request).and_compute_with(async |entry| {
            let now = self.clock.now();
            match entry {
                Some(entry) if now < entry.value().until => Op::Nop,
                Some(_) | None => Op::Put(self.look(request, now).await),
            }
        });
        match entry.await.into_entry() {
            Some(entry) => entry.into_value().session,
            None => Err(failed(Failure::Unavailable, "AssumeRole was given up")),
        }
    }

    /// Lets go of a session that is not taken any more.
    pub(in crate::aws) async fn forget(&self, request: &RoleRequest, stale: &Credentials) {
        let gone = self.held.entry_by_ref(request).and_compute_with(async |entry| match entry {
            Some(entry) if entry.value().session.as_ref() == Ok(stale) => Op::Remove,
            Some(_) | None => Op::Nop,
        });
        gone.await;
    }

    async fn look(&self, request: &RoleRequest, now: Timestamp) -> Held {
        match self.assume(request, now).await {
            Ok((credentials, end)) => Held { session: Ok(credentials), until: last_use(now, end) },
            Err(failure) => {
                let held = match failure.kind {
                    Failure::Forbidden => REFUSAL_HELD,
                    Failure::Throttled | Failure::Unavailable => FAILURE_HELD,
                };
                Held { session: Err(failure), until: now.plus(held) }
            }
        }
    }

    async fn assume(
        &self,
        request: &RoleRequest,
        now: Timestamp,
    ) -> Result<(Credentials, Timestamp), CallFailed> {
        let own = self.own.get(Service::Sts).await?;
        let client = self.client(&request.region, own)?;
        let mut refused = failed(Failure::Unavailable, "AssumeRole was not asked");
        for seconds in DURATIONS {
            let asked = client
                .assume_role()
                .role_arn(&request.arn)
                .role_session_name(&self.session_name)
                .set_external_id(request.external_id.clone())
                .policy(&request.may)
                .duration_seconds(seconds);
            let answer = match tokio::time::timeout(WAIT_MAX, asked.send()).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err((classified(&error, request), is_too_long(&error))),
                Err(_) => Err((failed(Failure::Unavailable, "no answer within 5 s"), false)),
            };
            let read = match answer {
                Ok(answer) => self.read(answer, request, now),
                Err((failure, true)) => {
                    self.statistics.sts.count::<()>(&Err(failure.clone()), self.clock.now());
                    refused = failure;
                    continue;
                }
                Err((failure, false)) => Err(failure),
            };
            self.statistics.sts.count(&read, self.clock.now());
            return read;
        }
        Err(refused)
    }

    /// A client that takes nothing from the environment.
    fn client(&self, region: &Region, own: Credentials) -> Result<aws_sdk_sts::Client, CallFailed> {
        let host = self
            .endpoints
            .host(Service::Sts, region)
            .ok_or_else(|| failed(Failure::Unavailable, "this region has no such endpoint"))?;
        let timeouts = TimeoutConfig::builder().operation_timeout(WAIT_MAX).build();
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(aws_sdk_sts::config::Region::new(region.as_str().to_owned()))
            .endpoint_url(format!("https://{host}"))
            .http_client(route::client(&self.http, &self.endpoints))
            .credentials_provider(own)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .time_source(ClockSource(self.clock.clone()))
            .build();
        Ok(aws_sdk_sts::Client::from_conf(config))
    }

    /// The answer's credentials, if they are of the role that was asked for.
    fn read(
        &self,
        answer: AssumeRoleOutput,
        request: &RoleRequest,
        now: Timestamp,
    ) -> Result<(Credentials, Timestamp), CallFailed> {
        let unreadable = || failed(Failure::Unavailable, "AssumeRole's answer lacks credentials");
        let assumed = answer.assumed_role_user.ok_or_else(unreadable)?.arn;
        let RoleRequest { partition, account, arn, .. } = request;
        let role = arn.rsplit('/').next().unwrap_or_default();
        let session = &self.session_name;
        if assumed != format!("arn:{partition}:sts::{account}:assumed-role/{role}/{session}") {
            let detail = format!("asked for {arn}, STS gave `{}`", quoted(&assumed));
            return Err(failed(Failure::Unavailable, &detail));
        }
        let given = answer.credentials.ok_or_else(unreadable)?;
        let end = Timestamp::from_unix_seconds(given.expiration.secs());
        if given.access_key_id.is_empty() || given.secret_access_key.is_empty() || end <= now {
            return Err(unreadable());
        }
        let credentials = Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            Some(end.to_date_time().into()),
            "AssumeRole",
        );
        Ok((credentials, end))
    }
}

impl fmt::Debug for RoleSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleSessions").field("name", &self.session_name).finish_non_exhaustive()
    }
}

/// `muster-` and 12 hexadecimal digits: finds this process in `CloudTrail`.
fn session_name() -> String {
    let mut random = [0; 6];
    // The name is no secret and need not be unique, so a machine without randomness gets zeros.
    let _zeros = aws_lc_rs::rand::fill(&mut random);
    format!("muster-{}", hex::encode(random))
}

fn failed(kind: Failure, detail: &str) -> CallFailed {
    CallFailed::new(Service::Sts, kind, detail)
}

/// The role allows shorter sessions than were asked for.
fn is_too_long(error: &SdkError<AssumeRoleError>) -> bool {
    error.code() == Some("ValidationError")
        && error.message().is_some_and(|message| message.contains("DurationSeconds"))
}

fn classified(error: &SdkError<AssumeRoleError>, request: &RoleRequest) -> CallFailed {
    if !matches!(error, SdkError::ServiceError(_)) {
        let causes = quoted(&with_causes(error));
        return failed(Failure::Unavailable, &format!("AssumeRole: {causes}"));
    }
    let said = quoted(error.message().unwrap_or_default());
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let code = error.code().unwrap_or("no code");
    let arn = &request.arn;
    match code {
        "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests" => {
            failed(Failure::Throttled, &format!("AssumeRole of {arn}: {code}"))
        }
        _ if status == 429 => failed(Failure::Throttled, &format!("AssumeRole of {arn}: 429")),
        "AccessDenied" | "AccessDeniedException" => {
            let external_id = match request.external_id {
                Some(_) => "the external id of the policy",
                None => "no external id",
            };
            failed(
                Failure::Forbidden,
                &format!(
                    "may not assume {arn}: its trust policy has to name the server's identity and \
                     {external_id}, and the server's own policy has to allow sts:AssumeRole on it \
                     ({said})"
                ),
            )
        }
        "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RegionDisabledException"
        | "ValidationError"
        | "MalformedPolicyDocument"
        | "OptInRequired" => {
            failed(Failure::Forbidden, &format!("AssumeRole of {arn}: {} ({said})", quoted(code)))
        }
        _ => failed(
            Failure::Unavailable,
            &format!("AssumeRole of {arn}: {} {} ({said})", status, quoted(code)),
        ),
    }
}

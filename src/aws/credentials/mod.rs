//! The credentials that calls to AWS are signed with: the server's own, and those of the roles
//! that it assumes. No credential is ever printed.

mod file;
mod route;
mod sessions;

pub use file::UnusableCredentials;
pub(super) use sessions::{RoleRequest, RoleSessions};

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::Mutex;

use super::quote::{quoted, with_causes};
use super::{AwsHttp, CallFailed, Endpoints, Failure, Service};
use crate::clock::Clock;
use crate::domain::{Lifetime, Timestamp};

/// How long any one wait for credentials may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long credentials without an end are held before they are looked for again.
const HELD_WITHOUT_END: Lifetime = Lifetime::from_minutes(10);
/// Credentials are not used in the last minutes of their life: a call may take a while.
const LAST_MINUTES: Lifetime = Lifetime::from_minutes(5);
/// How long a failure is repeated without asking again: a crowd asks once.
const FAILURE_HELD: Lifetime = Lifetime::from_seconds(2);

/// The server's own credentials; cheap to clone.
#[derive(Clone)]
pub struct OwnCredentials(Source);

#[derive(Clone)]
enum Source {
    Fixed(Credentials),
    Chain(Arc<Chain>),
}

/// The SDK's default chain: environment, profile, web identity, container, instance. It says whose
/// credentials the server has; where AWS is stays with `route`.
struct Chain {
    client: SharedHttpClient,
    wants_fips: bool,
    clock: Clock,
    held: Mutex<Held>,
}

#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    Credentials(Credentials, Timestamp),
    Failure(Box<CallFailed>, Timestamp),
}

impl OwnCredentials {
    /// The credentials of a file, for a simulator: one JSON object of `access_key_id`,
    /// `secret_access_key` and, if there is one, `session_token`; at most 64 KiB.
    pub fn of_file(path: &Path) -> Result<Self, UnusableCredentials> {
        Ok(Self(Source::Fixed(file::read(path)?)))
    }

    /// These credentials, which never end.
    pub fn fixed(
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
    ) -> Self {
        let token = session_token.map(ToOwned::to_owned);
        let credentials =
            Credentials::new(access_key_id, secret_access_key, token, None, "configuration");
        Self(Source::Fixed(credentials))
    }

    /// What the machine gives the server, looked for when it is first needed: environment
    /// variables, a profile, a web identity, the container's role, the instance's role.
    pub fn of_machine(http: &AwsHttp, endpoints: &Endpoints, clock: Clock) -> Self {
        let client = route::client(http, endpoints);
        let wants_fips = endpoints.wants_fips();
        Self(Source::Chain(Arc::new(Chain { client, wants_fips, clock, held: Mutex::default() })))
    }

    /// The credentials for a call to `service`, within 5 s.
    pub(super) async fn get(&self, service: Service) -> Result<Credentials, CallFailed> {
        match &self.0 {
            Source::Fixed(credentials) => Ok(credentials.clone()),
            Source::Chain(chain) => chain.get(service).await,
        }
    }

    /// Lets go of credentials that AWS calls expired. `false` if there can be no others.
    pub(super) async fn renew(&self, stale: &Credentials) -> bool {
        let Source::Chain(chain) = &self.0 else { return false };
        let mut held = chain.held.lock().await;
        if matches!(&*held, Held::Credentials(current, _) if current == stale) {
            *held = Held::Nothing;
        }
        true
    }
}

impl fmt::Debug for OwnCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Fixed(_) => "OwnCredentials(fixed)",
            Source::Chain(_) => "OwnCredentials(of the machine)",
        })
    }
}

impl Chain {
    async fn get(&self, service: Service) -> Result<Credentials, CallFailed> {
        // One look at a time: a crowd waits for it and shares what it brings.
        let mut held = self.held.lock().await;
        let now = self.clock.now();
        match &*held {
            Held::Credentials(credentials, until) if now < *until => {
                return Ok(credentials.clone());
            }
            Held::Failure(failure, until) if now < *until => {
                return Err(CallFailed { service, ..CallFailed::clone(failure) });
            }
            Held::Nothing | Held::Credentials(..) | Held::Failure(..) => {}
        }
        match tokio::time::timeout(WAIT_MAX, self.look()).await {
            Ok(Ok(credentials)) => {
                let until = match credentials.expiry() {
                    Some(end) => last_use(now, timestamp(end)),
                    None => now.plus(HELD_WITHOUT_END),
                };
                *held = Held::Credentials(credentials.clone(), until);
                Ok(credentials)
            }
            Ok(Err(error)) => {
                let failure = not_found(service, &error);
                *held = Held::Failure(Box::new(failure.clone()), now.plus(FAILURE_HELD));
                Err(failure)
            }
            Err(_) => {
                let detail = "credentials of this machine's own did not come within 5 s";
                let failure = CallFailed::new(service, Failure::Unavailable, detail);
                *held = Held::Failure(Box::new(failure.clone()), now.plus(FAILURE_HELD));
                Err(failure)
            }
        }
    }

    /// Goes through the chain. It is made anew each time, so that a changed file is seen.
    async fn look(&self) -> Result<Credentials, CredentialsError> {
        let timeouts = TimeoutConfig::builder().operation_timeout(WAIT_MAX).build();
        let config = ProviderConfig::empty()
            .with_http_client(self.client.clone())
            .with_time_source(ClockSource(self.clock.clone()))
            .with_sleep_impl(aws_smithy_async::rt::sleep::TokioSleep::new())
            .with_retry_config(RetryConfig::disabled())
            .with_timeout_config(timeouts)
            .with_use_fips(Some(self.wants_fips));
        // Not the default chain of regions: its last link asks the metadata service, for seconds
        // where there is none. A region is only needed where STS is.
        let profile = ProfileFileRegionProvider::builder().configure(&config).build();
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(profile);
        let chain = DefaultCredentialsChain::builder().configure(config).region(region);
        chain.build().await.provide_credentials().await
    }
}

fn not_found(service: Service, error: &CredentialsError) -> CallFailed {
    let is_missing = matches!(
        error,
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)
    );
    let kind = if is_missing { Failure::Forbidden } else { Failure::Unavailable };
    let causes = quoted(&with_causes(error));
    let detail = format!("there are no credentials of this machine's own: {causes}");
    CallFailed::new(service, kind, detail)
}

/// Until when credentials with this end are used: 5 minutes before, or a third of their life if
/// that is less.
fn last_use(now: Timestamp, end: Timestamp) -> Timestamp {
    let kept_back = end.since(now).fraction(1, 3).min(LAST_MINUTES);
    Timestamp::from_unix_seconds(end.unix_seconds() - kept_back.seconds())
}

/// Our clock, as the SDK asks for it.
#[derive(Debug, Clone)]
pub(super) struct ClockSource(pub(super) Clock);

impl TimeSource for ClockSource {
    fn now(&self) -> SystemTime {
        self.0.now().to_date_time().into()
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from_unix_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}

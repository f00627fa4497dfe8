//! One call: whose credentials sign it, where it goes, how long it may take and how long its answer
//! may be.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::BehaviorVersion;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use serde_json::json;

use super::failure::{Refused, unusable};
use super::{SsmAccess, SsmRole};
use crate::aws::credentials::{ClockSource, RoleRequest, RoleSessions};
use crate::aws::{
    AwsHttp, CallFailed, CallStatistics, EndpointKind, Endpoints, Failure, OwnCredentials, Service,
    host,
};
use crate::clock::Clock;
use crate::domain::Partition;

/// How long one call may take.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest answer that is read: ten parameters have at most 80 KiB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Makes calls.
pub(super) struct Caller {
    http: AwsHttp,
    endpoints: Endpoints,
    own: OwnCredentials,
    sessions: RoleSessions,
    clock: Clock,
    statistics: Arc<CallStatistics>,
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
        Self { http, endpoints, own, sessions, clock, statistics }
    }

    /// Makes a call, and once more if AWS says that the credentials have ended.
    pub(super) async fn call<T, E, F>(
        &self,
        access: &SsmAccess,
        operation: impl Fn(Client) -> F,
    ) -> Result<T, Refused>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let role = access.role.as_ref().map(|role| request_of(access, role)).transpose()?;
        let mut has_renewed = false;
        loop {
            let credentials = self.credentials(role.as_ref()).await?;
            let client = self.client(access, credentials.clone())?;
            let answer = match tokio::time::timeout(WAIT_MAX, operation(client)).await {
                Ok(answer) => answer.map_err(|error| Refused::by_sdk(&error)),
                Err(_) => Err(unusable("no answer within 5 s").into()),
            };
            self.statistics.ssm.count(&counted(&answer), self.clock.now());
            match answer {
                Err(refused) if refused.wants_new_credentials() && !has_renewed => {
                    if !self.renew(role.as_ref(), &credentials).await {
                        return Err(refused);
                    }
                    has_renewed = true;
                }
                answer => return answer,
            }
        }
    }

    async fn credentials(&self, role: Option<&RoleRequest>) -> Result<Credentials, CallFailed> {
        match role {
            None => self.own.get(Service::Ssm).await,
            Some(role) => self.sessions.session(role).await,
        }
    }

    /// Lets go of credentials; `false` if there can be no others.
    async fn renew(&self, role: Option<&RoleRequest>, stale: &Credentials) -> bool {
        match role {
            None => self.own.renew(stale).await,
            Some(role) => {
                self.sessions.forget(role, stale).await;
                true
            }
        }
    }

    /// A client that takes nothing from the environment.
    fn client(&self, access: &SsmAccess, credentials: Credentials) -> Result<Client, CallFailed> {
        let region = &access.region;
        let host = self.endpoints.host(Service::Ssm, region);
        let host = host.ok_or_else(|| unusable("this region has no such endpoint"))?;
        let uri = self.endpoints.uri(Service::Ssm, region, &host);
        let uri = uri.ok_or_else(|| unusable("this endpoint is no address"))?.to_string();
        let named = format!("https://{host}");
        let sdk = self.http.for_sdk();
        let http = http_client_fn(move |settings, components| {
            let aws = sdk.http_connector(settings, components);
            SharedHttpConnector::new(Route { aws, host: host.clone(), uri: uri.clone() })
        });
        let timeouts = TimeoutConfig::builder().operation_timeout(WAIT_MAX).build();
        let config = aws_sdk_ssm::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(aws_sdk_ssm::config::Region::new(region.as_str().to_owned()))
            .endpoint_url(named)
            .http_client(http)
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .time_source(ClockSource(self.clock.clone()))
            .build();
        Ok(Client::from_conf(config))
    }
}

/// An answer as the statistics see it. A parameter that is not there is an answer.
fn counted<T>(answer: &Result<T, Refused>) -> Result<(), CallFailed> {
    match answer {
        Ok(_) => Ok(()),
        Err(refused) if refused.is_not_found() => Ok(()),
        Err(refused) => Err(refused.failure().clone()),
    }
}

/// To one host alone, wherever the configuration says that it is, with answers that are bounded.
#[derive(Debug)]
struct Route {
    aws: SharedHttpConnector,
    host: String,
    uri: String,
}

impl HttpConnector for Route {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let to: Option<http::Uri> = request.uri().parse().ok();
        if to.as_ref().and_then(|to| to.host()) != Some(&self.host) {
            return refused("SSM is asked where the configuration says and nowhere else");
        }
        // The signature names AWS's host, so the header has to as well.
        request.headers_mut().insert("host", self.host.clone());
        if request.uri_mut().set_endpoint(&self.uri).is_err() {
            return refused("this host has no address");
        }
        let answer = self.aws.call(request);
        HttpConnectorFuture::new(async move {
            let bounded = |body| SdkBody::from_body_1_x(Limited::new(body, ANSWER_BYTES_MAX));
            Ok::<HttpResponse, ConnectorError>(answer.await?.map(bounded))
        })
    }
}

fn refused(why: &'static str) -> HttpConnectorFuture {
    HttpConnectorFuture::ready(Err(ConnectorError::user(why.into())))
}

/// The session of a role, if its parts agree: a role of another account would write there.
fn request_of(access: &SsmAccess, role: &SsmRole) -> Result<RoleRequest, CallFailed> {
    let SsmRole { partition, account, arn, external_id, .. } = role;
    let region = &access.region;
    let forbidden = |detail| CallFailed::new(Service::Ssm, Failure::Forbidden, detail);
    if Partition::of_region(region) != *partition {
        return Err(forbidden(format!("{region} is not a region of partition {partition}")));
    }
    let prefix = format!("arn:{partition}:iam::{account}:role/");
    if arn.strip_prefix(&prefix).is_none_or(str::is_empty) {
        return Err(forbidden(format!("{arn} is not a role of account {account}")));
    }
    Ok(RoleRequest {
        partition: *partition,
        account: account.clone(),
        region: region.clone(),
        arn: arn.clone(),
        external_id: external_id.clone(),
        may: session_policy(access, role)?,
    })
}

/// What a session may do, whatever else the role may: read and write these parameters, and use KMS
/// through SSM.
fn session_policy(access: &SsmAccess, role: &SsmRole) -> Result<String, CallFailed> {
    let SsmAccess { region, .. } = access;
    let SsmRole { partition, account, names, .. } = role;
    let parameters = names.iter().map(|name| {
        let name = name.trim_start_matches('/');
        format!("arn:{partition}:ssm:{region}:{account}:parameter/{name}")
    });
    let parameters: Vec<String> = parameters.collect();
    if parameters.is_empty() {
        return Err(unusable("a role is assumed for parameters that are named"));
    }
    let ssm = host(Service::Ssm, region, EndpointKind::Regional);
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "ssm:GetParameters", "ssm:PutParameter", "ssm:AddTagsToResource",
                "ssm:DeleteParameter",
            ],
            "Resource": parameters,
        },
        {
            "Effect": "Allow",
            "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": "*",
            "Condition": {"StringEquals": {"kms:ViaService": ssm}},
        },
    ]});
    Ok(policy.to_string())
}

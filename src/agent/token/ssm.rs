//! A token, and what is published beside it, as parameters of SSM.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{ParameterPath, denied, unavailable};
use crate::agent::join::random_part;
use crate::aws::{
    AwsHttp, CallFailed, Endpoints, Failure, HttpSettings, Imds, OwnCredentials, Parameter,
    Service, Ssm, SsmAccess,
};
use crate::client::JoinError;
use crate::clock::Clock;
use crate::domain::Region;

/// Where SSM is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SsmSettings {
    /// The region of the parameters; the instance's own without one.
    pub region: Option<Region>,
    /// `https://HOST[:PORT]` instead of AWS's public endpoint.
    pub endpoint: Option<String>,
    /// Takes an endpoint of plain `http`, for an emulator.
    pub insecure_endpoint: bool,
}

impl SsmSettings {
    /// The way to SSM that they describe.
    pub(crate) fn endpoints(&self) -> Result<Endpoints, String> {
        let mut endpoints = Endpoints::new(false);
        let Some(url) = &self.endpoint else { return Ok(endpoints) };
        if url.starts_with("http:") && !self.insecure_endpoint {
            return Err("token.endpoint: over plain http anybody between reads the token; \
                        token.insecure_endpoint = true allows it, for an emulator"
                .to_owned());
        }
        let replaced = endpoints.replace(Service::Ssm, None, url, self.insecure_endpoint);
        replaced.map_err(
            |_| "token.endpoint: expected https://HOST or https://HOST:PORT and nothing behind it",
        )?;
        Ok(endpoints)
    }
}

/// How long a read that failed rests at most before it is made again, while the server waits. After
/// them the attempt has failed, and the next one comes by the agent's own pauses.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];

/// Parameters, wherever they are. The real ones are those of SSM; tests have others.
pub(in crate::agent) trait Parameters {
    /// The values of up to ten parameters, secret ones too. What is not there is absent.
    async fn values(&self, names: &[&str]) -> Result<Vec<(String, Zeroizing<String>)>, JoinError>;
    /// The names of all parameters below a path.
    async fn names_below(&self, path: &str) -> Result<Vec<String>, JoinError>;
}

/// SSM, asked with the machine's own credentials. Nothing is made ready before it is needed.
pub(in crate::agent) struct SsmParameters {
    settings: SsmSettings,
    imds: Imds,
    clock: Clock,
    client: OnceCell<Ssm>,
    region: OnceCell<Region>,
}

impl SsmParameters {
    pub(in crate::agent) fn new(settings: SsmSettings, imds: Imds, clock: Clock) -> Self {
        Self { settings, imds, clock, client: OnceCell::new(), region: OnceCell::new() }
    }

    async fn access(&self) -> Result<(&Ssm, SsmAccess), JoinError> {
        let client = self.client.get_or_try_init(async || self.make_client()).await?;
        let region = self.region.get_or_try_init(async || self.find_region().await).await?;
        Ok((client, SsmAccess { region: region.clone(), role: None }))
    }

    fn make_client(&self) -> Result<Ssm, JoinError> {
        let endpoints = self.settings.endpoints().map_err(denied)?;
        // An emulator of this machine needs no roots, and a machine may have none.
        let http = if endpoints.is_insecure() {
            AwsHttp::plain()
        } else {
            AwsHttp::new(&HttpSettings::default())
        };
        let http = http.map_err(|error| unavailable(error.to_string()))?;
        let own = OwnCredentials::of_machine(&http, &endpoints, self.clock.clone());
        Ok(Ssm::new(http, endpoints, own, self.clock.clone(), Arc::default()))
    }

    async fn find_region(&self) -> Result<Region, JoinError> {
        if let Some(region) = &self.settings.region {
            return Ok(region.clone());
        }
        let region = async { self.imds.session().await?.region().await };
        region.await.map_err(|error| {
            unavailable(format!("the region of SSM is not known: {error}; `token.region` gives it"))
        })
    }
}

impl Parameters for SsmParameters {
    async fn values(&self, names: &[&str]) -> Result<Vec<(String, Zeroizing<String>)>, JoinError> {
        let (ssm, access) = self.access().await?;
        let mut pauses = PAUSES.into_iter();
        let found = loop {
            match ssm.get(&access, names, true).await {
                Ok(found) => break found,
                Err(error) => match pauses.next() {
                    Some(most) if error.kind != Failure::Forbidden => {
                        tokio::time::sleep(most.mul_f64(random_part())).await;
                    }
                    Some(_) | None => return Err(failed(&error)),
                },
            }
        };
        Ok(found.into_iter().map(|Parameter { name, value, .. }| (name, value)).collect())
    }

    async fn names_below(&self, path: &str) -> Result<Vec<String>, JoinError> {
        let (ssm, access) = self.access().await?;
        ssm.names_below(&access.region, path, true).await.map_err(|error| failed(&error))
    }
}

/// Throttling and silence are outages; only what AWS answers is a denial.
fn failed(error: &CallFailed) -> JoinError {
    match error.kind {
        Failure::Throttled | Failure::Unavailable => unavailable(error.to_string()),
        Failure::Forbidden => denied(error.to_string()),
    }
}

/// The text of one parameter.
pub(super) async fn read(
    parameters: &impl Parameters,
    name: &ParameterPath,
) -> Result<Zeroizing<String>, JoinError> {
    let found = parameters.values(&[name.as_str()]).await?;
    let text = found.into_iter().find(|(found, _)| found == name.as_str()).map(|(_, text)| text);
    text.ok_or_else(|| {
        denied(format!("ssm:{name}: there is no such parameter; has the server published it?"))
    })
}

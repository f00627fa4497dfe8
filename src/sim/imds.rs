//! The listener, and the simulated metadata service on it: IMDSv2 below `/<instance id>/`, session
//! tokens enforced.

use std::future::{Future, IntoFuture};
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_lc_rs::{hmac, rand};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde::Serialize;
use tokio::net::TcpListener;

use super::credentials::INSTANCE_ROLE_LIFE;
use super::{Machine, SimulationFailed, Simulator, api};
use crate::domain::{Lifetime, Timestamp};

/// AWS accepts 1 second to 6 hours.
const MAX_TTL_SECONDS: u32 = 21_600;
const IDENTITY_ROLE: &str = "meta-data/identity-credentials/ec2/security-credentials/ec2-instance";
/// The role of the instance profile, which here has the profile's name.
const PROFILE_ROLE: &str = "meta-data/iam/security-credentials/";

/// Serves every instance of the simulator until `until` is done. Refuses a listener that anybody
/// but this machine could reach.
pub async fn serve(
    simulator: Arc<Simulator>,
    listener: TcpListener,
    until: impl Future<Output = ()>,
) -> Result<(), SimulationFailed> {
    let address = listener.local_addr().map_err(SimulationFailed::io("the listener"))?;
    if !address.ip().is_loopback() {
        return Err(SimulationFailed::NotLoopback(address));
    }
    let service = Arc::new(Service { simulator: simulator.clone(), tokens: Tokens::new()? });
    let router = Router::new()
        .route("/{instance}/latest/api/token", put(token))
        .route("/{instance}/latest/{*path}", get(read))
        .with_state(service)
        .merge(api::routes(simulator));
    // Not graceful: an instance without hops keeps its callers waiting for ever.
    tokio::select! {
        ended = axum::serve(listener, router).into_future() => {
            ended.map_err(SimulationFailed::io("the listener"))
        }
        () = until => Ok(()),
    }
}

struct Service {
    simulator: Arc<Simulator>,
    tokens: Tokens,
}

impl Service {
    /// The instance of a path, if its answers get through to anybody.
    async fn machine(&self, id: &str) -> Result<Arc<Machine>, StatusCode> {
        let machine = self.simulator.machine(id).ok_or(StatusCode::NOT_FOUND)?;
        if machine.instance.hop_limit == 0 {
            // The answer is dropped on its way, so the caller waits until it gives up.
            std::future::pending::<()>().await;
        }
        Ok(machine)
    }
}

async fn token(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    service.machine(&id).await?;
    // AWS refuses tokens to whoever comes through a proxy.
    if headers.contains_key("x-forwarded-for") {
        return Err(StatusCode::FORBIDDEN);
    }
    let ttl = header(&headers, "x-aws-ec2-metadata-token-ttl-seconds")
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|seconds| (1..=MAX_TTL_SECONDS).contains(seconds))
        .ok_or(StatusCode::BAD_REQUEST)?;
    let ends = service.simulator.clock.now().plus(Lifetime::from_seconds(ttl));
    let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", ttl.to_string())];
    Ok((ttl, service.tokens.issue(&id, ends)).into_response())
}

async fn read(
    State(service): State<Arc<Service>>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    let machine = service.machine(&id).await?;
    let now = service.simulator.clock.now();
    let token = header(&headers, "x-aws-ec2-metadata-token").ok_or(StatusCode::UNAUTHORIZED)?;
    if !service.tokens.is_valid(token, &id, now) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    answer(&service.simulator, &machine, &path).ok_or(StatusCode::NOT_FOUND)
}

/// What stands at a path. There is no `pkcs7`: nobody here makes DSA signatures any more.
fn answer(simulator: &Simulator, machine: &Machine, path: &str) -> Option<String> {
    let instance = &machine.instance;
    Some(match path {
        "dynamic/instance-identity/document" => instance.json(),
        "dynamic/instance-identity/rsa2048" => machine.document(simulator)?,
        "dynamic/instance-identity/signature" => simulator.signer.signature(&instance.json())?,
        IDENTITY_ROLE if instance.has_identity_role => {
            credentials(simulator.mint.identity_role(instance, simulator.clock.now())?)?
        }
        PROFILE_ROLE | "meta-data/iam/security-credentials" => {
            instance.record.instance_profile.clone()?
        }
        "meta-data/instance-id" => instance.instance_id.to_string(),
        "meta-data/ami-id" => instance.image_id.clone(),
        "meta-data/instance-type" => instance.instance_type.clone(),
        "meta-data/local-ipv4" => instance.private_ip.to_string(),
        "meta-data/placement/region" => instance.region.to_string(),
        "meta-data/placement/availability-zone" => instance.availability_zone(),
        _ => {
            let role = path.strip_prefix(PROFILE_ROLE)?;
            if instance.record.instance_profile.as_deref() != Some(role) {
                return None;
            }
            credentials(simulator.mint.instance_profile(instance, simulator.clock.now())?)?
        }
    })
}

/// Credentials of a role and since when they are, in AWS's form and order.
fn credentials((credentials, since): (Credentials, Timestamp)) -> Option<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Document<'a> {
        code: &'a str,
        last_updated: Timestamp,
        r#type: &'a str,
        access_key_id: &'a str,
        secret_access_key: &'a str,
        token: &'a str,
        expiration: Timestamp,
    }
    let document = Document {
        code: "Success",
        last_updated: since,
        r#type: "AWS-HMAC",
        access_key_id: credentials.access_key_id(),
        secret_access_key: credentials.secret_access_key(),
        token: credentials.session_token()?,
        expiration: since.plus(INSTANCE_ROLE_LIFE),
    };
    serde_json::to_string_pretty(&document).ok()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Session tokens that need no memory: the end, and a MAC over it and the instance.
struct Tokens(hmac::Key);

impl Tokens {
    fn new() -> Result<Self, SimulationFailed> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        key.map(Self).map_err(|_| SimulationFailed::Key)
    }

    fn issue(&self, instance: &str, ends: Timestamp) -> String {
        let mac = hmac::sign(&self.0, Self::message(instance, ends).as_bytes());
        format!("{}.{}", ends.unix_seconds(), hex::encode(mac))
    }

    fn is_valid(&self, token: &str, instance: &str, now: Timestamp) -> bool {
        let Some((ends, mac)) = token.split_once('.') else { return false };
        let (Ok(ends), Ok(mac)) = (ends.parse(), hex::decode(mac)) else { return false };
        let ends = Timestamp::from_unix_seconds(ends);
        let message = Self::message(instance, ends);
        now < ends && hmac::verify(&self.0, message.as_bytes(), &mac).is_ok()
    }

    fn message(instance: &str, ends: Timestamp) -> String {
        format!("{instance} {ends}")
    }
}

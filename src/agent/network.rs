//! The real world: metadata service, SSM, join server, clock.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::attester::{Ec2Attester, IdentityRole, TokenAttester};
use super::directions::{Configured, Directions};
use super::join::{local, random_part};
use super::machine::MachineId;
use super::method::{Method, MethodList, Way};
use super::outside::{Answer, Ask, Outside, Pause};
use super::state::InstanceIdentity;
use super::token::{ParameterPath, SsmParameters, SsmSettings, TokenReader, TokenSource};
use crate::aws::Imds;
use crate::client::{Connection, Contact, Endpoint, JoinError, Request, ServerTrust};
use crate::clock::{Clock, Stopwatch};
use crate::domain::{Code, Timestamp};

/// From this difference on, the clock and the timer do not tell of the same time: the machine slept,
/// or somebody set the clock.
const JUMP: Duration = Duration::from_secs(30);
/// A server closes a connection that is silent for 5 s. If the token took this long, the node connects
/// anew, and the server is authenticated anew.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// After so many times in a row that nobody was reached, SSM is asked again where the server is.
const UNREACHED_MAX: u32 = 3;

/// With what a node goes to its server: what `AgentConfig` says, checked.
#[derive(Debug, Clone)]
pub struct Means {
    /// The join server; without one SSM says where it is.
    pub server: Option<Endpoint>,
    /// How it is known; likewise.
    pub trust: Option<ServerTrust>,
    /// The policy to join under.
    pub policy: Option<String>,
    /// By which methods.
    pub methods: MethodList,
    /// Where the token is.
    pub token_source: Option<TokenSource>,
    /// Where the publisher writes.
    pub from_ssm: Option<ParameterPath>,
    /// Where SSM is.
    pub ssm: SsmSettings,
    /// The metadata service.
    pub imds: Imds,
}

/// The real one.
pub(super) struct Network {
    configured: Configured,
    methods: MethodList,
    imds: Imds,
    clock: Clock,
    parameters: SsmParameters,
    /// The source of the configuration, if it names one.
    token: Option<TokenReader>,
    /// Links the attempts of this process in the server's audit; says nothing else.
    boot: String,
    known: Mutex<Known>,
}

/// What is known of the way to the server.
#[derive(Default)]
struct Known {
    way: Option<Arc<Found>>,
    /// How often in a row nobody was reached.
    unreached: u32,
}

struct Found {
    directions: Directions,
    /// The source that SSM names.
    token: Option<TokenReader>,
}

impl Network {
    pub(super) fn new(means: Means, clock: Clock) -> Self {
        let Means { server, trust, policy, methods, token_source, from_ssm, ssm, imds } = means;
        let mut boot = [0; 8];
        // Without randomness nothing else works either: keys could not be made.
        let _zero_then = aws_lc_rs::rand::fill(&mut boot);
        Self {
            configured: Configured { server, trust, policy, from_ssm },
            token: token_source.map(TokenReader::new),
            parameters: SsmParameters::new(ssm, imds.clone(), clock.clone()),
            methods,
            imds,
            clock,
            boot: hex::encode(boot),
            known: Mutex::default(),
        }
    }

    /// With another source of the token.
    #[cfg(test)]
    pub(super) fn with_token(self, token: TokenReader) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The way to the server; learnt once, unless it leads nowhere.
    async fn found(&self) -> Result<Arc<Found>, JoinError> {
        if let Some(found) = &self.known.lock().unwrap_or_else(PoisonError::into_inner).way {
            return Ok(Arc::clone(found));
        }
        let is_token_alone = self.methods.is_only(Method::Token);
        let directions = self.configured.complete(is_token_alone, &self.parameters).await?;
        let token = directions.token.clone().map(|it| TokenReader::new(TokenSource::Ssm(it)));
        let found = Arc::new(Found { directions, token });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.way = Some(Arc::clone(&found));
        Ok(found)
    }

    /// A server that cannot be reached may have moved. One that is not trusted may not choose that
    /// SSM is read again.
    fn remember(&self, outcome: &Result<Answer, JoinError>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unreached =
            outcome.as_ref().is_err_and(|error| error.code == Code::ServerUnreachable);
        known.unreached = if is_unreached { known.unreached + 1 } else { 0 };
        // The token may have moved: that is SSM's word, and no server's.
        if outcome.as_ref().is_err_and(|error| error.code == Code::TokenSourceDenied) {
            *known = Known::default();
        }
        if known.unreached >= UNREACHED_MAX && self.configured.from_ssm.is_some() {
            *known = Known::default();
        }
    }

    async fn go(&self, ask: &Ask<'_>, found: &Found) -> Result<Answer, JoinError> {
        let directions = &found.directions;
        let token = self.token.as_ref().or(found.token.as_ref());
        // What was configured holds. The join root of an earlier answer replaces public roots, and
        // what SSM said.
        let trust = match (&directions.trust, ask.join_root) {
            (ServerTrust::SystemRoots, Some(join_root)) => join_root,
            (_, Some(join_root)) if directions.is_trust_learnt => join_root,
            (configured, _) => configured,
        };
        let contact = Contact {
            endpoint: &directions.server,
            trust,
            trust_domain: ask.trust_domain,
            identity: ask.identity,
            source: None,
        };
        let facts = format!(
            "muster/{} instance={} boot={}",
            env!("CARGO_PKG_VERSION"),
            ask.instance,
            self.boot
        );
        let request = Request {
            policy: ask.policy,
            method: ask.way.method().as_str(),
            public_key: ask.key.public_key(),
            facts: &facts,
        };
        let (connection, attester) = match ask.way {
            Way::Ec2 => {
                let session = self.imds.session().await?;
                let document = session.rsa2048_document().await?;
                let role = IdentityRole::read(&session).await;
                let connection = Connection::to(&contact).await?;
                let attester = Ec2Attester::new(document, role, ask.key, &self.clock);
                return finish(connection, ask, trust, &request, &attester)
                    .await
                    .map_err(|error| attester.explain(error));
            }
            Way::KeyAlone | Way::NextKeyAlone => {
                (Connection::to(&contact).await?, TokenAttester::new(None, ask.key))
            }
            Way::Token => {
                let reader = token.ok_or_else(no_source)?;
                // The server first: a source is not even opened for one that is not trusted (B2).
                let mut connection = Connection::to(&contact).await?;
                let watch = Stopwatch::start();
                let secret = reader.read(&self.parameters).await?;
                if watch.elapsed() > SILENCE_MAX {
                    connection = Connection::to(&contact).await?;
                }
                (connection, TokenAttester::new(Some(secret), ask.key))
            }
        };
        let answer = finish(connection, ask, trust, &request, &attester).await?;
        if let Some(reader) = token {
            reader.forget();
        }
        Ok(answer)
    }
}

fn no_source() -> JoinError {
    JoinError::rejected(
        Code::TokenSourceDenied,
        "no source of a token is configured; --token-file or --token-source gives one",
    )
}

async fn finish(
    connection: Connection,
    ask: &Ask<'_>,
    trust: &ServerTrust,
    request: &Request<'_>,
    attester: &impl crate::client::Attester,
) -> Result<Answer, JoinError> {
    let trust_domain = match trust {
        ServerTrust::SystemRoots => None,
        ServerTrust::Pins(_) | ServerTrust::Roots(_) => connection.trust_domain().cloned(),
    };
    let result = if ask.identity.is_some() {
        connection.renew(request, attester).await?
    } else {
        connection.join(request, attester).await?
    };
    Ok(Answer { result, trust_domain })
}

impl Outside for Network {
    async fn instance(&self) -> Result<InstanceIdentity, JoinError> {
        if !self.methods.contains(Method::Ec2) {
            let instance_id = MachineId::of_host(Path::new("/"))
                .map_err(|error| local(Code::StateUnusable, &error))?;
            return Ok(InstanceIdentity { instance_id, epoch: None });
        }
        let session = self.imds.session().await?;
        let instance_id = session.instance_id().await?.into();
        Ok(InstanceIdentity { instance_id, epoch: session.pending_time().await })
    }

    async fn policy(&self, method: Method) -> Result<String, JoinError> {
        Ok(self.found().await?.directions.policy_of(method).to_owned())
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, JoinError> {
        let found = self.found().await?;
        let outcome = self.go(ask, &found).await;
        self.remember(&outcome);
        outcome
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pause(&self, length: Duration) -> Pause {
        let (watch, before) = (Stopwatch::start(), self.clock.now());
        tokio::time::sleep(length).await;
        // Timers stand still while a machine is suspended, and its clock does not.
        let after = self.clock.now();
        let by_clock = after.unix_seconds() - before.unix_seconds();
        let by_timer = i64::try_from(watch.elapsed().as_secs()).unwrap_or(i64::MAX);
        if by_clock.abs_diff(by_timer) > JUMP.as_secs() { Pause::ClockJumped } else { Pause::Over }
    }

    fn luck(&self) -> f64 {
        random_part()
    }
}

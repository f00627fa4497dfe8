//! Composition: which backends are plugged in where, and the life of the process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::{info, warn};

use super::audit_key;
use super::authority;
use super::baseline::{self, AnswerSizes};
use super::cloud::{Cloud, Reached};
use super::config::Config;
use super::connections::{Connections, Limits};
use super::data_directory::{DataDirectory, socket_path};
use super::diagnostics::{self, Diagnostics};
use super::explanation::Explainer;
use super::grpc::{ANSWER_BYTES_MAX, Api, MESSAGE_BYTES_MAX};
use super::handshake::Handshakes;
use super::listener::{self, Serving};
use super::local::{self, Local};
use super::metrics::Metrics;
use super::policies;
use super::proxy_protocol::Balancers;
use super::publisher::{Board, TokenPublisher};
use super::reload::{self, Reloader};
use super::revocation::{self, Publisher};
use super::running::{Ready, Running};
use super::shared::Shared;
use super::space::{Space, free_bytes};
use super::start_error::StartError;
use super::tasks;
use super::tls::{self, ListenerCertificates, NodeCertificates};
use super::tokens::TokenKeeper;
use crate::audit::{Audit, Class, Outcome, Record};
use crate::aws::{CallStatistics, Ssm};
use crate::ca::{Authorities, Passphrase};
use crate::clock::Clock;
use crate::domain::KeyDigest;
use crate::join::{JoinService, TimeGuard};
use crate::methods;
use crate::policy::Vocabulary;
use crate::proto::join_service_server::JoinServiceServer;
use crate::proto::node_service_server::NodeServiceServer;
use crate::registry::Registry;
use crate::store::{SqliteStore, Store};
use crate::turns::Turns;

/// Connections that the kernel holds until they are accepted. Of a fleet that starts at once it drops
/// those beyond, and each comes again after a second.
const BACKLOG: u32 = 4096;

/// What everything else stands on.
struct Foundation {
    data: DataDirectory,
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    audit_key: KeyDigest,
    registry: Registry,
    authorities: Arc<Authorities>,
    reloader: Arc<Reloader>,
    joins: Arc<JoinService>,
    metrics: Arc<Metrics>,
    calls: Arc<CallStatistics>,
    ssm: Ssm,
    board: Arc<Board>,
    seats: Arc<Turns>,
    /// Joins and commands that are being answered: each writes records to its end.
    answering: TaskTracker,
}

/// The sockets of a server.
struct Listeners {
    join: (TcpListener, SocketAddr),
    diagnostics: (TcpListener, SocketAddr),
    crl: Option<(TcpListener, SocketAddr)>,
    local: UnixListener,
}

/// Starts a server: when this returns, nodes can join.
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    start_serving(config, clock, None).await
}

/// Starts a server that answers every join with bytes of no meaning: what benchmarks compare with.
pub async fn start_baseline(
    config: Config,
    clock: Clock,
    sizes: AnswerSizes,
) -> Result<Running, StartError> {
    start_serving(config, clock, Some(sizes)).await
}

async fn start_serving(
    config: Config,
    clock: Clock,
    empty: Option<AnswerSizes>,
) -> Result<Running, StartError> {
    let foundation = lay_foundation(&config, &clock).await?;
    let listeners = open_listeners(&config, &foundation.data)?;
    let own =
        tasks::listener_identity(&foundation.authorities, foundation.data.trust_domain(), &clock)
            .map_err(StartError::ListenerCertificate)?;
    foundation.metrics.listener_not_after.set(own.not_after.unix_seconds());
    let public = config.public_certificate.as_ref();
    let public = public.map(|(chain, key)| (chain.as_path(), key.as_path()));
    let certificates = Arc::new(ListenerCertificates::new(own, public)?);

    let ready = ready(&config, &foundation, &listeners);
    foundation.audit.write(&started_record(&ready, &clock, &config, &foundation)).await?;
    // Closes what the processes of before left.
    foundation.audit.write_checkpoint().await?;

    let (stop, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    let served = match empty {
        Some(sizes) => baseline::routes(sizes),
        None => routes(&foundation, config.cloud.wants_fips()).await,
    };
    let services = (listeners, served);
    spawn_services(&mut running, &config, &foundation, services, &certificates, &stopped).await?;
    let Foundation {
        data,
        store,
        audit,
        authorities,
        reloader,
        joins,
        metrics,
        calls,
        answering,
        ..
    } = foundation;
    let space = Space::new(data.path(), config.space, free_bytes);
    let background = tasks::Background {
        store,
        audit: Arc::clone(&audit),
        joins,
        clock,
        authorities,
        trust_domain: data.trust_domain().clone(),
        certificates,
        metrics,
        calls,
    };
    let (stop_sinks, sinks_stopped) = watch::channel(false);
    let mut sinks = JoinSet::new();
    tasks::spawn_sinks(
        &mut sinks,
        config.audit_file.as_deref(),
        config.audit_stdout,
        &background.store,
        &audit,
        &sinks_stopped,
    );
    tasks::spawn_all(&mut running, background, space, &stopped).await;
    info!(address = %ready.join, policy_hash = %ready.policy_hash, "ready");
    Ok(Running {
        ready,
        stop,
        tasks: running,
        answering,
        stop_sinks,
        sinks,
        audit,
        reloader,
        _data: data,
    })
}

fn ready(config: &Config, foundation: &Foundation, listeners: &Listeners) -> Ready {
    Ready {
        ready: true,
        join: listeners.join.1,
        diagnostics: listeners.diagnostics.1,
        crl: listeners.crl.as_ref().map(|(_, address)| *address),
        trust_domain: foundation.data.trust_domain().clone(),
        pin: format!("sha256:{}", foundation.authorities.join_root.key()),
        data_dir: config.data_dir.clone(),
        policy_hash: foundation.joins.policies().hash().clone(),
    }
}

async fn lay_foundation(config: &Config, clock: &Clock) -> Result<Foundation, StartError> {
    let is_simulation = config.simulation.is_some();
    let data = DataDirectory::open(&config.data_dir, config.trust_domain.as_ref(), is_simulation)?;
    let store = SqliteStore::open(&data.store())?;
    let statistics = store.statistics();
    let store: Arc<dyn Store> = Arc::new(store);
    let registry = Registry::new(Arc::clone(&store));
    policies::prepare_default(config)?;
    // What is changed from here on is seen as a change.
    let certificates_dir = config.certificates_dir.clone().filter(|_| !is_simulation);
    let loaded = reload::look(&config.policies, certificates_dir.as_deref());
    let calls = Arc::new(CallStatistics::default());
    let Reached { sources, ssm } = reach(config, clock, &calls)?;
    let certificates = sources.certificates.clone();
    let regions = certificates.current().known_regions().clone();
    let vocabulary = Vocabulary { methods: methods::ALL, regions };
    let policies = policies::load(config, &vocabulary, clock)?;
    policies::keep(&registry, &policies).await?;
    let board = Arc::new(Board::new(clock.clone()));
    let shared = Shared::new(config.connections_max);
    let metrics = Metrics::new(Arc::clone(&calls), Arc::clone(&board), statistics);
    let metrics = Arc::new(metrics.with_shared(shared.clone()));
    metrics.policies.set(i64::try_from(policies.len()).unwrap_or(i64::MAX));
    let (authorities, authority) = authority::open(config, &data, store.as_ref(), clock).await?;
    authority.check().await?;
    let (audit, audit_key) = open_audit(config, &data, &store, clock).await?;
    let latest = registry.latest_time().await?.unwrap_or_else(|| clock.now());
    let joins = Arc::new(JoinService {
        clock: clock.clone(),
        time_guard: TimeGuard::new(latest),
        methods: methods::build(&sources),
        policies: RwLock::new(policies),
        registry: registry.clone(),
        audit: Arc::clone(&audit),
        authority,
        trust_domain: data.trust_domain().clone(),
        reserved_names: config.dns_names.clone(),
        join_root: authorities.join_root.certificate().clone(),
        turns: shared.turns,
        places: shared.places,
    });
    let reloader = Arc::new(Reloader {
        joins: Arc::clone(&joins),
        metrics: Arc::clone(&metrics),
        policies_dir: config.policies.clone(),
        certificates_dir,
        certificates,
        status: Mutex::new(reload::Status { loaded_at: clock.now(), error: None }),
        asked: Notify::new(),
        loaded,
    });
    Ok(Foundation {
        data,
        store,
        audit,
        audit_key,
        registry,
        authorities,
        reloader,
        joins,
        metrics,
        calls,
        ssm,
        board,
        seats: shared.seats,
        answering: TaskTracker::new(),
    })
}

/// The audit log, and the id of the key that signs its checkpoints.
async fn open_audit(
    config: &Config,
    data: &DataDirectory,
    store: &Arc<dyn Store>,
    clock: &Clock,
) -> Result<(Arc<Audit>, KeyDigest), StartError> {
    let passphrase = config.passphrase_file.as_deref().map(Passphrase::from_file).transpose()?;
    let key = audit_key::open(data, config.audit_checkpoint_key.as_deref(), passphrase.as_ref())?;
    let id = key.public().digest();
    let audit = Audit::new(Arc::clone(store), clock.clone())?.with_checkpoints(key);
    let audit = audit.with_refusal_quota(config.refusal_quota).await?;
    Ok((Arc::new(audit), id))
}

/// AWS, or a simulator instead of it.
fn reach(
    config: &Config,
    clock: &Clock,
    calls: &Arc<CallStatistics>,
) -> Result<Reached, StartError> {
    let made = match &config.simulation {
        Some(directory) => Cloud::simulated_sources(directory, clock, calls),
        None => config.cloud.sources(config.certificates_dir.as_deref(), clock, calls),
    };
    made.map_err(StartError::Cloud)
}

fn open_listeners(config: &Config, data: &DataDirectory) -> Result<Listeners, StartError> {
    let socket = socket_path(data.path());
    let local = local::bind(&socket)
        .map_err(|error| StartError::Listen { address: socket.display().to_string(), error })?;
    Ok(Listeners {
        join: bind(config.listen)?,
        diagnostics: bind(config.diagnostics_listen)?,
        crl: match config.crl_listen {
            Some(address) => Some(bind(address)?),
            None => None,
        },
        local,
    })
}

async fn spawn_services(
    running: &mut JoinSet<()>,
    config: &Config,
    foundation: &Foundation,
    (listeners, served): (Listeners, Routes),
    certificates: &Arc<ListenerCertificates>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), StartError> {
    let anchors = foundation.joins.authority.trust_anchors().await?;
    let nodes = NodeCertificates::new(&anchors, foundation.joins.clock.clone())?;
    let tls = tls::server_config(Arc::clone(certificates), nodes)?;
    let limits = Limits { connections: config.connections_max, handshakes: config.handshakes_max };
    let balancers = Balancers::new(config.proxy_protocol_from.clone());
    let metrics = &foundation.metrics;
    let join_address = listeners.join.1;
    let turns = Arc::clone(&foundation.joins.turns);
    let put_out = metrics.connections_put_out.clone();
    let serving = Serving {
        connections: Arc::new(Connections::new(limits, Arc::clone(&turns), put_out)),
        handshakes: Handshakes { tls, balancers, turns, seats: Arc::clone(&foundation.seats) },
        routes: served,
        metrics: Arc::clone(metrics),
    };
    running.spawn(listener::serve(listeners.join.0, serving, stopped.clone()));
    let pages = Arc::new(Diagnostics {
        metrics: Arc::clone(metrics),
        store: Arc::clone(&foundation.store),
        audit: Arc::clone(&foundation.audit),
        warning: warning(config),
        reloader: Arc::clone(&foundation.reloader),
    });
    let served = diagnostics::serve(listeners.diagnostics.0, pages, stopped.clone());
    running.spawn(async move {
        if let Err(error) = served.await {
            warn!(error = %error, "the diagnostics listener failed");
        }
    });
    let own_address = listener::as_nodes_see(join_address);
    let publisher = publisher(config, foundation, &own_address)?;
    let commands = Arc::new(Local {
        publisher: Arc::clone(&publisher),
        registry: foundation.registry.clone(),
        audit: Arc::clone(&foundation.audit),
        store: Arc::clone(&foundation.store),
        joins: Arc::clone(&foundation.joins),
        authorities: Arc::clone(&foundation.authorities),
        reloader: Arc::clone(&foundation.reloader),
        explainer: Explainer::new(
            foundation.registry.clone(),
            foundation.reloader.certificates.clone(),
        ),
        join_address: own_address,
        stopped: stopped.clone(),
    });
    running.spawn(publisher.run(stopped.clone()));
    let tokens = TokenKeeper::start(&foundation.joins, config.tokens_file.clone()).await;
    running.spawn(tokens.map_err(StartError::StaticTokens)?.run(stopped.clone()));
    let answering = foundation.answering.clone();
    running.spawn(local::serve(listeners.local, commands, answering, stopped.clone()));
    running.spawn(Arc::clone(&foundation.reloader).run(stopped.clone()));
    spawn_revocation_list(running, foundation, listeners.crl, stopped).await;
    Ok(())
}

/// In a simulation the listener's own address will do; elsewhere nobody but the operator knows by
/// which name nodes reach it.
fn publisher(
    config: &Config,
    foundation: &Foundation,
    own_address: &str,
) -> Result<Arc<TokenPublisher>, StartError> {
    let simulated = config.simulation.as_ref().map(|_| own_address.to_owned());
    let publisher = TokenPublisher::new(
        Arc::clone(&foundation.joins),
        foundation.ssm.clone(),
        Arc::clone(&foundation.board),
        format!("sha256:{}", foundation.authorities.join_root.key()),
        config.join_address.clone().or(simulated),
    );
    Ok(Arc::new(publisher?))
}

/// The list stands before the server is ready: a lock of before is heard from the first moment (T29).
async fn spawn_revocation_list(
    running: &mut JoinSet<()>,
    foundation: &Foundation,
    listener: Option<(TcpListener, SocketAddr)>,
    stopped: &watch::Receiver<bool>,
) {
    let path = foundation.data.path().join("crl.der");
    let (joins, metrics) = (Arc::clone(&foundation.joins), Arc::clone(&foundation.metrics));
    let publisher = Arc::new(Publisher::new(joins, metrics, path));
    publisher.publish().await;
    if let Some((listener, _)) = listener {
        running.spawn(revocation::serve(listener, Arc::clone(&publisher), stopped.clone()));
    }
    running.spawn(publisher.run(stopped.clone()));
}

fn warning(config: &Config) -> Option<&'static str> {
    if config.simulation.is_some() {
        Some("simulation: a simulator is believed, not AWS\n")
    } else if config.cloud.is_insecure() {
        Some("insecure_endpoints: whoever is between can vouch for any instance\n")
    } else {
        None
    }
}

async fn routes(foundation: &Foundation, fips_wanted: bool) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<JoinServiceServer<Api>>().await;
    health.set_serving::<NodeServiceServer<Api>>().await;
    let Foundation { joins, metrics, answering, .. } = foundation;
    let api = Api::new(Arc::clone(joins), Arc::clone(metrics), answering.clone(), fips_wanted);
    let join = JoinServiceServer::new(api.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let node = NodeServiceServer::new(api)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    Routes::new(join).add_service(node).add_service(health_service).prepare()
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |error| StartError::Listen { address: address.to_string(), error };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn started_record(
    ready: &Ready,
    clock: &Clock,
    config: &Config,
    foundation: &Foundation,
) -> Record {
    let mut record = Record::new(clock.now(), Class::Security, "server-start", Outcome::Done);
    record.policy_hash = Some(ready.policy_hash.clone());
    record
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("trust_domain", ready.trust_domain.to_string())
        .with("pin", ready.pin.clone())
        .with("simulation", config.simulation.is_some())
        .with("endpoints", config.cloud.replaced_endpoints())
        .with("insecure_endpoints", config.cloud.is_insecure())
        .with("region_certificates", foundation.reloader.certificates.current().digest())
        .with("checkpoint_key", foundation.audit_key.to_string())
}

//! The checks of a server. They read what the server reads, and change nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Failure as Unusable, local};
use super::Check;
use crate::aws::{Ec2Client, Failure, LookUpBy, Place, RegionCertificates, Sts};
use crate::cli::runtime;
use crate::clock::Clock;
use crate::domain::{Partition, Region, Timestamp};
use crate::methods::{self, LookUp};
use crate::policy::{PolicySet, Vocabulary};
use crate::server::{self, Cloud, Command, Config, Overrides, policy_directory};

/// Proofs are refused beyond 5 minutes; nobody should get that near.
const CLOCK_SKEW_MAX: Duration = Duration::from_mins(2);

/// Looks at the server of this machine.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server's configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The policies directory.
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// A simulator's directory, instead of AWS.
    #[arg(long, value_name = "DIR")]
    simulation: Option<PathBuf>,
    /// The region whose STS is asked.
    #[arg(long, value_name = "REGION", default_value = "us-east-1")]
    region: Region,
}

pub(super) fn checks(arguments: &Arguments) -> Result<Vec<Check>, Unusable> {
    let flags = Overrides {
        data_dir: arguments.data_dir.clone(),
        policies: arguments.policies.clone(),
        simulation: arguments.simulation.clone(),
        ..Overrides::default()
    };
    let config = match Config::load(arguments.config.as_deref(), flags) {
        Ok(config) => config,
        Err(error) => {
            let remedy = "mend it; `muster server config --example` prints every key";
            return Ok(vec![Check::failed("configuration", error.to_string(), remedy)]);
        }
    };
    let clock = Clock::system();
    let named = arguments.config.as_ref().map(|path| path.display().to_string());
    let mut checks =
        vec![Check::ok("configuration", named.unwrap_or_else(|| "the defaults".to_owned()))];
    checks.push(data_directory(&config.data_dir));
    checks.push(disk_space(&config));
    let (certificates, loaded) = region_certificates(&config, clock.now());
    checks.push(certificates);
    let why = "the region certificates could not be loaded";
    let (check, set) = loaded.map_or_else(
        || (Check::not_checked("policies", why), None),
        |loaded| policies(&config.policies, &loaded, clock.now()),
    );
    checks.push(check);
    let looks = set.as_deref().map(Looks::of).unwrap_or_default();
    checks.extend(runtime()?.block_on(aws(&config, &arguments.region, &looks, &clock)));
    checks.push(running(&config.data_dir));
    Ok(checks)
}

fn data_directory(path: &Path) -> Check {
    let found = server::check_data_directory(path).map_err(|error| error.to_string());
    let remedy = "run this as the server's user; the directory is that user's and nobody else's, \
                  mode 700, and the first start makes it";
    Check::of("data directory", found.map(|()| path.display().to_string()), remedy)
}

/// By the bound below which the server itself begins to give way: a share of the disk would call a
/// large one full that has room for years.
fn disk_space(config: &Config) -> Check {
    const NAME: &str = "disk space";
    let path = config.data_dir.display();
    let free = match server::free_bytes(&config.data_dir) {
        Ok(free) => free,
        Err(error) => return Check::not_checked(NAME, format!("{path}: {error}")),
    };
    let detail = format!("{} MiB free on {path}", free >> 20);
    if free >= config.space.low {
        return Check::ok(NAME, detail);
    }
    let remedy = "less is free than store.low_mib: records of refusals give way already, and a server \
                  that cannot write admits nobody; make room or enlarge the disk; \
                  docs/operations.md, \"The disk is full\"";
    Check::failed(NAME, detail, remedy)
}

fn region_certificates(config: &Config, now: Timestamp) -> (Check, Option<RegionCertificates>) {
    const NAME: &str = "region certificates";
    let loaded = match (&config.simulation, &config.certificates_dir) {
        (Some(simulation), _) => Cloud::simulated_certificates(simulation),
        (None, Some(directory)) => server::read_certificates(directory),
        (None, None) => Ok(RegionCertificates::embedded()),
    };
    let certificates = match loaded {
        Ok(certificates) => certificates,
        Err(error) => {
            let remedy = "mend or remove the file; `muster regions import` writes good ones";
            return (Check::failed(NAME, error, remedy), None);
        }
    };
    let list = certificates.list();
    let ended: Vec<_> = list.iter().filter(|one| one.not_after() <= now).collect();
    let next = list.iter().map(|one| one.not_after()).filter(|end| *end > now).min();
    let check = if ended.is_empty() {
        let next = next.map(|end| format!(", the first ends {end}")).unwrap_or_default();
        Check::ok(NAME, format!("{}{next}", list.len()))
    } else {
        let names: Vec<_> = ended.iter().map(|one| one.region().as_str()).collect();
        let detail = format!("ended: {}; they go on being believed", names.join(", "));
        Check::warning(NAME, detail, "see whether AWS has new ones: `muster regions import`")
    };
    (check, Some(certificates))
}

/// How the policies look at instances.
#[derive(Debug, Default)]
struct Looks {
    /// With the server's own credentials.
    own: bool,
    /// With roles in the instances' accounts.
    roles: bool,
}

impl Looks {
    fn of(set: &PolicySet) -> Self {
        let is = |wanted: fn(&LookUp) -> bool| set.policies().any(|one| wanted(one.look_up()));
        Self {
            own: is(|look| *look == LookUp::Own),
            roles: is(|look| matches!(look, LookUp::Role { .. })),
        }
    }
}

fn policies(
    directory: &Path,
    certificates: &RegionCertificates,
    now: Timestamp,
) -> (Check, Option<Arc<PolicySet>>) {
    const NAME: &str = "policies";
    let check = format!("`muster policy check {}` lists every finding", directory.display());
    let regions = certificates.known_regions().clone();
    let vocabulary = Vocabulary { methods: methods::ALL, regions };
    let loaded = match policy_directory::load(directory, &vocabulary, Some(now)) {
        Ok(loaded) => loaded,
        Err(error) => return (Check::failed(NAME, error.to_string(), check), None),
    };
    let checked = match &loaded.set {
        Some(set) if set.is_empty() => {
            let remedy = "write a policy; `muster policy check` tries it";
            Check::warning(NAME, "there is none, so nobody can join", remedy)
        }
        Some(set) => Check::ok(NAME, format!("{}, hash {}", set.len(), set.hash())),
        None => {
            let errors = loaded.findings.iter().filter(|finding| finding.is_error());
            let first = errors.clone().next().map(ToString::to_string).unwrap_or_default();
            let detail = format!("{} errors; the first is {first}", errors.count());
            Check::failed(NAME, detail, check)
        }
    };
    (checked, loaded.set)
}

/// What AWS says: whether STS answers and what time it is there, and whether EC2 may be asked.
async fn aws(config: &Config, region: &Region, looks: &Looks, clock: &Clock) -> Vec<Check> {
    match config.cloud.clients(config.simulation.as_deref(), clock) {
        Ok((sts, ec2)) => {
            let mut checks = sts_and_clock(&sts, region, clock).await.to_vec();
            checks.push(permission(&ec2, region, looks).await);
            checks
        }
        Err(error) => {
            let remedy = "mend the section [aws] of the configuration, or --simulation";
            let not_asked = "AWS cannot be asked";
            vec![
                Check::failed("sts", error, remedy),
                Check::not_checked("clock", not_asked),
                Check::not_checked("ec2", not_asked),
            ]
        }
    }
}

/// Asks for an instance that there never is, with the server's own credentials. A role in another
/// account is not tried: which accounts there are is for the rules to say, node by node.
async fn permission(ec2: &Ec2Client, region: &Region, looks: &Looks) -> Check {
    const NAME: &str = "ec2";
    if !looks.own {
        return Check::not_checked(
            NAME,
            if looks.roles {
                "policies look with roles in the instances' accounts, which are tried by joins alone"
            } else {
                "no policy looks at instances"
            },
        );
    }
    let parts = ("000000000000".parse(), "i-00000000000000000".parse());
    let (Ok(account), Ok(instance)) = parts else {
        return Check::not_checked(NAME, "nothing to ask for");
    };
    let place = Place { partition: Partition::of_region(region), account, region: region.clone() };
    let long_ago = Timestamp::from_unix_seconds(0);
    match ec2.describe(&place, &LookUpBy::Own, &instance, long_ago).await {
        Ok(_) => Check::ok(NAME, format!("instances of {region} can be looked at")),
        Err(error) if error.kind == Failure::Forbidden => {
            let remedy = "policies with `look_up: own` need it: allow the server's role \
                          ec2:DescribeInstances";
            Check::failed(NAME, error.to_string(), remedy)
        }
        Err(error) => {
            let remedy = "policies with `look_up` need it: give the server credentials and a way to \
                          EC2 on port 443";
            Check::failed(NAME, error.to_string(), remedy)
        }
    }
}

/// One answer of STS tells both whether it is reached and what time it is there.
async fn sts_and_clock(sts: &Sts, region: &Region, clock: &Clock) -> [Check; 2] {
    let there = match sts.time(region).await {
        Ok(there) => there,
        Err(error) => {
            let remedy = "the server needs a way to STS on port 443: check routes, proxy and VPC \
                          endpoint, and `aws` in the configuration";
            let clock = Check::not_checked("clock", "STS, which tells the time, does not answer");
            return [Check::failed("sts", error.to_string(), remedy), clock];
        }
    };
    let answers = Check::ok("sts", format!("answers in {region}"));
    let Some(there) = there else {
        return [answers, Check::not_checked("clock", "the answer of STS names no time")];
    };
    let here = clock.now();
    let skew = here.since(there).seconds().max(there.since(here).seconds());
    let detail = format!("this machine says {here}, AWS {there}");
    let is_near = u64::try_from(skew).is_ok_and(|skew| skew <= CLOCK_SKEW_MAX.as_secs());
    let remedy = "set this machine's clock, and let it follow a time server (chrony)";
    [answers, Check::of("clock", if is_near { Ok(detail) } else { Err(detail) }, remedy)]
}

fn running(data_dir: &Path) -> Check {
    const NAME: &str = "server";
    match local::call_one(data_dir, &Command::PolicyStatus {}) {
        Err(failure) => {
            let remedy = failure.hint.unwrap_or_default();
            Check::failed(NAME, failure.message, remedy)
        }
        Ok(status) => match status.get("error").and_then(serde_json::Value::as_str) {
            None => {
                Check::ok(NAME, format!("runs with policy set {}", local::text(&status, "hash")))
            }
            Some(error) => {
                let remedy = "the last good set is in force; mend the files and see `muster policy \
                              status`";
                Check::warning(NAME, format!("runs, and its files do not load: {error}"), remedy)
            }
        },
    }
}

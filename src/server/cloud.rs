//! How the server reaches AWS, or a simulator instead of it: the `[aws]` section of the
//! configuration, and nothing of the environment (T75).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tracing::{info, warn};

use super::config;
use super::reload::read_certificates;
use crate::aws::{
    AwsHttp, CallStatistics, Ec2Client, Endpoints, HttpSettings, OwnCredentials,
    RegionCertificates, Service, Ssm, Sts,
};
use crate::clock::Clock;
use crate::domain::Region;
use crate::methods::Sources;

/// The section `[aws]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AwsSection {
    pub(super) certificates_dir: Option<PathBuf>,
    tls_roots: Option<PathBuf>,
    proxy: Option<String>,
    fips: Option<bool>,
    insecure_endpoints: Option<bool>,
    endpoints: EndpointsSection,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EndpointsSection {
    sts: Option<String>,
    ec2: Option<String>,
    ssm: Option<String>,
    regions: Option<BTreeMap<Region, RegionEndpoints>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RegionEndpoints {
    sts: Option<String>,
    ec2: Option<String>,
    ssm: Option<String>,
}

/// How AWS is reached, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cloud {
    roots_file: Option<PathBuf>,
    proxy: Option<String>,
    endpoints: Endpoints,
}

impl AwsSection {
    /// Checks the section.
    pub(super) fn check(&self) -> Result<Cloud, String> {
        if let Some(proxy) = &self.proxy {
            check_proxy(proxy)?;
        }
        let mut endpoints = Endpoints::new(self.fips.unwrap_or_default());
        let EndpointsSection { sts, ec2, ssm, regions } = &self.endpoints;
        let everywhere =
            [(Service::Sts, None, sts), (Service::Ec2, None, ec2), (Service::Ssm, None, ssm)];
        let by_region = regions.iter().flatten().flat_map(|(region, one)| {
            [
                (Service::Sts, Some(region.clone()), &one.sts),
                (Service::Ec2, Some(region.clone()), &one.ec2),
                (Service::Ssm, Some(region.clone()), &one.ssm),
            ]
        });
        let allow_insecure = self.insecure_endpoints.unwrap_or_default();
        for (service, region, url) in everywhere.into_iter().chain(by_region) {
            if let Some(url) = url {
                endpoints
                    .replace(service, region, url, allow_insecure)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(Cloud { roots_file: self.tls_roots.clone(), proxy: self.proxy.clone(), endpoints })
    }
}

/// `http://HOST:PORT`, and no password: it would stand in the log and in the process list of
/// whoever prints the configuration.
fn check_proxy(proxy: &str) -> Result<(), String> {
    let uri: Option<http::Uri> = proxy.parse().ok();
    let is_good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && matches!(uri.path(), "" | "/")
    });
    if is_good { Ok(()) } else { Err("aws.proxy must be http://HOST:PORT, no user in it".into()) }
}

/// What a simulator's directory says of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Simulation {
    certificates: PathBuf,
    sts: String,
    ec2: String,
    ssm: String,
    credentials: PathBuf,
}

/// AWS, as far as the server asks it.
pub(super) struct Reached {
    /// What methods verify with and whom they ask.
    pub(super) sources: Sources,
    /// Where tokens are published.
    pub(super) ssm: Ssm,
}

impl Cloud {
    /// Somebody between could answer for AWS.
    pub fn is_insecure(&self) -> bool {
        self.endpoints.is_insecure()
    }

    /// What is used instead of AWS's public endpoints.
    pub fn replaced_endpoints(&self) -> Vec<String> {
        self.endpoints.replaced()
    }

    /// Whether FIPS endpoints are wanted.
    pub fn wants_fips(&self) -> bool {
        self.endpoints.wants_fips()
    }

    /// Whom a server asks, for looking whether they answer.
    pub fn clients(
        &self,
        simulation: Option<&Path>,
        clock: &Clock,
    ) -> Result<(Sts, Ec2Client), String> {
        let calls = Arc::default();
        let Reached { sources, .. } = match simulation {
            Some(directory) => Self::simulated_sources(directory, clock, &calls)?,
            None => self.sources(None, clock, &calls)?,
        };
        Ok((sources.sts, sources.ec2))
    }

    /// AWS, by this configuration.
    pub(super) fn sources(
        &self,
        certificates_dir: Option<&Path>,
        clock: &Clock,
        statistics: &Arc<CallStatistics>,
    ) -> Result<Reached, String> {
        let certificates = match certificates_dir {
            Some(directory) => read_certificates(directory)?,
            None => RegionCertificates::embedded(),
        };
        let settings =
            HttpSettings { roots_file: self.roots_file.clone(), proxy: self.proxy.clone() };
        let http = AwsHttp::new(&settings).map_err(|error| error.to_string())?;
        info!(roots = http.roots(), proxy = self.proxy, fips = self.wants_fips(), "way to AWS");
        for line in self.replaced_endpoints() {
            if self.is_insecure() {
                warn!(endpoint = line, "INSECURE: an endpoint without TLS can vouch for anybody");
            } else {
                info!(endpoint = line, "an endpoint of the configuration instead of AWS's own");
            }
        }
        warn_of_environment();
        let credentials = OwnCredentials::of_machine(&http, &self.endpoints, clock.clone());
        Ok(self.assemble(certificates, http, credentials, clock, statistics))
    }

    /// The certificates of a simulation.
    pub fn simulated_certificates(directory: &Path) -> Result<RegionCertificates, String> {
        let simulation = read_simulation(directory)?;
        RegionCertificates::only_directory(&directory.join(simulation.certificates))
            .map_err(|error| error.to_string())
    }

    /// The same for a simulation: its certificates and addresses instead of AWS's, never beside
    /// them.
    pub(super) fn simulated_sources(
        directory: &Path,
        clock: &Clock,
        statistics: &Arc<CallStatistics>,
    ) -> Result<Reached, String> {
        let simulation = read_simulation(directory)?;
        let certificates = Self::simulated_certificates(directory)?;
        let mut endpoints = Endpoints::default();
        for (service, url) in [
            (Service::Sts, &simulation.sts),
            (Service::Ec2, &simulation.ec2),
            (Service::Ssm, &simulation.ssm),
        ] {
            if !is_loopback(url) {
                return Err(format!("{}: `{url}` is not on this machine", directory.display()));
            }
            let replaced = endpoints.replace(service, None, url, true);
            replaced.map_err(|error| error.to_string())?;
        }
        let http = AwsHttp::plain().map_err(|error| error.to_string())?;
        let cloud = Self { endpoints, ..Self::default() };
        let credentials = OwnCredentials::of_file(&directory.join(&simulation.credentials))
            .map_err(|error| error.to_string())?;
        Ok(cloud.assemble(certificates, http, credentials, clock, statistics))
    }

    fn assemble(
        &self,
        certificates: RegionCertificates,
        http: AwsHttp,
        credentials: OwnCredentials,
        clock: &Clock,
        statistics: &Arc<CallStatistics>,
    ) -> Reached {
        let (endpoints, calls) = (self.endpoints.clone(), Arc::clone(statistics));
        let sts = Sts::new(http.clone(), endpoints.clone(), clock.clone(), calls.clone());
        let ec2 = Ec2Client::new(
            http.clone(),
            endpoints.clone(),
            credentials.clone(),
            clock.clone(),
            calls.clone(),
        );
        let ssm = Ssm::new(http, endpoints, credentials, clock.clone(), calls);
        Reached { sources: Sources { certificates: certificates.into(), sts, ec2 }, ssm }
    }
}

fn read_simulation(directory: &Path) -> Result<Simulation, String> {
    let path = directory.join("simulation.json");
    let failed = |error: &dyn std::fmt::Display| {
        format!("{}: {error}; is this the directory of a `muster sim` that runs?", path.display())
    };
    let text = config::read(&path).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}

fn is_loopback(url: &str) -> bool {
    let uri: Option<http::Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Variables that other tools obey. Here they change nothing, and somebody who set them should know.
fn warn_of_environment() {
    for name in [
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
        "AWS_ENDPOINT_URL_EC2",
        "AWS_ENDPOINT_URL_SSM",
        "AWS_CA_BUNDLE",
        "AWS_USE_FIPS_ENDPOINT",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "AWS_USE_DUALSTACK_ENDPOINT",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        if std::env::var_os(name).is_some() {
            warn!(variable = name, "ignored: only the section [aws] says how AWS is reached");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Cloud, String> {
        toml::from_str::<AwsSection>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn endpoints_are_for_a_region_or_for_all() {
        let cloud = check(
            "fips = true\n[endpoints]\nsts = 'https://sts.example'\n\
             [endpoints.regions.us-west-2]\nec2 = 'https://ec2.example:8443'\n\
             ssm = 'https://ssm.example'\n",
        )
        .unwrap();
        assert_eq!(
            cloud.replaced_endpoints(),
            [
                "sts https://sts.example/",
                "ec2 us-west-2 https://ec2.example:8443/",
                "ssm us-west-2 https://ssm.example/",
            ]
        );
        assert!(cloud.wants_fips() && !cloud.is_insecure());
    }

    // T48, T75: plain http must be asked for in so many words.
    #[test]
    fn plain_http_needs_its_switch() {
        let text = "[endpoints]\nsts = 'http://127.0.0.1:1'\n";
        assert!(check(text).unwrap_err().contains("insecure_endpoints"));
        assert!(check(&format!("insecure_endpoints = true\n{text}")).unwrap().is_insecure());
        for wrong in [
            "proxy = 'http://user:canary@proxy:1'",
            "proxy = 'socks5://proxy:1'",
            "[endpoints]\nsts = 'https://h/path'",
            "[endpoints]\nsqs = 'https://h'",
            "[endpoints.regions.US]\nsts = 'https://h'",
        ] {
            let error = check(wrong).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_simulation_is_on_this_machine() {
        let directory = tempfile::tempdir().unwrap();
        let write = |sts: &str| {
            let text = serde_json::json!({
                "certificates": "certificates", "sts": sts, "ec2": sts, "ssm": sts, "credentials": "c.json",
            });
            std::fs::write(directory.path().join("simulation.json"), text.to_string()).unwrap();
            std::fs::create_dir_all(directory.path().join("certificates")).unwrap();
            let clock = Clock::system();
            Cloud::simulated_sources(directory.path(), &clock, &Arc::default()).err()
        };
        for elsewhere in ["https://sts.us-west-2.amazonaws.com", "http://10.0.0.1", "http://x"] {
            assert!(write(elsewhere).unwrap().contains("not on this machine"), "{elsewhere}");
        }
        let on_loopback = write("http://127.0.0.1:1");
        assert!(on_loopback.is_none_or(|error| !error.contains("not on this machine")));
    }
}

//! Where AWS's services are. Hosts are built from a known region alone; an override stands in the
//! configuration or nowhere (T48, T75).

use std::collections::BTreeMap;

use http::Uri;
use http::uri::{Authority, Scheme};

use crate::domain::{Partition, Region};

/// A service that muster asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Who signed this?
    Sts,
    /// What is this instance?
    Ec2,
    /// Parameters, for join tokens.
    Ssm,
}

impl Service {
    /// The name in hosts and in the scope of signatures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sts => "sts",
            Self::Ec2 => "ec2",
            Self::Ssm => "ssm",
        }
    }

    /// The regions that have a FIPS endpoint of their own. In `GovCloud` the plain host is the
    /// FIPS one. From AWS's list of FIPS endpoints, November 2026.
    const fn fips_regions(self) -> &'static [&'static str] {
        match self {
            Self::Sts => &["us-east-1", "us-east-2", "us-west-1", "us-west-2"],
            Self::Ec2 | Self::Ssm => {
                &["us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "ca-west-1"]
            }
        }
    }
}

/// Which kind of endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// `sts.us-west-2.amazonaws.com`.
    #[default]
    Regional,
    /// `sts-fips.us-west-2.amazonaws.com`.
    Fips,
}

impl EndpointKind {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regional => "regional",
            Self::Fips => "fips",
        }
    }

    /// The kind that is used in a region when FIPS is wanted: its plain host where there is no
    /// other.
    pub fn wanted(fips: bool, service: Service, region: &Region) -> Self {
        let exists = service.fips_regions().contains(&region.as_str());
        if fips && exists { Self::Fips } else { Self::Regional }
    }
}

/// The host of a service, or nothing if there is no such endpoint.
pub fn host(service: Service, region: &Region, kind: EndpointKind) -> Option<String> {
    let prefix = match kind {
        EndpointKind::Regional => "",
        EndpointKind::Fips if service.fips_regions().contains(&region.as_str()) => "-fips",
        EndpointKind::Fips => return None,
    };
    let suffix = match Partition::of_region(region) {
        Partition::Aws | Partition::GovCloud => "amazonaws.com",
        Partition::China => "amazonaws.com.cn",
        Partition::EuropeanSovereign => "amazonaws.eu",
        Partition::Iso => "c2s.ic.gov",
        Partition::IsoB => "sc2s.sgov.gov",
        Partition::IsoE => "cloud.adc-e.uk",
        Partition::IsoF => "csp.hci.ic.gov",
    };
    Some(format!("{}{prefix}.{region}.{suffix}", service.as_str()))
}

/// Addresses that are used instead of AWS's public ones: private endpoints and emulators. The
/// `host` header stays AWS's, because that is what the node signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    overrides: BTreeMap<(Service, Option<Region>), Uri>,
    is_insecure: bool,
    wants_fips: bool,
}

/// An override that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidOverride(String);

impl Endpoints {
    /// AWS's own; FIPS ones where `wants_fips` and where they exist.
    pub fn new(wants_fips: bool) -> Self {
        Self { wants_fips, ..Self::default() }
    }

    /// Whether FIPS endpoints are wanted.
    pub fn wants_fips(&self) -> bool {
        self.wants_fips
    }

    /// Uses `url` for a service in one region, or in all. `https://host[:port]` and nothing behind
    /// it; `http` only if `allow_insecure`.
    pub fn replace(
        &mut self,
        service: Service,
        region: Option<Region>,
        url: &str,
        allow_insecure: bool,
    ) -> Result<(), InvalidOverride> {
        let name = service.as_str();
        let wrong = |what: &str| InvalidOverride(format!("aws.endpoints.{name}: {what}"));
        let uri: Uri = url.parse().map_err(|_| wrong("not an address"))?;
        let is_plain = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => false,
            Some(scheme) if *scheme == Scheme::HTTP => true,
            _ => return Err(wrong("expected https://HOST or https://HOST:PORT")),
        };
        let has_user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
        if has_user || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("expected https://HOST or https://HOST:PORT and nothing behind it"));
        }
        if is_plain && !allow_insecure {
            return Err(wrong(
                "plain http lets whoever is between answer for every instance; \
                 aws.insecure_endpoints = true allows it, for an emulator",
            ));
        }
        self.is_insecure |= is_plain;
        self.overrides.insert((service, region), uri);
        Ok(())
    }

    /// Whether somebody between could answer.
    pub fn is_insecure(&self) -> bool {
        self.is_insecure
    }

    /// What was replaced, for the log: `sts https://…`, `ec2 us-west-2 https://…`.
    pub fn replaced(&self) -> Vec<String> {
        let line = |((service, region), uri): (&(Service, Option<Region>), &Uri)| match region {
            Some(region) => format!("{} {region} {uri}", service.as_str()),
            None => format!("{} {uri}", service.as_str()),
        };
        self.overrides.iter().map(line).collect()
    }

    /// AWS's host of a service, the FIPS one where that is wanted and there is one.
    pub fn host(&self, service: Service, region: &Region) -> Option<String> {
        host(service, region, EndpointKind::wanted(self.wants_fips, service, region))
    }

    /// Where to connect for a host: its own address, or what replaces it.
    pub fn uri(&self, service: Service, region: &Region, host: &str) -> Option<Uri> {
        let replaced = self
            .overrides
            .get(&(service, Some(region.clone())))
            .or_else(|| self.overrides.get(&(service, None)));
        let (scheme, authority) = match replaced {
            Some(uri) => (uri.scheme()?.clone(), uri.authority()?.clone()),
            None => (Scheme::HTTPS, Authority::try_from(host).ok()?),
        };
        Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        name.parse().unwrap()
    }

    // T48: nothing but an exact host of a known region and partition.
    #[test]
    fn hosts_follow_partition_and_kind() {
        for (name, kind, expected) in [
            ("us-west-2", EndpointKind::Regional, Some("sts.us-west-2.amazonaws.com")),
            ("us-west-2", EndpointKind::Fips, Some("sts-fips.us-west-2.amazonaws.com")),
            ("eu-west-1", EndpointKind::Fips, None),
            ("us-gov-west-1", EndpointKind::Fips, None),
            ("us-gov-west-1", EndpointKind::Regional, Some("sts.us-gov-west-1.amazonaws.com")),
            ("cn-north-1", EndpointKind::Regional, Some("sts.cn-north-1.amazonaws.com.cn")),
            ("eusc-de-east-1", EndpointKind::Regional, Some("sts.eusc-de-east-1.amazonaws.eu")),
            ("us-iso-east-1", EndpointKind::Regional, Some("sts.us-iso-east-1.c2s.ic.gov")),
            ("us-isob-east-1", EndpointKind::Regional, Some("sts.us-isob-east-1.sc2s.sgov.gov")),
            ("eu-isoe-west-1", EndpointKind::Regional, Some("sts.eu-isoe-west-1.cloud.adc-e.uk")),
            ("us-isof-south-1", EndpointKind::Regional, Some("sts.us-isof-south-1.csp.hci.ic.gov")),
        ] {
            assert_eq!(host(Service::Sts, &region(name), kind).as_deref(), expected, "{name}");
        }
        for (name, kind, expected) in [
            ("us-west-2", EndpointKind::Regional, Some("ssm.us-west-2.amazonaws.com")),
            ("ca-central-1", EndpointKind::Fips, Some("ssm-fips.ca-central-1.amazonaws.com")),
            ("eu-west-1", EndpointKind::Fips, None),
            ("cn-north-1", EndpointKind::Regional, Some("ssm.cn-north-1.amazonaws.com.cn")),
        ] {
            assert_eq!(host(Service::Ssm, &region(name), kind).as_deref(), expected, "{name}");
        }
        assert_eq!(
            EndpointKind::wanted(true, Service::Sts, &region("us-gov-west-1")),
            EndpointKind::Regional
        );
    }

    #[test]
    fn an_override_says_only_where_to_connect() {
        let mut endpoints = Endpoints::new(false);
        let oregon = region("us-west-2");
        let own = "sts.us-west-2.amazonaws.com";
        let uri = |endpoints: &Endpoints| endpoints.uri(Service::Sts, &oregon, own).unwrap();
        assert_eq!(uri(&endpoints).to_string(), "https://sts.us-west-2.amazonaws.com/");
        endpoints.replace(Service::Sts, None, "http://127.0.0.1:1", true).unwrap();
        assert_eq!(uri(&endpoints).to_string(), "http://127.0.0.1:1/");
        assert!(endpoints.is_insecure());
        let private = "https://vpce-1.sts.us-west-2.vpce.amazonaws.com";
        endpoints.replace(Service::Sts, Some(oregon.clone()), private, false).unwrap();
        assert_eq!(uri(&endpoints).to_string(), format!("{private}/"));
        assert_eq!(endpoints.uri(Service::Ec2, &oregon, "h").unwrap().to_string(), "https://h/");
    }

    #[test]
    fn an_override_is_https_and_a_host_alone() {
        let mut endpoints = Endpoints::default();
        for wrong in [
            "http://127.0.0.1:1",
            "",
            "vpce.example",
            "ftp://h",
            "https://",
            "https://u:p@h",
            "https://h/path",
            "https://h/?q",
        ] {
            assert!(endpoints.replace(Service::Sts, None, wrong, false).is_err(), "{wrong}");
        }
        assert_eq!(endpoints, Endpoints::default());
    }
}

//! The server's configuration: a strict TOML file, flags on top of it, defaults below.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use super::authority::{Backend, CaSection};
use super::cloud::{AwsSection, Cloud};
use super::space::{SpaceLimits, StoreSection};
use crate::audit::RefusalQuota;
use crate::domain::TrustDomain;

/// The longest configuration file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Every key with its default and what it means; a test keeps it true.
pub const EXAMPLE: &str = include_str!("example.toml");

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(pub String);

/// What the file may say. Absent means the default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    trust_domain: Option<TrustDomain>,
    data_dir: Option<PathBuf>,
    policies: Option<PathBuf>,
    listen: ListenSection,
    diagnostics: DiagnosticsSection,
    crl: CrlSection,
    aws: AwsSection,
    ca: CaSection,
    tokens: TokensSection,
    publisher: PublisherSection,
    audit: AuditSection,
    store: StoreSection,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenSection {
    address: Option<SocketAddr>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    dns_names: Vec<String>,
    connections_max: Option<usize>,
    handshakes_max: Option<usize>,
    proxy_protocol_from: Vec<IpNet>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CrlSection {
    address: Option<SocketAddr>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DiagnosticsSection {
    address: Option<SocketAddr>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TokensSection {
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PublisherSection {
    join_address: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuditSection {
    file: Option<PathBuf>,
    stdout: bool,
    checkpoint_key: Option<PathBuf>,
    refusals_mib_an_hour: Option<usize>,
    refusals_mib: Option<usize>,
}

/// The most mebibytes that a limit may have: an exbibyte.
const MIB_MAX: usize = 1 << 40;

impl AuditSection {
    fn quota(&self) -> Result<RefusalQuota, InvalidConfig> {
        let hour = self.refusals_mib_an_hour.unwrap_or(16);
        let all = self.refusals_mib.unwrap_or(2048);
        Ok(RefusalQuota {
            bytes_an_hour: mebibytes("audit.refusals_mib_an_hour", hour)?,
            bytes_in_all: mebibytes("audit.refusals_mib", all)?,
        })
    }
}

/// So many mebibytes, in bytes.
pub(super) fn mebibytes(name: &str, count: usize) -> Result<u64, InvalidConfig> {
    let count = bounded(name, count, 0..=MIB_MAX)?;
    Ok(u64::try_from(count).unwrap_or(u64::MAX) << 20)
}

/// What the flags say.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--policies`.
    pub policies: Option<PathBuf>,
    /// `--trust-domain`.
    pub trust_domain: Option<TrustDomain>,
    /// `--simulation`.
    pub simulation: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--diagnostics-listen`.
    pub diagnostics_listen: Option<SocketAddr>,
    /// `--crl-listen`.
    pub crl_listen: Option<SocketAddr>,
    /// `--audit-checkpoint-key`.
    pub audit_checkpoint_key: Option<PathBuf>,
}

/// Everything that a server needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Needed at the first start; later it must equal what is on disk, if it is given.
    pub trust_domain: Option<TrustDomain>,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Where policy files are.
    pub policies: PathBuf,
    /// A simulator's directory, instead of AWS.
    pub simulation: Option<PathBuf>,
    /// Join and node services.
    pub listen: SocketAddr,
    /// A certificate for nodes that verify by public roots: chain and key files.
    pub public_certificate: Option<(PathBuf, PathBuf)>,
    /// The server's own DNS names: no node may get one of them.
    pub dns_names: Vec<String>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Of these, how many may keep us waiting for the first flight of their TLS handshake.
    pub handshakes_max: usize,
    /// TCP balancers: their connections begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Health and metrics.
    pub diagnostics_listen: SocketAddr,
    /// The revocation list; nowhere, if none.
    pub crl_listen: Option<SocketAddr>,
    /// More region certificates.
    pub certificates_dir: Option<PathBuf>,
    /// How AWS is reached.
    pub cloud: Cloud,
    /// Who signs nodes.
    pub ca_backend: Backend,
    /// Opens the CA keys.
    pub passphrase_file: Option<PathBuf>,
    /// Static tokens.
    pub tokens_file: Option<PathBuf>,
    /// Where nodes reach the join listener, HOST:PORT: published beside tokens.
    pub join_address: Option<String>,
    /// A copy of the audit log.
    pub audit_file: Option<PathBuf>,
    /// A copy of the audit log on standard output.
    pub audit_stdout: bool,
    /// The key of its checkpoints; in the data directory, if none.
    pub audit_checkpoint_key: Option<PathBuf>,
    /// How much known refusals may take.
    pub refusal_quota: RefusalQuota,
    /// When what gives way on a disk that runs full.
    pub space: SpaceLimits,
}

impl Config {
    /// Reads the file, if there is one, and puts the flags on top.
    pub fn load(file: Option<&Path>, flags: Overrides) -> Result<Self, InvalidConfig> {
        let file = match file {
            Some(path) => parse(&read(path)?)
                .map_err(|error| InvalidConfig(format!("{}: {error}", path.display())))?,
            None => ConfigFile::default(),
        };
        Self::merge(file, flags)
    }

    fn merge(file: ConfigFile, flags: Overrides) -> Result<Self, InvalidConfig> {
        let data_dir =
            flags.data_dir.or(file.data_dir).unwrap_or_else(|| PathBuf::from("/var/lib/muster"));
        let diagnostics_listen = flags
            .diagnostics_listen
            .or(file.diagnostics.address)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7445)));
        if !diagnostics_listen.ip().is_loopback() {
            return Err(InvalidConfig(
                "diagnostics.address must be a loopback address: it is not authenticated"
                    .to_owned(),
            ));
        }
        let public_certificate = match (file.listen.certificate_file, file.listen.key_file) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(InvalidConfig(
                    "listen.certificate_file and listen.key_file go together".to_owned(),
                ));
            }
        };
        let connections_max = bounded(
            "listen.connections_max",
            file.listen.connections_max.unwrap_or(10_000),
            2..=1_000_000,
        )?;
        let handshakes_max = bounded(
            "listen.handshakes_max",
            file.listen.handshakes_max.unwrap_or_else(|| 100_000.min(connections_max / 2)),
            1..=100_000,
        )?;
        if handshakes_max >= connections_max {
            return Err(InvalidConfig(
                "listen.handshakes_max must be less than listen.connections_max: otherwise silent \
                 connections could take every place"
                    .to_owned(),
            ));
        }
        let cloud = file.aws.check().map_err(InvalidConfig)?;
        let (refusal_quota, space) = (file.audit.quota()?, file.store.limits()?);
        Ok(Self {
            trust_domain: flags.trust_domain.or(file.trust_domain),
            policies: flags.policies.or(file.policies).unwrap_or_else(|| data_dir.join("policies")),
            data_dir,
            simulation: flags.simulation,
            listen: flags
                .listen
                .or(file.listen.address)
                .unwrap_or_else(|| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 7443))),
            public_certificate,
            dns_names: file.listen.dns_names,
            connections_max,
            handshakes_max,
            proxy_protocol_from: file.listen.proxy_protocol_from,
            diagnostics_listen,
            crl_listen: flags.crl_listen.or(file.crl.address),
            certificates_dir: file.aws.certificates_dir,
            cloud,
            ca_backend: file.ca.backend().map_err(InvalidConfig)?,
            passphrase_file: file.ca.passphrase_file,
            tokens_file: file.tokens.file,
            join_address: file.publisher.join_address.map(checked_address).transpose()?,
            audit_file: file.audit.file,
            audit_stdout: file.audit.stdout,
            audit_checkpoint_key: flags.audit_checkpoint_key.or(file.audit.checkpoint_key),
            refusal_quota,
            space,
        })
    }
}

fn parse(text: &str) -> Result<ConfigFile, InvalidConfig> {
    toml::from_str(text).map_err(|error| {
        // The line itself is not repeated: a key that is misspelt may hold a secret (I10).
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        InvalidConfig(format!("line {line}: {}", error.message()))
    })
}

/// The text of a file of at most 64 KiB.
pub(super) fn read(path: &Path) -> Result<String, InvalidConfig> {
    use std::io::Read;
    let unreadable =
        |error: std::io::Error| InvalidConfig(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        // What is left of a file that was cut may say something else.
        return Err(InvalidConfig(format!("{} is longer than 64 KiB", path.display())));
    }
    Ok(text)
}

/// `HOST:PORT`, as nodes are to be told.
fn checked_address(address: String) -> Result<String, InvalidConfig> {
    let parts = address.rsplit_once(':');
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = |host: &str| {
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name),
        }
    };
    match parts {
        Some((host, port)) if is_host(host) && is_port(port) => Ok(address),
        _ => Err(InvalidConfig(
            "publisher.join_address must be HOST:PORT, for example muster.example.org:7443"
                .to_owned(),
        )),
    }
}

fn bounded(
    name: &str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, InvalidConfig> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(InvalidConfig(format!("{name} must be from {} to {}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_names_every_key_and_is_the_default() {
        let written = parse(EXAMPLE).unwrap();
        let merged = Config::merge(written, Overrides::default()).unwrap();
        let default = Config::merge(ConfigFile::default(), Overrides::default()).unwrap();
        assert_eq!(format!("{merged:?}"), format!("{default:?}"));
        // Without the comment signs it is a file with every key.
        let lines: Vec<_> =
            EXAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
        let uncommented = lines.join("\n");
        let full = parse(&uncommented).unwrap();
        let text = format!("{full:?}");
        assert!(!text.contains("None"), "a key is missing in the example: {text}");
    }

    #[test]
    fn a_misspelt_key_is_named_and_its_value_is_not() {
        let error = parse("[ca]\npassphrase = 'correct horse battery'\n").unwrap_err().0;
        assert!(error.contains("line 2") && error.contains("`passphrase`"), "{error}");
        assert!(!error.contains("horse"), "{error}");
    }

    #[test]
    fn unknown_keys_and_open_diagnostics_are_refused() {
        assert!(parse("trust_domian = 'a.example'").is_err());
        assert!(parse("[listen]\nport = 1").is_err());
        let open = parse("[diagnostics]\naddress = '0.0.0.0:7445'").unwrap();
        assert!(Config::merge(open, Overrides::default()).is_err());
        for address in ["", "a", "a:", "a:0", ":7443", "a b:1", "https://a:1", "::1:7443", "[a]:1"]
        {
            let wrong = parse(&format!("[publisher]\njoin_address = '{address}'")).unwrap();
            assert!(Config::merge(wrong, Overrides::default()).is_err(), "{address}");
        }
        for address in ["muster.example.org:7443", "10.0.0.7:7443", "[2001:db8::7]:7443"] {
            let right = parse(&format!("[publisher]\njoin_address = '{address}'")).unwrap();
            assert!(Config::merge(right, Overrides::default()).is_ok(), "{address}");
        }
        for wrong in ["very_low_mib = 600", "low_mib = 100", "reserve_mib = 9999999999999"] {
            let wrong = parse(&format!("[store]\n{wrong}")).unwrap();
            assert!(Config::merge(wrong, Overrides::default()).is_err());
        }
        let half = parse("[listen]\nkey_file = '/k'").unwrap();
        assert!(Config::merge(half, Overrides::default()).is_err());
    }
}

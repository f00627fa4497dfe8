//! The agent's configuration: a strict TOML file, flags on top of it, defaults below.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::method::{Method, MethodList};
use super::network::Means;
use super::token::{ParameterPath, SsmSettings, TokenSource};
use crate::aws::Imds;
use crate::client::{Endpoint, ServerTrust, parse_pin};
use crate::domain::{Code, KeyDigest, Region};

/// The longest configuration file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Every key with its default and what it means; a test keeps it true.
pub const EXAMPLE: &str = include_str!("example.toml");

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnusableConfig {
    /// The code that it is reported under.
    pub code: Code,
    message: String,
}

impl UnusableConfig {
    fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::ConfigurationInvalid, message: message.into() }
    }

    fn unreadable(path: &Path, what: &dyn std::fmt::Display) -> Self {
        Self { code: Code::FileUnreadable, message: format!("{}: {what}", path.display()) }
    }
}

/// What the file may say. Absent means the default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    server: Option<String>,
    policy: Option<String>,
    pins: Option<Vec<String>>,
    ca_file: Option<PathBuf>,
    system_roots: Option<bool>,
    state: Option<PathBuf>,
    imds_endpoint: Option<String>,
    methods: Option<Vec<Method>>,
    from_ssm: Option<String>,
    token: TokenSection,
    reload: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TokenSection {
    source: Option<String>,
    region: Option<Region>,
    endpoint: Option<String>,
    insecure_endpoint: Option<bool>,
}

/// How the server is known, as it was said: exactly one of the three counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustSource {
    /// Pins of the join root.
    pub pins: Vec<KeyDigest>,
    /// The join root's certificate.
    pub ca_file: Option<PathBuf>,
    /// The machine's public roots.
    pub system_roots: bool,
}

impl TrustSource {
    fn count(&self) -> usize {
        [!self.pins.is_empty(), self.ca_file.is_some(), self.system_roots]
            .into_iter()
            .filter(|is_given| *is_given)
            .count()
    }
}

/// What the flags say.
#[derive(Debug, Clone, Default)]
pub struct AgentOverrides {
    /// `--server`.
    pub server: Option<Endpoint>,
    /// `--policy`.
    pub policy: Option<String>,
    /// `--pin`, `--ca-file`, `--system-roots`: together they replace what the file says.
    pub trust: TrustSource,
    /// `--state`.
    pub state: Option<PathBuf>,
    /// `--imds-endpoint`.
    pub imds_endpoint: Option<String>,
    /// `--method`.
    pub methods: Vec<Method>,
    /// `--token-source` and `--token-file`.
    pub token_source: Option<TokenSource>,
    /// `--from-ssm`.
    pub from_ssm: Option<ParameterPath>,
    /// `--ssm-region`, `--ssm-endpoint`, `--ssm-insecure-endpoint`.
    pub ssm: SsmSettings,
    /// `--reload-command`.
    pub reload: Vec<String>,
}

/// Everything that an agent needs to know before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// The join server; without one SSM says where it is.
    pub server: Option<Endpoint>,
    /// The policy; without one the server may choose, or SSM says.
    pub policy: Option<String>,
    /// How the server is known; may be left to SSM.
    pub trust: TrustSource,
    /// Where key and certificate are kept.
    pub state: PathBuf,
    /// The metadata service.
    pub imds_endpoint: String,
    /// By which methods the node joins, in this order.
    pub methods: MethodList,
    /// Where the token is.
    pub token_source: Option<TokenSource>,
    /// Where the publisher writes.
    pub from_ssm: Option<ParameterPath>,
    /// Where SSM is.
    pub ssm: SsmSettings,
    /// Run after each new certificate.
    pub reload: Vec<String>,
}

impl AgentConfig {
    /// Reads the file, if there is one, and puts the flags on top.
    pub fn load(file: Option<&Path>, flags: AgentOverrides) -> Result<Self, UnusableConfig> {
        let file = match file {
            Some(path) => parse(&read(path)?)
                .map_err(|what| UnusableConfig::invalid(format!("{}: {what}", path.display())))?,
            None => ConfigFile::default(),
        };
        Self::merge(file, flags)
    }

    fn merge(file: ConfigFile, flags: AgentOverrides) -> Result<Self, UnusableConfig> {
        let from_ssm = match (flags.from_ssm, file.from_ssm) {
            (None, Some(text)) => Some(read_as("from_ssm", &text)?),
            (flag, _) => flag,
        };
        let server = match (flags.server, file.server) {
            (None, Some(text)) => Some(read_as("server", &text)?),
            (None, None) if from_ssm.is_none() => {
                return Err(UnusableConfig::invalid(
                    "--server, or `server` in the file, is needed, or --from-ssm",
                ));
            }
            (flag, _) => flag,
        };
        let trust = if flags.trust.count() > 0 {
            flags.trust
        } else {
            let pins = file.pins.unwrap_or_default();
            let pins = pins.iter().map(|pin| parse_pin(pin)).collect::<Result<_, _>>();
            TrustSource {
                pins: pins.map_err(|error| UnusableConfig::invalid(format!("pins: {error}")))?,
                ca_file: file.ca_file,
                system_roots: file.system_roots.unwrap_or(false),
            }
        };
        if trust.count() > 1 || (trust.count() == 0 && from_ssm.is_none()) {
            return Err(UnusableConfig::invalid(
                "exactly one of --pin, --ca-file and --system-roots (`pins`, `ca_file`, \
                 `system_roots`) is needed, or --from-ssm",
            ));
        }
        let token_source = match (flags.token_source, &file.token.source) {
            (None, Some(text)) => Some(read_as("token.source", text)?),
            (flag, _) => flag,
        };
        let has_token = token_source.is_some() || from_ssm.is_some();
        let methods = methods(flags.methods, file.methods, has_token)?;
        if methods.contains(Method::Token) && !has_token {
            return Err(UnusableConfig::invalid(
                "the method `token` needs a source: --token-file, --token-source (`token.source`) \
                 or --from-ssm",
            ));
        }
        let ssm = ssm_settings(flags.ssm, file.token)?;
        let reload =
            if flags.reload.is_empty() { file.reload.unwrap_or_default() } else { flags.reload };
        Ok(Self {
            server,
            policy: flags.policy.or(file.policy).filter(|policy| !policy.is_empty()),
            trust,
            state: flags
                .state
                .or(file.state)
                .unwrap_or_else(|| PathBuf::from("/var/lib/muster-agent")),
            imds_endpoint: flags
                .imds_endpoint
                .or(file.imds_endpoint)
                .unwrap_or_else(|| "http://169.254.169.254".to_owned()),
            methods,
            token_source,
            from_ssm,
            ssm,
            reload,
        })
    }

    /// With what the node goes to its server. Reads the file of the join root, if there is one.
    pub fn means(&self) -> Result<Means, UnusableConfig> {
        let imds = Imds::at(&self.imds_endpoint)
            .map_err(|error| UnusableConfig::invalid(format!("imds_endpoint: {error}")))?;
        let is_given = self.trust.count() > 0;
        Ok(Means {
            server: self.server.clone(),
            trust: is_given.then(|| read_trust(&self.trust)).transpose()?,
            policy: self.policy.clone(),
            methods: self.methods.clone(),
            token_source: self.token_source.clone(),
            from_ssm: self.from_ssm.clone(),
            ssm: self.ssm.clone(),
            imds,
        })
    }
}

/// By what a node joins whose list is not given: by a token if there is a source of one, because
/// whoever names it means it.
fn methods(
    flags: Vec<Method>,
    file: Option<Vec<Method>>,
    has_token: bool,
) -> Result<MethodList, UnusableConfig> {
    let given = if flags.is_empty() { file } else { Some(flags) };
    let default = if has_token { Method::Token } else { Method::Ec2 };
    match given {
        None => Ok(MethodList::only(default)),
        Some(methods) => MethodList::new(methods)
            .map_err(|error| UnusableConfig::invalid(format!("methods: {error}"))),
    }
}

fn ssm_settings(flags: SsmSettings, file: TokenSection) -> Result<SsmSettings, UnusableConfig> {
    // The switch goes with the address that it is for.
    let (endpoint, insecure_endpoint) = match flags.endpoint {
        Some(endpoint) => (Some(endpoint), flags.insecure_endpoint),
        None => (file.endpoint, file.insecure_endpoint.unwrap_or(false)),
    };
    let settings =
        SsmSettings { region: flags.region.or(file.region), endpoint, insecure_endpoint };
    settings.endpoints().map_err(UnusableConfig::invalid)?;
    Ok(settings)
}

/// A value of the file. An error never repeats it: somebody may have written a secret (I10).
fn read_as<T: std::str::FromStr<Err: std::fmt::Display>>(
    key: &str,
    text: &str,
) -> Result<T, UnusableConfig> {
    text.parse().map_err(|error| UnusableConfig::invalid(format!("{key}: {error}")))
}

/// Reads what the source names. Of several, public roots go first and pins last; who takes them from
/// outside lets only one through.
pub fn read_trust(source: &TrustSource) -> Result<ServerTrust, UnusableConfig> {
    if source.system_roots {
        return Ok(ServerTrust::SystemRoots);
    }
    let Some(path) = &source.ca_file else {
        return Ok(ServerTrust::Pins(source.pins.clone()));
    };
    let pem = std::fs::read(path).map_err(|error| UnusableConfig::unreadable(path, &error))?;
    let roots = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| UnusableConfig::unreadable(path, &error))?;
    if roots.is_empty() {
        return Err(UnusableConfig::unreadable(path, &"no certificate in it"));
    }
    Ok(ServerTrust::Roots(roots))
}

fn parse(text: &str) -> Result<ConfigFile, String> {
    toml::from_str(text).map_err(|error| {
        // The line itself is not repeated: a key that is misspelt may hold a secret (I10).
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", error.message())
    })
}

fn read(path: &Path) -> Result<String, UnusableConfig> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| UnusableConfig::unreadable(path, &error))?;
    if u64::try_from(text.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(UnusableConfig::unreadable(path, &"it is longer than 64 KiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> AgentOverrides {
        AgentOverrides {
            server: Some("a.example".parse().unwrap()),
            trust: TrustSource { system_roots: true, ..TrustSource::default() },
            ..AgentOverrides::default()
        }
    }

    #[test]
    fn the_example_names_every_key_and_is_the_default() {
        let written = parse(EXAMPLE).unwrap();
        let merged = AgentConfig::merge(written, flags()).unwrap();
        let default = AgentConfig::merge(ConfigFile::default(), flags()).unwrap();
        assert_eq!(merged, default);
        // Without the comment signs it is a file with every key, and what it shows can be read.
        let lines: Vec<_> =
            EXAMPLE.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
        let full = parse(&lines.join("\n")).unwrap();
        assert!(!format!("{full:?}").contains("None"), "a key is missing: {full:?}");
        let shown = ConfigFile { ca_file: None, ..full };
        let shown = AgentConfig::merge(shown, AgentOverrides::default()).unwrap();
        assert_eq!((shown.state, shown.imds_endpoint), (default.state, default.imds_endpoint));
        assert_eq!(shown.server.unwrap().to_string(), "muster.prod.example.org:7443");
    }

    #[test]
    fn flags_win_and_trust_is_not_mixed() {
        let pin = format!("sha256:{}", "0".repeat(64));
        let text = format!("server = 'b.example'\npolicy = 'web'\npins = ['{pin}']");
        let alone = AgentConfig::merge(parse(&text).unwrap(), AgentOverrides::default()).unwrap();
        assert_eq!((alone.policy.as_deref(), alone.trust.pins.len()), (Some("web"), 1));
        let both = AgentConfig::merge(parse(&text).unwrap(), flags()).unwrap();
        assert_eq!(both.server.unwrap().to_string(), "a.example:7443");
        assert!(both.trust.system_roots && both.trust.pins.is_empty());
    }

    #[test]
    fn what_is_missing_wrong_or_unknown_is_refused() {
        for (text, expected) in [
            ("system_roots = true", "--server"),
            ("server = 'a.example'", "exactly one"),
            ("server = 'a.example'\nsystem_roots = true\nca_file = '/x'", "exactly one"),
            ("server = 'a b'\nsystem_roots = true", "HOST"),
            ("server = 'a.example'\npins = ['sha256:12']", "64"),
            ("server = 'a.example'\nsystem_roots = true\nmethods = ['token']", "token.source"),
            ("server = 'a.example'\nsystem_roots = true\nmethods = []", "at least one"),
            ("from_ssm = '/p'\nmethods = ['ec2', 'ec2']", "none twice"),
            ("from_ssm = 'muster'", "from_ssm"),
            ("from_ssm = '/p'\ntoken.source = 'ssm:p'", "token.source"),
            ("from_ssm = '/p'\nsystem_roots = true\nca_file = '/x'", "exactly one"),
            ("from_ssm = '/p'\ntoken.endpoint = 'http://127.0.0.1:1'", "insecure_endpoint"),
        ] {
            let file = parse(text).unwrap();
            let error = AgentConfig::merge(file, AgentOverrides::default()).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert_eq!(error.code, Code::ConfigurationInvalid);
        }
        let error = parse("server = 'a.example'\nsecret = 'canary'\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("`secret`"), "{error}");
        assert!(!error.contains("canary"), "{error}");
        let missing = AgentConfig::load(Some(Path::new("/nonexistent")), flags()).unwrap_err();
        assert_eq!(missing.code, Code::FileUnreadable);
    }

    #[test]
    fn the_methods_are_those_of_the_list_or_what_there_is_a_source_for() {
        const SERVER: &str = "server = 'a.example'\nsystem_roots = true\n";
        let both = "methods = ['token', 'ec2']\ntoken.source = '-'";
        for (text, expected) in [
            (SERVER.to_owned(), vec![Method::Ec2]),
            (format!("{SERVER}token.source = '/t'"), vec![Method::Token]),
            ("from_ssm = '/muster/prod'".to_owned(), vec![Method::Token]),
            (format!("{SERVER}{both}"), vec![Method::Token, Method::Ec2]),
            // A source alone does not make a method of what the list leaves out (T58).
            (format!("{SERVER}methods = ['ec2']\ntoken.source = '/t'"), vec![Method::Ec2]),
            ("methods = ['ec2']\nfrom_ssm = '/muster/prod'".to_owned(), vec![Method::Ec2]),
        ] {
            let config = AgentConfig::merge(parse(&text).unwrap(), AgentOverrides::default());
            assert_eq!(config.unwrap().methods, MethodList::new(expected).unwrap(), "{text}");
        }
        let flags = AgentOverrides { methods: vec![Method::Ec2], ..flags() };
        let config = AgentConfig::merge(parse(both).unwrap(), flags).unwrap();
        assert_eq!(config.methods, MethodList::only(Method::Ec2), "flags win");
    }

    // I10: a token where its source should be is refused and not repeated.
    #[test]
    fn a_token_in_the_file_is_not_repeated() {
        let text = "from_ssm = '/p'\ntoken.source = 'muster-token-1.web-1.canary'";
        let error =
            AgentConfig::merge(parse(text).unwrap(), AgentOverrides::default()).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        let error = parse("[token]\nsecret = 'canary'").unwrap_err();
        assert!(error.contains("`secret`") && !error.contains("canary"), "{error}");
    }
}

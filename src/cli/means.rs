//! The flags by which `muster join` and `muster agent` say how a node joins.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::agent::{InvalidTokenSource, Method, ParameterPath, SsmSettings, TokenSource};
use crate::domain::{Code, Region};

/// By which methods, and where the token is. No flag takes the token itself: arguments can be read by
/// everybody on the machine.
#[derive(Debug, Clone, Args)]
pub(super) struct MeansArguments {
    /// A join method, `ec2` or `token`; given more than once, a denial moves on to the next one
    /// [default: token where a source of one is given, else ec2].
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<Method>,
    /// Where the join token is: `file:/PATH`, `ssm:/PATH`, or `-` for standard input.
    #[arg(long, value_name = "SOURCE", conflicts_with = "token_file")]
    token_source: Option<String>,
    /// A file with the join token, of this user or root and mode 0600.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Reads server, pins, policy and token from SSM, where the server publishes them.
    #[arg(long, value_name = "PATH")]
    from_ssm: Option<ParameterPath>,
    /// The region of SSM [default: the instance's own].
    #[arg(long, value_name = "REGION")]
    ssm_region: Option<Region>,
    /// A private endpoint or an emulator instead of AWS's SSM.
    #[arg(long, value_name = "URL")]
    ssm_endpoint: Option<String>,
    /// Takes an --ssm-endpoint of plain http, for an emulator: anybody between reads the token.
    #[arg(long, requires = "ssm_endpoint")]
    ssm_insecure_endpoint: bool,
}

/// What the flags say.
pub(super) struct GivenMeans {
    pub(super) methods: Vec<Method>,
    pub(super) token_source: Option<TokenSource>,
    pub(super) from_ssm: Option<ParameterPath>,
    pub(super) ssm: SsmSettings,
}

impl MeansArguments {
    pub(super) fn into_given(self) -> Result<GivenMeans, Failure> {
        // Not read by the parser of flags, which repeats a wrong value: somebody may have given the
        // token itself.
        let named = self.token_source.map(|text| {
            text.parse().map_err(|error: InvalidTokenSource| {
                Failure::new(Code::ConfigurationInvalid, format!("--token-source: {error}"))
            })
        });
        let ssm = SsmSettings {
            region: self.ssm_region,
            endpoint: self.ssm_endpoint,
            insecure_endpoint: self.ssm_insecure_endpoint,
        };
        Ok(GivenMeans {
            methods: self.methods,
            token_source: named.transpose()?.or(self.token_file.map(TokenSource::File)),
            from_ssm: self.from_ssm,
            ssm,
        })
    }
}

//! What a configuration says of the token: where it is, and never what it is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest name of a parameter that SSM takes.
const NAME_BYTES_MAX: usize = 1011;
const LEVELS_MAX: usize = 15;

/// Text that names no source. It never repeats the text: somebody may have given the token itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTokenSource(&'static str);

/// Where the token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `file:/path`, or the path alone.
    File(PathBuf),
    /// `ssm:/muster/prod/web/token`.
    Ssm(ParameterPath),
    /// `-` or `stdin`.
    Stdin,
}

impl FromStr for TokenSource {
    type Err = InvalidTokenSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("muster-token-") {
            return Err(InvalidTokenSource(
                "this is a token and no source of one. Whoever can list processes or read the \
                 configuration can read it now: remove it with `muster tokens rm`, and give a file, \
                 `ssm:/PATH` or `-`",
            ));
        }
        if let Some(name) = text.strip_prefix("ssm:") {
            return name.parse().map(Self::Ssm);
        }
        match text.strip_prefix("file:").unwrap_or(text) {
            "-" | "stdin" => Ok(Self::Stdin),
            "" => Err(InvalidTokenSource("expected file:/PATH, ssm:/PATH or `-`")),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Ssm(name) => write!(f, "ssm:{name}"),
            Self::Stdin => f.write_str("stdin"),
        }
    }
}

/// The name of a parameter, or of a folder of parameters: `/` and levels of letters, digits, `.`, `-`
/// and `_`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterPath(String);

impl ParameterPath {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is called so in this folder.
    pub(crate) fn child(&self, name: &str) -> Result<Self, InvalidTokenSource> {
        format!("{}/{name}", self.0).parse()
    }
}

impl FromStr for ParameterPath {
    type Err = InvalidTokenSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_level = |level: &str| {
            let is_of = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !level.is_empty() && level.bytes().all(is_of)
        };
        let levels = text.strip_prefix('/').map(|rest| rest.split('/')).into_iter().flatten();
        let count = levels.clone().count();
        if text.len() <= NAME_BYTES_MAX
            && (1..=LEVELS_MAX).contains(&count)
            && levels.clone().all(is_level)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTokenSource(
                "expected the path of a parameter, such as /muster/prod/web/token",
            ))
        }
    }
}

impl fmt::Display for ParameterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

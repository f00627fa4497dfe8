//! The checks of a node. The clock is not among them: nothing that a node can ask without joining
//! tells a time that it could believe.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Check;
use crate::agent::read_trust;
use crate::aws::{Imds, message_of_text};
use crate::cli::join::TrustArguments;
use crate::cli::{Failure, runtime};
use crate::client::{Connection, Endpoint, ServerTrust};
use crate::domain::Code;

const OTHERS: u32 = 0o077;
/// Longer than the agent's own.
const AGENT_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Looks at this machine as a node.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The join server; without it, none is tried.
    #[arg(long, value_name = "HOST:PORT", requires = "trust")]
    server: Option<Endpoint>,
    #[command(flatten)]
    trust: TrustArguments,
    /// Where key and certificate are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/muster-agent")]
    state: PathBuf,
    /// The instance metadata service.
    #[arg(long, value_name = "URL", default_value = "http://169.254.169.254")]
    imds_endpoint: String,
}

pub(super) fn checks(arguments: &Arguments) -> Result<Vec<Check>, Failure> {
    let imds = Imds::at(&arguments.imds_endpoint).map_err(|error| {
        Failure::new(Code::ConfigurationInvalid, format!("--imds-endpoint: {error}"))
    })?;
    let trust = match &arguments.server {
        Some(_) => Some(read_trust(&arguments.trust.clone().into_source())?),
        None => None,
    };
    let runtime = runtime()?;
    let mut checks = runtime.block_on(metadata(&imds));
    checks.push(match (&arguments.server, trust) {
        (Some(endpoint), Some(trust)) => runtime.block_on(server(endpoint, &trust)),
        _ => Check::not_checked("server", "no --server was given"),
    });
    checks.push(state(&arguments.state));
    checks.extend(agent(&arguments.state));
    Ok(checks)
}

async fn metadata(imds: &Imds) -> Vec<Check> {
    let not_asked = "the metadata service does not answer";
    let session = match imds.session().await {
        Ok(session) => session,
        Err(error) => {
            let remedy = "on EC2: turn the metadata service on, with IMDSv2; in a container: a hop \
                          limit of 2 (`aws ec2 modify-instance-metadata-options \
                          --http-put-response-hop-limit 2`); elsewhere: --imds-endpoint";
            return vec![
                Check::failed("metadata service", error.to_string(), remedy),
                Check::not_checked("identity document", not_asked),
                Check::not_checked("identity role", not_asked),
            ];
        }
    };
    let document = session.rsa2048_document().await.map_err(|error| error.to_string());
    let document = document.and_then(|text| {
        let message = message_of_text(&text).map_err(|error| error.to_string())?;
        Ok(format!("rsa2048, {} bytes", message.len()))
    });
    let credentials = session.identity_credentials().await;
    let credentials = credentials
        .map(|_| "its credentials can be read".to_owned())
        .map_err(|error| error.to_string());
    vec![
        Check::ok("metadata service", "answers"),
        Check::of(
            "identity document",
            document,
            "whatever answers there is no metadata service of EC2 that signs documents",
        ),
        Check::of(
            "identity role",
            credentials,
            "every EC2 instance has these credentials; a stand-in for the metadata service often \
             has not, and policies that require a fresh proof then refuse",
        ),
    ]
}

/// Address, connection, TLS and who answers, as a join goes through them; nothing is sent.
async fn server(endpoint: &Endpoint, trust: &ServerTrust) -> Check {
    let opened = Connection::open(endpoint, trust).await;
    match opened {
        Ok(_) => Check::ok("server", format!("{} answers and is the right one", endpoint.host())),
        Err(error) => {
            let remedy = error.hint.unwrap_or_else(|| error.code.remedy().to_owned());
            Check::failed("server", format!("{} [{}]", error.message, error.code), remedy)
        }
    }
}

fn state(path: &Path) -> Check {
    const NAME: &str = "state directory";
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let detail = format!("{} is not there yet; a join makes it", path.display());
            return Check::ok(NAME, detail);
        }
        Err(error) => {
            let remedy = "run this as the user that joins, usually root";
            return Check::failed(NAME, format!("{}: {error}", path.display()), remedy);
        }
    };
    let own = rustix::process::geteuid().as_raw();
    let problem = if !found.is_dir() {
        Some("is no directory".to_owned())
    } else if found.uid() != own {
        Some(format!("belongs to user {}, and this is user {own}", found.uid()))
    } else if found.mode() & OTHERS != 0 {
        Some(format!("has mode {:o}: others can enter it", found.mode() & 0o7777))
    } else {
        None
    };
    match problem {
        Some(problem) => {
            let remedy = "it belongs to the user that joins and to nobody else: `chown` and \
                          `chmod 700` it";
            Check::failed(NAME, format!("{} {problem}", path.display()), remedy)
        }
        None if path.join("current/node.json").exists() => {
            Check::ok(NAME, format!("{}, joined", path.display()))
        }
        None => Check::ok(NAME, format!("{}, not joined yet", path.display())),
    }
}

/// What the agent wrote of its last try, if it wrote anything.
fn agent(state: &Path) -> Option<Check> {
    use std::io::Read;
    const NAME: &str = "agent";
    let mut text = String::new();
    let file = fs::File::open(state.join("agent.json")).ok()?;
    file.take(AGENT_FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let status: Value = serde_json::from_str(&text).ok()?;
    let word = |name: &str| {
        let error = status.get("last_error")?;
        error.get(name).and_then(Value::as_str).map(str::to_owned)
    };
    let Some(code) = word("code") else {
        return Some(Check::ok(NAME, "its last try went well"));
    };
    let detail = format!(
        "its last try failed: {} [{code}], correlation id {}",
        word("message").unwrap_or_default(),
        word("correlation_id").unwrap_or_else(|| "none".to_owned()),
    );
    let remedy =
        word("hint").or_else(|| code.parse::<Code>().ok().map(|code| code.remedy().to_owned()));
    Some(Check::failed(NAME, detail, remedy.unwrap_or_else(|| "see docs/errors.md".to_owned())))
}

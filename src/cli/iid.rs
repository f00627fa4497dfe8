//! `muster iid`: looks at instance identity documents without a server.

use std::path::PathBuf;

use super::{Exit, Failure, Outcome, Printer, input};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::methods::ec2::{IdentityDocument, MAX_DOCUMENT_BYTES};
use crate::methods::{Rejection, Value};

/// `muster iid …`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(Verify),
}

/// Verifies a document's signature and prints what it says. Its age is shown and not judged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  TOKEN=$(curl -sX PUT http://169.254.169.254/latest/api/token \\
    -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')
  curl -s -H \"X-aws-ec2-metadata-token: $TOKEN\" \\
    http://169.254.169.254/latest/dynamic/instance-identity/rsa2048 | muster iid verify -
  muster iid verify document.b64 --output json
  muster iid verify document.b64 --certificates-dir ./certificates")]
struct Verify {
    /// The document in its rsa2048 form: base64, PKCS7 or CMS armour, or BER; `-` is stdin.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Adds the region certificates `<region>.pem` of a directory.
    #[arg(long, value_name = "DIR")]
    certificates_dir: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, printer: Printer) -> Outcome {
    match &arguments.command {
        Command::Verify(verify) => verify.run(printer),
    }
}

impl Verify {
    fn run(&self, printer: Printer) -> Outcome {
        let certificates = input::certificates(&self.certificates_dir)?;
        let contents = input::read(&self.file, MAX_DOCUMENT_BYTES)?;
        let document = IdentityDocument::verify(&contents, &certificates)?;
        printer.result(&document, || in_words(&document, Clock::system().now()));
        Ok(Exit::Yes)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let mut failure = Self::new(rejection.code, rejection.message);
        failure.hint = rejection.hint.or(failure.hint);
        failure
    }
}

fn in_words(document: &IdentityDocument, now: Timestamp) -> String {
    let mut lines = vec!["The signature is valid. The document says:".to_owned()];
    for (name, value) in document.values() {
        let value = match value {
            Some(Value::Text(text)) => text,
            Some(Value::Time(time)) => time.to_string(),
            None
            | Some(
                Value::List(_)
                | Value::Tags(_)
                | Value::Span(_)
                | Value::Number(_)
                | Value::MetadataOptions { .. },
            ) => "-".to_owned(),
        };
        lines.push(format!("  {:<19} {value}", name.replace('_', " ")));
    }
    let pending = document.pending_time();
    lines.push(if pending > now {
        format!(
            "It lies {} ahead of this clock; its age is not judged here.",
            rounded(pending.since(now).seconds())
        )
    } else {
        format!("It is {} old; its age is not judged here.", rounded(now.since(pending).seconds()))
    });
    lines.join("\n")
}

/// An age as people say it.
fn rounded(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Code;

    #[test]
    fn ages_are_said_in_whole_units() {
        assert_eq!(rounded(119), "119 s");
        assert_eq!(rounded(7_199), "119 minutes");
        assert_eq!(rounded(172_799), "47 hours");
        assert_eq!(rounded(172_800), "2 days");
    }

    #[test]
    fn a_rejection_keeps_its_code_and_its_own_hint() {
        let code = Code::DocumentFormUnsupported;
        let with = |hint| Rejection { hint, ..Rejection::new(code, "no") };
        assert_eq!(Failure::from(with(None)).hint.as_deref(), Some(code.remedy()));
        let own = Failure::from(with(Some("own".to_owned())));
        assert_eq!((own.hint.as_deref(), own.exit), (Some("own"), Exit::No));
    }
}

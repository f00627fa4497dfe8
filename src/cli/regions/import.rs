//! `muster regions import`: AWS's page of certificates becomes a directory of files.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::{Exit, Failure, Format, Outcome, Printer, input};
use crate::aws::{Import, Imported, MAX_PAGE_BYTES, Standing, read_certificates_page};
use crate::domain::{Code, Partition, Region, Timestamp};

/// Longer answers are no "yes".
const MAX_ANSWER_BYTES: u64 = 16;

/// Writes the RSA-2048 certificates of AWS's page as files `<region>.pem`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The page is \"AWS public certificates for instance identity document \
signatures\" of the EC2
user guide, as Markdown or as a browser saves it. Nothing of it is signed: compare the SHA-256 of what
is new with a second source.

Examples:
  muster regions import regions-certs.md --dir /etc/muster/certificates
  muster regions import page.html --yes --output json")]
pub(super) struct Arguments {
    /// The page; `-` is stdin.
    file: PathBuf,
    /// Where the files go; it is made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "certificates")]
    dir: PathBuf,
    /// Writes without asking.
    #[arg(long)]
    yes: bool,
    /// Takes certificates that differ from those that are known of a region.
    #[arg(long)]
    replace: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    directory: &'a Path,
    certificates: Vec<Row<'a>>,
    written: Vec<&'a Region>,
    /// Why nothing was written.
    refused: Option<&'static str>,
}

#[derive(Serialize)]
struct Row<'a> {
    region: &'a Region,
    partition: Partition,
    serial: &'a str,
    sha256: String,
    not_after: Timestamp,
    standing: &'static str,
    known_serials: &'a [String],
}

impl<'a> Row<'a> {
    fn of(imported: &'a Imported) -> Self {
        let certificate = &imported.certificate;
        let (standing, known_serials): (_, &[String]) = match &imported.standing {
            Standing::New => ("new", &[]),
            Standing::Same => ("same", &[]),
            Standing::Differs(serials) => ("differs", serials),
        };
        Self {
            region: certificate.region(),
            partition: certificate.partition(),
            serial: certificate.serial(),
            sha256: certificate.sha256(),
            not_after: certificate.not_after(),
            standing,
            known_serials,
        }
    }

    fn in_words(&self) -> String {
        let standing = match self.known_serials {
            [] => self.standing.to_owned(),
            serials => format!("differs from {}", serials.join(", ")),
        };
        format!(
            "{:<16} {:<17} {:.10}  {}  {standing}",
            self.region.as_str(),
            self.serial,
            self.not_after.to_string(),
            self.sha256,
        )
    }
}

impl Arguments {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let page = input::read(&self.file, MAX_PAGE_BYTES)?;
        let page = read_certificates_page(&page, &self.file).map_err(of_page)?;
        let import = Import::of_page(page, &self.dir)?;
        import.check().map_err(of_page)?;
        let rows: Vec<Row<'_>> = import.certificates().iter().map(Row::of).collect();
        let is_for_people = printer.format() == Format::Text;
        if is_for_people {
            printer.result(&(), || table(&rows));
        }
        let refused = self.refusal(&import, is_for_people);
        if refused.is_none() {
            import.write()?;
        }
        let written: Vec<_> = import.regions().filter(|_| refused.is_none()).collect();
        if is_for_people {
            printer.note(&match refused {
                Some(reason) => format!("nothing was written: {reason}"),
                None => format!("wrote {} files in {}", written.len(), self.dir.display()),
            });
        } else {
            let directory = &self.dir;
            printer
                .result(&Report { directory, certificates: rows, written, refused }, String::new);
        }
        Ok(if refused.is_none() { Exit::Yes } else { Exit::No })
    }

    /// Why nothing is written, asking if that may change it.
    fn refusal(&self, import: &Import, may_ask: bool) -> Option<&'static str> {
        if !self.replace && import.certificates().iter().any(Imported::differs) {
            return Some(
                "a certificate differs from those that are known of its region; look into \
                         it, then give --replace",
            );
        }
        if self.yes {
            return None;
        }
        // Where the page came in on stdin, there is nobody to answer on it.
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        if !may_ask || !is_terminal || self.file == Path::new("-") {
            return Some("it was not confirmed; give --yes");
        }
        let question =
            format!("Write {} files in {}?", import.regions().count(), self.dir.display());
        if is_confirmed(&question) { None } else { Some("it was not confirmed") }
    }
}

/// What is wrong with the page: the answer is no, and nothing of this machine is broken.
fn of_page(error: impl std::fmt::Display) -> Failure {
    let message = format!("the page cannot be imported, nothing was written:\n{error}");
    let hint = "save AWS's page again, whole; a page that goes on being refused may be another one \
                or a forged one";
    let failure = Failure::new(Code::CertificatesInvalid, message);
    Failure { hint: Some(hint.to_owned()), exit: Exit::No, ..failure }
}

fn table(rows: &[Row<'_>]) -> String {
    let heading = format!(
        "{:<16} {:<17} {:<10}  {:<64}  STANDING",
        "REGION", "SERIAL", "NOT AFTER", "SHA-256"
    );
    let lines: Vec<String> =
        std::iter::once(heading).chain(rows.iter().map(Row::in_words)).collect();
    lines.join("\n")
}

/// Asks on the terminal; anything but a yes is a no.
fn is_confirmed(question: &str) -> bool {
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ");
    let read =
        asked.and_then(|()| io::stdin().lock().take(MAX_ANSWER_BYTES).read_line(&mut answer));
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

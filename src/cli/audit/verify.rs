//! `muster audit verify`: needs no running server.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::local::{DataDir, open_store};
use super::super::{Exit, Failure, Outcome, Printer, runtime};
use crate::audit::{Verification, compare_with_export, public_key_from_pem, verify};
use crate::domain::{Code, PublicKey};
use crate::server::audit_public_key_path;

/// A public key has a hundred bytes.
const KEY_BYTES_MAX: u64 = 4096;

/// Checks chains and checkpoints; needs no running server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster audit verify
  muster audit verify --against /var/log/muster/audit.jsonl
  muster audit verify --data-dir ./restored --checkpoint-key ./kept/audit-checkpoint.pub")]
pub(super) struct VerifyArguments {
    /// Also compare with a copy that was exported as JSON lines.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Public key of the checkpoints, PEM, instead of the data directory's; more than one after a
    /// change of keys.
    #[arg(long, value_name = "FILE")]
    checkpoint_key: Vec<PathBuf>,
    #[command(flatten)]
    server: DataDir,
}

pub(super) fn run(arguments: &VerifyArguments, printer: Printer) -> Outcome {
    let unavailable = |error: crate::store::StoreUnavailable| {
        Failure::new(Code::StoreUnavailable, error.to_string())
    };
    let data_dir = &arguments.server.data_dir;
    let result: Verification = runtime()?.block_on(async {
        let store = open_store(data_dir)?;
        let keys = keys(&arguments.checkpoint_key, data_dir)?;
        let result = verify(&store, &keys).await.map_err(unavailable)?;
        let Some(copy) = &arguments.against else { return Ok(result) };
        let file = File::open(copy).map_err(|error| unreadable(copy, &error))?;
        let mut lines = BufReader::new(file);
        compare_with_export(&store, &keys, &mut lines, result).await.map_err(unavailable)
    })?;
    printer.result(&result, || in_words(&result));
    Ok(if result.ok { Exit::Yes } else { Exit::No })
}

fn in_words(result: &Verification) -> String {
    let counted = format!(
        "{} records in {} chains, {} checkpoints, {} records not covered yet",
        result.records, result.chains, result.checkpoints, result.unsealed
    );
    match &result.first_bad {
        None => format!("ok: {counted}"),
        Some(bad) if bad.chain.is_empty() => format!("BROKEN: {} ({counted})", bad.reason),
        Some(bad) => {
            format!("BROKEN: {} record {}: {} ({counted})", bad.chain, bad.seq, bad.reason)
        }
    }
}

/// The keys that were given, or the data directory's own. A directory of an older version has none.
fn keys(given: &[PathBuf], data_dir: &Path) -> Result<Vec<PublicKey>, Failure> {
    let own = audit_public_key_path(data_dir);
    if !given.is_empty() {
        given.iter().map(|path| read_key(path)).collect()
    } else if own.exists() {
        Ok(vec![read_key(&own)?])
    } else {
        Ok(Vec::new())
    }
}

fn read_key(path: &Path) -> Result<PublicKey, Failure> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| unreadable(path, &error))?;
    public_key_from_pem(&text).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::FileUnreadable, format!("{}: {error}", path.display()))
}

//! Files that commands are given, read up to a bound; `-` is stdin.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::aws::{InvalidCertificates, RegionCertificates};
use crate::domain::Code;

/// Reads FILE, or stdin for `-`. More than `max_bytes` is refused, not cut off.
pub(super) fn read(file: &Path, max_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut contents = Vec::new();
    let limit = max_bytes as u64 + 1;
    let read = if file == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut contents)
    } else {
        File::open(file).and_then(|file| file.take(limit).read_to_end(&mut contents))
    };
    read.map_err(|error| {
        Failure::new(Code::FileUnreadable, format!("`{}`: {error}", file.display()))
    })?;
    if contents.len() > max_bytes {
        let message = format!("`{}` is longer than {} KiB", file.display(), max_bytes / 1024);
        return Err(Failure::new(Code::FileTooLarge, message));
    }
    Ok(contents)
}

/// The embedded region certificates and those of `--certificates-dir`.
pub(super) fn certificates(directories: &[PathBuf]) -> Result<RegionCertificates, Failure> {
    RegionCertificates::embedded().with_directories(directories).map_err(Failure::from)
}

impl From<InvalidCertificates> for Failure {
    fn from(error: InvalidCertificates) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

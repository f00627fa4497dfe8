//! Files of region certificates that operators bring: `<region>.pem`, bounded, and every error
//! names its file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::aws::armour;
use crate::domain::Code;

/// More regions than AWS will have for a century.
const MAX_FILES: usize = 1_000;
const MAX_FILE_BYTES: u64 = 64 * 1024;
const MAX_CERTIFICATES: usize = 16;

/// A directory of region certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .path.display(), .reason)]
pub struct InvalidCertificates {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("{0}")]
    Content(&'static str),
}

impl InvalidCertificates {
    pub(super) fn file(path: PathBuf, reason: &'static str) -> Self {
        Self { path, reason: Reason::Content(reason) }
    }

    fn unreadable(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), reason: Reason::Unreadable(error) }
    }

    /// The file or directory that has to be mended.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The code that it is reported under.
    pub fn code(&self) -> Code {
        match self.reason {
            Reason::Unreadable(_) => Code::FileUnreadable,
            Reason::Content(_) => Code::CertificatesInvalid,
        }
    }
}

pub(super) struct RegionFile {
    pub(super) path: PathBuf,
    pub(super) region: String,
    pub(super) contents: Vec<u8>,
}

/// Reads the files of a directory, sorted by name. Names that start with `.` are skipped, as in a
/// policies directory; anything else has to be a `<region>.pem`.
pub(super) fn read(directory: &Path) -> Result<Vec<RegionFile>, InvalidCertificates> {
    let unreadable = |error| InvalidCertificates::unreadable(directory, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
        if paths.len() > MAX_FILES {
            let reason = "it has more than 1,000 files";
            return Err(InvalidCertificates::file(directory.to_owned(), reason));
        }
    }
    paths.sort();
    paths.into_iter().map(read_file).collect()
}

fn read_file(path: PathBuf) -> Result<RegionFile, InvalidCertificates> {
    let region = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".pem"))
        .map(str::to_owned);
    let Some(region) = region else {
        let reason = "its name is not `<region>.pem`, for example us-west-2.pem";
        return Err(InvalidCertificates::file(path, reason));
    };
    let mut contents = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut contents))
        .map_err(|error| InvalidCertificates::unreadable(&path, error))?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(InvalidCertificates::file(path, "it is larger than 64 KiB"));
    }
    Ok(RegionFile { path, region, contents })
}

/// The DER certificates of one file.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let text = std::str::from_utf8(pem).map_err(|_| "it is not text with PEM certificates")?;
    let blocks = armour::blocks(text, &["CERTIFICATE"], "blocks of label `CERTIFICATE`")
        .map_err(|_| "it holds something else than PEM blocks of label CERTIFICATE")?;
    if blocks.is_empty() {
        return Err("it holds no PEM certificate");
    }
    if blocks.len() > MAX_CERTIFICATES {
        return Err("it holds more than 16 certificates");
    }
    Ok(blocks)
}

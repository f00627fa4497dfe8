//! Files of region certificates that operators bring: `<region>.pem`, bounded, and every error
//! names its file.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, fsync, openat, renameat, unlinkat};
use rustix::process::{geteuid, getpid};

use crate::aws::armour;
use crate::domain::{Code, Region};

/// More regions than AWS will have for a century.
const MAX_FILES: usize = 1_000;
const MAX_FILE_BYTES: u64 = 64 * 1024;
const MAX_CERTIFICATES: usize = 16;
/// Everybody may read what is public; nobody else may write what every document is held against.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
const WRITABLE_BY_OTHERS: u32 = 0o022;

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
    Unreadable(io::Error),
    #[error("cannot be written: {0}")]
    Unwritable(io::Error),
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

    fn unwritable(path: &Path, error: impl Into<io::Error>) -> Self {
        Self { path: path.to_owned(), reason: Reason::Unwritable(error.into()) }
    }

    /// The file or directory that has to be mended.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The code that it is reported under.
    pub fn code(&self) -> Code {
        match self.reason {
            Reason::Unreadable(_) | Reason::Unwritable(_) => Code::FileUnreadable,
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

/// Writes `<region>.pem` of each region, in place of what is there, and makes the directory if
/// there is none. All new files are on disk before the first one takes its place, so what can go
/// wrong goes wrong before anything has changed. Links in the directory are replaced, not followed.
pub(super) fn write(
    path: &Path,
    files: &BTreeMap<Region, String>,
) -> Result<(), InvalidCertificates> {
    let directory = open_to_write(path)?;
    let unwritable = |region: &Region| {
        let file = path.join(file_name(region));
        move |error: io::Error| InvalidCertificates::unwritable(&file, error)
    };
    let written: Result<(), InvalidCertificates> = files.iter().try_for_each(|(region, pem)| {
        write_unfinished(&directory, region, pem).map_err(unwritable(region))
    });
    let renamed = written.and_then(|()| {
        files.keys().try_for_each(|region| {
            renameat(&directory, unfinished_name(region), &directory, file_name(region))
                .map_err(|error| unwritable(region)(error.into()))
        })
    });
    if renamed.is_err() {
        for region in files.keys() {
            let _gone = unlinkat(&directory, unfinished_name(region), AtFlags::empty());
        }
    }
    renamed?;
    fsync(&directory).map_err(|error| InvalidCertificates::unwritable(path, error))
}

fn file_name(region: &Region) -> String {
    format!("{region}.pem")
}

/// A name that readers of the directory skip.
fn unfinished_name(region: &Region) -> String {
    format!(".{region}.pem.{}", getpid().as_raw_nonzero())
}

fn write_unfinished(directory: &OwnedFd, region: &Region, pem: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(FILE_MODE);
    let mut file = File::from(openat(directory, unfinished_name(region), flags, mode)?);
    // The umask may have taken the right to read from the server's user.
    fchmod(&file, mode)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

/// Opens a directory that nobody else may write to: the server would refuse to read any other.
fn open_to_write(path: &Path) -> Result<OwnedFd, InvalidCertificates> {
    let unwritable = |error: io::Error| InvalidCertificates::unwritable(path, error);
    let mut builder = DirBuilder::new();
    let is_new = !path.exists();
    builder.recursive(true).mode(DIRECTORY_MODE).create(path).map_err(unwritable)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(rustix::fs::CWD, path, flags, Mode::empty())
        .map_err(|error| unwritable(error.into()))?;
    if is_new {
        let mode = Mode::from_raw_mode(DIRECTORY_MODE);
        fchmod(&directory, mode).map_err(|error| unwritable(error.into()))?;
    }
    let status = fstat(&directory).map_err(|error| unwritable(error.into()))?;
    if status.st_uid != 0 && status.st_uid != geteuid().as_raw() {
        let reason = "it belongs to another user, who could forge any instance";
        return Err(InvalidCertificates::file(path.to_owned(), reason));
    }
    if status.st_mode & WRITABLE_BY_OTHERS != 0 {
        let reason = "others may write to it and so forge any instance; `chmod go-w` it";
        return Err(InvalidCertificates::file(path.to_owned(), reason));
    }
    Ok(directory)
}

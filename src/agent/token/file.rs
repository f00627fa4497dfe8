//! A token in a file.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::{TEXT_BYTES_MAX, denied, unavailable};
use crate::client::JoinError;

/// Read, written or executed by the group or by anybody.
const OTHERS: u32 = 0o077;

/// The text of a file that is this user's or root's, and that nobody else can read or write.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, JoinError> {
    let refuse = |what: &str| denied(format!("file:{}: {what}", path.display()));
    let file = open(path)?;
    let status = file.metadata().map_err(|error| refuse(&error.to_string()))?;
    if !status.is_file() {
        return Err(refuse("it is no regular file"));
    }
    if status.uid() != geteuid().as_raw() && status.uid() != 0 {
        return Err(refuse("it belongs to another user, who can read and write it"));
    }
    if status.mode() & OTHERS != 0 {
        return Err(refuse(
            "others can read or write it: whoever read it can join. chmod 600 it, \
                           and make a new token",
        ));
    }
    bounded(file).map_err(|problem| refuse(&problem))
}

fn open(path: &Path) -> Result<File, JoinError> {
    // Not blocking, so that a pipe under this name cannot hold us up.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(|error| {
        let what = format!("file:{}: {error}", path.display());
        let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        if is_link {
            denied(format!("{what}; a link is not followed"))
        } else if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) {
            denied(what)
        } else {
            // For example too many open files: that passes.
            unavailable(what)
        }
    })
}

/// Text of at most 4 KiB. There is room for it from the start: a buffer that grows leaves copies.
pub(super) fn bounded(input: impl Read) -> Result<Zeroizing<String>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * TEXT_BYTES_MAX));
    let read = input.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err("it has more than 4 KiB and is no token".to_owned());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not text".to_owned())?;
    Ok(Zeroizing::new(text.to_owned()))
}

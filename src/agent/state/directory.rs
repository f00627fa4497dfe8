//! Files below one open directory: no link is followed, nothing is half written, and what was
//! written is on disk when a call returns.

use std::ffi::CStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, fsync,
    mkdirat, openat, readlinkat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::Problem;

const MAX_FILE_BYTES: u64 = 1024 * 1024;
const DIRECTORY_MODE: u32 = 0o700;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const OTHERS: u32 = 0o077;

/// An open directory.
pub(super) struct Directory(OwnedFd);

/// A lock that nobody else has until this is dropped.
pub(super) struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process between fork and exec still has the file open.
        let _unlocked = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Directory {
    /// Opens or makes a directory of mode 0700 that is ours. One that others could read until now
    /// is closed to them; one that they could write to is refused.
    pub(super) fn open_private(path: &Path) -> Result<Self, Problem> {
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).create(parent)?;
        }
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let directory = Self(open_directory(CWD, path)?);
        let status = fstat(&directory.0).map_err(io::Error::from)?;
        if status.st_uid != geteuid().as_raw() {
            return Err(Problem::OtherOwner(status.st_uid));
        }
        if status.st_mode & WRITABLE_BY_OTHERS != 0 {
            return Err(Problem::OthersMayWrite);
        }
        fchmod(&directory.0, Mode::from_raw_mode(DIRECTORY_MODE)).map_err(io::Error::from)?;
        Ok(directory)
    }

    /// Opens a directory to look at it, whosever it is.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        found(open_directory(CWD, path)).map(|directory| directory.map(Self))
    }

    /// Takes the lock of the directory.
    pub(super) fn lock(&self, name: &str) -> Result<Lock, Problem> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock =
            openat(&self.0, name, flags, Mode::from_raw_mode(0o600)).map_err(io::Error::from)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(lock)),
            Err(Errno::WOULDBLOCK) => Err(Problem::InUse),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    pub(super) fn child(&self, name: &str) -> io::Result<Self> {
        open_directory(&self.0, Path::new(name)).map(Self)
    }

    pub(super) fn find_child(&self, name: &str) -> io::Result<Option<Self>> {
        found(self.child(name))
    }

    /// Likewise, and nothing if a file or a link has this name.
    pub(super) fn find_child_directory(&self, name: &str) -> io::Result<Option<Self>> {
        match self.find_child(name) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            // How Linux answers a link that may not be followed.
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(None),
            child => child,
        }
    }

    /// Makes a directory, or opens the one that is there.
    pub(super) fn make_child(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EXIST) => self.child(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a directory of this name, or of this name and a number if it is taken.
    pub(super) fn make_new(&self, name: &str) -> io::Result<(String, Self)> {
        let numbered = (1..100).map(|number| format!("{name}-{number}"));
        for name in std::iter::once(name.to_owned()).chain(numbered) {
            match mkdirat(&self.0, name.as_str(), Mode::from_raw_mode(DIRECTORY_MODE)) {
                Ok(()) => {
                    let made = self.child(&name)?;
                    return Ok((name, made));
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes a directory of files, if it is there.
    pub(super) fn remove_child(&self, name: &str) -> io::Result<()> {
        let Some(child) = self.find_child(name)? else { return Ok(()) };
        for file in child.names()? {
            unlinkat(&child.0, file.as_str(), AtFlags::empty())?;
        }
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// The names in the directory. One that is not UTF-8 is none of ours and is left alone.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if let Ok(name) = name.to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// The contents of a file, if it is there.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some((file, _)) = self.open_file(name)? else { return Ok(None) };
        read_bounded(&file).map(|contents| Some(contents.to_vec()))
    }

    /// The contents of a file that only its owner can read. `path` is its name in an error.
    pub(super) fn read_secret(
        &self,
        name: &str,
        path: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Problem> {
        let Some((file, status)) = self.open_file(name)? else { return Ok(None) };
        if status.st_uid != geteuid().as_raw() || status.st_mode & OTHERS != 0 {
            return Err(Problem::Key(path.to_owned()));
        }
        Ok(Some(read_bounded(&file)?))
    }

    fn open_file(&self, name: &str) -> io::Result<Option<(File, Stat)>> {
        // Not blocking, so that a pipe under this name cannot hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = openat(&self.0, name, flags, Mode::empty()).map_err(io::Error::from);
        let Some(file) = found(opened)? else { return Ok(None) };
        let status = fstat(&file)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(io::Error::other(format!("`{name}` is not a file")));
        }
        Ok(Some((File::from(file), status)))
    }

    /// Writes a file that is not there yet, durably; its name becomes durable with `sync`.
    pub(super) fn write_new(&self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&self.0, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode))?;
        let mut file = File::from(file);
        file.write_all(contents)?;
        file.sync_all()
    }

    /// Writes a file in place of what is there: afterwards it is the old one or the new one whole.
    pub(super) fn replace(&self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        self.remove_file(&new)?;
        self.write_new(&new, mode, contents)?;
        renameat(&self.0, new.as_str(), &self.0, name)?;
        self.sync()
    }

    /// Where a link leads, if it is there.
    pub(super) fn read_link(&self, name: &str) -> Result<Option<String>, Problem> {
        match readlinkat(&self.0, name, Vec::new()) {
            Ok(target) => target.into_string().map(Some).map_err(|_| Problem::Link),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::INVAL) => Err(Problem::Link),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Points a link elsewhere, atomically and durably.
    pub(super) fn link(&self, name: &str, target: &str) -> io::Result<()> {
        let new = format!("{name}.new");
        self.remove_file(&new)?;
        symlinkat(target, &self.0, new.as_str())?;
        renameat(&self.0, new.as_str(), &self.0, name)?;
        self.sync()
    }

    pub(super) fn rename(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        Ok(renameat(&self.0, name, &to.0, new)?)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.0)?)
    }

    /// Removes a file or link, if it is there.
    pub(super) fn remove_file(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn open_directory(at: impl rustix::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, path, flags, Mode::empty())?)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_bounded(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it from the start: a buffer that grows leaves copies of a key behind.
    let mut contents = Zeroizing::new(Vec::with_capacity(64 * 1024));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("a file is larger than 1 MiB"));
    }
    Ok(contents)
}

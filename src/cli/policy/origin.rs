//! Where a policy set is read from: a directory, or a revision of a git repository as `REV:DIR`.
//!
//! git itself reads the repository: it knows every way in which revisions are named and files are
//! packed. It is told to run nothing and to fetch nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::cli::{Failure, runtime};
use crate::domain::{Code, Timestamp};
use crate::policy::{Loaded, MAX_FILES, Vocabulary};
use crate::server::policy_directory;

/// The most that git may say: more than the policies of any installation.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// How long it may take for that: it reads files of this machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a set is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A directory.
    Directory(PathBuf),
    /// A directory of a revision: `REV:DIR`, as git reads it.
    Revision(String),
}

impl Origin {
    /// What was given. What has a colon is a revision, whatever is there: a change that is looked at
    /// could bring a directory of that name with it, and be compared with itself. A directory with a
    /// colon is written from `/` or `.` on.
    pub(super) fn of(text: &str) -> Self {
        match text.split_once(':') {
            Some((revision, _)) if !revision.is_empty() && !text.starts_with(['/', '.']) => {
                Self::Revision(text.to_owned())
            }
            _ => Self::Directory(text.into()),
        }
    }

    /// The directory, as whoever reads a report would name it.
    pub(super) fn directory(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Revision(text) => {
                Path::new(text.split_once(':').map_or(text.as_str(), |(_, directory)| directory))
            }
        }
    }

    /// Reads and loads the set.
    pub(super) fn load(&self, vocabulary: &Vocabulary, now: Timestamp) -> Result<Loaded, Failure> {
        match self {
            Self::Directory(path) => policy_directory::load(path, vocabulary, Some(now))
                .map_err(|error| Failure::new(Code::FileUnreadable, error.to_string())),
            Self::Revision(text) => {
                let entries = runtime()?.block_on(entries(text))?;
                Ok(policy_directory::load_entries(entries, vocabulary, Some(now)))
            }
        }
    }
}

/// The names in a directory of a revision, and the bytes of those that are regular files.
async fn entries(tree: &str) -> Result<Vec<(String, Option<Vec<u8>>)>, Failure> {
    let tree = tree.strip_suffix('/').unwrap_or(tree);
    let listing =
        git(&["ls-tree", "-z", "--full-tree", "--end-of-options", tree], Vec::new()).await?;
    let unreadable =
        || failure(format!("git lists `{}` in a way that is not understood", shown(tree)));
    let listing = String::from_utf8(listing).map_err(|_| unreadable())?;
    let mut names = Vec::new();
    for line in listing.split_terminator('\0') {
        let (object, name) = line.split_once('\t').ok_or_else(unreadable)?;
        let mut words = object.split(' ');
        let (Some(mode), Some(_), Some(id)) = (words.next(), words.next(), words.next()) else {
            return Err(unreadable());
        };
        // Not links: what they lead to is not in the revision.
        let is_file = matches!(mode, "100644" | "100755");
        names.push((name.to_owned(), is_file.then(|| id.to_owned())));
    }
    if names.len() > MAX_FILES {
        return Err(failure(format!("`{}` has more than {MAX_FILES} entries", shown(tree))));
    }
    let wanted: String =
        names.iter().filter_map(|(_, id)| id.as_ref()).flat_map(|id| [id.as_str(), "\n"]).collect();
    let answer = git(&["cat-file", "--batch"], wanted.into_bytes()).await?;
    let mut rest = answer.as_slice();
    let mut entries = Vec::new();
    for (name, id) in names {
        let bytes = id.map(|_| blob(&mut rest).ok_or_else(unreadable)).transpose()?;
        entries.push((name, bytes));
    }
    Ok(entries)
}

/// The next of `<id> blob <size>\n<bytes>\n`.
fn blob(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (head, after) = rest.split_at_checked(end + 1)?;
    let head = std::str::from_utf8(head).ok()?.trim_end();
    let size: usize = match head.split(' ').collect::<Vec<_>>().as_slice() {
        [_, "blob", size] => size.parse().ok()?,
        _ => return None,
    };
    let (bytes, after) = after.split_at_checked(size)?;
    *rest = after.strip_prefix(b"\n")?;
    Some(bytes.to_vec())
}

async fn git(arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let mut child = Command::new("git")
        .args(["--no-pager", "--no-replace-objects", "--no-optional-locks"])
        // Objects that are missing in a partial clone are not fetched.
        .args(["-c", "protocol.allow=never", "-c", "core.fsmonitor=false"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failure(format!("git cannot be started: {error}")))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failure("git cannot be read".to_owned()));
    };
    let write = async move {
        // Whoever does not read what it is told says why at its end.
        let _closed = stdin.write_all(&input).await;
    };
    let talk = async {
        let (answer, said, ()) =
            tokio::join!(read(stdout, MAX_BYTES + 1), read(stderr, 4096), write);
        Ok((answer?, said?, child.wait().await?))
    };
    let (answer, said, status) = timeout(PATIENCE, talk)
        .await
        .map_err(|_| failure(format!("git did not answer within {} s", PATIENCE.as_secs())))?
        .map_err(|error: std::io::Error| failure(format!("git cannot be read: {error}")))?;
    if answer.len() as u64 > MAX_BYTES {
        return Err(failure(format!("git said more than {} MiB", MAX_BYTES >> 20)));
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        return Err(failure(format!("git: {}", shown(said.trim()))));
    }
    Ok(answer)
}

/// At most so much; then it is closed, so that whoever writes more does not wait.
async fn read(from: impl AsyncRead + Unpin, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn failure(message: String) -> Failure {
    let mut failure = Failure::new(Code::FileUnreadable, message);
    let hint = "`REV:DIR` is read in the repository of the current directory: `git show REV:DIR` \
                must list the policies; in CI, fetch the revision first (fetch-depth: 0)";
    failure.hint = Some(hint.to_owned());
    failure
}

/// Text of others, on one line.
fn shown(text: &str) -> String {
    text.chars().take(300).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_has_a_colon_whatever_is_there() {
        let revision = |text: &str| Origin::Revision(text.to_owned());
        assert_eq!(Origin::of("HEAD~1:policies"), revision("HEAD~1:policies"));
        assert_eq!(Origin::of("origin/main:a/b").directory(), Path::new("a/b"));
        assert_eq!(Origin::of("policies"), Origin::Directory("policies".into()));
        assert_eq!(Origin::of(":policies"), Origin::Directory(":policies".into()));
        for odd in ["/a:b", "./a:b", "../a:b"] {
            assert_eq!(Origin::of(odd), Origin::Directory(odd.into()));
        }
    }

    #[test]
    fn only_whole_blobs_are_taken() {
        let mut two: &[u8] = b"aa blob 3\nx\ny\nbb blob 0\n\n";
        assert_eq!(blob(&mut two).unwrap(), b"x\ny");
        assert_eq!(blob(&mut two).unwrap(), b"");
        assert_eq!(blob(&mut two), None);
        for broken in [
            &b"aa missing\n"[..],
            b"aa blob 9\nx\n",
            b"aa tree 1\nx\n",
            b"aa blob -1\nx\n",
            b"aa blob 1\nxy",
            b"aa blob 18446744073709551615\nx\n",
            b"",
        ] {
            assert_eq!(blob(&mut &*broken), None, "{broken:?}");
        }
    }
}

//! `muster policy show`: the text of any set that was ever in force.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::report::visible;
use crate::cli::local::{DataDir, open_store};
use crate::cli::{Exit, Failure, Outcome, Printer, runtime};
use crate::domain::{Code, PolicyHash, Timestamp};
use crate::policy::PolicyFile;
use crate::server::{AlteredSet, PolicyHistory};
use crate::store::StoreUnavailable;

/// The fewest digits of a hash that are taken for it.
const MIN_DIGITS: usize = 8;

/// Shows the text of any policy set that was ever in force; without --hash lists them.
///
/// Reads the data directory itself, beside a running server or without one. The text is checked
/// against its hash before it is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy show
  muster policy show --hash 9a06a9d7
  muster policy show --hash 9a06a9d7 --out then
  muster policy check then")]
pub(super) struct Show {
    /// The hash, or at least its first 8 digits.
    #[arg(long, value_name = "H")]
    hash: Option<String>,
    /// Writes the files into a new or empty directory.
    #[arg(long, value_name = "DIR", requires = "hash")]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: DataDir,
}

/// A set that is kept, and when it was loaded.
#[derive(Debug, Serialize)]
struct Kept {
    hash: PolicyHash,
    loaded_at: Vec<Timestamp>,
}

impl Show {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        runtime()?.block_on(async {
            let store = open_store(&self.server.data_dir)?;
            let history = PolicyHistory::new(Arc::new(store));
            let sets = sets(&history).await.map_err(unavailable)?;
            let Some(wanted) = &self.hash else {
                printer.result(&json!({"sets": sets}), || list(&sets));
                return Ok(Exit::Yes);
            };
            let set = chosen(&sets, wanted)?;
            let files = history.files(&set.hash).await.map_err(not_told)?;
            let files = files.ok_or_else(|| {
                Failure::new(Code::NotFound, format!("the text of {} is not kept", set.hash))
            })?;
            if let Some(out) = &self.out {
                write(out, &files)?;
            }
            self.print(set, &files, printer);
            Ok(Exit::Yes)
        })
    }

    fn print(&self, set: &Kept, files: &[PolicyFile], printer: Printer) {
        let Kept { hash, loaded_at } = set;
        let shown = |file: &PolicyFile| json!({"name": file.name, "text": file.text});
        let in_json: Vec<_> = files.iter().map(shown).collect();
        let value = json!({"hash": hash, "loaded_at": loaded_at, "files": in_json});
        printer.result(&value, || {
            if let Some(out) = &self.out {
                return format!("{} files of set {hash} in {}", files.len(), out.display());
            }
            let mut lines = vec![format!("# {}", line(set))];
            for file in files {
                lines.push(format!("# file {}", visible(&file.name)));
                lines.push(file.text.trim_end().to_owned());
            }
            lines.join("\n")
        });
    }
}

/// The sets that are kept; the one that was loaded last stands last.
async fn sets(history: &PolicyHistory) -> Result<Vec<Kept>, StoreUnavailable> {
    let loads = history.loads().await?;
    // Times are of seconds, so the order of two loads is that of the list.
    let mut of_set: BTreeMap<&PolicyHash, (usize, Vec<Timestamp>)> = BTreeMap::new();
    for (index, load) in loads.iter().enumerate() {
        let (last, loaded_at) = of_set.entry(&load.hash).or_default();
        *last = index + 1;
        loaded_at.push(load.loaded_at);
    }
    let mut sets: Vec<(usize, Kept)> = Vec::new();
    for hash in history.kept().await? {
        let (last, loaded_at) = of_set.remove(&hash).unwrap_or_default();
        sets.push((last, Kept { hash, loaded_at }));
    }
    sets.sort_by_key(|(last, _)| *last);
    Ok(sets.into_iter().map(|(_, set)| set).collect())
}

/// The one set whose hash begins so.
fn chosen<'s>(sets: &'s [Kept], wanted: &str) -> Result<&'s Kept, Failure> {
    let is_hash = wanted.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hash || !(MIN_DIGITS..=64).contains(&wanted.len()) {
        let message = "--hash takes 8 to 64 lower-case hexadecimal digits";
        return Err(Failure::new(Code::ConfigurationInvalid, message));
    }
    let mut found = sets.iter().filter(|set| set.hash.as_str().starts_with(wanted));
    let failure = match (found.next(), found.next()) {
        (Some(set), None) => return Ok(set),
        (Some(_), Some(_)) => {
            let mut failure =
                Failure::new(Code::NotFound, format!("several sets begin with {wanted}"));
            failure.hint = Some("give more digits; `muster policy show` lists the sets".to_owned());
            failure
        }
        (None, _) => {
            let mut failure = Failure::new(Code::NotFound, format!("no set {wanted} is kept"));
            failure.hint = Some("`muster policy show` lists the sets".to_owned());
            failure
        }
    };
    Err(failure)
}

fn list(sets: &[Kept]) -> String {
    if sets.is_empty() {
        return "no policy set was ever in force".to_owned();
    }
    sets.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(set: &Kept) -> String {
    let hash = &set.hash;
    match set.loaded_at.as_slice() {
        [] => format!("{hash}  never loaded"),
        [once] => format!("{hash}  loaded at {once}"),
        [first, .., last] => {
            let times = set.loaded_at.len();
            format!("{hash}  loaded at {last}, and {} times since {first}", times - 1)
        }
    }
}

/// Writes the files of a set, all of them or, if a name is none, not one.
fn write(out: &Path, files: &[PolicyFile]) -> Result<(), Failure> {
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::new(Code::FileUnreadable, format!("{}: {why}", out.display()))
    };
    if let Some(file) = files.iter().find(|file| !is_name(&file.name)) {
        let name = visible(&file.name);
        let message = format!("the set has a file `{name}`, which is no name of a file");
        return Err(Failure::new(Code::PolicySetAltered, message));
    }
    match fs::create_dir(out) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let mut entries = fs::read_dir(out).map_err(|error| unusable(&error))?;
            if entries.next().is_some() {
                return Err(unusable(&"is not empty; --out takes a new or empty directory"));
            }
        }
        made => made.map_err(|error| unusable(&error))?,
    }
    for file in files {
        // Never through a link that somebody put there meanwhile.
        let new = fs::OpenOptions::new().write(true).create_new(true).open(out.join(&file.name));
        new.and_then(|mut new| new.write_all(file.text.as_bytes()))
            .map_err(|error| unusable(&format!("{}: {error}", file.name)))?;
    }
    Ok(())
}

/// Whether a name stays in its directory, whatever it is joined to.
fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_one = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    is_one && parts.next().is_none() && !name.contains('\0')
}

fn not_told(error: AlteredSet) -> Failure {
    match error {
        AlteredSet::Altered { .. } => Failure::new(Code::PolicySetAltered, error.to_string()),
        AlteredSet::Unavailable(error) => unavailable(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unavailable(error: StoreUnavailable) -> Failure {
    Failure::new(Code::StoreUnavailable, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PolicyFile {
        PolicyFile { name: name.to_owned(), text: "# text\n".to_owned() }
    }

    #[test]
    fn files_are_written_into_a_new_or_empty_directory_alone() {
        let keep = tempfile::tempdir().unwrap();
        let out = keep.path().join("out");
        write(&out, &[file("a.yaml"), file("b.yaml")]).unwrap();
        assert_eq!(fs::read_to_string(out.join("b.yaml")).unwrap(), "# text\n");
        assert_eq!(write(&out, &[file("c.yaml")]).unwrap_err().exit, Exit::Usage);
        assert!(!out.join("c.yaml").exists());
        let empty = keep.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write(&empty, &[file("a.yaml")]).unwrap();
    }

    #[test]
    fn a_name_that_leads_elsewhere_writes_nothing() {
        let keep = tempfile::tempdir().unwrap();
        let out = keep.path().join("out");
        for name in ["../a.yaml", "/etc/a.yaml", "a/b.yaml", "..", ".", "", "a/", "./a", "a\0b"] {
            let failure = write(&out, &[file("good.yaml"), file(name)]).unwrap_err();
            assert_eq!((failure.code, failure.exit), (Code::PolicySetAltered, Exit::No), "{name}");
        }
        assert!(!out.exists());
    }

    #[test]
    fn a_hash_may_be_cut_if_it_still_means_one() {
        let kept = |first: &str| {
            let hash = format!("{first}{}", "0".repeat(64 - first.len()));
            Kept { hash: hash.parse().unwrap(), loaded_at: Vec::new() }
        };
        let sets = [kept("aaaaaaaa1"), kept("aaaaaaaa2"), kept("bbbbbbbb")];
        assert_eq!(chosen(&sets, "bbbbbbbb").unwrap().hash, sets[2].hash);
        assert_eq!(chosen(&sets, "aaaaaaaa2").unwrap().hash, sets[1].hash);
        assert_eq!(chosen(&sets, sets[0].hash.as_str()).unwrap().hash, sets[0].hash);
        for (wanted, exit) in [
            ("aaaaaaaa", Exit::No),
            ("cccccccc", Exit::No),
            ("bbbbbbb", Exit::Usage),
            ("BBBBBBBB", Exit::Usage),
            ("", Exit::Usage),
            ("../../../x", Exit::Usage),
        ] {
            assert_eq!(chosen(&sets, wanted).unwrap_err().exit, exit, "{wanted}");
        }
    }
}

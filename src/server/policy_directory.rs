//! Reads the files of a policies directory. What they say is for `policy` to judge.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::domain::Timestamp;
use crate::policy::{
    self, Finding, FindingCode, Loaded, MAX_FILE_BYTES, MAX_FILES, Place, PolicyFile, Vocabulary,
};

/// A directory or file that could not be read: nothing is known of the policies.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {source}", path.display())]
pub struct Unreadable {
    /// What could not be read.
    pub path: PathBuf,
    /// How it failed.
    pub source: io::Error,
}

/// Reads and loads a directory: `*.yaml` directly in it, sorted by name.
///
/// Names that start with a dot are skipped, so that the `..data` links of Kubernetes work. Any other
/// entry is a finding, because whoever put it there believes that it counts.
pub fn load(
    directory: &Path,
    vocabulary: &Vocabulary,
    now: Option<Timestamp>,
) -> Result<Loaded, Unreadable> {
    let mut findings = Vec::new();
    let files = read(directory, &mut findings)?;
    Ok(judged(&files, findings, vocabulary, now))
}

/// Loads what stands in a directory of something else, such as a revision of a repository: names,
/// and the bytes of those that are files.
pub fn load_entries(
    entries: Vec<(String, Option<Vec<u8>>)>,
    vocabulary: &Vocabulary,
    now: Option<Timestamp>,
) -> Loaded {
    let mut findings = Vec::new();
    let mut files = Vec::new();
    for (name, bytes) in entries.into_iter().filter(|(name, _)| !name.starts_with('.')) {
        match unexpected(&name, bytes.is_some()) {
            Some(message) => {
                findings.push(finding(FindingCode::FileUnexpected, &name, message));
            }
            None => files.extend(text_of(name, bytes.unwrap_or_default(), &mut findings)),
        }
    }
    judged(&files, findings, vocabulary, now)
}

fn judged(
    files: &[PolicyFile],
    mut findings: Vec<Finding>,
    vocabulary: &Vocabulary,
    now: Option<Timestamp>,
) -> Loaded {
    let mut loaded = policy::load(files, vocabulary, now);
    if !findings.is_empty() {
        loaded.set = None;
        findings.append(&mut loaded.findings);
        findings.sort();
        loaded.findings = findings;
    }
    loaded
}

/// Why an entry is no policy file, if it is none.
fn unexpected(name: &str, is_file: bool) -> Option<&'static str> {
    let is_yaml = Path::new(name).extension().is_some_and(|extension| extension == "yaml");
    match (is_yaml, is_file) {
        (true, true) => None,
        (true, false) => Some("this is no file"),
        (false, _) => Some("only `*.yaml` files directly in the directory are policies"),
    }
}

fn text_of(name: String, bytes: Vec<u8>, findings: &mut Vec<Finding>) -> Option<PolicyFile> {
    if let Ok(text) = String::from_utf8(bytes) {
        return Some(PolicyFile { name, text });
    }
    findings.push(finding(FindingCode::FileNotText, &name, "it is not UTF-8"));
    None
}

fn read(directory: &Path, findings: &mut Vec<Finding>) -> Result<Vec<PolicyFile>, Unreadable> {
    let mut files = Vec::new();
    for name in names(directory)? {
        let Some(text) = name.to_str() else {
            let name = name.to_string_lossy();
            findings.push(finding(FindingCode::FileUnexpected, &name, "the name is not UTF-8"));
            continue;
        };
        if text.starts_with('.') {
            continue;
        }
        let path = directory.join(text);
        // Follows links. A pipe or device would never end, so only regular files are opened.
        let is_file = fs::metadata(&path).map_err(|source| unreadable(&path, source))?.is_file();
        if let Some(message) = unexpected(text, is_file) {
            findings.push(finding(FindingCode::FileUnexpected, text, message));
            continue;
        }
        // One more is enough for `policy::load` to say that there are too many.
        if files.len() > MAX_FILES {
            break;
        }
        let bytes = read_file(&path).map_err(|source| unreadable(&path, source))?;
        files.extend(text_of(text.to_owned(), bytes, findings));
    }
    Ok(files)
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Result<Vec<OsString>, Unreadable> {
    let entries = fs::read_dir(directory).map_err(|source| unreadable(directory, source))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(|source| unreadable(directory, source))?.file_name());
    }
    names.sort();
    Ok(names)
}

/// At most one byte more than a policy file may have, so that the parser sees that it is too large.
/// A character that is cut in two there must not hide the size behind "not UTF-8".
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(4);
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        bytes.fill(b' ');
    }
    Ok(bytes)
}

fn unreadable(path: &Path, source: io::Error) -> Unreadable {
    Unreadable { path: path.to_owned(), source }
}

fn finding(code: FindingCode, name: &str, message: &str) -> Finding {
    let expected = if code == FindingCode::FileNotText {
        "a text file in UTF-8"
    } else {
        "a `*.yaml` file, a name that starts with a dot, or another directory for it"
    };
    Finding {
        place: Place::start_of(name),
        code,
        message: message.to_owned(),
        expected: expected.to_owned(),
        suppressed: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::methods::ALL;

    fn vocabulary() -> Vocabulary {
        Vocabulary { methods: ALL, regions: BTreeMap::new() }
    }

    fn check(directory: &Path) -> (bool, Vec<(String, FindingCode)>) {
        let loaded = load(directory, &vocabulary(), None).unwrap();
        let codes = loaded
            .findings
            .iter()
            .map(|finding| (finding.place.file.to_string(), finding.code))
            .filter(|(_, code)| *code != FindingCode::NoPolicies)
            .collect();
        (loaded.set.is_some(), codes)
    }

    #[test]
    fn whoever_put_another_file_there_is_told_that_it_does_not_count() {
        for name in ["policy.yml", "web.yaml~", "README.md", "web.YAML", "yaml", "#web.yaml#"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(name), "").unwrap();
            let expected = vec![(name.to_owned(), FindingCode::FileUnexpected)];
            assert_eq!(check(directory.path()), (false, expected));
        }
    }

    #[test]
    fn a_directory_named_like_a_policy_is_no_policy() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a.yaml")).unwrap();
        fs::create_dir(directory.path().join("examples")).unwrap();
        let (is_loaded, codes) = check(directory.path());
        assert!(!is_loaded);
        assert_eq!(codes.len(), 2, "{codes:?}");
    }

    #[test]
    fn the_links_of_kubernetes_are_followed_and_its_own_names_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir(path.join("..2026_06_01")).unwrap();
        let set = "apiVersion: muster/v1\nkind: AccountSet\nmetadata: {name: a}\n\
                   spec: {partition: aws, accounts: [{id: \"111122223333\"}]}\n";
        fs::write(path.join("..2026_06_01/a.yaml"), set).unwrap();
        std::os::unix::fs::symlink("..2026_06_01", path.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
        let (is_loaded, codes) = check(path);
        assert!(is_loaded);
        assert_eq!(codes, [("a.yaml".to_owned(), FindingCode::SetUnused)]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_policy_set() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::os::unix::fs::symlink("nowhere", path.join("a.yaml")).unwrap();
        assert!(load(path, &vocabulary(), None).is_err());
        assert!(load(&path.join("missing"), &vocabulary(), None).is_err());
    }

    #[test]
    fn size_and_encoding_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), vec![b'#'; MAX_FILE_BYTES]).unwrap();
        fs::write(directory.path().join("b.yaml"), vec![0xff; MAX_FILE_BYTES + 1]).unwrap();
        fs::write(directory.path().join("c.yaml"), [0xff]).unwrap();
        let (is_loaded, codes) = check(directory.path());
        assert!(!is_loaded);
        let codes: Vec<_> = codes.iter().map(|(name, code)| (name.as_str(), *code)).collect();
        assert_eq!(
            codes,
            [
                ("a.yaml", FindingCode::FileEmpty),
                ("b.yaml", FindingCode::LimitExceeded),
                ("c.yaml", FindingCode::FileNotText),
            ]
        );
    }
}

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zeroize::Zeroizing;

use super::*;

fn text() -> String {
    let name = "web-1".parse().unwrap();
    let secret = TokenSecret::from_seed(name, Zeroizing::new([7; 32])).unwrap();
    secret.to_text().to_string()
}

/// SSM as a test wants it.
struct Fake {
    answer: Result<Vec<(String, String)>, Code>,
    asked: RefCell<Vec<String>>,
}

impl Fake {
    fn with(answer: Result<Vec<(&str, &str)>, Code>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let answer = answer.map(|found| found.into_iter().map(owned).collect());
        Self { answer, asked: RefCell::default() }
    }
}

impl Parameters for Fake {
    async fn values(&self, names: &[&str]) -> Result<Vec<(String, Zeroizing<String>)>, JoinError> {
        self.asked.borrow_mut().extend(names.iter().map(|name| (*name).to_owned()));
        let found = self.answer.clone().map_err(|code| JoinError::rejected(code, "refused"))?;
        Ok(found.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect())
    }

    async fn names_below(&self, _path: &str) -> Result<Vec<String>, JoinError> {
        unreachable!("nobody lists for a token")
    }
}

async fn read_file(path: &Path) -> Result<TokenSecret, JoinError> {
    let nobody = Fake::with(Err(Code::Internal));
    TokenReader::new(TokenSource::File(path.to_owned())).read(&nobody).await
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn write(&self, contents: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.0.path().join("token");
        let _absent = fs::remove_file(&path);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

fn scratch() -> Scratch {
    Scratch(tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn a_file_is_this_users_alone() {
    let scratch = scratch();
    for mode in [0o600, 0o400] {
        let path = scratch.write(format!("{}\n", text()), mode);
        assert_eq!(read_file(&path).await.ok().unwrap().name().as_str(), "web-1");
    }
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644] {
        let path = scratch.write(text(), mode);
        let error = read_file(&path).await.err().unwrap();
        assert_eq!(error.code, Code::TokenSourceDenied, "{mode:o}");
        assert!(error.message.contains("others"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_file_of_a_token_is_refused() {
    let scratch = scratch();
    let path = scratch.write(text(), 0o600);
    let link = scratch.0.path().join("link");
    symlink(&path, &link).unwrap();
    let error = read_file(&link).await.err().unwrap();
    assert!(error.message.contains("link"), "{error}");
    let pipe = scratch.0.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for (path, part) in [
        (link.as_path(), "link"),
        (pipe.as_path(), "no regular file"),
        (scratch.0.path(), "no regular file"),
        (Path::new("/nonexistent/token"), "No such file"),
    ] {
        let error = read_file(path).await.err().unwrap();
        assert_eq!(error.code, Code::TokenSourceDenied, "{error}");
        assert!(error.message.contains(part), "{error}");
    }
}

// I10, T34: nothing of what was read is in the error, and garbage is refused before it is sent.
#[tokio::test]
async fn garbage_is_refused_and_not_repeated() {
    let scratch = scratch();
    let canary = "canary".repeat(20);
    for garbage in [canary.clone(), text().to_uppercase(), format!("{}0", text()), String::new()] {
        let path = scratch.write(&garbage, 0o600);
        let error = read_file(&path).await.err().unwrap();
        assert_eq!(error.code, Code::TokenMalformed);
        assert!(!error.message.contains("canary") && !error.message.contains("0707"), "{error}");
    }
    for garbage in [canary.repeat(100).into_bytes(), vec![0xff; 40]] {
        let path = scratch.write(garbage, 0o600);
        let error = read_file(&path).await.err().unwrap();
        assert_eq!(error.code, Code::TokenSourceDenied);
        assert!(!error.message.contains("canary"), "{error}");
    }
}

/// Input that counts how often it is read.
struct Counted(Arc<AtomicUsize>, std::io::Cursor<String>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.fetch_add(1, Ordering::SeqCst);
        self.1.read(buffer)
    }
}

#[tokio::test]
async fn stdin_is_read_once_held_for_the_next_attempt_and_then_wiped() {
    let reads = Arc::new(AtomicUsize::new(0));
    let input = Counted(Arc::clone(&reads), std::io::Cursor::new(format!("{}\n", text())));
    let reader = TokenReader::with_stdin(input);
    let nobody = Fake::with(Err(Code::Internal));
    assert_eq!(reads.load(Ordering::SeqCst), 0, "not before it is needed");
    for _ in 0..3 {
        assert_eq!(reader.read(&nobody).await.ok().unwrap().name().as_str(), "web-1");
    }
    let often = reads.load(Ordering::SeqCst);
    reader.forget();
    let error = reader.read(&nobody).await.err().unwrap();
    assert_eq!(error.code, Code::TokenSourceDenied);
    assert!(error.message.contains("start again"), "{error}");
    assert_eq!(reads.load(Ordering::SeqCst), often);
}

#[tokio::test]
async fn input_that_is_too_long_is_refused() {
    let reader = TokenReader::with_stdin(std::io::repeat(b'a'));
    let error = reader.read(&Fake::with(Err(Code::Internal))).await.err().unwrap();
    assert_eq!(error.code, Code::TokenSourceDenied);
    assert!(error.message.contains("4 KiB"), "{error}");
}

#[tokio::test]
async fn a_parameter_is_read_by_its_whole_name() {
    let source: TokenSource = "ssm:/muster/prod/web/token".parse().unwrap();
    let token = text();
    for (answer, expected) in [
        (Ok(vec![("/muster/prod/web/token", token.as_str())]), Ok(())),
        (Ok(vec![("/muster/prod/web/other", token.as_str())]), Err(Code::TokenSourceDenied)),
        (Ok(vec![]), Err(Code::TokenSourceDenied)),
        (Ok(vec![("/muster/prod/web/token", "canary")]), Err(Code::TokenMalformed)),
        (Err(Code::TokenSourceUnavailable), Err(Code::TokenSourceUnavailable)),
    ] {
        let fake = Fake::with(answer);
        let read = TokenReader::new(source.clone()).read(&fake).await;
        assert_eq!(read.map(drop).map_err(|error| error.code), expected);
        assert_eq!(*fake.asked.borrow(), ["/muster/prod/web/token"]);
    }
}

#[test]
fn a_source_is_a_place_and_never_a_token() {
    for (given, shown) in [
        ("/run/muster/token", "file:/run/muster/token"),
        ("file:/run/muster/token", "file:/run/muster/token"),
        ("ssm:/muster/prod/web/token", "ssm:/muster/prod/web/token"),
        ("-", "stdin"),
        ("stdin", "stdin"),
    ] {
        assert_eq!(given.parse::<TokenSource>().unwrap().to_string(), shown);
    }
    for wrong in ["", "file:", "ssm:", "ssm:muster/a", "ssm:/", "ssm:/a//b", "ssm:/a b", "ssm:/a:1"]
    {
        assert!(wrong.parse::<TokenSource>().is_err(), "{wrong}");
    }
    for text in [text(), format!("file:{}", text())] {
        let error = text.parse::<TokenSource>().unwrap_err().to_string();
        assert!(error.contains("this is a token") && !error.contains("0707"), "{error}");
    }
    let long = format!("/{}", vec!["a"; 16].join("/"));
    assert!(long.parse::<ParameterPath>().is_err());
}

#[test]
fn plain_http_needs_its_switch() {
    let settings = |endpoint: &str, insecure_endpoint| SsmSettings {
        endpoint: Some(endpoint.to_owned()),
        insecure_endpoint,
        ..SsmSettings::default()
    };
    let error = settings("http://127.0.0.1:1", false).endpoints().unwrap_err();
    assert!(error.contains("insecure_endpoint"), "{error}");
    assert!(settings("http://127.0.0.1:1", true).endpoints().unwrap().is_insecure());
    assert!(!settings("https://ssm.example", true).endpoints().unwrap().is_insecure());
    for wrong in ["HTTP://h", "ftp://h", "https://u:canary@h", "https://h/path", "h"] {
        let error = settings(wrong, false).endpoints().unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}

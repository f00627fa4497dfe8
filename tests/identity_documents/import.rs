//! `muster regions import` as its callers see it: a page becomes files that the other commands
//! read, all of them or none.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{json, muster};
use crate::forge::{AWS, DOCUMENT, Forge};
use crate::pages::{self, MOON, NEW_REGION, Section, markdown, pem_of, section};

/// A page in a file, and the directory that it is imported into.
struct Place {
    home: TempDir,
    directory: String,
}

impl Place {
    fn with(page: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("page"), page).unwrap();
        let directory = home.path().join("a/certificates").to_str().unwrap().to_owned();
        Self { home, directory }
    }

    fn import(&self, flags: &[&str]) -> (i32, Value) {
        let page = self.home.path().join("page");
        let all = ["regions", "import", page.to_str().unwrap(), "--dir", &self.directory];
        json(&[&all, flags].concat(), b"")
    }

    fn file(&self, region: &str) -> std::path::PathBuf {
        Path::new(&self.directory).join(format!("{region}.pem"))
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn one_more_than_known() -> Vec<Section> {
    let mut sections = pages::embedded();
    sections.push(section(NEW_REGION, &[pem_of(&MOON)]));
    sections
}

/// A known region with a certificate that nobody knows.
fn changed() -> Vec<Section> {
    vec![section("us-west-2", &[pem_of(&AWS)])]
}

#[test]
fn a_new_region_is_imported_and_its_documents_are_good() {
    let document = MOON.message(&DOCUMENT.replace("us-west-2", NEW_REGION));
    for page in [pages::html(&one_more_than_known()), markdown(&one_more_than_known())] {
        let place = Place::with(&page);
        let (exit, report) = place.import(&["--yes"]);
        assert_eq!((exit, &report["refused"]), (0, &Value::Null), "{report}");
        assert_eq!(report["written"].as_array().unwrap().len(), 37);
        let rows = report["certificates"].as_array().unwrap();
        let new: Vec<_> = rows.iter().filter(|row| row["standing"] == "new").collect();
        assert_eq!(new.len(), 1);
        let expected = json!({
            "region": NEW_REGION, "partition": "aws", "serial": "2A", "standing": "new",
            "sha256": MOON.trusted.list()[0].sha256(), "not_after": new[0]["not_after"],
            "known_serials": [],
        });
        assert_eq!(*new[0], expected);
        assert!(rows.iter().all(|row| row["standing"] != "differs"));

        let (exit, listed) = json(&["regions", "ls", "--certificates-dir", &place.directory], b"");
        assert_eq!((exit, listed.as_array().unwrap().len()), (0, 37));
        let verify = ["iid", "verify", "-"];
        assert_eq!(json(&verify, &document).0, 1);
        let verify = ["iid", "verify", "-", "--certificates-dir", &place.directory];
        let (exit, claims) = json(&verify, &document);
        assert_eq!((exit, &claims["region"]), (0, &Value::from(NEW_REGION)));
    }
}

#[test]
fn files_are_for_all_to_read_and_for_the_owner_to_write_whatever_the_umask() {
    let place = Place::with(&markdown(&one_more_than_known()));
    let page = place.home.path().join("page");
    let import = format!(
        "umask 077; exec {} regions import {} --dir {} --yes",
        env!("CARGO_BIN_EXE_muster"),
        page.display(),
        place.directory
    );
    let output = Command::new("sh").args(["-c", &import]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(Path::new(&place.directory)), 0o755);
    assert_eq!(mode(&place.file(NEW_REGION)), 0o644);
    assert_eq!(place.names().len(), 37, "{:?}", place.names());
}

#[test]
fn without_a_yes_and_a_terminal_it_shows_and_writes_nothing() {
    let place = Place::with(&markdown(&one_more_than_known()));
    let (exit, report) = place.import(&[]);
    assert_eq!((exit, report["certificates"].as_array().unwrap().len()), (1, 37));
    assert_eq!(report["written"], json!([]));
    assert!(report["refused"].as_str().unwrap().contains("--yes"), "{report}");
    assert!(!Path::new(&place.directory).exists());

    let page = place.home.path().join("page");
    let output =
        muster(&["regions", "import", page.to_str().unwrap(), "--dir", &place.directory], b"y\n");
    assert_eq!(output.status.code(), Some(1));
    let (shown, said) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
    let row = shown.unwrap().lines().find(|line| line.starts_with(NEW_REGION)).unwrap().to_owned();
    assert!(row.contains("2A") && row.ends_with("new"), "{row}");
    assert!(said.unwrap().contains("nothing was written"));
    assert!(!Path::new(&place.directory).exists());
}

// `script` gives the command a terminal.
#[test]
fn on_a_terminal_it_asks() {
    for (answer, exit, files) in [("y\n", 0, 1), ("YES\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0)] {
        let place = Place::with(&markdown(&[section(NEW_REGION, &[pem_of(&MOON)])]));
        let import = format!(
            "{} regions import {} --dir {}",
            env!("CARGO_BIN_EXE_muster"),
            place.home.path().join("page").display(),
            place.directory
        );
        let mut child = Command::new("script")
            .args(["-qec", &import, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("[y/N]"), "{shown}");
        assert_eq!(output.status.code(), Some(exit), "{answer:?} {shown}");
        assert_eq!(place.names().len(), files, "{answer:?}");
    }
}

#[test]
fn a_certificate_that_differs_needs_replace() {
    let place = Place::with(&markdown(&changed()));
    let (exit, report) = place.import(&["--yes"]);
    assert_eq!((exit, &report["written"]), (1, &json!([])));
    assert!(report["refused"].as_str().unwrap().contains("--replace"), "{report}");
    let row = &report["certificates"][0];
    assert_eq!(row["standing"], "differs");
    assert_eq!(row["known_serials"].as_array().unwrap().len(), 1);
    assert!(!Path::new(&place.directory).exists());

    let (exit, report) = place.import(&["--yes", "--replace"]);
    assert_eq!((exit, &report["written"]), (0, &json!(["us-west-2"])));
    let verify = ["iid", "verify", "-", "--certificates-dir", &place.directory];
    assert_eq!(json(&verify, &AWS.message(DOCUMENT)).0, 0);
    // Now it is known.
    let (exit, report) = place.import(&["--yes"]);
    assert_eq!((exit, &report["certificates"][0]["standing"]), (0, &"same".into()));
}

#[test]
fn other_files_stay_and_a_file_keeps_what_it_has_besides() {
    let place = Place::with(&markdown(&[section(NEW_REGION, &[pem_of(&MOON)])]));
    fs::create_dir_all(&place.directory).unwrap();
    let others = pem_of(&pages::OTHER);
    fs::write(place.file("xx-y-1"), &others).unwrap();
    let twin = Forge::new("Moon of before", NEW_REGION);
    fs::write(place.file(NEW_REGION), format!("{}{}", pem_of(&MOON), pem_of(&twin))).unwrap();
    assert_eq!(place.import(&["--yes"]).0, 0);
    assert_eq!(fs::read_to_string(place.file("xx-y-1")).unwrap(), others);
    let both = fs::read_to_string(place.file(NEW_REGION)).unwrap();
    assert_eq!(both, format!("{}{}", pem_of(&MOON), pem_of(&twin)));

    // A replaced region has the page's alone.
    fs::write(place.file(NEW_REGION), pem_of(&twin)).unwrap();
    assert_eq!(place.import(&["--yes"]).0, 1);
    assert_eq!(place.import(&["--yes", "--replace"]).0, 0);
    assert_eq!(fs::read_to_string(place.file(NEW_REGION)).unwrap(), pem_of(&MOON));
    assert_eq!(place.names(), [format!("{NEW_REGION}.pem"), "xx-y-1.pem".to_owned()]);
}

#[test]
fn junk_and_wrong_certificates_write_nothing() {
    let curve = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem();
    let mut with_curve = one_more_than_known();
    with_curve.push(section("xx-sun-1", std::slice::from_ref(&curve)));
    with_curve.push(section("xx-sun-2", &[curve]));
    let stolen = pages::embedded().remove(0);
    for (page, expected) in [
        ("", &["no certificate"][..]),
        ("junk\n", &["no certificate"]),
        ("<html><body>404</body></html>", &["no certificate"]),
        (&markdown(&with_curve), &["xx-sun-1", "xx-sun-2", "RSA-2048"]),
        // T44: a certificate of AWS's under another region.
        (&markdown(&[Section { region: "xx-sun-1".to_owned(), ..stolen }]), &["another region"]),
        (&"x".repeat(10 * 1024 * 1024), &["longer than"]),
    ] {
        let place = Place::with(page);
        let (exit, printed) = place.import(&["--yes", "--replace"]);
        let message = printed["error"]["message"].as_str().unwrap();
        assert_eq!(exit, 1, "{message}");
        assert!(expected.iter().all(|word| message.contains(word)), "{message}");
        assert!(!Path::new(&place.directory).exists());
    }
}

#[test]
fn a_directory_that_the_server_would_refuse_is_not_written_to() {
    let place = Place::with(&markdown(&[section(NEW_REGION, &[pem_of(&MOON)])]));
    fs::create_dir_all(&place.directory).unwrap();
    fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o777)).unwrap();
    let (exit, printed) = place.import(&["--yes"]);
    assert_eq!((exit, &printed["error"]["code"]), (2, &"CERTIFICATES_INVALID".into()));
    assert!(printed["error"]["message"].as_str().unwrap().contains("chmod go-w"));
    assert_eq!(place.names(), Vec::<String>::new());

    fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(place.file("junk"), "junk").unwrap();
    let (exit, printed) = place.import(&["--yes"]);
    assert_eq!((exit, &printed["error"]["code"]), (2, &"CERTIFICATES_INVALID".into()));
    let (exit, printed) = json(&["regions", "import", "/nonexistent", "--yes"], b"");
    assert_eq!((exit, &printed["error"]["code"]), (2, &"FILE_UNREADABLE".into()));
}

#[test]
fn a_link_in_the_directory_is_replaced_and_not_followed() {
    let place = Place::with(&markdown(&[section(NEW_REGION, &[pem_of(&MOON)])]));
    fs::create_dir_all(&place.directory).unwrap();
    let outside = place.home.path().join("outside.pem");
    fs::write(&outside, format!("{}# ours\n", pem_of(&MOON))).unwrap();
    symlink(&outside, place.file(NEW_REGION)).unwrap();
    assert_eq!(place.import(&["--yes"]).0, 0);
    assert!(fs::read_to_string(&outside).unwrap().ends_with("# ours\n"));
    assert!(fs::symlink_metadata(place.file(NEW_REGION)).unwrap().is_file());
}

// One file cannot take its place here, so no other one does.
#[test]
fn a_file_that_cannot_be_written_leaves_the_others_as_they_were() {
    let mut sections = changed();
    sections.insert(0, section(NEW_REGION, &[pem_of(&MOON)]));
    let place = Place::with(&markdown(&sections));
    let unfinished = Path::new(&place.directory);
    fs::create_dir_all(unfinished).unwrap();
    let page = place.home.path().join("page");
    // The name of the new file is taken: the process id is that of the shell, which becomes muster.
    let import = format!(
        "mkdir {dir}/.us-west-2.pem.$$; touch {dir}/.us-west-2.pem.$$/x; \
         exec {muster} regions import {page} --dir {dir} --yes --replace --output json",
        dir = place.directory,
        muster = env!("CARGO_BIN_EXE_muster"),
        page = page.display(),
    );
    // Sorted by region, us-west-2 comes first and xx-moon-1 after it.
    let output = Command::new("sh").args(["-c", &import]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(printed["error"]["message"].as_str().unwrap().contains("cannot be written"));
    assert!(place.names().iter().all(|name| name.starts_with(".us-west-2.pem.")));
}

#[test]
fn the_page_may_come_in_on_stdin() {
    let place = Place::with("");
    let page = markdown(&[section(NEW_REGION, &[pem_of(&MOON)])]);
    let import = ["regions", "import", "-", "--dir", &place.directory];
    assert_eq!(json(&import, page.as_bytes()).0, 1);
    assert_eq!(json(&[&import[..], &["--yes"]].concat(), page.as_bytes()).0, 0);
    assert_eq!(place.names(), [format!("{NEW_REGION}.pem")]);
}

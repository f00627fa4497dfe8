use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::*;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn instance(number: u32) -> InstanceIdentity {
    InstanceIdentity { instance_id: format!("i-{number:017x}").parse().unwrap() }
}

fn open(path: &Path, number: u32) -> Result<StateDirectory, StateUnusable> {
    StateDirectory::open(path, &instance(number), NOW)
}

fn joined(record: &str) -> Joined {
    let certificate = |text: &str| text.as_bytes().to_vec();
    Joined {
        chain: vec![certificate("leaf"), certificate("intermediate")],
        bundle: vec![certificate("anchor")],
        join_root: certificate("root"),
        node_json: record.to_owned(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }
}

#[test]
fn a_key_is_made_once_and_is_on_disk_before_it_is_used() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let first = open(&path, 1).unwrap().key().unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("pending/key.pem")), 0o600);
    // An attempt that was lost, and another one later.
    let state = open(&path, 1).unwrap();
    assert_eq!(state.key().unwrap().public_key(), first.public_key());
    assert_eq!(state.current().unwrap(), None);
    assert_eq!(state.set_aside(), None);
}

#[test]
fn what_a_join_brought_is_switched_in_at_once() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let state = open(&path, 1).unwrap();
    let key = state.key().unwrap();
    state.install(&joined("{\"n\":1}")).unwrap();

    let current = path.join("current");
    assert_eq!(mode(&current.join("key.pem")), 0o600);
    assert_eq!(fs::read_to_string(current.join("node.json")).unwrap(), "{\"n\":1}");
    let certificate = fs::read_to_string(current.join("certificate.pem")).unwrap();
    assert_eq!(certificate.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----\nbGVhZg==\n"), "{certificate}");
    assert!(!path.join("pending").exists(), "the key is in current/ now");
    assert_eq!(state.key().unwrap().public_key(), key.public_key());

    drop(state);
    let state = open(&path, 1).unwrap();
    assert_eq!(state.key().unwrap().public_key(), key.public_key(), "a later join keeps the key");
    state.install(&joined("{\"n\":2}")).unwrap();
    assert_eq!(state.current().unwrap().unwrap().node_json, "{\"n\":2}");
    assert_eq!(fs::read_link(&current).unwrap(), Path::new("identity-2"));
    assert!(!path.join("identity-1").exists(), "what is no longer current is removed");
}

#[test]
fn the_key_file_is_one_that_openssl_reads() {
    let scratch = Scratch::new();
    let key = open(&scratch.state(), 1).unwrap().key().unwrap();
    let output = Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(scratch.state().join("pending/key.pem"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, key.public_key().spki_der());
    let signature = key.sign(b"message").unwrap();
    assert!(key.public_key().has_signed(b"message", &signature));
}

// T62: fifty machines from one disk; each finds that the state is not its own.
#[test]
fn a_copied_state_directory_gives_each_instance_a_key_of_its_own() {
    let scratch = Scratch::new();
    let original = scratch.state();
    let state = open(&original, 0).unwrap();
    let first = state.key().unwrap().public_key().digest();
    state.install(&joined("{}")).unwrap();
    drop(state);

    let mut keys = BTreeSet::from([first]);
    for number in 1..=50 {
        let copy = scratch.0.path().join(format!("copy-{number}"));
        let copied = Command::new("cp").arg("-a").arg(&original).arg(&copy).status().unwrap();
        assert!(copied.success());
        let state = open(&copy, number).unwrap();
        let aside = state.set_aside().unwrap();
        assert!(aside.join("current/key.pem").exists());
        assert_eq!(state.current().unwrap(), None);
        assert!(keys.insert(state.key().unwrap().public_key().digest()), "{number}");
    }
    assert_eq!(open(&original, 0).unwrap().key().unwrap().public_key().digest(), first);
}

// T62: a pending key is somebody else's too; and so is state without a stamp that can be read.
#[test]
fn everything_of_another_instance_is_set_aside() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let first = open(&path, 1).unwrap().key().unwrap();
    let second = open(&path, 2).unwrap().key().unwrap();
    assert_ne!(first.public_key(), second.public_key());
    for damage in ["", "{}", "{\"instance_id\":\"i-00000000000000002\",\"x\":1}"] {
        let before = open(&path, 2).unwrap().key().unwrap();
        fs::write(path.join("instance.json"), damage).unwrap();
        let state = open(&path, 2).unwrap();
        assert!(state.set_aside().is_some(), "{damage}");
        assert_ne!(state.key().unwrap().public_key(), before.public_key(), "{damage}");
    }
    fs::remove_file(path.join("instance.json")).unwrap();
    assert!(open(&path, 2).unwrap().set_aside().is_some());
}

#[test]
fn a_crash_while_setting_aside_does_not_give_the_rest_back() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let state = open(&path, 1).unwrap();
    let key = state.key().unwrap();
    state.install(&joined("{}")).unwrap();
    drop(state);
    // As if the process ended after the first rename: the stamp is still the old one.
    fs::create_dir(path.join("set-aside-x")).unwrap();
    fs::rename(path.join("current"), path.join("set-aside-x/current")).unwrap();
    let state = open(&path, 2).unwrap();
    assert_ne!(state.key().unwrap().public_key(), key.public_key());
    assert!(!path.join("identity-1").exists());

    let names = [STAMP, PENDING, LOCK, "set-aside-x", CURRENT, "identity-1"].map(str::to_owned);
    let order = to_set_aside(names.to_vec());
    assert_eq!(order, [PENDING, CURRENT, "identity-1", STAMP]);
}

#[test]
fn a_crash_while_installing_leaves_what_was_there() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let state = open(&path, 1).unwrap();
    let key = state.key().unwrap();
    // Half an identity, a link that was not yet renamed, half a key.
    fs::create_dir(path.join("identity-1")).unwrap();
    fs::write(path.join("identity-1/key.pem"), "half").unwrap();
    symlink("identity-1", path.join("current.new")).unwrap();
    fs::write(path.join("pending/key.pem.new"), "half").unwrap();
    assert_eq!(state.current().unwrap(), None);
    assert_eq!(state.key().unwrap().public_key(), key.public_key());
    state.install(&joined("{}")).unwrap();
    assert_eq!(state.key().unwrap().public_key(), key.public_key());
}

#[test]
fn a_crash_while_making_the_key_leaves_a_key_to_be_made() {
    let scratch = Scratch::new();
    let path = scratch.state();
    drop(open(&path, 1).unwrap());
    fs::create_dir(path.join("pending")).unwrap();
    fs::write(path.join("pending/key.pem.new"), "half").unwrap();
    let key = open(&path, 1).unwrap().key().unwrap();
    assert_eq!(open(&path, 1).unwrap().key().unwrap().public_key(), key.public_key());
}

#[test]
fn two_processes_never_use_one_directory() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let first = open(&path, 1).unwrap();
    let error = open(&path, 1).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    assert!(open(&path, 1).is_ok());
}

#[test]
fn a_directory_that_others_can_write_to_is_refused_and_one_they_can_read_is_closed() {
    let scratch = Scratch::new();
    let path = scratch.state();
    fs::create_dir(&path).unwrap();
    for writable in [0o777, 0o770, 0o722] {
        fs::set_permissions(&path, fs::Permissions::from_mode(writable)).unwrap();
        let error = open(&path, 1).unwrap_err();
        assert_eq!(error.code(), Code::StateUnusable);
        assert!(error.to_string().contains("others may write"), "{error}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    open(&path, 1).unwrap();
    assert_eq!(mode(&path), 0o700);
}

#[test]
fn links_are_not_followed() {
    let scratch = Scratch::new();
    let elsewhere = scratch.0.path().join("elsewhere");
    open(&elsewhere, 1).unwrap().key().unwrap();
    let path = scratch.state();
    symlink(&elsewhere, &path).unwrap();
    assert!(open(&path, 1).is_err(), "the directory itself");
    fs::remove_file(&path).unwrap();

    open(&path, 1).unwrap();
    symlink(elsewhere.join("pending"), path.join("pending")).unwrap();
    assert!(open(&path, 1).unwrap().key().is_err(), "the directory of the key");
    fs::remove_file(path.join("pending")).unwrap();

    fs::create_dir(path.join("pending")).unwrap();
    symlink(elsewhere.join("pending/key.pem"), path.join("pending/key.pem")).unwrap();
    assert!(open(&path, 1).unwrap().key().is_err(), "the key");

    for target in ["../elsewhere/pending", "pending", "identity-", "identity-1/../pending", "/"] {
        symlink(target, path.join("current")).unwrap();
        assert!(open(&path, 1).unwrap().key().is_err(), "{target}");
        assert!(open(&path, 1).unwrap().current().is_err(), "{target}");
        fs::remove_file(path.join("current")).unwrap();
    }
}

#[test]
fn a_key_that_others_can_read_or_that_is_none_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.state();
    open(&path, 1).unwrap().key().unwrap();
    let key = path.join("pending/key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(open(&path, 1).unwrap().key().is_err());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open(&path, 1).unwrap().key().is_ok());
    let pem = fs::read_to_string(&key).unwrap();
    fs::write(&key, pem.replace("PRIVATE KEY", "OTHER KEY")).unwrap();
    assert!(open(&path, 1).unwrap().key().is_err());
    fs::write(&key, "CANARY").unwrap();
    let error = open(&path, 1).unwrap().key().unwrap_err();
    assert!(!format!("{error:?} {error}").contains("CANARY"), "{error}");
}

// I10: neither the key nor anything that holds it shows it.
#[test]
fn debug_output_holds_no_secret() {
    let scratch = Scratch::new();
    let state = open(&scratch.state(), 1).unwrap();
    let key = state.key().unwrap();
    assert_eq!(format!("{key:?}"), format!("NodeKey({})", key.public_key().digest()));
    assert!(!format!("{state:?}").contains("PRIVATE"));
}

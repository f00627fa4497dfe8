use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::*;
use crate::domain::Lifetime;

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn instance(number: u32) -> InstanceIdentity {
    InstanceIdentity {
        instance_id: format!("i-{number:017x}").parse().unwrap(),
        epoch: Some(NOW.minus(Lifetime::from_hours(1))),
    }
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
    state.install(&state.key().unwrap(), &joined("{\"n\":1}")).unwrap();

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
    state.install(&state.key().unwrap(), &joined("{\"n\":2}")).unwrap();
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
    state.install(&state.key().unwrap(), &joined("{}")).unwrap();
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
    state.install(&state.key().unwrap(), &joined("{}")).unwrap();
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
    state.install(&state.key().unwrap(), &joined("{}")).unwrap();
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

fn digest(key: &NodeKey) -> String {
    key.public_key().digest().to_string()
}

fn next_key(state: &StateDirectory) -> String {
    digest(&state.next_key().unwrap())
}

/// A directory in which a certificate for the first key is current.
fn with_certificate(path: &Path) -> StateDirectory {
    let state = open(path, 1).unwrap();
    state.install(&state.key().unwrap(), &joined("{}")).unwrap();
    state
}

// I5: at every point where the process may end, the next one asks with the same key.
#[test]
fn a_renewal_that_is_cut_off_anywhere_goes_on_with_the_same_key() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let state = with_certificate(&path);
    let (current, next) = (digest(&state.key().unwrap()), next_key(&state));
    assert_ne!(current, next);
    drop(state);

    // After the key was written; after the answer came and half of it was written.
    let state = open(&path, 1).unwrap();
    assert_eq!((digest(&state.key().unwrap()), next_key(&state)), (current, next.clone()));
    fs::create_dir(path.join("identity-2")).unwrap();
    fs::write(path.join("identity-2/key.pem"), "half").unwrap();
    drop(state);
    let state = open(&path, 1).unwrap();
    assert_eq!(next_key(&state), next);

    // After the switch and before the pending key was removed.
    let key = state.next_key().unwrap();
    let pending = fs::read(path.join("pending/key.pem")).unwrap();
    state.install(&key, &joined("{}")).unwrap();
    fs::create_dir(path.join("pending")).unwrap();
    fs::write(path.join("pending/key.pem"), pending).unwrap();
    fs::set_permissions(path.join("pending/key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    drop(state);
    let state = open(&path, 1).unwrap();
    assert_eq!(digest(&state.key().unwrap()), next);
    assert_ne!(next_key(&state), next, "a key that has its certificate is not asked with again");
}

#[test]
fn a_join_with_the_current_key_ends_a_renewal_that_was_begun() {
    let scratch = Scratch::new();
    let state = with_certificate(&scratch.state());
    let abandoned = next_key(&state);
    state.install(&state.key().unwrap(), &joined("{}")).unwrap();
    assert!(!scratch.state().join("pending").exists());
    assert_ne!(next_key(&state), abandoned);
}

#[test]
fn starting_over_survives_a_crash_and_keeps_the_current_files_until_a_join_succeeds() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let state = with_certificate(&path);
    let (lost, abandoned) = (digest(&state.key().unwrap()), next_key(&state));
    state.start_over().unwrap();
    let fresh = digest(&state.key().unwrap());
    assert!(fresh != lost && fresh != abandoned);
    drop(state);

    let state = open(&path, 1).unwrap();
    assert!(state.starts_over().unwrap());
    assert_eq!(digest(&state.key().unwrap()), fresh);
    assert!(state.current().unwrap().is_some());
    state.install(&state.key().unwrap(), &joined("{}")).unwrap();
    assert!(!state.starts_over().unwrap());
    assert_eq!(digest(&state.key().unwrap()), fresh);
}

fn at_epoch(hour: u32) -> InstanceIdentity {
    InstanceIdentity { epoch: Some(NOW.plus(Lifetime::from_hours(hour))), ..instance(1) }
}

#[test]
fn a_machine_that_stopped_starts_afresh_and_one_that_hibernated_does_not() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let claim = |hour, continuity| {
        LockedState::take(&path).unwrap().claim(&at_epoch(hour), continuity, NOW).unwrap()
    };
    let first = digest(&claim(0, Continuity::Unknown).key().unwrap());

    let hibernated = claim(1, Continuity::Ran);
    assert_eq!(hibernated.set_aside(), None);
    assert_eq!(digest(&hibernated.key().unwrap()), first);
    drop(hibernated);
    let restarted = claim(1, Continuity::Unknown);
    assert_eq!(digest(&restarted.key().unwrap()), first, "the stamp has followed");
    drop(restarted);

    let stopped = claim(2, Continuity::Unknown);
    assert!(stopped.set_aside().is_some());
    assert_ne!(digest(&stopped.key().unwrap()), first);
    drop(stopped);
    // A snapshot of before: the epoch is another one, whichever is later.
    assert!(claim(1, Continuity::Unknown).set_aside().is_some());
    // While the agent ran, memory went to another instance: that is never ours.
    let locked = LockedState::take(&path).unwrap();
    assert!(locked.claim(&instance(2), Continuity::Ran, NOW).unwrap().set_aside().is_some());
}

#[test]
fn a_stamp_without_an_epoch_is_adopted_and_a_silent_metadata_service_changes_nothing() {
    let scratch = Scratch::new();
    let path = scratch.state();
    let first = digest(&open(&path, 1).unwrap().key().unwrap());
    fs::write(path.join(STAMP), "{\"instance_id\":\"i-00000000000000001\"}").unwrap();
    let open = |instance: &InstanceIdentity| StateDirectory::open(&path, instance, NOW).unwrap();

    assert_eq!(digest(&open(&at_epoch(0)).key().unwrap()), first);
    let silent = InstanceIdentity { epoch: None, ..instance(1) };
    assert_eq!(digest(&open(&silent).key().unwrap()), first);
    assert!(open(&at_epoch(1)).set_aside().is_some(), "the epoch was written, and kept");
}

#[test]
fn what_an_agent_says_of_itself_is_read_without_the_lock() {
    let scratch = Scratch::new();
    let path = scratch.state();
    assert_eq!(status(&path).unwrap(), Status::default());
    assert!(!path.exists(), "looking changes nothing");
    drop(with_certificate(&path));
    let locked = LockedState::take(&path).unwrap();
    let record = AgentRecord { next_try: Some(NOW), ..AgentRecord::default() };
    locked.write_record(&record).unwrap();
    let seen = status(&path).unwrap();
    assert_eq!(seen.agent, record);
    assert_eq!(seen.current.unwrap().node_json, "{}");
    fs::write(path.join(AGENT), "half").unwrap();
    assert_eq!(status(&path).unwrap().agent, AgentRecord::default());
}

#[test]
fn removal_leaves_nothing_of_ours_and_everything_of_others() {
    let scratch = Scratch::new();
    let path = scratch.state();
    assert_eq!(remove(&path, false).unwrap().names, Vec::<String>::new());
    drop(with_certificate(&path));
    let state = open(&path, 2).unwrap();
    state.install(&state.key().unwrap(), &joined("{}")).unwrap();
    state.next_key().unwrap();
    state.start_over().unwrap();
    fs::write(path.join("mine.txt"), "x").unwrap();
    fs::write(path.join("instance.json.new"), "half").unwrap();

    let error = remove(&path, false).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(state);
    let rehearsed = remove(&path, true).unwrap();
    assert!(path.join("current/key.pem").exists());
    assert_eq!(remove(&path, false).unwrap(), rehearsed);

    let mut left: Vec<_> =
        fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["lock", "mine.txt"]);
}

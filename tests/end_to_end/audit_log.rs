//! The audit log from outside: checkpoints and their key, copies, the tail, and room on the disk.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{
    Answer, MUSTER, OTHER_WORKER, STRANGER, Site, WORKER, await_that, local_command, mortal,
    server_command,
};

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file that outlives the closure of `Site::with`.
fn config(text: &str) -> (tempfile::TempDir, PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let file = keep.path().join("server.toml");
    fs::write(&file, text).unwrap();
    (keep, file)
}

/// Changes the store as somebody does who may write its file.
fn tamper(site: &Site, sql: &str) {
    let store = rusqlite::Connection::open(site.path("data").join("muster.db")).unwrap();
    assert!(store.execute(sql, []).unwrap() > 0, "{sql}");
}

fn reason(answer: &Answer) -> String {
    assert_eq!(answer.exit, 1, "{answer:?}");
    assert_eq!(answer.values[0]["ok"], false);
    answer.values[0]["first_bad"]["reason"].as_str().unwrap().to_owned()
}

// X5, X6
#[test]
fn checkpoints_are_written_at_start_and_end_and_verified_by_the_public_half() {
    let mut site = Site::new();
    site.join(WORKER, "node").yes();
    let live = site.local(&["audit", "verify"]);
    assert_eq!(live.yes()["ok"], true);
    assert!(live.yes()["checkpoints"].as_u64().unwrap() >= 1, "{live:?}");
    site.server.signal(Signal::TERM);
    assert_eq!(site.server.wait(), Some(0));
    // The end of the process is the end of its chain: everything is covered.
    assert_eq!(site.local(&["audit", "verify"]).yes()["unsealed"], 0);
    site.restart(|command| command);
    let records = site.local(&["audit", "ls"]).values;
    let starts: Vec<_> = records.iter().filter(|one| one["kind"] == "server-start").collect();
    let checkpoints: Vec<_> = records.iter().filter(|one| one["kind"] == "checkpoint").collect();
    let key = &starts[0]["detail"]["checkpoint_key"];
    assert_eq!(key.as_str().unwrap().len(), 64);
    assert!(
        checkpoints.iter().all(|one| one["detail"]["key"] == *key && one["class"] == "admission")
    );
    // The second start closed the chain of the first. Within a second chains stand in any order.
    let closing = checkpoints.iter().find(|one| one["detail"]["others"] != json!([])).unwrap();
    let first = closing["detail"]["others"][0]["chain"].as_str().unwrap();
    assert!(starts.iter().any(|one| one["chain"] == first) && closing["chain"] != first);

    // An auditor believes a key of his own.
    let own = site.path("kept.pub");
    fs::copy(site.path("data").join("audit-checkpoint.pub"), &own).unwrap();
    let verify = ["audit", "verify", "--checkpoint-key", path(&own)];
    assert_eq!(site.local(&verify).yes()["ok"], true);

    // A chain that was cut off, and one that was taken away.
    site.server.kill();
    tamper(&site, &format!("DELETE FROM records WHERE log = '{first}' AND sequence > 3"));
    assert!(reason(&site.local(&verify)).contains("not in the store"));
    tamper(&site, &format!("DELETE FROM records WHERE log = '{first}'"));
    assert!(reason(&site.local(&verify)).contains("not in the store"));
}

// I9, I14: whoever asks while the server stops gets a whole answer or none, and the last checkpoint
// covers what that wrote.
#[test]
fn what_is_answered_while_the_server_stops_is_on_record_and_covered() {
    let mut site = Site::new();
    let socket = site.path("data").join("muster.sock");
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Ok(mut stream) = UnixStream::connect(&socket) {
                    let mut answer = String::new();
                    let _cut_off = stream.write_all(b"no command\n");
                    if stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
                        assert!(answer.contains("MALFORMED_REQUEST"), "{answer}");
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        await_that("the server is busy", || answered.load(Ordering::SeqCst) > 50);
        site.server.signal(Signal::TERM);
    });
    assert_eq!(site.server.wait(), Some(0));
    let verified = site.local(&["audit", "verify"]);
    assert_eq!(verified.yes()["unsealed"], 0);
    site.restart(|command| command);
    let records = site.local(&["audit", "ls", "--class", "security"]).values;
    let is_one = |record: &&Value| record["detail"]["command"] == "unreadable";
    assert_eq!(records.iter().filter(is_one).count(), answered.load(Ordering::SeqCst));
}

#[test]
fn the_key_of_the_checkpoints_is_never_exchanged_in_silence() {
    let elsewhere = tempfile::tempdir().unwrap();
    let key = elsewhere.path().join("audit.key");
    let mut site = Site::with(|mut command| {
        command.arg("--audit-checkpoint-key").arg(&key);
        command
    });
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    assert!(!site.path("data").join("ca/audit-checkpoint.key").exists());
    site.server.kill();
    // The disk with the key is not mounted; the flag is forgotten; others can read the key.
    fs::rename(&key, elsewhere.path().join("away")).unwrap();
    let start = |with_flag: bool| {
        let mut command = server_command(mortal(Path::new(MUSTER)), site.directory.path());
        if with_flag {
            command.arg("--audit-checkpoint-key").arg(&key);
        }
        Answer::of(command.args(["--output", "json"]))
    };
    for with_flag in [true, false] {
        let answer = start(with_flag);
        assert_eq!(answer.failure(), (2, "AUDIT_KEY_UNUSABLE"));
        let message = answer.values[0]["error"]["message"].as_str().unwrap();
        assert!(message.contains("restore the key"), "{message}");
    }
    assert!(!key.exists(), "no other key is made");
    fs::rename(elsewhere.path().join("away"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(start(true).failure(), (2, "AUDIT_KEY_UNUSABLE"));
}

#[test]
fn a_copy_is_made_continued_and_compared() {
    let site = Site::new();
    site.join(WORKER, "node").yes();
    let (copy, data) = (site.path("copy.jsonl"), site.path("data"));
    let export = |more: &[&str]| {
        let arguments = [&["audit", "export"], more].concat();
        Answer::of(&mut local_command(Command::new(MUSTER), &arguments, &data))
    };
    let made = export(&["--out", path(&copy)]);
    let records = made.yes()["records"].as_u64().unwrap();
    assert_eq!(
        (made.yes()["chains"].as_u64(), made.yes()["out"].as_str()),
        (Some(1), copy.to_str())
    );
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        export(&["--out", path(&copy)]).failure(),
        (2, "FILE_UNREADABLE"),
        "never over another"
    );

    // On: half a line is what a crash leaves.
    site.join(OTHER_WORKER, "other").yes();
    let mut text = fs::read_to_string(&copy).unwrap();
    assert_eq!(text.lines().count() as u64, records);
    text.push_str("{\"seq\":");
    fs::write(&copy, text).unwrap();
    let more = export(&["--out", path(&copy), "--append"]).yes()["records"].as_u64().unwrap();
    assert!(more >= 2, "{more}");
    let lines = fs::read_to_string(&copy).unwrap();
    assert_eq!(lines.lines().count() as u64, records + more);
    let all = export(&[]).values;
    assert_eq!(all.len() as u64, records + more, "nothing came meanwhile");
    let copied: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(copied, all);
    assert!(export(&["--since", "2100-01-01T00:00:00Z"]).values.is_empty());
    assert_eq!(export(&["--since", "2020-01-01T00:00:00Z"]).values.len(), all.len());

    let against = ["audit", "verify", "--against", path(&copy)];
    assert_eq!(site.local(&against).yes()["ok"], true);
    let other = site.path("other.jsonl");
    fs::write(&other, "not a record\n").unwrap();
    assert_eq!(export(&["--out", path(&other), "--append"]).failure(), (2, "FILE_UNREADABLE"));
    // A store that was cut off at a checkpoint, with all that came after it, is whole by itself.
    let checkpoint = all.iter().find(|one| one["kind"] == "checkpoint").unwrap();
    tamper(&site, &format!("DELETE FROM records WHERE sequence > {}", checkpoint["seq"]));
    assert_eq!(site.local(&["audit", "verify"]).yes()["ok"], true);
    assert!(reason(&site.local(&against)).contains("a record that the store has not"));
}

/// A `muster audit tail --follow`.
struct Tail {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Tail {
    fn start(site: &Site, more: &[&str]) -> Self {
        let arguments = [&["audit", "tail", "--follow"], more].concat();
        let mut command = local_command(mortal(Path::new(MUSTER)), &arguments, &site.path("data"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn interrupt(mut self) -> (Option<i32>, String) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, Signal::INT).unwrap();
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn the_tail_shows_the_newest_and_what_comes() {
    let site = Site::new();
    site.join(WORKER, "node").yes();
    let newest = site.local(&["audit", "tail", "-n", "2", "--class", "admission"]).values;
    assert_eq!(newest.len(), 2);
    let all = site.local(&["audit", "ls", "--class", "admission"]).values;
    assert!(all.ends_with(&newest) || all.len() > newest.len(), "{newest:?}");
    let none = site.local(&["audit", "tail", "--account", "222222222222"]);
    assert_eq!((none.exit, none.values.len()), (0, 0));
    assert_eq!(site.local(&["audit", "tail", "-n", "1001"]).exit, 1);
    assert_eq!(site.local(&["audit", "tail", "--class", "gossip"]).exit, 1);

    let mut tail = Tail::start(&site, &["-n", "1", "--outcome", "admitted"]);
    assert_eq!(tail.next()["instance_id"], WORKER);
    site.join(OTHER_WORKER, "other").yes();
    assert_eq!(tail.next()["instance_id"], OTHER_WORKER);
    assert_eq!(tail.interrupt(), (Some(0), String::new()), "^C is how it ends");

    // Places are few, and whoever goes gives his back.
    let mut tails: Vec<_> = (0..4)
        .map(|_| {
            let mut tail = Tail::start(&site, &["-n", "1"]);
            tail.next();
            tail
        })
        .collect();
    assert_eq!(site.local(&["audit", "tail", "--follow"]).failure(), (3, "OVERLOADED"));
    assert_eq!(site.local(&["nodes", "ls"]).exit, 0);
    tails.pop().unwrap().interrupt();
    let mut last = Tail::start(&site, &["-n", "1"]);
    await_that("the place is given back", || {
        let is_full = last.next()["error"]["code"] == "OVERLOADED";
        if is_full {
            last = Tail::start(&site, &["-n", "1"]);
        }
        !is_full
    });

    // The server stops.
    for tail in tails {
        tail.interrupt();
    }
    site.server.signal(Signal::TERM);
    let mut said = last.next();
    while said.get("error").is_none() {
        said = last.next();
    }
    assert_eq!(said["error"]["code"], "SERVER_NOT_RUNNING", "{said}");
    assert_eq!(last.child.wait().unwrap().code(), Some(3));
}

fn metric(site: &Site, name: &str) -> u64 {
    let page = site.page("/metrics");
    let line = page.lines().find(|line| line.starts_with(&format!("muster_{name} ")));
    line.expect(name).rsplit(' ').next().unwrap().parse().unwrap()
}

// T70, from outside: a server that believes its disk to be nearly full.
#[test]
fn little_room_stops_summaries_and_refusals_and_no_join() {
    let mib: u64 = 1 << 20;
    let (_keep, file) = config("[store]\nlow_mib = 1099511627776\nvery_low_mib = 1099511627776\n");
    let mut site = Site::with(|mut command| {
        command.arg("--config").arg(&file);
        command
    });
    assert_eq!(metric(&site, "store_room"), 2);
    assert_eq!(metric(&site, "store_reserve_bytes"), 0, "no room for a reserve");
    assert!(site.page("/readyz").contains("200 OK"));
    assert_eq!(site.join(STRANGER, "stranger").exit, 1);
    site.join(WORKER, "node").yes();
    assert_eq!(metric(&site, "audit_counted"), 1);
    assert!(metric(&site, "audit_explained_bytes") > 0);

    // With room the reserve is made, of the size that was asked for.
    let (_keep, file) = config("[store]\nlow_mib = 0\nvery_low_mib = 0\nreserve_mib = 3\n");
    site.restart(|mut command| {
        command.arg("--config").arg(&file);
        command
    });
    assert_eq!(metric(&site, "store_room"), 0);
    assert_eq!(metric(&site, "store_reserve_bytes"), 3 * mib);
    let reserve = fs::metadata(site.path("data").join("reserve")).unwrap();
    assert_eq!((reserve.len(), reserve.mode() & 0o777), (3 * mib, 0o600));
    assert!(reserve.blocks() * 512 >= 3 * mib);
    assert!(metric(&site, "store_free_bytes") > 0);
}

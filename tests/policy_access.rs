//! `muster policy access`: the questions of a security reviewer, asked of a set like that of a real
//! organization (tests/data/review).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it is wrong")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");
const SET: &str = "tests/data/review";
const AT: &str = "2026-12-01T12:00:00Z";

fn run(arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(MUSTER).args(arguments).args(["--output", "json"]).output().unwrap();
    let value = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), value.unwrap_or_else(|_| panic!("{output:?}")))
}

fn access(more: &[&str]) -> (i32, Value) {
    run(&[&["policy", "access", SET, "--at", AT], more].concat())
}

fn text(arguments: &[&str]) -> String {
    let output = Command::new(MUSTER).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Partition and policy of every row.
fn rows(answer: &Value) -> BTreeSet<(String, String)> {
    let name = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
    let rows = answer["access"].as_array().unwrap().iter();
    rows.map(|row| (name(row, "partition"), name(row, "policy"))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    expected.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
}

// "Who can join as what": every row has a witness, and `explain` admits each.
#[test]
fn who_can_join_as_what() {
    let (code, answer) = access(&[]);
    assert_eq!((code, &answer["complete"]), (0, &json!(true)));
    let entries = answer["access"].as_array().unwrap();
    let of = |partition: &str| -> BTreeSet<&str> {
        let groups = entries.iter().filter(|group| group["partition"] == partition);
        let accounts = groups.flat_map(|group| group["accounts"].as_array().unwrap());
        accounts.map(|account| account["account_id"].as_str().unwrap()).collect()
    };
    // 340 and 60 are named; the rest is denied, or in no set that a rule names.
    assert!(of("aws").len() > 300 && of("aws").len() <= 340, "{}", of("aws").len());
    assert!(of("aws-cn").len() > 40 && of("aws-cn").len() <= 60, "{}", of("aws-cn").len());
    let policies: BTreeSet<&str> =
        entries.iter().map(|row| row["policy"].as_str().unwrap()).collect();
    assert_eq!(policies.len(), 15);
    let directory = tempfile::tempdir().unwrap();
    let (claims, instance) = (directory.path().join("c"), directory.path().join("i"));
    for policy in policies.iter().filter(|policy| **policy != "edge") {
        let row = entries.iter().find(|row| row["policy"] == **policy).unwrap();
        let witness = &row["witness"];
        fs::write(&claims, witness["claims"].to_string()).unwrap();
        let mut arguments = vec!["policy", "explain", SET, "--policy", policy, "--at", AT];
        arguments.extend(["--claims", claims.to_str().unwrap()]);
        if !witness["instance"].is_null() {
            fs::write(&instance, witness["instance"].to_string()).unwrap();
            arguments.extend(["--instance", instance.to_str().unwrap()]);
        }
        let (code, explained) = run(&arguments);
        assert_eq!(code, 0, "{explained:#}");
        assert_eq!(explained["rule"], row["rules"][0]["name"]);
    }
    let text = text(&["policy", "access", SET, "--policy", "checkout", "--at", AT]);
    for words in
        ["14 accounts of partition aws", "but not tags: Quarantine: present", "200024716670"]
    {
        assert!(text.contains(words), "{text}");
    }
}

// "Could account X join?": with one number in two partitions, on a deny list, excepted, until a time.
#[test]
fn could_this_account_join() {
    let (code, answer) = access(&["--account", "100040194537"]);
    assert_eq!(code, 0);
    let partitions: BTreeSet<String> =
        rows(&answer).into_iter().map(|(partition, _)| partition).collect();
    assert_eq!(partitions.len(), 2, "one number, two accounts: {:?}", rows(&answer));

    let (code, answer) = access(&["--account", "100028694857"]);
    assert_eq!((code, &answer["access"]), (1, &json!([])));
    let refused = answer["refused"].as_array().unwrap();
    assert!(!refused.is_empty());
    for one in refused {
        assert_eq!(one["file"], "deny-quarantine.yaml", "{one:#}");
    }

    let (_, answer) = access(&["--account", "100089403657"]);
    assert_eq!(rows(&answer), pairs(&[("aws", "fulfilment")]));
    let (_, answer) = access(&["--account", "300059601231"]);
    assert_eq!(rows(&answer), pairs(&[("aws", "data-lake")]));
    let (code, answer) = access(&["--account", "300061344914", "--policy", "scanner"]);
    assert_eq!((code, &answer["refused"][0]["file"]), (1, &json!("scanner.yaml")));

    // Until a time.
    let by = |at: &str| {
        let arguments = ["policy", "access", SET, "--account", "100034713592", "--at", at];
        rows(&run(&arguments).1)
    };
    assert!(by("2031-03-30T00:00:00Z").contains(&("aws".to_owned(), "search".to_owned())));
    assert!(!by("2031-04-01T00:00:00Z").contains(&("aws".to_owned(), "search".to_owned())));

    // Somebody whom no rule names.
    let (code, answer) = access(&["--account", "999999999999"]);
    assert_eq!((code, &answer["refused"]), (1, &json!([])));
    let said = text(&["policy", "access", SET, "--account", "999999999999"]);
    assert!(said.contains("nobody who was asked about can join"), "{said}");
}

// "Where is the proof weakened?"
#[test]
fn where_is_the_proof_weakened() {
    let (code, answer) = access(&["--weak"]);
    assert_eq!(code, 0);
    let policies: BTreeSet<String> = rows(&answer).into_iter().map(|(_, policy)| policy).collect();
    assert_eq!(policies, ["ci-runner", "edge", "sandbox"].map(str::to_owned).into());
    let said = text(&["policy", "access", SET, "--weak", "--at", AT]);
    for words in
        ["NO fresh proof, documents up to", "NOT looked at", "whoever has what it asks for"]
    {
        assert!(said.contains(words), "{said}");
    }
}

// "Which accounts never joined?", and since when something was not used.
#[test]
fn which_access_is_unused() {
    let directory = tempfile::tempdir().unwrap();
    let records = directory.path().join("audit.jsonl");
    let claim = |text: &str| json!({"value": {"text": text}, "hinted": false});
    let record = |time: &str, account: &str, node: &str| {
        json!({
            "seq": 1, "chain": "audit/0", "hash": "00", "time": time, "class": "admission", "kind": "join",
            "outcome": "admitted", "code": null, "correlation_id": "a-1", "policy": "monitoring",
            "policy_hash": null, "account_id": account, "instance_id": "i-1", "node_id": node, "serial": null,
            "source": null, "detail": {"method": "ec2", "not_after": "2026-12-01T20:00:00Z",
                "claims": {"partition": claim("aws"), "account_id": claim(account)}},
        })
    };
    let in_aws = |answer: &Value| -> Vec<Value> {
        let groups = answer["access"].as_array().unwrap().iter();
        let of_aws = groups.filter(|group| group["partition"] == "aws");
        of_aws.flat_map(|group| group["accounts"].as_array().unwrap().clone()).collect()
    };
    let (_, answer) = access(&["--policy", "monitoring"]);
    let all = in_aws(&answer);
    let accounts: Vec<&str> =
        all.iter().map(|account| account["account_id"].as_str().unwrap()).collect();
    let lines = [
        record("2026-11-30T00:00:00Z", accounts[0], "n-1"),
        record("2026-11-30T01:00:00Z", accounts[0], "n-2"),
        record("2026-07-01T00:00:00Z", accounts[1], "n-3"),
    ];
    fs::write(&records, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let records = records.to_str().unwrap();
    let asked = ["--policy", "monitoring", "--audit", records];
    let (_, answer) = access(&asked);
    let row = |account: &str| {
        in_aws(&answer).into_iter().find(|row| row["account_id"] == account).unwrap()
    };
    assert_eq!(row(accounts[0])["last_used"], "2026-11-30T01:00:00Z");
    assert_eq!(row(accounts[0])["live_nodes"], 2);
    assert_eq!(row(accounts[2])["last_used"], Value::Null);
    assert_eq!(answer["records_since"], "2026-07-01T00:00:00Z");

    let (code, unused) = access(&[&asked[..], &["--unused", "90d"]].concat());
    assert_eq!(code, 1);
    assert_eq!(in_aws(&unused).len(), all.len() - 1, "all but one were not used for 90 days");
    // Without records nothing can be said of use.
    assert_eq!(access(&["--unused", "90d"]).1["error"]["code"], "CONFIGURATION_INVALID");
    fs::write(directory.path().join("broken"), "{\"seq\": 1}\n").unwrap();
    let broken = directory.path().join("broken");
    let (code, answer) = access(&["--audit", broken.to_str().unwrap()]);
    assert_eq!((code, &answer["error"]["code"]), (1, &json!("CLAIMS_INVALID")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("line 1"), "{answer}");
}

// "What does this change admit or cut off?", of the whole set.
#[test]
fn what_a_change_of_a_large_set_admits_and_cuts_off() {
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new");
    fs::create_dir(&new).unwrap();
    for entry in fs::read_dir(SET).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), new.join(entry.file_name())).unwrap();
    }
    let diff = |more: &[&str]| {
        let arguments = ["policy", "diff", SET, new.to_str().unwrap(), "--at", AT];
        run(&[&arguments, more].concat())
    };
    let edit = |file: &str, from: &str, to: &str| {
        let path = new.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file}: {from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    edit("web.yaml", "owner: storefront-team", "owner: the-storefront-team");
    assert_eq!(diff(&["--fail-on-new-access"]).1["same_meaning"], true);
    edit("web.yaml", "instance_profile: web/*", "instance_profile: [web/*, \"*-web\"]");
    edit("search.yaml", "2031-03-31", "2031-01-31");
    let (code, answer) = diff(&["--fail-on-new-access"]);
    assert_eq!(code, 1);
    let of = |kind: &str| -> Vec<&Value> {
        let changes = answer["changes"].as_array().unwrap().iter();
        changes.filter(|change| change["kind"] == kind).collect()
    };
    let (gained, lost) = (of("newly_admitted"), of("no_longer_admitted"));
    assert_eq!((gained.len(), lost.len()), (1, 1), "{answer:#}");
    assert_eq!(
        (&gained[0]["policy"], gained[0]["accounts"].as_array().unwrap().len()),
        (&json!("web"), 29)
    );
    assert_eq!(
        (&lost[0]["policy"], &lost[0]["accounts"][0]["account_id"]),
        (&json!("search"), &json!("100034713592"))
    );
    assert_eq!(lost[0]["witness"]["at"], "2031-01-31T00:00:01Z");
}

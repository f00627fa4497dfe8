//! `muster policy check`: every mistake is refused with its file, line, column, and what to write
//! instead (acceptance 6 of part 1). Each row changes one line of a set that is accepted.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A set without any finding, even with `--strict`.
const WEB: &str = r#"apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, owner: platform, description: web tier}
spec:
  method: ec2
  roles: [node]
  allow:
    - accounts: [production]
      regions: [us-east-1, us-west-2]
  deny:
    - regions: [eu-west-1]
  ec2: {look_up: none}
  certificate:
    ttl: 12h
    dns_names: ["{instance_id}.web.internal.example"]
"#;
const ACCOUNTS: &str = r#"apiVersion: muster/v1
kind: AccountSet
metadata: {name: production}
spec:
  partition: aws
  accounts:
    - {id: "111122223333", name: shop-prod}
"#;

fn muster(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster")).args(arguments).output().unwrap()
}

fn check(directory: &Path) -> (Option<i32>, Value) {
    let output = muster(&["policy", "check", directory.to_str().unwrap(), "--output", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one value on stdout: {text}");
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// Replaces a part of `WEB`, and checks that what replaces it is found at its place.
struct Row {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    code: &'static str,
    /// Where in the replacement the finding points.
    at: &'static str,
    /// A part of what to write instead.
    expected: &'static str,
}

const fn row(
    what: &'static str,
    [from, to, at]: [&'static str; 3],
    code: &'static str,
    expected: &'static str,
) -> Row {
    Row { what, from, to, code, at, expected }
}

const ACCOUNT_LINE: &str = "    - accounts: [production]\n      regions:";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("no accounts", [ACCOUNT_LINE, "    - regions:", "regions:"], "ACCOUNTS_MISSING", "accounts"),
    // T30: an empty list never means any.
    row("empty accounts", ["[production]", "[]", "[]"], "VALUE_EMPTY", "at least one"),
    row("accounts: null", ["accounts: [production]", "accounts:", "accounts:"], "VALUE_NULL", "never means everything"),
    row("accounts: any", ["[production]", "any", "any"], "ACCOUNTS_ANY", "quoted account numbers"),
    row("accounts: [any]", ["[production]", "[any]", "any"], "ACCOUNTS_ANY", "quoted account numbers"),
    row("accounts: [*]", ["[production]", "[\"*\"]", "\"*\""], "ACCOUNTS_ANY", "quoted account numbers"),
    row("half a star", ["[production]", "[\"1111*\"]", "\"1111*\""], "ACCOUNTS_ANY", "quoted account numbers"),
    row("unquoted account", ["[production]", "[111122223333]", "1111"], "ACCOUNT_INVALID", "\"111122223333\""),
    row("11 digits", ["[production]", "[\"11112222333\"]", "\"1111"], "ACCOUNT_INVALID", "12 digits"),
    row("13 digits", ["[production]", "[\"1111222233334\"]", "\"1111"], "ACCOUNT_INVALID", "12 digits"),
    row("a letter for a digit", ["[production]", "[\"11112222333O\"]", "\"1111"], "ACCOUNT_INVALID", "12 digits"),
    row("nothing among accounts", ["[production]", "[production, ~]", "~"], "VALUE_NULL", "never means everything"),
    row("unknown set", ["[production]", "[producton]", "producton"], "SET_UNKNOWN", "`production`?"),
    row("account twice", ["[production]", "[production, production]", "production]"], "VALUE_REPEATED", "once"),
    row("literal without partition", ["[production]", "[\"111122223333\"]", "["], "PARTITION_MISSING", "partition: aws"),
    row("partition that contradicts", ["[production]", "[production]\n      partition: aws-cn", "[production]"], "PARTITION_MIXED", "one rule a partition"),
    row("regions of another partition", ["[us-east-1, us-west-2]", "[us-east-1, cn-north-1]", "["], "PARTITION_MIXED", "one rule a partition"),
    row("no regions", ["      regions: [us-east-1, us-west-2]\n", "", "    - accounts"], "KEY_MISSING", "regions: any"),
    row("empty regions", ["[us-east-1, us-west-2]", "[]", "[]"], "VALUE_EMPTY", "at least one"),
    row("regions: null", ["regions: [us-east-1, us-west-2]", "regions:", "regions:"], "VALUE_NULL", "never means everything"),
    row("regions: ~", ["regions: [us-east-1, us-west-2]", "regions: ~", "regions:"], "VALUE_NULL", "never means everything"),
    row("misspelt region", ["us-east-1", "us-esat-1", "us-esat-1"], "REGION_UNKNOWN", "`us-east-1`?"),
    row("any in a list", ["us-east-1", "any", "any"], "REGION_UNKNOWN", "without brackets"),
    row("region as text", ["[us-east-1, us-west-2]", "us-east-1", "us-east-1"], "VALUE_TYPE", "a list"),
    row("no roles", ["  roles: [node]\n", "", "  method"], "KEY_MISSING", "roles"),
    row("empty roles", ["[node]", "[]", "[]"], "VALUE_EMPTY", "at least one"),
    row("{} in allow", [ACCOUNT_LINE, "    - {}\n    - accounts: [production]\n      regions:", "{}"], "RULE_EMPTY", "accounts"),
    row("{} in deny", ["- regions: [eu-west-1]", "- {}", "{}"], "RULE_EMPTY", "images"),
    row("null in deny", ["- regions: [eu-west-1]", "-", "\n  ec2"], "VALUE_NULL", "leave it out"),
    row("only a reason in deny", ["- regions: [eu-west-1]", "- reason: because", "reason"], "RULE_EMPTY", "images"),
    row("any in deny", ["regions: [eu-west-1]", "regions: any", "any"], "VALUE_INVALID", "leave the field out"),
    row("empty allow", ["    - accounts: [production]\n      regions: [us-east-1, us-west-2]\n  deny:", "    []\n  deny:", "[]"], "VALUE_EMPTY", "at least one"),
    row("unknown key", ["roles:", "rols: [node]\n  roles:", "rols"], "KEY_UNKNOWN", "`roles`?"),
    row("unknown field", ["regions: [us", "region: [us-east-1]\n      regions: [us", "region:"], "KEY_UNKNOWN", "`regions`?"),
    row("repeated key", ["roles: [node]", "roles: [node]\n  roles: [admin]", "roles: [admin]"], "KEY_REPEATED", "once"),
    row("anchor", ["[production]", "&a [production]", "&a"], "YAML_FEATURE", "written out"),
    row("alias", ["roles: [node]", "roles: *a", "*a"], "YAML_SYNTAX", "YAML 1.2"),
    row("merge key", ["ttl: 12h", "<<: {ttl: 12h}", "<<"], "YAML_FEATURE", "written out"),
    row("tag", ["ttl: 12h", "ttl: !!str 12h", "!!str"], "YAML_FEATURE", "written out"),
    row("syntax", ["[node]", "[node", "[node"], "YAML_SYNTAX", "YAML 1.2"),
    row("unknown method", ["method: ec2", "method: ec3", "ec3"], "METHOD_UNKNOWN", "`ec2`?"),
    row("unknown version", ["muster/v1", "muster/v2", "muster/v2"], "API_VERSION_UNKNOWN", "muster/v1"),
    row("unknown kind", ["JoinPolicy", "JoinPolcy", "JoinPolcy"], "KIND_UNKNOWN", "`JoinPolicy`?"),
    row("kind of later", ["JoinPolicy", "OrganizationSnapshot", "OrganizationSnapshot"], "NOT_IN_THIS_VERSION", "JoinPolicy"),
    row("name with a slash", ["name: web", "name: a/b", "a/b"], "VALUE_INVALID", "lower-case"),
    row("name of digits", ["name: web", "name: \"111122223333\"", "\"1111"], "VALUE_INVALID", "letter"),
    row("not_required without ttl", ["{look_up: none}", "{look_up: none, fresh_proof: not_required}", "not_required}"], "DOCUMENT_TTL_MISSING", "document_ttl: 15m"),
    row("ttl without not_required", ["{look_up: none}", "{look_up: none, document_ttl: 5m}", "5m"], "DOCUMENT_TTL_UNUSED", "not_required"),
    row("document_ttl too long", ["{look_up: none}", "{look_up: none, fresh_proof: not_required, document_ttl: 25h}", "25h"], "VALUE_INVALID", "at most 1d"),
    row("no document_ttl at all", ["{look_up: none}", "{look_up: none, fresh_proof: not_required, document_ttl: 0s}", "0s"], "VALUE_INVALID", "more than nothing"),
    row("proof misspelt", ["{look_up: none}", "{look_up: none, fresh_proof: optional}", "optional"], "VALUE_INVALID", "not_required"),
    row("look_up misspelt", ["{look_up: none}", "{look_up: always}", "always"], "VALUE_INVALID", "own"),
    row("look_up as a list", ["{look_up: none}", "{look_up: [own]}", "[own"], "VALUE_INVALID", "own"),
    row("look_up by another role", ["{look_up: none}", "{look_up: {role: a, external_id: xy}}", "a,"], "VALUE_INVALID", "{account}"),
    // P8: a literal account, a role of every account, and a path that ends nowhere.
    row("a role's account", ["{look_up: none}", "{look_up: {role: 'arn:aws:iam::111122223333:role/r', external_id: xy}}", "'arn"], "VALUE_INVALID", "{partition}"),
    row("a role with a star", ["{look_up: none}", "{look_up: {role: 'arn:{partition}:iam::{account}:role/*', external_id: xy}}", "'arn"], "VALUE_INVALID", "NAME"),
    row("a role without a name", ["{look_up: none}", "{look_up: {role: 'arn:{partition}:iam::{account}:role/', external_id: xy}}", "'arn"], "VALUE_INVALID", "NAME"),
    row("another variable", ["{look_up: none}", "{look_up: {role: 'arn:{partition}:iam::{account}:role/{region}', external_id: xy}}", "'arn"], "VALUE_INVALID", "NAME"),
    row("no role", ["{look_up: none}", "{look_up: {external_id: xy}}", "{external"], "KEY_MISSING", "role"),
    row("external id too short", ["{look_up: none}", "{look_up: {role: 'arn:{partition}:iam::{account}:role/r', external_id: x}}", "x}"], "VALUE_INVALID", "1224"),
    row("external id with a space", ["{look_up: none}", "{look_up: {role: 'arn:{partition}:iam::{account}:role/r', external_id: 'x y'}}", "'x y"], "VALUE_INVALID", "1224"),
    row("rejoin without a limit", ["{look_up: none}", "{look_up: none, rejoin: {when_silent: 30m}}", "{when"], "KEY_MISSING", "limit"),
    row("rejoin always", ["{look_up: none}", "{look_up: none, rejoin: always}", "always"], "VALUE_INVALID", "when_silent"),
    row("rejoin too often", ["{look_up: none}", "{look_up: none, rejoin: {when_silent: 30m, limit: 101}}", "101"], "VALUE_INVALID", "100"),
    row("rejoin without a proof", ["{look_up: none}", "{look_up: none, fresh_proof: not_required, document_ttl: 1h, rejoin: {when_silent: 30m, limit: 1}}", "{when"], "VALUE_INVALID", "fresh_proof: required"),
    row("a number in quotes", ["{look_up: none}", "{look_up: none, rejoin: {when_silent: 30m, limit: \"1\"}}", "\"1\""], "VALUE_INVALID", "from 1 to 100"),
    row("a number with a sign", ["{look_up: none}", "{look_up: none, rejoin: {when_silent: 30m, limit: +1}}", "+1"], "VALUE_INVALID", "from 1 to 100"),
    row("empty settings", ["{look_up: none}", "{}", "{}"], "VALUE_EMPTY", "leave it out"),
    row("slots", ["roles:", "slots: [a]\n  roles:", "[a]"], "NOT_IN_THIS_VERSION", "no `slots`"),
    row("certificate too long", ["12h", "8d", "8d"], "VALUE_INVALID", "at most 7d"),
    row("duration without unit", ["12h", "12", "12"], "NEEDS_QUOTES", "\"12\""),
    // T74: a tag can be chosen, so it cannot become a name.
    row("DNS name from a tag", ["\"{instance_id}.web", "\"{tag:Name}.web", "\"{tag"], "DNS_NAME_VARIABLE", "{instance_id}"),
    row("DNS name from a host name", ["\"{instance_id}.web", "\"{hostname}.web", "\"{host"], "DNS_NAME_VARIABLE", "{instance_id}"),
    row("wildcard", ["\"{instance_id}.web", "\"*.web", "\"*."], "DNS_NAME_INVALID", "no wildcard"),
    row("tags without look-up", ["- regions: [eu-west-1]", "- tags: {Quarantine: present}", "{Quar"], "FACT_NEVER_READ", "without it"),
    row("profile without look-up", ["      regions: [us", "      instance_profile: web-*\n      regions: [us", "web-*"], "FACT_NEVER_READ", "without it"),
    row("image misspelt", ["- regions: [eu-west-1]", "- images: [ami-123]", "ami-123"], "VALUE_INVALID", "17 lower-case"),
    row("star as type", ["      regions: [us", "      instance_types: \"*\"\n      regions: [us", "\"*\""], "VALUE_INVALID", "leave the field out"),
    row("glob of shells", ["      regions: [us", "      instance_types: m7g.[lx]*\n      regions: [us", "m7g"], "VALUE_INVALID", "only `*` is special"),
    row("until", ["- regions: [eu-west-1]", "- {regions: [eu-west-1], until: tomorrow}", "tomorrow"], "VALUE_INVALID", "2026-12-31T00:00:00Z"),
    row("text that is a boolean", ["web tier", "on", "on}"], "NEEDS_QUOTES", "\"on\""),
    row("hidden direction", ["web tier", "web\u{202e}tier", "\u{202e}"], "CHARACTER_NOT_ALLOWED", "visible"),
    row("escaped direction", ["web tier", "\"web\\u202etier\"", "\"web"], "CHARACTER_NOT_ALLOWED", "without control"),
    row("rule name like an index", ["- regions: [eu-west-1]", "- {name: \"allow[0]\", regions: [eu-west-1]}", "\"allow[0]"], "VALUE_INVALID", "a letter, then"),
    row("rule name of digits first", ["- regions: [eu-west-1]", "- {name: 1st, regions: [eu-west-1]}", "1st"], "VALUE_INVALID", "a letter, then"),
    row("rules of one name", ["- regions: [eu-west-1]", "- {name: a, regions: [eu-west-1]}\n    - {name: a, regions: [us-west-1]}", "{name: a, regions: [us-west-1]}"], "NAME_TAKEN", "another name"),
];

/// Line and column of the first `needle` at or after byte `from`.
fn place(text: &str, from: usize, needle: &str) -> (u64, u64) {
    let index = from + text[from..].find(needle).unwrap_or_else(|| panic!("{needle} in {text}"));
    let before = &text[..index];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    (line as u64, column as u64)
}

fn finding<'v>(result: &'v Value, code: &str, what: &str) -> &'v Value {
    let findings = result["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["code"] == code).unwrap_or_else(|| {
        panic!("{what}: no {code} in {findings:#?}");
    })
}

#[test]
fn the_baseline_has_no_finding() {
    let directory = directory(&[("accounts.yaml", ACCOUNTS), ("web.yaml", WEB)]);
    let (exit, result) = check(directory.path());
    assert_eq!(exit, Some(0), "{result:#}");
    assert_eq!((&result["policies"], &result["findings"]), (&1.into(), &Value::Array(vec![])));
    assert_eq!(result["hash"].as_str().unwrap().len(), 64);
    let path = directory.path().to_str().unwrap();
    assert!(muster(&["policies", "check", path, "--strict"]).status.success());
}

#[test]
fn every_mistake_is_refused_at_its_place_with_what_to_write_instead() {
    let wrong: Vec<String> = ROWS
        .iter()
        .filter_map(|row| row.wrong().map(|why| format!("{}: {why}", row.what)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Row {
    /// What is wrong with how this mistake is reported.
    fn wrong(&self) -> Option<String> {
        let start = WEB.find(self.from).unwrap_or_else(|| panic!("{}", self.what));
        let text = WEB.replacen(self.from, self.to, 1);
        let directory = directory(&[("accounts.yaml", ACCOUNTS), ("web.yaml", &text)]);
        let (exit, result) = check(directory.path());
        if exit != Some(1) || result["policies"] != 0 {
            return Some("it is accepted".to_owned());
        }
        let findings = result["findings"].as_array().unwrap();
        let (line, column) = self.place(&text, start);
        // Where text stops being YAML is for the parser to say.
        let is_syntax = self.code == "YAML_SYNTAX";
        let found = findings.iter().find(|finding| {
            finding["code"] == self.code
                && finding["severity"] == "error"
                && finding["file"] == "web.yaml"
                && (is_syntax || (finding["line"] == line && finding["column"] == column))
                && finding["expected"].as_str().unwrap().contains(self.expected)
        });
        match found {
            Some(_) => None,
            None => Some(format!("no {} at {line}:{column} in {findings:#?}", self.code)),
        }
    }

    /// Where the finding should point: at `at` in the replacement, or else before it.
    fn place(&self, text: &str, start: usize) -> (u64, u64) {
        let from = if text[start..].contains(self.at) {
            start
        } else {
            text[..start].rfind(self.at).unwrap_or_else(|| panic!("{}", self.what))
        };
        let blanks = self.at.len() - self.at.trim_start_matches([' ', '-']).len();
        let (line, column) = place(text, from, self.at);
        (line, column + blanks as u64)
    }
}

#[test]
fn two_documents_of_one_kind_and_name_are_refused() {
    let files = [("a.yaml", WEB), ("accounts.yaml", ACCOUNTS), ("b.yaml", WEB)];
    let (exit, result) = check(directory(&files).path());
    assert_eq!(exit, Some(1));
    let finding = finding(&result, "NAME_TAKEN", "two policies");
    assert_eq!((&finding["file"], &finding["line"]), (&"b.yaml".into(), &3.into()));
    assert!(finding["message"].as_str().unwrap().contains("a.yaml:3"));
}

#[test]
fn an_alias_is_refused_although_its_anchor_is_there() {
    let text = WEB.replace("[node]", "&roles [node]") + "    labels: *roles\n";
    let (exit, result) = check(directory(&[("web.yaml", &text)]).path());
    assert_eq!(exit, Some(1));
    let finding = finding(&result, "YAML_FEATURE", "anchor");
    assert_eq!(finding["line"], 6);
}

#[test]
fn a_policy_beyond_the_guardrails_is_refused_where_it_is_beyond() {
    let guardrails = |spec: &str| {
        format!(
            "apiVersion: muster/v1\nkind: Guardrails\nmetadata: {{name: floor}}\nspec: {spec}\n"
        )
    };
    let documents = WEB.replace(
        "{look_up: none}",
        "{look_up: none, fresh_proof: not_required, document_ttl: 15m}",
    );
    for (spec, policy, at, expected) in [
        ("{fresh_proof: required}", documents.as_str(), "not_required,", "fresh_proof: required"),
        ("{max_ttl: 6h}", WEB, "12h", "ttl: 6h"),
        ("{dns_suffixes: [other.example]}", WEB, "\"{instance_id}", "other.example"),
        ("{dns_suffixes: [ernal.example]}", WEB, "\"{instance_id}", "ernal.example"),
        ("{look_up: required}", WEB, "none}", "look_up"),
        ("{require: [owner]}", &WEB.replace("owner: platform, ", ""), "web,", "owner"),
        ("{require: [reason]}", WEB, "accounts: [pro", "reason"),
        ("{require: [ticket]}", WEB, "regions: [eu", "ticket"),
    ] {
        let files =
            [("a.yaml", policy), ("accounts.yaml", ACCOUNTS), ("floor.yaml", &guardrails(spec))];
        let (exit, result) = check(directory(&files).path());
        assert_eq!(exit, Some(1), "{spec}");
        let (line, column) = place(policy, 0, at);
        let findings = result["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| {
            finding["code"] == "GUARDRAIL_EXCEEDED"
                && (&finding["line"], &finding["column"]) == (&line.into(), &column.into())
        });
        let found = found.unwrap_or_else(|| panic!("{spec}: {line}:{column} in {findings:#?}"));
        assert!(found["expected"].as_str().unwrap().contains(expected), "{spec}");
    }
    let twice = guardrails("{max_ttl: 6h}") + "---\n" + &guardrails("{}").replace("floor", "roof");
    let (_, result) = check(directory(&[("floor.yaml", &twice)]).path());
    finding(&result, "GUARDRAILS_REPEATED", "twice");
}

#[test]
fn account_sets_are_checked_like_rules() {
    for (from, to, code) in [
        ("\"111122223333\"", "111122223333", "ACCOUNT_INVALID"),
        ("\"111122223333\"", "\"11112222333\"", "ACCOUNT_INVALID"),
        ("\"111122223333\"", "\"*\"", "ACCOUNT_INVALID"),
        ("  partition: aws\n", "", "KEY_MISSING"),
        ("partition: aws", "partition: amazon", "VALUE_INVALID"),
        ("  accounts:\n    - {id: \"111122223333\", name: shop-prod}\n", "", "KEY_MISSING"),
        ("\n    - {id: \"111122223333\", name: shop-prod}", " []", "VALUE_EMPTY"),
        ("name: shop-prod", "nme: shop-prod", "KEY_UNKNOWN"),
        ("accounts:", "include: [nothing]\n  accounts:", "SET_UNKNOWN"),
        ("accounts:", "include: [production]\n  accounts:", "SET_CYCLE"),
        ("accounts:", "except: [\"111122223333\"]\n  accounts:", "SET_EMPTY"),
        ("accounts:", "except: [111122223333]\n  accounts:", "ACCOUNT_INVALID"),
    ] {
        let text = ACCOUNTS.replacen(from, to, 1);
        assert_ne!(text, ACCOUNTS, "{from}");
        let files = [("accounts.yaml", text.as_str()), ("web.yaml", WEB)];
        let (exit, result) = check(directory(&files).path());
        assert_eq!(exit, Some(1), "{to}");
        let finding = finding(&result, code, to);
        assert_eq!(finding["file"], "accounts.yaml", "{to}");
        // The rule that names the set is not to blame.
        assert_eq!(result["findings"].as_array().unwrap().len(), 1, "{to}: {result:#}");
    }
}

// T44: a set of another partition does not become part of this one.
#[test]
fn a_set_includes_sets_of_its_own_partition_only() {
    let china =
        ACCOUNTS.replace("production", "china").replace("partition: aws", "partition: aws-cn");
    let text = ACCOUNTS.replace("  accounts:", "  include: [china]\n  accounts:");
    let files = [("a.yaml", china.as_str()), ("b.yaml", text.as_str()), ("web.yaml", WEB)];
    let (exit, result) = check(directory(&files).path());
    assert_eq!(exit, Some(1));
    let finding = finding(&result, "PARTITION_MIXED", "include");
    assert_eq!((&finding["file"], &finding["line"]), (&"b.yaml".into(), &6.into()));
}

#[test]
fn a_deny_list_on_unread_facts_names_every_policy_that_it_would_be_void_for() {
    let deny = "apiVersion: muster/v1\nkind: DenyList\nmetadata: {name: q, owner: s}\n\
                spec: {deny: [{tags: {Quarantine: present}}]}\n";
    let api = WEB.replace("name: web", "name: api");
    let files =
        [("accounts.yaml", ACCOUNTS), ("api.yaml", &api), ("deny.yaml", deny), ("web.yaml", WEB)];
    let (exit, result) = check(directory(&files).path());
    assert_eq!(exit, Some(1));
    let finding = finding(&result, "FACT_NEVER_READ", "deny list");
    assert_eq!((&finding["file"], &finding["line"]), (&"deny.yaml".into(), &4.into()));
    let message = finding["message"].as_str().unwrap();
    assert!(message.ends_with(": `api`, `web`"), "{message}");
}

#[test]
fn of_very_many_policies_a_message_names_twenty_and_counts_the_rest() {
    let deny = "apiVersion: muster/v1\nkind: DenyList\nmetadata: {name: q, owner: s}\n\
                spec: {deny: [{tags: {Quarantine: present}}]}\n";
    let policy = |number| WEB.replace("name: web", &format!("name: web-{number:02}"));
    let policies = (0..22).map(policy).collect::<Vec<_>>().join("---\n");
    let files = [("accounts.yaml", ACCOUNTS), ("deny.yaml", deny), ("web.yaml", &policies)];
    let (_, result) = check(directory(&files).path());
    let message = finding(&result, "FACT_NEVER_READ", "deny list")["message"].as_str().unwrap();
    assert!(
        message.contains("`web-00`, ") && message.ends_with("`web-19` and 2 more"),
        "{message}"
    );
}

#[test]
fn strict_takes_warnings_for_errors_and_the_exit_codes_are_those_of_the_reference() {
    let text = WEB.replace("owner: platform, ", "");
    let directory = directory(&[("accounts.yaml", ACCOUNTS), ("web.yaml", &text)]);
    let path = directory.path().to_str().unwrap();
    assert_eq!(muster(&["policy", "check", path]).status.code(), Some(0));
    assert_eq!(muster(&["policy", "check", path, "--strict"]).status.code(), Some(1));
    assert_eq!(muster(&["policy", "check", "/nonexistent"]).status.code(), Some(2));
    assert_eq!(muster(&["policy", "check"]).status.code(), Some(2));
    let empty = tempfile::tempdir().unwrap();
    let (exit, result) = check(empty.path());
    assert_eq!(exit, Some(0));
    assert_eq!(finding(&result, "NO_POLICIES", "empty")["severity"], "warning");
}

#[test]
fn the_hash_is_of_names_and_bytes_and_of_nothing_else() {
    let one = directory(&[("accounts.yaml", ACCOUNTS), ("web.yaml", WEB)]);
    let same = directory(&[("web.yaml", WEB), ("accounts.yaml", ACCOUNTS), (".hidden", "x")]);
    let renamed = directory(&[("accounts.yaml", ACCOUNTS), ("webs.yaml", WEB)]);
    let commented = directory(&[("accounts.yaml", ACCOUNTS), ("web.yaml", &format!("{WEB}#\n"))]);
    let hash = |directory: &tempfile::TempDir| check(directory.path()).1["hash"].clone();
    assert_eq!(hash(&one), hash(&same));
    assert_ne!(hash(&one), hash(&renamed));
    assert_ne!(hash(&one), hash(&commented));
}

#[test]
fn the_shipped_policies_load() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
    let output = muster(&["policy", "check", path]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

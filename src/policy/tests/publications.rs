//! Token publications: each mistake with its code and place, and what a good one says.

use super::world::{codes, load, set};
use crate::domain::{Lifetime, TrustDomain};
use crate::policy::FindingCode;
use crate::policy::FindingCode::*;

const POLICY: &str = r"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, owner: platform, description: test}
spec:
  method: token
  roles: [node]
  allow: [{tokens: any}]
";
const PUBLICATION: &str = r#"
apiVersion: muster/v1
kind: TokenPublication
metadata: {name: web, owner: platform}
spec:
  policy: web
  targets:
    - region: us-west-2
      account: "111122223333"
      role: arn:aws:iam::111122223333:role/muster-publisher
      external_id: muster-example
      kms_key: alias/muster
      tags: {Owner: platform}
    - region: us-east-1
  period: 10m
  overlap: 4m
  token: {life: 30m, max_uses: 100, cidrs: [10.0.0.0/8], labels: {tier: web}}
"#;

fn domain() -> TrustDomain {
    "prod.example.org".parse().unwrap()
}

#[test]
fn a_publication_says_what_is_written_where() {
    let set = set(&[POLICY, PUBLICATION]);
    let [web] = &set.publications().collect::<Vec<_>>()[..] else { panic!("one") };
    assert_eq!((web.name().as_str(), web.policy().as_str()), ("web", "web"));
    assert_eq!(
        (web.period(), web.overlap()),
        (Lifetime::from_minutes(10), Lifetime::from_minutes(4))
    );
    assert_eq!(web.tokens().max_uses, Some(100));
    let targets: Vec<String> = web.targets().iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["aws/us-west-2/111122223333", "aws/us-east-1/own"]);
    let names = web.targets()[0].names(&domain());
    let folder = "/muster/prod.example.org/web";
    let all = ["token", "pin", "server", "policy", "bundle"].map(|name| format!("{folder}/{name}"));
    assert_eq!(names.all(), all);
}

#[test]
fn what_is_left_out_has_a_default_and_what_is_unlimited_is_written() {
    let text = PUBLICATION
        .replace("  overlap: 4m\n", "")
        .replace("max_uses: 100", "max_uses: unlimited")
        .replace("      kms_key", "      path: /other/folder/web-token\n      kms_key");
    let set = set(&[POLICY, &text]);
    let web = set.publications().next().unwrap();
    assert_eq!(web.overlap(), Lifetime::from_minutes(5));
    assert_eq!(web.tokens().max_uses, None);
    let names = web.targets()[0].names(&domain());
    assert_eq!(
        (names.token.as_str(), names.pin.as_str()),
        ("/other/folder/web-token", "/other/folder/pin")
    );
}

#[test]
fn the_layout_of_teleport_has_its_own_names() {
    let text = PUBLICATION.to_owned() + "  layout: {teleport: {cluster: prod, role: node}}\n";
    let set = set(&[POLICY, &text]);
    let names = set.publications().next().unwrap().targets()[0].names(&domain());
    assert_eq!(names.all(), ["/teleport/prod/tokens/node", "/teleport/prod/ca-pin-hash"]);
}

// I2, I11: nothing unknown, nothing empty, nothing that means more than it says.
#[test]
fn every_mistake_has_its_code_and_place() {
    let role = "role: arn:aws:iam::111122223333:role/muster-publisher";
    #[rustfmt::skip]
    let rows: &[(&str, &str, FindingCode, &str)] = &[
        ("policy: web", "policy: wbe", PublicationPolicy, "wbe"),
        ("policy: web\n", "polcy: web\n", KeyUnknown, "polcy"),
        ("  period: 10m\n", "", KeyMissing, "policy"),
        ("period: 10m", "period:", ValueNull, "period:"),
        ("period: 10m", "period: 1s", ValueInvalid, "1s"),
        ("period: 10m", "period: 31d", ValueInvalid, "31d"),
        ("overlap: 4m", "overlap: 10m", ValueInvalid, "overlap: 10m"),
        ("life: 30m", "life: 13m", TokenLifeShort, "13m"),
        ("life: 30m, ", "", KeyMissing, "{max"),
        ("max_uses: 100, ", "", KeyMissing, "{life"),
        ("max_uses: 100", "max_uses: 0", ValueInvalid, "max_uses: 0,"),
        ("max_uses: 100", "max_uses: any", ValueInvalid, "any"),
        ("[10.0.0.0/8]", "[]", ValueEmpty, "[]"),
        ("[10.0.0.0/8]", "[10.0.0.1/8]", ValueInvalid, "10.0.0.1"),
        ("{tier: web}", "{}", ValueEmpty, "{}"),
        ("region: us-west-2", "region: us-wset-2", RegionUnknown, "us-wset"),
        ("region: us-west-2", "region: any", RegionUnknown, "any"),
        ("\"111122223333\"", "111122223333", AccountInvalid, "1111"),
        ("\"111122223333\"", "\"444455556666\"", ValueInvalid, "arn:"),
        (role, "role: arn:aws-cn:iam::111122223333:role/r", ValueInvalid, "arn:"),
        (role, "role: arn:aws:iam::111122223333:role/*", ValueInvalid, "arn:"),
        (role, "tags: {a: b}", KeyMissing, "\"1111"),
        ("      account: \"111122223333\"\n", "", KeyMissing, "arn:"),
        ("muster-example", "x", ValueInvalid, "external_id: x"),
        ("alias/muster", "muster", ValueInvalid, "kms_key: muster"),
        ("{Owner: platform}", "{}", ValueEmpty, "{}"),
        ("{Owner: platform}", "{aws:x: platform}", ValueInvalid, "aws:x"),
        ("{Owner: platform}", "{Owner: }", ValueNull, "Owner"),
        ("region: us-east-1", "region: us-east-1\n      path: token", ValueInvalid, "path: token"),
        ("region: us-east-1", "region: us-east-1\n      path: /token", ValueInvalid, "path: /token"),
        ("region: us-east-1", "region: us-east-1\n      path: /a/pin", ValueInvalid, "/a/pin"),
        ("region: us-east-1", "region: us-east-1\n      path: /aws/token", ValueInvalid, "/aws/t"),
        ("region: us-east-1", "region: us-east-1\n      path: /a//b", ValueInvalid, "/a//b"),
        ("region: us-east-1", "region: us-east-1\n    - region: us-east-1", ValueRepeated, "region: us-east-1"),
        ("  period", "  layout: teleport\n  period", ValueInvalid, "teleport"),
        ("  period", "  layout: {teleport: {cluster: a/b, role: node}}\n  period", ValueInvalid, "a/b"),
        ("  period", "  layout: {teleport: {cluster: prod}}\n  period", KeyMissing, "{cluster"),
        ("name: web,", "name: w123456789-123456789-123456789-123456789-123456789-1234,", ValueInvalid, "w1234"),
    ];
    for (from, to, code, at) in rows {
        let text = PUBLICATION.replacen(from, to, 1);
        assert_ne!(text, PUBLICATION, "{from}");
        let loaded = load(&[POLICY, &text]);
        assert!(loaded.set.is_none(), "{to} is accepted");
        // The finding stands in the line that has this.
        let is_there = loaded.findings.iter().any(|finding| {
            let line = usize::try_from(finding.place.line).unwrap();
            finding.code == *code && text.lines().nth(line - 1).unwrap().contains(at)
        });
        assert!(is_there, "{to}: no {code}: {:#?}", loaded.findings);
    }
}

#[test]
fn a_list_of_targets_is_not_empty_and_not_endless() {
    let start = PUBLICATION.find("    - region: us-west-2").unwrap();
    let end = PUBLICATION.find("  period").unwrap();
    let with = |targets: &str| PUBLICATION[..start].to_owned() + targets + &PUBLICATION[end..];
    assert_eq!(codes(&load(&[POLICY, &with("    []\n")])), [ValueEmpty]);
    let many = "    - region: us-west-2\n".repeat(101);
    assert_eq!(codes(&load(&[POLICY, &with(&many)])), [LimitExceeded]);
}

#[test]
fn a_policy_of_another_method_takes_no_tokens() {
    let policy = super::world::policy(
        "allow: [{accounts: [\"111122223333\"], partition: aws, regions: any}]\nec2: {look_up: none}",
    );
    assert_eq!(codes(&load(&[&policy, PUBLICATION])), [PublicationPolicy]);
}

#[test]
fn two_publications_never_write_one_parameter() {
    let other = PUBLICATION.replacen("name: web", "name: web-2", 1);
    assert_eq!(codes(&load(&[POLICY, PUBLICATION, &other])), [ParameterTaken]);
    // The same path in another account, region or folder is another parameter.
    let elsewhere = other.replace("111122223333", "444455556666");
    let elsewhere = elsewhere.replace("us-east-1", "eu-west-1");
    assert_eq!(codes(&load(&[POLICY, PUBLICATION, &elsewhere])), []);
    let path = |name: &str| {
        other
            .replace("      kms_key", &format!("      path: {name}\n      kms_key"))
            .replace("us-east-1", "eu-west-1")
    };
    assert_eq!(codes(&load(&[POLICY, PUBLICATION, &path("/m/other/token")])), []);
    let beside = PUBLICATION.replace("      kms_key", "      path: /m/web/token\n      kms_key");
    assert_eq!(
        codes(&load(&[POLICY, &beside, &path("/m/web/token-2")])),
        [ParameterTaken],
        "`policy` stands beside both"
    );
    let teleport = |name: &str, role: &str| {
        PUBLICATION.replacen("name: web", &format!("name: {name}"), 1)
            + &format!("  layout: {{teleport: {{cluster: prod, role: {role}}}}}\n")
    };
    let two = load(&[POLICY, &teleport("web", "node"), &teleport("web-2", "proxy")]);
    assert_eq!(codes(&two), [], "they share the pin, which is the same");
}

#[test]
fn what_authors_get_wrong_is_a_warning() {
    let without = PUBLICATION.replace("      external_id: muster-example\n", "");
    assert_eq!(codes(&load(&[POLICY, &without])), [ExternalIdMissing]);
    let nobody = PUBLICATION.replace(", owner: platform", "");
    assert_eq!(codes(&load(&[POLICY, &nobody])), [OwnerMissing]);
}

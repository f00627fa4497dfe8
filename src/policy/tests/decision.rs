//! `decide`, row by row.

use super::world::{
    ACCOUNTS, Node, false_proof, load, named_policy, now, policy, request, set, time, worker,
};
use crate::domain::{Class, Code};
use crate::methods::{LookUp, Proof, Value};
use crate::policy::{FindingCode, Order, PolicyFile, Strength};

/// Rules on every field of `ec2`.
const EVERY_FIELD: &str = "
allow:
  - name: everything
    accounts: [production]
    partition: aws
    regions: [us-east-1, us-west-2]
    availability_zones: us-east-1*
    images: [ami-0aaaaaaaaaaaaaaa1]
    instance_types: [m7g.*]
    instance_profile: web-*
    tags: {Tier: [web, api]}
    vpc: [vpc-0123456789abcdef0]
    subnet: [subnet-0123456789abcdef0]
    security_groups: [sg-0123456789abcdef0]
    auto_scaling_group: web-*
    imds: {v2_only: true, max_hop_limit: 1}
    launched_within: 1h
deny:
  - name: bad-image
    images: [ami-0bbbbbbbbbbbbbbb1]
  - name: quarantined
    tags: {Quarantine: present}
ec2: {look_up: own}
";

#[test]
fn one_change_of_an_admitted_node_is_one_denial() {
    let set = set(&[ACCOUNTS, &policy(EVERY_FIELD)]);
    let admitted = worker().joins(&set, "web").unwrap();
    assert_eq!(admitted.rule().name, "everything");

    let text = |value: &str| Value::Text(value.to_owned());
    let imds = |v2_only, hop_limit| Value::MetadataOptions { v2_only, hop_limit };
    let rows: Vec<(&str, Node, Code)> = vec![
        (
            "account not listed",
            worker().claiming("account_id", "999988887777"),
            Code::PolicyNoMatch,
        ),
        // T44: the same digits in another partition are another account.
        ("account of China", worker().claiming("partition", "aws-cn"), Code::PolicyNoMatch),
        ("no account", worker().claiming("account_id", ""), Code::PolicyNoMatch),
        ("no partition", worker().claiming("partition", ""), Code::PolicyNoMatch),
        ("region not listed", worker().claiming("region", "eu-west-1"), Code::PolicyNoMatch),
        ("zone", worker().claiming("availability_zone", "us-west-2a"), Code::PolicyNoMatch),
        ("image", worker().claiming("image_id", "ami-0aaaaaaaaaaaaaaa2"), Code::PolicyNoMatch),
        ("type", worker().claiming("instance_type", "m7i.large"), Code::PolicyNoMatch),
        ("profile", worker().with_fact("instance_profile", text("db-1")), Code::PolicyNoMatch),
        (
            "profile in a path",
            worker().with_fact("instance_profile", text("web-/admin")),
            Code::PolicyNoMatch,
        ),
        ("tag", worker().with_tag("Tier", "db"), Code::PolicyNoMatch),
        ("tag's case", worker().with_tag("tier", "web"), Code::PolicyNoMatch),
        // T11: a star in a value is a star.
        ("tag with a star", worker().with_tag("Tier", "*"), Code::PolicyNoMatch),
        ("vpc", worker().with_fact("vpc", text("vpc-0123456789abcdef1")), Code::PolicyNoMatch),
        ("subnet", worker().with_fact("subnet", text("subnet-0")), Code::PolicyNoMatch),
        ("groups", worker().with_fact("security_groups", Value::List(vec![])), Code::PolicyNoMatch),
        ("group", worker().with_fact("auto_scaling_group", text("db")), Code::PolicyNoMatch),
        ("IMDSv1", worker().with_fact("imds", imds(false, 1)), Code::PolicyNoMatch),
        ("two hops", worker().with_fact("imds", imds(true, 2)), Code::PolicyNoMatch),
        (
            "old launch",
            worker().with_fact("launch_time", Value::Time(time("2026-06-01T10:59:59Z"))),
            Code::PolicyNoMatch,
        ),
        ("bad image", worker().claiming("image_id", "ami-0bbbbbbbbbbbbbbb1"), Code::PolicyDenied),
        ("quarantined", worker().with_tag("Quarantine", "true"), Code::PolicyDenied),
        // T65: a deny rule on tags that could not be read.
        ("unseen", worker().unseen(), Code::PolicyFactsMissing),
        ("unread", worker().unread("vpc"), Code::PolicyFactsMissing),
        ("without", worker().without("vpc"), Code::PolicyNoMatch),
        ("no proof", worker().with_proof(Proof::NotOffered), Code::FreshProofRequired),
        ("false proof", worker().with_proof(false_proof()), Code::ProofDisproven),
        (
            "unchecked proof",
            worker().with_proof(Proof::NotChecked("STS is away".to_owned())),
            Code::StsUnavailable,
        ),
        ("another instance", worker().refuted(), Code::EvidenceDisagrees),
        ("stopped", worker().with_fact("state", text("stopping")), Code::InstanceNotRunning),
        ("strange state", worker().with_fact("state", text("Running")), Code::InstanceNotRunning),
        // I11: a fact of a kind that the field cannot judge is unknown, not absent.
        ("strange fact", worker().with_fact("vpc", Value::Time(now())), Code::PolicyNoMatch),
    ];
    for (what, node, code) in rows {
        let denial = node.joins(&set, "web").expect_err(what);
        assert_eq!(denial.code, code, "{what}: {}", denial.message);
        assert!(denial.explanation().is_some(), "{what}");
    }
}

// T65: a prohibition on facts that could not be read. The permission needs none of them.
#[test]
fn a_prohibition_that_nobody_could_check_is_an_outage_and_no_approval() {
    let rules = "
allow: [{accounts: [production], regions: any}]
deny: [{tags: {Quarantine: present}}]
ec2: {look_up: own}
";
    let set = set(&[ACCOUNTS, &policy(rules)]);
    assert!(worker().joins(&set, "web").is_ok());
    let denial = worker().unseen().joins(&set, "web").unwrap_err();
    assert_eq!(denial.code, Code::PolicyFactsMissing);
    assert_eq!(denial.code.class(), Class::Unavailable);
    // A stranger is refused for good, and nobody is asked about it (I3).
    let stranger = worker().claiming("account_id", "999988887777");
    assert_eq!(stranger.candidates(&set, "web").unwrap_err().code, Code::PolicyNoMatch);
}

// I11: evidence that does not say something admits nobody and rules out no prohibition.
#[test]
fn silent_evidence_is_no_excuse() {
    let rules = "
allow: [{accounts: [production], regions: any}]
deny: [{images: [ami-0bbbbbbbbbbbbbbb1]}]
";
    let set = set(&[ACCOUNTS, &policy(rules)]);
    let denial = worker().silent_on("image_id").joins(&set, "web").unwrap_err();
    assert_eq!(denial.code, Code::PolicyDenied);
    for name in ["account_id", "partition"] {
        let denial = worker().silent_on(name).joins(&set, "web").unwrap_err();
        assert_eq!(denial.code, Code::PolicyNoMatch, "{name}");
    }
    assert!(worker().silent_on("region").joins(&set, "web").is_ok(), "`any` asks nothing");
}

#[test]
fn limits_hold_on_their_boundary() {
    let launched = |at| worker().with_fact("launch_time", Value::Time(time(at)));
    let every_field = set(&[ACCOUNTS, &policy(EVERY_FIELD)]);
    assert!(launched("2026-06-01T11:00:00Z").joins(&every_field, "web").is_ok());
    assert!(launched("2026-06-01T10:59:59Z").joins(&every_field, "web").is_err());

    let documents = set(&[ACCOUNTS, &policy(DOCUMENTS)]);
    assert!(worker().since("2026-06-01T11:45:00Z").joins(&documents, "web").is_ok());
    assert!(worker().since("2026-06-01T11:44:59Z").joins(&documents, "web").is_err());

    for (until, is_admitted) in [(super::world::NOW, true), ("2026-06-01T11:59:59Z", false)] {
        let rule = format!("accounts: [production], regions: any, until: \"{until}\"");
        let set = set(&[ACCOUNTS, &policy(&format!("allow: [{{{rule}}}]"))]);
        assert_eq!(worker().joins(&set, "web").is_ok(), is_admitted, "{until}");
    }
}

const DOCUMENTS: &str = "
allow:
  - {accounts: [production], regions: any}
ec2: {fresh_proof: not_required, document_ttl: 15m}
";

#[test]
fn an_old_document_is_refused_with_its_age_as_the_only_hint() {
    let set = set(&[ACCOUNTS, &policy(DOCUMENTS)]);
    let node = worker().with_proof(Proof::NotOffered).since("2026-06-01T11:13:00Z");
    let denial = node.joins(&set, "web").unwrap_err();
    assert_eq!(denial.code, Code::DocumentTooOld);
    assert_eq!(denial.hint.as_deref(), Some("the document is 47 min old"));

    let waived = super::super::OrderRequest { age_waived: true, ..request() };
    assert!(node.joins_as(&set, "web", waived).is_ok());

    // A stranger learns nothing, not even that its document is old.
    let stranger = node.claiming("account_id", "999988887777");
    let denial = stranger.joins(&set, "web").unwrap_err();
    assert_eq!((denial.code, denial.hint), (Code::PolicyNoMatch, None));
}

#[test]
fn a_false_proof_refuses_even_where_none_is_required() {
    let set = set(&[ACCOUNTS, &policy(DOCUMENTS)]);
    let node = worker().with_proof(Proof::NotOffered);
    assert_eq!(node.joins(&set, "web").unwrap().strength(), Strength::Document);
    assert_eq!(worker().joins(&set, "web").unwrap().strength(), Strength::Proof);
    let unchecked = worker().with_proof(Proof::NotChecked("STS is away".to_owned()));
    assert_eq!(unchecked.joins(&set, "web").unwrap().strength(), Strength::Document);
    let liar = worker().with_proof(false_proof());
    assert_eq!(liar.joins(&set, "web").unwrap_err().code, Code::ProofDisproven);
}

#[test]
fn the_order_is_complete_and_survives_the_registry() {
    let names = "
allow: [{accounts: [production], regions: any}]
certificate:
  ttl: 6h
  dns_names: [\"{instance_id}.web.internal.example\", \"ip-{private_ip}.web.internal.example\"]
  labels: {tier: web}
";
    let set = set(&[ACCOUNTS, &policy(names)]);
    let approval = worker().joins(&set, "web").unwrap();
    let order = approval.order();
    assert_eq!(
        order.spiffe_id.as_str(),
        "spiffe://prod.example.org/node/ec2/web/aws/111122223333/us-east-1/i-0123456789abcdef0"
    );
    assert_eq!(order.common_name, "i-0123456789abcdef0");
    assert_eq!(
        order.dns_names,
        ["i-0123456789abcdef0.web.internal.example", "ip-10-0-12-7.web.internal.example"]
    );
    assert_eq!(order.not_before, time("2026-06-01T11:59:00Z"));
    assert_eq!(order.not_after, time("2026-06-01T18:00:00Z"));
    assert_eq!(order.renew_after, time("2026-06-01T16:00:00Z"));
    assert_eq!(approval.roles(), ["node"]);
    assert_eq!(approval.labels().collect::<Vec<_>>(), [("tier", "web")]);
    assert_eq!(approval.rule().name, "allow[0]");
    assert_eq!(approval.policy_hash(), set.hash());

    let text = serde_json::to_string(order).unwrap();
    assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), *order);
}

#[test]
fn a_name_of_the_server_or_an_unnamed_slot_is_never_ordered() {
    let static_name = "
allow: [{accounts: [production], regions: any}]
certificate: {dns_names: [muster.internal.example]}
";
    let with_static = set(&[ACCOUNTS, &policy(static_name)]);
    let denial = worker().joins(&with_static, "web").unwrap_err();
    assert_eq!(denial.code, Code::NameNotPermitted);

    // DNS names do not differ by case or by the dot of the root.
    let reserved_names = vec!["Muster.Internal.Example.".to_owned()];
    let shouting = super::super::OrderRequest { reserved_names, ..request() };
    let denial = worker().joins_as(&with_static, "web", shouting).unwrap_err();
    assert_eq!(denial.code, Code::NameNotPermitted);

    let by_ip = "
allow: [{accounts: [production], regions: any}]
certificate: {dns_names: [\"ip-{private_ip}.internal.example\"]}
";
    let by_ip = set(&[ACCOUNTS, &policy(by_ip)]);
    // T10, T20: what is no label makes no name.
    for hostile in ["", "../../admin", "a.b", "*", "\"}, \"sans\": [\"admin\"]", "a\r\nb", "аdmin"]
    {
        let denial = worker().claiming("private_ip", hostile).joins(&by_ip, "web").unwrap_err();
        assert_eq!(denial.code, Code::NameNotPermitted, "{hostile}");
    }

    let plain = set(&[ACCOUNTS, &policy(DOCUMENTS)]);
    let sidecar = super::super::OrderRequest { slot: "sidecar".to_owned(), ..request() };
    let denial = worker().joins_as(&plain, "web", sidecar).unwrap_err();
    assert_eq!(denial.code, Code::NameNotPermitted);
}

#[test]
fn a_node_that_names_no_policy_gets_the_only_one_of_its_method() {
    let one = set(&[ACCOUNTS, &policy(DOCUMENTS)]);
    assert_eq!(worker().joins(&one, "").unwrap().policy().as_str(), "web");
    let two = set(&[ACCOUNTS, &policy(DOCUMENTS), &named_policy("api", DOCUMENTS)]);
    assert_eq!(worker().joins(&two, "").unwrap_err().code, Code::PolicyAmbiguous);
    assert_eq!(worker().joins(&two, "api").unwrap().policy().as_str(), "api");
    for unknown in ["nothing", "../web", "WEB", "web\0", &"w".repeat(100_000)] {
        assert_eq!(worker().joins(&two, unknown).unwrap_err().code, Code::PolicyUnknown);
    }
    let none = load(&[]);
    assert_eq!(super::world::codes(&none), [FindingCode::NoPolicies]);
    assert_eq!(worker().joins(&none.set.unwrap(), "").unwrap_err().code, Code::PolicyAmbiguous);
}

// I3: what is gathered is said by the policy that matched, and by nobody else.
#[test]
fn a_policy_says_how_its_nodes_are_looked_at() {
    let rules = "
allow: [{accounts: [production], regions: [us-east-1], instance_profile: web-*}]
ec2:
  look_up: {role: 'arn:{partition}:iam::{account}:role/muster/verifier', external_id: ours}
";
    let set = set(&[ACCOUNTS, &policy(rules)]);
    let candidates = worker().candidates(&set, "web").unwrap();
    let needed = candidates.needed();
    assert!(needed.proof_required);
    let role = "arn:{partition}:iam::{account}:role/muster/verifier".to_owned();
    assert_eq!(needed.look_up, LookUp::Role { role, external_id: Some("ours".to_owned()) });
}

// D2: without a proof nobody is asked, so a rule on a fact would never be settled.
#[test]
fn a_rule_on_facts_needs_a_proof_and_a_look() {
    for (settings, code) in [
        ("look_up: own", None),
        ("look_up: none", Some(FindingCode::FactNeverRead)),
        (
            "look_up: own, fresh_proof: not_required, document_ttl: 1h",
            Some(FindingCode::FactNeverRead),
        ),
    ] {
        let rules = format!(
            "\nallow: [{{accounts: [production], regions: any, tags: {{Tier: web}}}}]\nec2: {{{settings}}}\n"
        );
        let loaded = load(&[ACCOUNTS, &policy(&rules)]);
        let found = super::world::codes(&loaded).contains(&FindingCode::FactNeverRead);
        assert_eq!((found, loaded.set.is_none()), (code.is_some(), code.is_some()), "{settings}");
    }
}

// The instance must run where there is a look, even if no rule asks for a fact of it.
#[test]
fn a_policy_that_looks_admits_nobody_unseen() {
    let rules = "\nallow: [{accounts: [production], regions: any}]\nec2: {look_up: own}\n";
    let set = set(&[ACCOUNTS, &policy(rules)]);
    assert!(worker().joins(&set, "web").is_ok());
    let denial = worker().unseen().joins(&set, "web").unwrap_err();
    assert_eq!((denial.code, denial.code.class()), (Code::PolicyFactsMissing, Class::Unavailable));
    assert_eq!(worker().candidates(&set, "web").unwrap().needed().look_up, LookUp::Own);
    // Without a required proof nobody looks, whatever `look_up` says.
    let rules = rules.replace("own}", "own, fresh_proof: not_required, document_ttl: 1h}");
    let set = self::set(&[ACCOUNTS, &policy(&rules)]);
    assert_eq!(worker().candidates(&set, "web").unwrap().needed().look_up, LookUp::None);
}

#[test]
fn a_policy_is_for_its_own_method_only() {
    let set = set(&[ACCOUNTS, &policy(DOCUMENTS)]);
    assert!(set.resolve("ec2", "web", None).is_ok());
    assert_eq!(set.resolve("dice", "web", None).unwrap_err().code, Code::PolicyUnknown);
    assert_eq!(set.resolve("dice", "", None).unwrap_err().code, Code::PolicyAmbiguous);
}

#[test]
fn accounts_that_an_allow_rule_names_are_known() {
    let rules = "
allow: [{accounts: [production], regions: any}]
deny: [{accounts: [\"999988887777\"], partition: aws}]
";
    let set = set(&[ACCOUNTS, &policy(rules)]);
    assert!(set.names_account("aws", "444455556666"));
    for (partition, account) in
        [("aws-cn", "444455556666"), ("aws", "999988887777"), ("", ""), ("aws", "44445555666")]
    {
        assert!(!set.names_account(partition, account), "{partition} {account}");
    }
}

#[test]
fn two_sets_of_files_never_have_one_hash() {
    let hash = |name: &str, text: &str| {
        let file = PolicyFile { name: name.to_owned(), text: text.to_owned() };
        crate::policy::load(&[file], &super::world::vocabulary(), None).hash
    };
    assert_ne!(hash("ab.yaml", "c"), hash("ab.yam", "lc"));
    assert_eq!(hash("ab.yaml", "c"), hash("ab.yaml", "c"));
}

// Who may join is a question of ages; a node that has joined grows older, and renews. A prohibition is
// waived by nothing.
#[test]
fn an_age_is_judged_at_joins_and_not_again() {
    let old = || worker().with_fact("launch_time", Value::Time(time("2026-05-01T10:00:00Z")));
    let renewal = || super::super::OrderRequest { age_waived: true, ..request() };
    let young_only = set(&[ACCOUNTS, &policy(EVERY_FIELD)]);
    assert_eq!(old().joins(&young_only, "web").unwrap_err().code, Code::PolicyNoMatch);
    assert!(old().joins_as(&young_only, "web", renewal()).is_ok());
    // A prohibition is neither waived nor made to hold: it is about the young, and this one is old.
    for (age, is_admitted) in [("1h", true), ("3000d", false)] {
        let rules = format!(
            "allow: [{{accounts: [production], regions: any}}]\ndeny: [{{launched_within: {age}}}]\n\
             ec2: {{look_up: own}}\n"
        );
        let set = set(&[ACCOUNTS, &policy(&rules)]);
        assert_eq!(old().joins_as(&set, "web", renewal()).is_ok(), is_admitted, "{age}");
    }
}

// Whom a new set ends is told by what step 2 would say, of the policy and the method that a node has.
#[test]
fn whether_a_policy_may_still_admit_is_what_matching_says() {
    let set = set(&[ACCOUNTS, &policy(EVERY_FIELD)]);
    let may = |policy: &str, method: &str, node: &Node| {
        set.may_admit(policy, method, &node.values, node.epoch, now())
    };
    assert!(may("web", "ec2", &worker()), "what is not known yet ends nobody");
    assert!(!may("web", "token", &worker()));
    assert!(!may("batch", "ec2", &worker()));
    assert!(!may("web", "ec2", &worker().claiming("account_id", "999988887777")));
    assert!(!may("web", "ec2", &worker().claiming("image_id", "ami-0bbbbbbbbbbbbbbb1")));
}

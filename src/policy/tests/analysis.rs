//! The analysis against the decision: on random policies and random nodes the two never disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::world::{Node, false_proof, files, request, time, vocabulary, worker};
use crate::domain::{Subject, Timestamp};
use crate::methods::{Instance, Kind, Presence, Proof, Value, fake};
use crate::policy::{
    AccessQuery, Change, ChangeKind, ChangeProof, Comparison, Ground, Horizon, PolicySet,
    Population, Witness, access, compare, load,
};

const AT: &str = "2026-06-01T12:00:00Z";
const LONG_AGO: &str = "2026-05-01T00:00:00Z";
const SETS: &str = r#"
apiVersion: muster/v1
kind: AccountSet
metadata: {name: shop}
spec: {partition: aws, accounts: [{id: "100000000001"}, {id: "100000000002"}, {id: "100000000003"}]}
---
apiVersion: muster/v1
kind: AccountSet
metadata: {name: everyone}
spec: {partition: aws, include: [shop], except: ["100000000003"], accounts: [{id: "100000000004"}]}
---
apiVersion: muster/v1
kind: AccountSet
metadata: {name: china}
spec: {partition: aws-cn, accounts: [{id: "100000000001"}]}
"#;

/// What a rule may ask beside accounts, and whether it is a fact.
const CONDITIONS: &[(&str, bool)] = &[
    ("images: [ami-0aaaaaaaaaaaaaaa1]", false),
    ("images: [ami-0aaaaaaaaaaaaaaa1, ami-0bbbbbbbbbbbbbbb1]", false),
    ("instance_types: m7g.*", false),
    ("instance_types: [\"*.large\", t4g.small]", false),
    ("instance_types: [m7g.large]", false),
    ("availability_zones: us-*-1a", false),
    ("instance_profile: web-*", true),
    ("instance_profile: [\"*-1\", web-2]", true),
    ("tags: {Tier: web}", true),
    ("tags: {Tier: [web, api], Stage: present}", true),
    ("tags: {Stage: absent}", true),
    ("tags: {Tier: present}", true),
    ("security_groups: [sg-0a0a0a0a]", true),
    ("security_groups: [sg-0b0b0b0b]", true),
    ("imds: {v2_only: true}", true),
    ("imds: {max_hop_limit: 1}", true),
    ("launched_within: 1h", true),
    ("launched_within: 2d", true),
    ("until: 2026-06-01T12:00:00Z", false),
    ("until: 2026-07-01T00:00:00Z", false),
    ("until: 2026-08-01T00:00:00Z", false),
];

fn conditions(reads_facts: bool) -> impl Strategy<Value = Vec<&'static str>> {
    let usable: Vec<&'static str> = CONDITIONS
        .iter()
        .filter(|(_, is_fact)| reads_facts || !is_fact)
        .map(|(text, _)| *text)
        .collect();
    subsequence(usable, 0..4).prop_map(|texts| {
        let mut keys = BTreeSet::new();
        texts.into_iter().filter(|text| keys.insert(text.split(':').next())).collect()
    })
}

fn places() -> impl Strategy<Value = &'static str> {
    select(vec![
        "accounts: [shop], regions: any",
        "accounts: [shop], regions: [us-east-1]",
        "accounts: [everyone], regions: [us-east-1, us-west-2]",
        "accounts: [everyone, \"100000000005\"], partition: aws, regions: any",
        "accounts: [\"100000000001\"], partition: aws, regions: any",
        "accounts: [china], regions: any",
        "accounts: [\"100000000002\"], partition: aws-cn, regions: [cn-north-1]",
    ])
}

fn permission(reads_facts: bool) -> impl Strategy<Value = String> {
    (places(), conditions(reads_facts)).prop_map(|(place, more)| {
        let all: Vec<&str> = std::iter::once(place).chain(more).collect();
        format!("{{{}}}", all.join(", "))
    })
}

fn prohibition(reads_facts: bool) -> impl Strategy<Value = String> {
    let place = select(vec![
        "regions: [us-west-2]",
        "accounts: [shop]",
        "accounts: [\"100000000004\"], partition: aws",
        "partition: aws-cn",
        "images: [ami-0bbbbbbbbbbbbbbb1]",
    ]);
    (place, conditions(reads_facts)).prop_map(|(place, more)| {
        let key = place.split(':').next();
        let more = more.into_iter().filter(|text| text.split(':').next() != key);
        let all: Vec<&str> = std::iter::once(place).chain(more).collect();
        format!("{{{}}}", all.join(", "))
    })
}

/// A policy and a deny list, as rules that can be changed.
#[derive(Debug, Clone)]
struct Written {
    reads_facts: bool,
    terms: &'static str,
    allow: Vec<String>,
    deny: Vec<String>,
    list: Vec<String>,
}

fn written() -> impl Strategy<Value = Written> {
    any::<bool>().prop_flat_map(|reads_facts| {
        let terms = if reads_facts {
            vec!["{look_up: own}", "{look_up: own, fresh_proof: required}"]
        } else {
            vec![
                "{look_up: none}",
                "{look_up: none, fresh_proof: not_required, document_ttl: 1h}",
                "{look_up: none, fresh_proof: not_required, document_ttl: 2h}",
            ]
        };
        let allow = prop::collection::vec(permission(reads_facts), 1..4);
        let deny = prop::collection::vec(prohibition(reads_facts), 0..3);
        let list = prop::collection::vec(prohibition(reads_facts), 0..2);
        (select(terms), allow, deny, list).prop_map(move |(terms, allow, deny, list)| Written {
            reads_facts,
            terms,
            allow,
            deny,
            list,
        })
    })
}

impl Written {
    fn set(&self) -> Arc<PolicySet> {
        let lines = |rules: &[String]| -> String {
            rules
                .iter()
                .map(|rule| {
                    [
                        "    - ", rule, "
",
                    ]
                    .concat()
                })
                .collect()
        };
        let mut text = format!(
            "{SETS}---\napiVersion: muster/v1\nkind: JoinPolicy\nmetadata: {{name: web}}\nspec:\n  \
             method: ec2\n  roles: [node]\n  ec2: {}\n  allow:\n{}",
            self.terms,
            lines(&self.allow)
        );
        if !self.deny.is_empty() {
            text = format!("{text}  deny:\n{}", lines(&self.deny));
        }
        if !self.list.is_empty() {
            text = format!(
                "{text}---\napiVersion: muster/v1\nkind: DenyList\nmetadata: {{name: never}}\nspec:\n  \
                 deny:\n{}",
                lines(&self.list)
            );
        }
        let loaded = load(&files(&[&text]), &vocabulary(), None);
        loaded.set.unwrap_or_else(|| panic!("{text}\n{:#?}", loaded.findings))
    }
}

/// Another policy, or the same with some rules fewer, or in another order.
fn changed() -> impl Strategy<Value = (Written, Written)> {
    (written(), written(), 0..6, any::<prop::sample::Index>()).prop_map(|(old, other, how, at)| {
        let mut new = old.clone();
        match how {
            0 => new = other,
            1 if new.allow.len() > 1 => drop(new.allow.remove(at.index(new.allow.len()))),
            2 if !new.deny.is_empty() => drop(new.deny.remove(at.index(new.deny.len()))),
            3 => new.list.clear(),
            4 if new.reads_facts == other.reads_facts => new.allow.push(other.allow[0].clone()),
            _ => {
                new.allow.reverse();
                new.deny.append(&mut new.list);
                new.deny.reverse();
            }
        }
        (old, new)
    })
}

/// What a node of the tests claims and is.
fn known() -> impl Strategy<Value = Node> {
    let account = (1..7u8).prop_map(|last| format!("10000000000{last}"));
    let place = select(vec![
        ("aws", "us-east-1", "us-east-1a"),
        ("aws", "us-west-2", "us-west-2b"),
        ("aws", "eu-west-1", "us-x-1a"),
        ("aws-cn", "cn-north-1", "cn-north-1a"),
    ]);
    let image = select(vec!["ami-0aaaaaaaaaaaaaaa1", "ami-0bbbbbbbbbbbbbbb1", "ami-0c"]);
    let kind = select(vec!["m7g.large", "m7g.small", "c7g.large", "t4g.small", "x"]);
    let profile = select(vec!["web-1", "web-2", "db-1", "web-x", "db"]);
    let tier = select(vec![None, Some("web"), Some("api"), Some("db")]);
    let groups = subsequence(vec!["sg-0a0a0a0a", "sg-0b0b0b0b", "sg-0c0c0c0c"], 0..3);
    let options = (any::<bool>(), 1..3u32);
    let facts = (profile, tier, any::<bool>(), groups, options);
    (account, place, image, kind, facts).prop_map(|(account, place, image, kind, facts)| {
        let (partition, region, zone) = place;
        let (profile, tier, is_staged, groups, (v2_only, hop_limit)) = facts;
        let mut tags = BTreeMap::new();
        tags.extend(tier.map(|tier| ("Tier".to_owned(), tier.to_owned())));
        tags.extend(is_staged.then(|| ("Stage".to_owned(), "one".to_owned())));
        let groups = groups.into_iter().map(str::to_owned).collect();
        worker()
            .claiming("account_id", &account)
            .claiming("partition", partition)
            .claiming("region", region)
            .claiming("availability_zone", zone)
            .claiming("image_id", image)
            .claiming("instance_type", kind)
            .with_fact("instance_profile", Value::Text(profile.to_owned()))
            .with_fact("tags", Value::Tags(tags))
            .with_fact("security_groups", Value::List(groups))
            .with_fact("imds", Value::MetadataOptions { v2_only, hop_limit })
    })
}

/// What may not be known of it, or not as it should be.
const ODDITIES: &[fn(Node) -> Node] = &[
    |node| node,
    |node| node,
    |node| node,
    |node| node.silent_on("image_id"),
    |node| node.silent_on("instance_type"),
    |node| node.hinting("region", "us-east-1"),
    |node| node.hinting("image_id", "ami-0aaaaaaaaaaaaaaa1"),
    |node| node.unread("tags"),
    |node| node.unread("imds"),
    |node| node.unread("launch_time"),
    |node| node.without("tags"),
    |node| node.without("instance_profile"),
    Node::unseen,
    Node::refuted,
    |node| node.with_proof(Proof::NotOffered),
    |node| node.with_proof(false_proof()),
    |node| node.since(LONG_AGO),
];

fn node() -> impl Strategy<Value = (Node, Timestamp)> {
    let later = [AT, AT, "2026-06-15T00:00:00Z", "2026-07-15T00:00:00Z", "2027-01-01T00:00:00Z"];
    let age = select(vec![60, 3600, 3601, 200_000]);
    (known(), select(ODDITIES), select(later.to_vec()), age).prop_map(|(node, odd, at, age)| {
        let at = time(at);
        let launched = Timestamp::from_unix_seconds(at.unix_seconds() - age);
        let mut node = node.with_fact("launch_time", Value::Time(launched));
        node.epoch = at;
        (odd(node), at)
    })
}

/// The decision itself: the name of the rule that admits.
fn decided(set: &Arc<PolicySet>, node: &Node, at: Timestamp) -> Option<String> {
    let subject = Subject::new("instance", [("instance_id", "i-0123456789abcdef0")]).unwrap();
    let claims = fake::claims("ec2", subject, node.values.clone(), node.epoch);
    let candidates = set.candidates("web", claims, at).ok()?;
    let approval = candidates.decide(&node.facts(), request(), at).ok()?;
    Some(approval.rule().name.clone())
}

fn as_node(witness: &Witness) -> Node {
    let (values, epoch) = (witness.claims.clone(), witness.epoch);
    Node { values, epoch, facts: witness.facts.clone() }
}

/// Everything about a node that is not for rules to say is as good as can be.
fn has_good_terms(node: &Node) -> bool {
    node.facts.proof == Proof::Proven && matches!(node.facts.instance, Instance::Known(_))
}

/// Where the analysis and the decision disagree about a change, if they do.
fn disagreement(
    old: &Arc<PolicySet>,
    new: &Arc<PolicySet>,
    found: &Comparison,
    nodes: &[(Node, Timestamp)],
) -> Result<(), String> {
    if !found.incomplete.is_empty() {
        return Err("incomplete".to_owned());
    }
    for Change { kind, witness, message, .. } in &found.changes {
        let (by, not_by) = match kind {
            ChangeKind::NewlyAdmitted | ChangeKind::Weaker => (new, old),
            ChangeKind::NoLongerAdmitted | ChangeKind::Stronger => (old, new),
            ChangeKind::Changed => continue,
        };
        let Some(ChangeProof::Node(witness)) = witness else {
            return Err(format!("no witness: {message}"));
        };
        let node = as_node(witness);
        if decided(by, &node, witness.at).is_none() || decided(not_by, &node, witness.at).is_some()
        {
            return Err(format!("a false witness: {message} {witness:?}"));
        }
    }
    for (node, at) in nodes {
        for (by, not_by, is_new) in [(new, old, true), (old, new, false)] {
            let Some(rule) = decided(by, node, *at) else { continue };
            if decided(not_by, node, *at).is_none() && !is_told(found, node, &rule, is_new) {
                return Err(format!("not told (new: {is_new}): {rule} {node:?} {at}"));
            }
        }
    }
    Ok(())
}

/// Whether some change tells of this node and rule.
fn is_told(found: &Comparison, node: &Node, rule: &str, is_new: bool) -> bool {
    let account = node.values.proven_text("account_id").unwrap();
    found.changes.iter().any(|change| match change.kind {
        ChangeKind::NewlyAdmitted | ChangeKind::NoLongerAdmitted => {
            let spot = if is_new { &change.new } else { &change.old };
            (change.kind == ChangeKind::NewlyAdmitted) == is_new
                && spot.as_ref().is_some_and(|spot| spot.rule.as_deref() == Some(rule))
                && change.accounts.iter().any(|(_, one)| one.as_str() == account)
        }
        ChangeKind::Weaker => is_new && is_about_terms(node),
        ChangeKind::Stronger => !is_new && is_about_terms(node),
        ChangeKind::Changed => false,
    })
}

fn is_about_terms(node: &Node) -> bool {
    !has_good_terms(node) || node.epoch == time(LONG_AGO)
}

fn compared(old: &PolicySet, new: &PolicySet) -> Comparison {
    compare(old, new, &vocabulary(), time(AT))
}

proptest! {
    // 2,500 times 40 nodes: 100,000.
    #![proptest_config(ProptestConfig::with_cases(2500))]

    #[test]
    fn analysis_and_decision_never_disagree(
        (old, new) in changed(), nodes in prop::collection::vec(node(), 40),
    ) {
        let (old, new) = (old.set(), new.set());
        let found = compared(&old, &new);
        prop_assert_eq!(disagreement(&old, &new, &found, &nodes), Ok(()));
        can_join_as_access_says(&new, &nodes)?;
    }
}

/// `access` names just the rules that admit somebody.
fn can_join_as_access_says(
    set: &Arc<PolicySet>,
    nodes: &[(Node, Timestamp)],
) -> Result<(), TestCaseError> {
    let population = Population::of(&[set]);
    let (at, regions) = (time(AT), vocabulary().regions);
    let ground = Ground { population: &population, regions: &regions, at, horizon: Horizon::Now };
    let found = access(set, AccessQuery::default(), ground);
    prop_assert!(found.incomplete.is_empty());
    for row in &found.rows {
        for rule in &row.rules {
            let admitted = decided(set, &as_node(&rule.witness), at);
            prop_assert!(admitted.is_some(), "{:?}", rule.witness);
        }
    }
    for (node, _) in nodes.iter().filter(|(_, when)| *when == at) {
        let Some(rule) = decided(set, node, at) else { continue };
        let account = node.values.proven_text("account_id").unwrap();
        let partition = node.values.proven_text("partition").unwrap();
        let is_listed = found.rows.iter().any(|row| {
            row.partition.is_some_and(|one| one.as_str() == partition)
                && row.accounts.iter().any(|one| one.as_str() == account)
                && row.rules.iter().any(|one| one.rule.name == rule)
        });
        prop_assert!(is_listed, "{rule} {node:?}");
    }
    Ok(())
}

/// Analyses with a fault that somebody might build in.
type Broken = fn(&Written, &Written) -> Comparison;
const BROKEN: &[(&str, Broken)] = &[
    ("forgets prohibitions", |old, new| {
        let without = |written: &Written| Written { deny: Vec::new(), ..written.clone() };
        compared(&without(old).set(), &without(new).set())
    }),
    ("forgets deny lists", |old, new| {
        let without = |written: &Written| Written { list: Vec::new(), ..written.clone() };
        compared(&without(old).set(), &without(new).set())
    }),
    ("forgets that rules end", |old, new| {
        compared(&old.without("until").set(), &new.without("until").set())
    }),
    ("forgets tags", |old, new| compared(&old.without("tags").set(), &new.without("tags").set())),
    ("looks at the first permission alone", |old, new| {
        let first = |written: &Written| {
            let allow = written.allow[..1].to_vec();
            Written { allow, ..written.clone() }
        };
        compared(&first(old).set(), &first(new).set())
    }),
    ("mixes up old and new", |old, new| compared(&new.set(), &old.set())),
    ("says that nothing has changed", |old, _| compared(&old.set(), &old.set())),
    ("loses a change", |old, new| {
        let mut found = compared(&old.set(), &new.set());
        found.changes.pop();
        found
    }),
];

impl Written {
    /// The same without conditions on this field.
    fn without(&self, field: &str) -> Self {
        let cut = |rules: &[String]| -> Vec<String> {
            let key = format!(", {field}: ");
            rules
                .iter()
                .map(|rule| {
                    let Some((before, after)) = rule.split_once(&key) else { return rule.clone() };
                    let end = if after.starts_with('{') {
                        after.find('}').unwrap() + 1
                    } else {
                        after.find([',', '}']).unwrap()
                    };
                    format!("{before}{}", &after[end..])
                })
                .collect()
        };
        let (allow, deny, list) = (cut(&self.allow), cut(&self.deny), cut(&self.list));
        Self { allow, deny, list, ..self.clone() }
    }
}

// What the test above is worth: each of these faults makes it fail.
#[test]
fn a_broken_analysis_is_caught() {
    for (fault, broken) in BROKEN {
        let mut runner = TestRunner::deterministic();
        let is_caught = (0..400).any(|_| {
            let cases = (changed(), prop::collection::vec(node(), 40));
            let ((old, new), nodes) = cases.new_tree(&mut runner).unwrap().current();
            disagreement(&old.set(), &new.set(), &broken(&old, &new), &nodes).is_err()
        });
        assert!(is_caught, "an analysis that {fault} passes");
    }
}

// What the analysis rests on: who may join is always written where a method knows accounts, and no
// two fields read the same thing.
#[test]
fn every_method_is_one_that_can_be_analysed() {
    for method in crate::methods::ALL {
        let mut read = BTreeSet::new();
        for field in method.fields {
            assert!(read.insert(field.reads), "{}: {}", method.name, field.reads);
            let names_accounts = field.kind == Kind::Accounts;
            assert!(!names_accounts || field.presence == Presence::Required, "{}", method.name);
        }
    }
}

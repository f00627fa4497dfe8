//! Reading `kind: PolicyTest` documents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::{Change, Look};
use super::member::{Form, forms, members};
use super::node::SupposedNode;
use super::{Expected, MAX_CASES, PolicyTest, TestCase};
use crate::domain::{Code, PolicyName};
use crate::methods::{Declaration, Source};
use crate::policy::decode::{self, Keys, invalid, unknown};
use crate::policy::document::{Document, Kind};
use crate::policy::explain::Outcome;
use crate::policy::finding::{FindingCode, Report, quoted};
use crate::policy::join_policy::JoinPolicy;
use crate::policy::set::Vocabulary;
use crate::policy::yaml::{Content, Node};

/// What a node consists of, the common one and that of a case.
const NODE_KEYS: &[&str] = &["claims", "instance", "proof"];

/// Reads all tests. `policies` are those of the set, as far as they could be read.
pub(in crate::policy) fn tests(
    documents: &[Document<'_>],
    vocabulary: &Vocabulary,
    policies: &BTreeMap<PolicyName, JoinPolicy>,
    report: &mut Report,
) -> BTreeMap<PolicyName, PolicyTest> {
    let mut tests = BTreeMap::new();
    for document in documents.iter().filter(|document| document.kind == Kind::PolicyTest) {
        let name = document.metadata.name.clone();
        if let Some(cases) = cases(document, vocabulary, policies, report) {
            tests.insert(name.clone(), PolicyTest { name, cases });
        }
    }
    tests
}

/// What the cases of one document are read with.
struct Reader<'a> {
    vocabulary: &'a Vocabulary,
    policies: &'a BTreeMap<PolicyName, JoinPolicy>,
    method: &'static Declaration,
    claims: Vec<Form>,
    facts: Vec<Form>,
}

fn cases(
    document: &Document<'_>,
    vocabulary: &Vocabulary,
    policies: &BTreeMap<PolicyName, JoinPolicy>,
    report: &mut Report,
) -> Option<Vec<TestCase>> {
    const KEYS: &[&str] = &["at", "method", "node", "cases"];
    let keys = Keys::read(document.spec, "the `spec` of a PolicyTest", KEYS, report)?;
    let listed = keys.required("cases", "`cases:` with at least one", report);
    let method = method_of(&keys, vocabulary, policies, report)?;
    let reader = Reader {
        vocabulary,
        policies,
        method,
        claims: forms(method, Source::Claim),
        facts: forms(method, Source::Instance),
    };
    let at = keys.get("at").map(|node| decode::time(node, "at", report));
    let base = match keys.get("node") {
        Some(node) => Keys::read(node, "`node`", NODE_KEYS, report)
            .and_then(|keys| reader.change(&keys, report)),
        None => Some(Change::default()),
    };
    let listed = decode::list(listed?, "cases", "- {name: …, expect: refused}", report)?;
    if listed.len() > MAX_CASES {
        let message = format!("there are {} cases", listed.len());
        let expected = "at most 1,000 cases a document: split it";
        report.add(FindingCode::LimitExceeded, keys.place, message, expected);
        return None;
    }
    // A node proves itself unless something else is said, where it can.
    let base = Arc::new(base?.applied(&SupposedNode::blank(method.has_fresh_proof)));
    let mut names = BTreeSet::new();
    let mut cases = Some(Vec::new());
    for node in listed {
        let case = reader.case(node, &base, report);
        if let Some(case) = &case
            && !names.insert(case.name.clone())
        {
            let message = format!("there is a case {} already", quoted(&case.name));
            report.add(FindingCode::NameTaken, &case.place, message, "another name");
        }
        match (case, &mut cases) {
            (Some(case), Some(cases)) => {
                cases.push(TestCase { at: case.at.or(at.flatten()), ..case });
            }
            (None, _) => cases = None,
            (Some(_), None) => {}
        }
    }
    cases
}

/// The method whose nodes the cases are about: the one that is written, or that of the first policy
/// that a case names.
fn method_of(
    keys: &Keys<'_>,
    vocabulary: &Vocabulary,
    policies: &BTreeMap<PolicyName, JoinPolicy>,
    report: &mut Report,
) -> Option<&'static Declaration> {
    let methods = vocabulary.methods;
    if let Some(node) = keys.get("method") {
        let text = decode::text(node, "method", report)?;
        let found = methods.iter().find(|method| method.name == text);
        if found.is_none() {
            let names: Vec<&str> = methods.iter().map(|method| method.name).collect();
            let message = format!("{} is no join method of this version", quoted(text));
            report.add(FindingCode::MethodUnknown, &node.place, message, unknown(text, &names));
        }
        return found.copied();
    }
    let cases = match keys.get("cases").map(|node| &node.content) {
        Some(Content::Sequence(items)) => items.as_slice(),
        Some(Content::Scalar { .. } | Content::Mapping(_)) | None => &[],
    };
    let mut named = cases.iter().filter_map(|case| match &case.value("policy")?.content {
        Content::Scalar { text, .. } => policies.get(&text.parse::<PolicyName>().ok()?),
        Content::Sequence(_) | Content::Mapping(_) => None,
    });
    let named = named.next().map(|policy| policy.method);
    named.or_else(|| method_that_claims(keys.get("node"), cases, methods))
}

/// The first method whose nodes can claim all this, or else the first of all. So the tests of a policy
/// that was taken away can still be read.
fn method_that_claims(
    common: Option<&Node>,
    cases: &[Node],
    methods: &[&'static Declaration],
) -> Option<&'static Declaration> {
    let claims: BTreeSet<&str> = common
        .into_iter()
        .chain(cases)
        .filter_map(|node| match &node.value("claims")?.content {
            Content::Mapping(entries) => Some(entries.iter().map(|(key, _)| key.text.as_str())),
            Content::Scalar { .. } | Content::Sequence(_) => None,
        })
        .flatten()
        .collect();
    let knows_all = |method: &&&'static Declaration| {
        let known: BTreeSet<&str> =
            forms(method, Source::Claim).into_iter().map(|form| form.name).collect();
        claims.is_subset(&known)
    };
    methods.iter().find(knows_all).or(methods.first()).copied()
}

impl Reader<'_> {
    /// In what a node differs from one of which nothing is said, or a case from the common node.
    fn change(&self, keys: &Keys<'_>, report: &mut Report) -> Option<Change> {
        let regions = &self.vocabulary.regions;
        let claims = match keys.get("claims") {
            Some(node) => members(node, "`claims`", &self.claims, regions, report),
            None => Some(Vec::new()),
        };
        let instance = match keys.get("instance") {
            Some(Node { content: Content::Scalar { text, .. }, .. }) if text == "not_read" => {
                Some(Look::NotRead)
            }
            Some(node) => {
                members(node, "`instance`", &self.facts, regions, report).map(Look::Differs)
            }
            None => Some(Look::default()),
        };
        let is_proven = match keys.get("proof") {
            Some(node) => Some(Some(proof(node, report)?)),
            None => Some(None),
        };
        Some(Change { claims: claims?, instance: instance?, is_proven: is_proven? })
    }

    fn case(&self, node: &Node, base: &Arc<SupposedNode>, report: &mut Report) -> Option<TestCase> {
        const KEYS: &[&str] = &["name", "policy", "at", "expect", "code", "rule", "field"];
        let allowed = [KEYS, NODE_KEYS].concat();
        let keys = Keys::read(node, "a case", &allowed, report)?;
        let name = keys.required("name", "`name: staging does not join`", report);
        let name = name.and_then(|node| decode::text(node, "name", report));
        let policy = match keys.get("policy") {
            Some(node) => Some(self.policy(node, report)?),
            None => None,
        };
        let at = match keys.get("at") {
            Some(node) => Some(decode::time(node, "at", report)?),
            None => None,
        };
        let change = self.change(&keys, report);
        let expected = expected(&keys, report);
        Some(TestCase {
            name: name?.to_owned(),
            place: node.place.clone(),
            policy,
            method: self.method,
            at,
            base: Arc::clone(base),
            change: change?,
            expected: expected?,
        })
    }

    /// A policy that is not there is no reason not to load a set: who takes a policy away in a hurry
    /// must not be kept from it by its tests. They do not hold any more, which `run` says.
    fn policy(&self, node: &Node, report: &mut Report) -> Option<PolicyName> {
        let name: PolicyName = decode::parsed(node, "policy", report)?;
        let method = self.method.name;
        let message = match self.policies.get(&name) {
            Some(policy) if policy.method.name == method => return Some(name),
            Some(policy) => {
                format!("`{name}` is of the method {}, the test of {method}", policy.method.name)
            }
            None => format!("there is no policy `{name}`"),
        };
        // A policy that is broken was reported itself.
        if !report.has_errors() {
            let names: Vec<&str> = self.policies.keys().map(PolicyName::as_str).take(20).collect();
            let expected = unknown(name.as_str(), &names);
            report.add(FindingCode::TestPolicyUnknown, &node.place, message, expected);
        }
        Some(name)
    }
}

fn proof(node: &Node, report: &mut Report) -> Option<bool> {
    match decode::text(node, "proof", report)? {
        "proven" => Some(true),
        "none" => Some(false),
        _ => invalid(node, "proof", "proven or none", report),
    }
}

fn expected(keys: &Keys<'_>, report: &mut Report) -> Option<Expected> {
    let node = keys.required("expect", "`expect: refused`, admitted or needs_facts", report)?;
    let outcome = match decode::text(node, "expect", report)? {
        "admitted" => Outcome::Admitted,
        "refused" => Outcome::Refused,
        "needs_facts" => Outcome::NeedsFacts,
        _ => return invalid(node, "expect", "admitted, refused or needs_facts", report),
    };
    let mut text = |name: &'static str| match keys.get(name) {
        Some(node) => Some(Some(decode::text(node, name, report)?.to_owned())),
        None => Some(None),
    };
    let (rule, field) = (text("rule")?, text("field")?);
    let code = match keys.get("code") {
        Some(node) => match decode::text(node, "code", report)?.parse::<Code>() {
            Ok(code) => Some(code),
            Err(_) => return invalid(node, "code", "a code of docs/errors.md", report),
        },
        None => None,
    };
    if outcome == Outcome::Admitted {
        for name in ["code", "field"] {
            if let Some(node) = keys.get(name) {
                let expected =
                    "`expect: refused`, or no such key: nothing keeps an admitted node out";
                return invalid(node, name, expected, report);
            }
        }
    }
    Some(Expected { outcome, code, rule, field })
}

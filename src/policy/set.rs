//! The policy set: everything that was loaded, or nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use super::accounts::{self, AccountSets};
use super::cases::{self, PolicyTest};
use super::conditions::Reader;
use super::denial::Denial;
use super::document::{self, Document, Kind};
use super::finding::{Finding, FindingCode, Place, Report};
use super::guardrails::{self, Guardrails};
use super::join_policy::{self, JoinPolicy};
use super::lint;
use super::publication::{self, TokenPublication};
use super::rule::{Accounts, Rule, Test};
use super::suppress;
use super::yaml;
use crate::domain::{AccountId, Code, Partition, PolicyHash, PolicyName, Timestamp};
use crate::methods::{Declaration, Field, Source};

/// The most files of a set.
pub const MAX_FILES: usize = 10_000;

/// A policy file: its name in the directory, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// The name, without a directory.
    pub name: String,
    /// The text.
    pub text: String,
}

/// What policies may speak of.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// The join methods and the fields that they declare.
    pub methods: &'static [&'static Declaration],
    /// The known regions; a policy that names another one has misspelt it.
    pub regions: BTreeMap<String, Partition>,
}

/// What came of reading files.
#[derive(Debug)]
pub struct Loaded {
    /// The set; nothing if any finding is an error.
    pub set: Option<Arc<PolicySet>>,
    /// What is wrong or doubtful, in the order of places.
    pub findings: Vec<Finding>,
    /// The hash of the files, the same in `policy check` and in the server.
    pub hash: PolicyHash,
}

/// A whole set of policies. It cannot be changed; a change is another set.
#[derive(Debug)]
pub struct PolicySet {
    files: Vec<PolicyFile>,
    hash: PolicyHash,
    policies: BTreeMap<PolicyName, JoinPolicy>,
    publications: BTreeMap<PolicyName, TokenPublication>,
    pub(super) guardrails: Guardrails,
    tests: BTreeMap<PolicyName, PolicyTest>,
    accounts: HashSet<(Partition, AccountId)>,
}

/// Reads a set. Without `now` nothing is said of times.
pub fn load(files: &[PolicyFile], vocabulary: &Vocabulary, now: Option<Timestamp>) -> Loaded {
    let mut report = Report::default();
    let mut files = files.to_vec();
    files.sort_by(|left, right| left.name.cmp(&right.name));
    let hash = hash_of(&files);
    if let Some(file) = files.get(MAX_FILES) {
        let message = format!("there are {} files", files.len());
        let place = Place::start_of(&file.name);
        report.add(FindingCode::LimitExceeded, &place, message, "at most 10,000 files");
        return Loaded { set: None, findings: report.into_findings(), hash };
    }
    let Documents { policies, publications, tests, guardrails } =
        read(&files, vocabulary, now, &mut report);
    let set = (!report.has_errors()).then(|| {
        let accounts = named_accounts(&policies);
        let hash = hash.clone();
        Arc::new(PolicySet { files, hash, policies, publications, guardrails, tests, accounts })
    });
    Loaded { set, findings: report.into_findings(), hash }
}

/// SHA-256 over the files in the order of their names, in which they must stand, each name and text
/// with its length before it, so that no two sets of files are the same bytes.
pub fn hash_of(files: &[PolicyFile]) -> PolicyHash {
    let mut hash = Context::new(&SHA256);
    hash.update(b"muster/policy-set/v1\0");
    for file in files {
        for bytes in [file.name.as_bytes(), file.text.as_bytes()] {
            hash.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    PolicyHash::from_digest(&digest)
}

/// What the documents say, as far as it could be read.
struct Documents {
    policies: BTreeMap<PolicyName, JoinPolicy>,
    publications: BTreeMap<PolicyName, TokenPublication>,
    tests: BTreeMap<PolicyName, PolicyTest>,
    guardrails: Guardrails,
}

fn read(
    files: &[PolicyFile],
    vocabulary: &Vocabulary,
    now: Option<Timestamp>,
    report: &mut Report,
) -> Documents {
    let nodes: Vec<yaml::Node> = files.iter().flat_map(|file| file_nodes(file, report)).collect();
    let documents = document::read(&nodes, report);
    let suppressions = suppress::read(&documents, report);
    let sets = accounts::read(&documents, report);
    let guardrails = guardrails::read(&documents, report);
    let mut used_sets = BTreeSet::new();

    let mut deny_lists = Vec::new();
    for document in documents.iter().filter(|document| document.kind == Kind::DenyList) {
        let fields = all_fields(vocabulary.methods);
        let mut reader =
            Reader { fields, regions: &vocabulary.regions, sets: &sets, used_sets: &mut used_sets };
        let rules = join_policy::deny_list(document, &mut reader, report);
        guardrails.hold_deny_list(&rules, &document.metadata, report);
        lint::deny_list(&rules, &document.metadata, now, report);
        deny_lists.extend(rules);
    }

    let mut policies = BTreeMap::new();
    for document in documents.iter().filter(|document| document.kind == Kind::JoinPolicy) {
        let Some(method) = join_policy::method_of(document, vocabulary.methods, report) else {
            continue;
        };
        let fields = method.fields.iter().collect();
        let mut reader =
            Reader { fields, regions: &vocabulary.regions, sets: &sets, used_sets: &mut used_sets };
        let policy = join_policy::read(document, method, &mut reader, report);
        let Some(mut policy) = policy else { continue };
        guardrails.hold(&policy, &document.metadata, report);
        policy.deny.extend(deny_lists.iter().filter(|rule| applies(rule, method)).cloned());
        policies.insert(policy.name.clone(), policy);
    }
    facts_that_are_never_read(&policies, report);
    let publications =
        publication::publications(&documents, &vocabulary.regions, &policies, report);
    let tests = cases::tests(&documents, vocabulary, &policies, report);
    if !report.has_errors() {
        unused_sets(&documents, &sets, &used_sets, report);
        lint::policies(&policies, &deny_lists, now, report);
    }
    suppress::apply(&suppressions, now, report);
    Documents { policies, publications, tests, guardrails }
}

fn file_nodes(file: &PolicyFile, report: &mut Report) -> Vec<yaml::Node> {
    let had_errors = report.error_count();
    let nodes = yaml::parse(&file.name, &file.text, report);
    if nodes.is_empty() && report.error_count() == had_errors {
        let place = Place::start_of(&file.name);
        let expected = "a document, or no file";
        report.add(FindingCode::FileEmpty, &place, "the file holds no document", expected);
    }
    nodes
}

/// Every field that some method declares. Deny lists hold for every policy, whatever its method.
fn all_fields(methods: &'static [&'static Declaration]) -> Vec<&'static Field> {
    let mut fields: Vec<&'static Field> = Vec::new();
    for field in methods.iter().flat_map(|method| method.fields) {
        if !fields.iter().any(|known| known.name == field.name) {
            fields.push(field);
        }
    }
    fields
}

/// Whether a method can say everything that a deny rule asks.
pub(super) fn applies(rule: &Rule, method: &Declaration) -> bool {
    rule.conditions.iter().all(|condition| method.field(condition.field.name).is_some())
}

/// A rule on a fact that its policy never reads would stay unknown for ever: a prohibition would
/// refuse everybody and a permission nobody, and no reader of the file would see why (P1). Without
/// a proof nobody is asked (D2), so a policy that requires none reads no fact either.
fn facts_that_are_never_read(policies: &BTreeMap<PolicyName, JoinPolicy>, report: &mut Report) {
    let mut blind: BTreeMap<&Place, (&str, Vec<&str>)> = BTreeMap::new();
    for policy in policies.values().filter(|policy| !policy.reads_facts()) {
        let deny = policy.deny.iter().map(AsRef::as_ref);
        for condition in policy.allow.iter().chain(deny).flat_map(|rule| &rule.conditions) {
            if condition.field.source == Source::Instance {
                let (_, names) =
                    blind.entry(&condition.place).or_insert((condition.field.name, Vec::new()));
                names.push(policy.name.as_str());
            }
        }
    }
    for (place, (field, names)) in blind {
        let shown = names.iter().take(20).copied().collect::<Vec<_>>().join("`, `");
        let more = names.len().saturating_sub(20);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!(
            "`{field}` is read by looking at the instance after a fresh proof, which these \
             policies never do: `{shown}`{more}"
        );
        let expected = "`fresh_proof: required` and `look_up: own` or a role in those policies, \
                        or a rule without it";
        report.add(FindingCode::FactNeverRead, place, message, expected);
    }
}

fn unused_sets(
    documents: &[Document<'_>],
    sets: &AccountSets,
    used: &BTreeSet<PolicyName>,
    report: &mut Report,
) {
    for name in sets.outermost().filter(|name| !used.contains(*name)) {
        let set = documents
            .iter()
            .find(|document| document.kind == Kind::AccountSet && document.metadata.name == *name);
        if let Some(set) = set {
            let message = format!("no rule and no set uses `{name}`");
            let place = &set.metadata.place;
            report.add(FindingCode::SetUnused, place, message, "a rule that names it, or no set");
        }
    }
}

/// The accounts that allow rules name; each set is looked through once, however many rules name it.
fn named_accounts(policies: &BTreeMap<PolicyName, JoinPolicy>) -> HashSet<(Partition, AccountId)> {
    let mut sets = BTreeMap::new();
    let mut named = HashSet::new();
    let rules = policies.values().flat_map(|policy| &policy.allow);
    for condition in rules.flat_map(|rule| &rule.conditions) {
        if let Test::Accounts(Accounts { partition, sets: in_rule, literals }) = &condition.test {
            named.extend(literals.iter().map(|account| (*partition, account.clone())));
            sets.extend(in_rule.iter().map(|set| (&set.name, set)));
        }
    }
    for set in sets.into_values() {
        named.extend(set.accounts().map(|account| (set.partition, account.clone())));
    }
    named
}

impl PolicySet {
    /// The hash of the files.
    pub fn hash(&self) -> &PolicyHash {
        &self.hash
    }

    /// How many join policies there are.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is no policy, so that nobody can join.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The join policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = &JoinPolicy> {
        self.policies.values()
    }

    /// The token publications, by name.
    pub fn publications(&self) -> impl Iterator<Item = &TokenPublication> {
        self.publications.values()
    }

    /// The tests, by name. They admit nobody.
    pub fn tests(&self) -> impl Iterator<Item = &PolicyTest> {
        self.tests.values()
    }

    /// The files, sorted by name, to be stored under the hash.
    pub fn files(&self) -> &[PolicyFile] {
        &self.files
    }

    /// Whether some allow rule names this account. It decides how much a refusal is worth keeping.
    pub fn names_account(&self, partition: &str, account: &str) -> bool {
        match (partition.parse(), account.parse()) {
            (Ok(partition), Ok(account)) => self.accounts.contains(&(partition, account)),
            _ => false,
        }
    }

    /// The policy that a node names; the empty text means the only one that its claims are good for,
    /// or else the only one of its method.
    pub fn resolve(
        &self,
        method: &str,
        policy: &str,
        only: Option<&PolicyName>,
    ) -> Result<&JoinPolicy, Denial> {
        let policy = match only.map(PolicyName::as_str) {
            Some(only) if policy.is_empty() || policy == only => only,
            Some(only) => {
                let message = format!("the node names `{policy}`, and may join by `{only}` alone");
                return Err(Denial::early(Code::TokenOtherPolicy, &message));
            }
            None => policy,
        };
        if !policy.is_empty() {
            let found = policy.parse().ok().and_then(|name: PolicyName| self.policies.get(&name));
            return found.filter(|found| found.method.name == method).ok_or_else(|| {
                Denial::early(Code::PolicyUnknown, "no policy of this name and method is loaded")
            });
        }
        let mut all = self.policies.values().filter(|policy| policy.method.name == method);
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(Denial::early(
                Code::PolicyAmbiguous,
                "the node named no policy, and there is not exactly one of its method",
            )),
        }
    }

    /// The policy of this name, whatever its method.
    pub fn policy(&self, name: &str) -> Option<&JoinPolicy> {
        name.parse().ok().and_then(|name: PolicyName| self.policies.get(&name))
    }
}

//! `muster policy access`: who can join as what, decided exactly, and what the audit log says of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::history::{History, Key, Usage};
use super::records::Source;
use super::report::visible;
use super::since::Since;
use super::witness::WitnessDocument;
use super::{vocabulary, whole};
use crate::cli::{Exit, Failure, Outcome, Printer};
use crate::clock::Clock;
use crate::domain::{AccountId, Code, Lifetime, Partition, PolicyName, Timestamp};
use crate::policy::{
    self, Access as Row, AccessQuery, FreshProof, Ground, Horizon, JoinPolicy, PolicySet,
    Population, Rule,
};
use crate::server::policy_directory;

/// Shows who can join: account by policy, and what else must hold.
///
/// Prohibitions are taken off and ended rules left out, exactly: whoever is listed can join, and a
/// node that shows it stands beside the answer; whoever is not listed cannot. With an audit file or
/// a data directory it also says since when, when last used, and by how many nodes.
///
/// The exit status is 1 if nobody can join, or with --unused if some access is unused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster policy access policies
  muster policy access policies --account 111122223333
  muster policy access policies --policy web --at 2026-12-31T00:00:00Z
  muster policy access policies --weak
  muster policy access policies --data-dir /var/lib/muster --unused 90d")]
pub(super) struct Access {
    /// The directory: `*.yaml` directly in it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Only this account, in every partition.
    #[arg(long, value_name = "N")]
    account: Option<AccountId>,
    /// Only this policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<PolicyName>,
    /// As of this time instead of now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// Adds the regions of a directory of `<region>.pem` certificates.
    #[arg(long, value_name = "DIR")]
    certificates_dir: Vec<PathBuf>,
    /// Exported audit records, JSON lines: who used it; `-` is stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    audit: Option<PathBuf>,
    /// A server's data directory: who used it, and since when it is so.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Only policies that ask for no fresh proof, or do not look at instances.
    #[arg(long)]
    weak: bool,
    /// Only what nobody has used for so long.
    #[arg(long, value_name = "SPAN")]
    unused: Option<Lifetime>,
}

/// What `access` prints.
#[derive(Debug, Serialize)]
struct Answer<'p> {
    hash: &'p str,
    at: Timestamp,
    /// Since when the records tell; what was before is not known.
    records_since: Option<Timestamp>,
    complete: bool,
    /// The policies that are too large to be looked at as a whole.
    incomplete: Vec<PolicyName>,
    access: Vec<Group<'p>>,
    refused: Vec<Refused>,
}

/// Accounts that can join by a policy, all in the same way.
#[derive(Debug, Serialize)]
struct Group<'p> {
    policy: &'p str,
    method: &'static str,
    terms: Terms,
    partition: Option<&'static str>,
    rules: Vec<AdmittingRule<'p>>,
    witness: Option<WitnessDocument>,
    /// One without a number for methods that know no accounts.
    accounts: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    account_id: Option<String>,
    since: Option<Timestamp>,
    #[serde(flatten)]
    usage: MaybeUsage,
}

/// What a node must prove, and what it gets.
#[derive(Debug, Clone, Copy, Serialize)]
struct Terms {
    /// `required` or `not_required`.
    fresh_proof: &'static str,
    document_ttl: Option<Lifetime>,
    /// Whether the instance is looked at.
    looks: bool,
    ttl: Lifetime,
}

/// What the records say; all null without records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct MaybeUsage {
    last_used: Option<Timestamp>,
    live_nodes: Option<usize>,
    grants: Option<Vec<super::history::Grant>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct AdmittingRule<'p> {
    #[serde(flatten)]
    rule: RuleWords<'p>,
    until: Option<Timestamp>,
    except: Vec<Exception<'p>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Exception<'p> {
    deny_list: Option<&'p str>,
    #[serde(flatten)]
    rule: RuleWords<'p>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RuleWords<'p> {
    name: &'p str,
    file: &'p str,
    line: u32,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Condition {
    field: &'static str,
    expected: String,
}

/// Why an account that was asked about cannot join by a policy.
#[derive(Debug, Serialize)]
struct Refused {
    policy: String,
    rule: Option<String>,
    file: String,
    line: u32,
    message: String,
}

impl Access {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let at = self.at.unwrap_or_else(|| Clock::system().now());
        let vocabulary = vocabulary(&self.certificates_dir)?;
        let loaded = policy_directory::load(&self.directory, &vocabulary, Some(at))
            .map_err(|error| Failure::new(Code::FileUnreadable, error.to_string()))?;
        let set = whole(&loaded)?;
        super::named(set, self.policy.as_ref().map(PolicyName::as_str))?;
        let history = self.history(at, printer)?;
        let population = Population::of(&[set]);
        let horizon = Horizon::Now;
        let ground = Ground { population: &population, regions: &vocabulary.regions, at, horizon };
        let query = AccessQuery { account: self.account.as_ref(), policy: self.policy.as_ref() };
        let found = policy::access(set, query, ground);
        let mut answer = Answer {
            hash: set.hash().as_str(),
            at,
            records_since: history.as_ref().and_then(|history| history.begins),
            complete: found.incomplete.is_empty(),
            incomplete: found.incomplete.clone(),
            access: found.rows.iter().filter(|row| self.wants(row)).map(group).collect(),
            refused: Vec::new(),
        };
        if let Some(history) = &history {
            answer.for_each(|key, entry| entry.usage = history.usage(key, at).into());
        }
        if let Some(directory) = &self.data_dir {
            let since = Since::read(directory, &vocabulary, query, at)?;
            answer.for_each(|key, entry| entry.since = since.of(key));
        }
        if found.rows.is_empty() {
            answer.refused = refusals(set, query, ground);
        }
        let somebody_can = !answer.access.is_empty();
        if let Some(span) = self.unused {
            answer.keep(|entry| entry.is_unused_since(at.minus(span)));
        }
        printer.result(&answer, || words(&answer, self.nobody(&found)));
        let is_yes = match self.unused {
            Some(_) => answer.access.is_empty(),
            None => somebody_can,
        };
        Ok(if is_yes && answer.complete { Exit::Yes } else { Exit::No })
    }

    /// What it means that nothing is listed.
    fn nobody(&self, found: &policy::Accesses<'_>) -> &'static str {
        match (found.rows.is_empty(), self.unused) {
            (true, _) => "nobody who was asked about can join",
            (false, Some(_)) => "all that was asked about was used",
            (false, None) => "none of the policies that were asked about is weak",
        }
    }

    fn wants(&self, row: &Row<'_>) -> bool {
        let is_strong =
            row.policy.fresh_proof() == FreshProof::Required && row.policy.reads_facts();
        !(self.weak && is_strong)
    }

    fn history(&self, at: Timestamp, printer: Printer) -> Result<Option<History>, Failure> {
        let source = match (&self.audit, &self.data_dir) {
            (Some(file), _) => Source::File(file.clone()),
            (None, Some(directory)) => Source::DataDir(directory.clone()),
            (None, None) if self.unused.is_some() => {
                let message = "--unused needs records: --audit FILE or --data-dir DIR";
                return Err(Failure::new(Code::ConfigurationInvalid, message));
            }
            (None, None) => return Ok(None),
        };
        History::read(&source, at, printer).map(Some)
    }
}

impl Answer<'_> {
    fn for_each(&mut self, mut each: impl FnMut(&Key, &mut Entry)) {
        for group in &mut self.access {
            let partition = group.partition.map(str::to_owned);
            for entry in &mut group.accounts {
                let account = partition.clone().zip(entry.account_id.clone());
                each(&(group.policy.to_owned(), account), entry);
            }
        }
    }

    fn keep(&mut self, wanted: impl Fn(&Entry) -> bool) {
        for group in &mut self.access {
            group.accounts.retain(&wanted);
        }
        self.access.retain(|group| !group.accounts.is_empty());
    }
}

impl Entry {
    fn new(account: Option<&AccountId>) -> Self {
        let account_id = account.map(ToString::to_string);
        Self { account_id, since: None, usage: MaybeUsage::default() }
    }

    fn is_unused_since(&self, then: Timestamp) -> bool {
        self.usage.last_used.is_none_or(|used| used < then)
    }
}

impl Terms {
    fn of(policy: &JoinPolicy) -> Self {
        let (fresh_proof, document_ttl) = match policy.fresh_proof() {
            FreshProof::Required => ("required", None),
            FreshProof::NotRequired { document_ttl } => ("not_required", document_ttl),
        };
        Self { fresh_proof, document_ttl, looks: policy.reads_facts(), ttl: policy.ttl() }
    }

    fn in_words(self) -> String {
        let proof = match (self.fresh_proof, self.document_ttl) {
            ("required", _) => "fresh proof".to_owned(),
            (_, Some(age)) => format!("NO fresh proof, documents up to {age}"),
            (_, None) => "NO fresh proof".to_owned(),
        };
        let looks = if self.looks { "looked at" } else { "NOT looked at" };
        format!("{proof}, {looks}, certificates for {}", self.ttl)
    }
}

impl From<Usage> for MaybeUsage {
    fn from(usage: Usage) -> Self {
        let Usage { last_used, live_nodes, grants } = usage;
        Self { last_used, live_nodes: Some(live_nodes), grants: Some(grants) }
    }
}

fn group<'p>(row: &Row<'p>) -> Group<'p> {
    let accounts = match row.partition {
        Some(_) => row.accounts.iter().map(|account| Entry::new(Some(account))).collect(),
        None => vec![Entry::new(None)],
    };
    Group {
        policy: row.policy.name().as_str(),
        method: row.policy.method(),
        terms: Terms::of(row.policy),
        partition: row.partition.map(Partition::as_str),
        rules: row.rules.iter().map(admitting).collect(),
        witness: row.rules.first().map(|rule| WitnessDocument::from(&rule.witness)),
        accounts,
    }
}

fn admitting<'p>(rule: &policy::AdmittingRule<'p>) -> AdmittingRule<'p> {
    let except = rule.except.iter().map(|deny| Exception {
        deny_list: deny.deny_list.as_ref().map(PolicyName::as_str),
        rule: rule_words(deny),
    });
    AdmittingRule { rule: rule_words(rule.rule), until: rule.rule.until, except: except.collect() }
}

fn rule_words(rule: &Rule) -> RuleWords<'_> {
    let conditions = rule.asks().map(|(field, expected)| Condition { field, expected });
    RuleWords {
        name: &rule.name,
        file: &rule.place.file,
        line: rule.place.line,
        conditions: conditions.collect(),
    }
}

/// What keeps out whoever was asked about.
fn refusals(set: &PolicySet, query: AccessQuery<'_>, ground: Ground<'_>) -> Vec<Refused> {
    policy::refusals(set, query, ground)
        .into_iter()
        .map(|refusal| Refused {
            policy: refusal.policy.to_string(),
            rule: Some(refusal.rule),
            file: refusal.place.file.to_string(),
            line: refusal.place.line,
            message: refusal.message,
        })
        .collect()
}

fn words(answer: &Answer<'_>, nobody: &str) -> String {
    let mut lines = Vec::new();
    for group in &answer.access {
        lines.extend(group_lines(group));
        lines.push(String::new());
    }
    for refused in &answer.refused {
        let rule = refused.rule.as_deref().unwrap_or("-");
        let Refused { policy, file, line, message, .. } = refused;
        lines.push(format!("refused by {policy}: {message}  ({rule}, {file}:{line})"));
    }
    let accounts: BTreeSet<_> = answer
        .access
        .iter()
        .flat_map(|group| group.accounts.iter().map(|entry| (group.partition, &entry.account_id)))
        .filter(|(_, account)| account.is_some())
        .collect();
    let policies: BTreeSet<_> = answer.access.iter().map(|group| group.policy).collect();
    lines.push(if answer.access.is_empty() {
        format!("{nobody} at {}", answer.at)
    } else {
        format!(
            "{} by {} at {}, set {}",
            counted(accounts.len(), "account", "accounts"),
            counted(policies.len(), "policy", "policies"),
            answer.at,
            answer.hash
        )
    });
    if let Some(since) = answer.records_since {
        lines.push(format!("what the records say begins at {since}"));
    }
    if !answer.complete {
        let names: Vec<&str> = answer.incomplete.iter().map(PolicyName::as_str).collect();
        let names = names.join(", ");
        lines.push(format!(
            "INCOMPLETE: too large to be looked at, more may be able to join by: {names}"
        ));
    }
    // Names of files and rules are others' text, and must not make lines of their own.
    lines.iter().map(|line| visible(line)).collect::<Vec<_>>().join("\n")
}

fn group_lines(group: &Group<'_>) -> Vec<String> {
    let Group { policy, method, terms, partition, rules, witness, accounts } = group;
    let mut lines = Vec::new();
    let who = match partition {
        Some(partition) => {
            let accounts = counted(accounts.len(), "account", "accounts");
            format!("{accounts} of partition {partition}")
        }
        None => "whoever has what it asks for".to_owned(),
    };
    lines.push(format!("{policy} ({method}): {who}; {}", terms.in_words()));
    for rule in rules {
        let RuleWords { name, file, line, conditions } = &rule.rule;
        let until = rule.until.map(|until| format!(", until {until}")).unwrap_or_default();
        lines.push(format!("  by {name}  ({file}:{line}{until})"));
        lines.extend(conditions.iter().map(|one| format!("      {}: {}", one.field, one.expected)));
        for exception in &rule.except {
            let RuleWords { name, file, line, conditions } = &exception.rule;
            let asks: Vec<String> =
                conditions.iter().map(|one| format!("{}: {}", one.field, one.expected)).collect();
            lines.push(format!("    but not {}  ({name}, {file}:{line})", asks.join(", ")));
        }
    }
    if let Some(witness) = witness {
        lines.push(format!("  for example {}", witness.in_words()));
    }
    for entry in accounts {
        let account = entry.account_id.as_deref().unwrap_or("tokens");
        let usage = usage_words(entry);
        if entry.account_id.is_some() || !usage.is_empty() {
            lines.push(format!("    {account}{usage}"));
        }
    }
    lines
}

fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

fn usage_words(entry: &Entry) -> String {
    let Some(live) = entry.usage.live_nodes else { return String::new() };
    let since = entry.since.map(|since| format!("  since {since}")).unwrap_or_default();
    let used = entry.usage.last_used.map_or_else(|| "never".to_owned(), |used| used.to_string());
    let grants = entry.usage.grants.as_ref().map_or(0, Vec::len);
    let grants = if grants > 0 { format!(", {grants} allowed by hand") } else { String::new() };
    let live = counted(live, "live node", "live nodes");
    format!("{since}  last used {used}, {live}{grants}")
}

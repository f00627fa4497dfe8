//! What `policy diff` says: as text, and as Markdown for a pull request.

use std::path::Path;

use super::{Account, Answer, ChangeDocument, Shown, SpotDocument};
use crate::cli::policy::impact::Impact;
use crate::cli::policy::report::markdown::{code, prose};
use crate::cli::policy::report::visible;
use crate::domain::PolicyName;
use crate::policy::ChangeKind;

/// How many accounts are named in a sentence.
const SHOWN: usize = 5;
/// Less than the longest comment that GitHub takes.
const MAX_BYTES: usize = 60_000;

impl Shown {
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Node(node) => format!("for example {}", node.in_words()),
            Self::File { document } => {
                let lines: Vec<&str> = document.lines().map(str::trim).collect();
                format!("for example this file: {}", lines.join(" / "))
            }
        }
    }
}

pub(super) fn sentence(change: &ChangeDocument) -> String {
    let policy = change.policy.as_ref().map(|policy| format!("{policy}: ")).unwrap_or_default();
    let accounts = match change.accounts.as_slice() {
        [] => String::new(),
        accounts => format!("; {}", accounts_in_words(accounts)),
    };
    format!("{policy}{}{accounts}", change.message)
}

fn in_words(kind: &str) -> String {
    kind.replace('_', " ")
}

fn accounts_in_words(accounts: &[Account]) -> String {
    let shown: Vec<String> = accounts
        .iter()
        .take(SHOWN)
        .map(|account| format!("{} ({})", account.account_id, account.partition))
        .collect();
    let more = accounts.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let noun = if accounts.len() == 1 { "account" } else { "accounts" };
    format!("{} {noun}: {}{more}", accounts.len(), shown.join(", "))
}

pub(super) fn summary(answer: &Answer) -> String {
    if answer.same_meaning {
        return "no change in meaning".to_owned();
    }
    let mut counts: Vec<String> = Vec::new();
    for kind in ChangeKind::ALL {
        let count = answer.changes.iter().filter(|change| change.kind == kind.as_str()).count();
        if count > 0 {
            counts.push(format!("{count} {}", in_words(kind.as_str())));
        }
    }
    if !answer.complete {
        let names: Vec<&str> = answer.incomplete.iter().map(PolicyName::as_str).collect();
        let names = names.join(", ");
        counts.push(format!("INCOMPLETE: too large to be compared, look for more in: {names}"));
    }
    counts.join(", ")
}

pub(super) fn text(answer: &Answer, (old, new): (&Path, &Path)) -> String {
    let mut lines = Vec::new();
    for change in &answer.changes {
        lines.push(format!("{}: {}", in_words(change.kind), sentence(change)));
        let place = |spot: &SpotDocument, directory: &Path| {
            let rule = spot.rule.as_deref().map(|rule| format!(" ({rule})")).unwrap_or_default();
            format!("{}:{}{rule}", directory.join(&spot.file).display(), spot.line)
        };
        lines.extend(change.new.as_ref().map(|spot| format!("    now    {}", place(spot, new))));
        lines.extend(change.old.as_ref().map(|spot| format!("    before {}", place(spot, old))));
        lines.extend(change.witness.as_ref().map(|shown| format!("    {}", shown.in_words())));
    }
    lines.push(summary(answer));
    let impact = answer.impact.as_ref().map(Impact::in_words).unwrap_or_default();
    lines.extend(impact.lines().map(str::to_owned));
    // Names of files and rules are others' text, and must not make lines of their own.
    lines.iter().map(|line| visible(line)).collect::<Vec<_>>().join("\n")
}

/// A heading, then the changes by kind. Everything that a file says is shown as text and nothing else.
pub(super) fn markdown(answer: &Answer, directories: (&Path, &Path)) -> String {
    let mut lines = vec![format!("### muster policy diff: {}", prose(&summary(answer)))];
    let mut bytes = 0;
    for kind in ChangeKind::ALL {
        let mut changes =
            answer.changes.iter().filter(|change| change.kind == kind.as_str()).peekable();
        if changes.peek().is_some() {
            let heading = format!("#### {}", in_words(kind.as_str()));
            lines.extend([String::new(), heading, String::new()]);
        }
        for change in changes {
            let item = item(change, directories);
            bytes += item.iter().map(String::len).sum::<usize>();
            if bytes > MAX_BYTES {
                lines.extend([String::new(), "There are more, which do not fit here.".to_owned()]);
                return lines.join("\n") + "\n";
            }
            lines.extend(item);
        }
    }
    if let Some(impact) = &answer.impact {
        lines.extend([String::new(), "#### impact".to_owned(), String::new()]);
        let words = impact.in_words();
        lines.extend(words.lines().map(|line| format!("- {}", prose(line.trim()))));
    }
    lines.join("\n") + "\n"
}

fn item(change: &ChangeDocument, (old, new): (&Path, &Path)) -> Vec<String> {
    let place = |spot: &SpotDocument, directory: &Path| {
        code(&format!("{}:{}", directory.join(&spot.file).display(), spot.line))
    };
    let now = change.new.as_ref().map(|spot| format!("now {}", place(spot, new)));
    let before = change.old.as_ref().map(|spot| format!("before {}", place(spot, old)));
    let places: Vec<String> = now.into_iter().chain(before).collect();
    let shown = change.witness.as_ref().map(|shown| format!("  - {}", prose(&shown.in_words())));
    let first = [format!("- {}", prose(&sentence(change))), format!("  - {}", places.join(", "))];
    first.into_iter().chain(shown).collect()
}

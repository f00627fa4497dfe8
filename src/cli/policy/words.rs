//! Findings and explanations for people.

use std::path::Path;

use super::Explained;
use super::check::Checked;
use super::report::visible;
use crate::policy::{Finding, Fit, Outcome, RuleExplanation, Suppressed};

/// What `check` says.
pub(super) fn checked(directory: &Path, checked: &Checked<'_>) -> String {
    // The name of a file may hold a line feed and pretend to be the next finding.
    let place =
        |found: &Finding| visible(&directory.join(found.place.to_string()).display().to_string());
    let (counted, suppressed): (Vec<&Finding>, Vec<&Finding>) =
        checked.findings.iter().partition(|finding| finding.counts());
    let mut lines = Vec::new();
    for finding in counted {
        let (place, severity) = (place(finding), finding.code.severity().as_str());
        lines.push(format!("{place}: {severity}: {} [{}]", finding.message, finding.code));
        lines.push(format!("    write: {}", finding.expected));
    }
    for finding in suppressed {
        let why = finding.suppressed.as_ref().map(self::suppressed).unwrap_or_default();
        lines.push(format!("{}: suppressed: {} [{}]", place(finding), visible(&why), finding.code));
    }
    lines.push(summary(checked));
    if let Some(ttl) = checked.longest_ttl {
        lines.push(format!("Removing an account ends its nodes within {ttl}."));
    }
    lines.join("\n")
}

/// What came of `check`, in one line.
pub(super) fn summary(checked: &Checked<'_>) -> String {
    let count = |holds: fn(&Finding) -> bool| {
        checked.findings.iter().filter(|finding| holds(finding)).count()
    };
    let errors = count(Finding::is_error);
    let warnings = count(|finding| !finding.is_error() && finding.counts());
    let suppressed = match count(|finding| !finding.counts()) {
        0 => String::new(),
        number => format!(" and {number} suppressed"),
    };
    format!(
        "{}: {errors} errors, {warnings} warnings{suppressed}, {} policies, hash {}",
        if errors == 0 { "loads" } else { "does not load" },
        checked.policies,
        checked.hash
    )
}

/// Why a warning does not count.
pub(super) fn suppressed(suppressed: &Suppressed) -> String {
    format!("{} (until {})", suppressed.reason, suppressed.until)
}

/// What `explain` says.
pub(super) fn explained(directory: &Path, explained: &Explained) -> String {
    let explanation = &explained.explanation;
    let mut lines = Vec::new();
    if explained.hypothetical {
        lines.push("Hypothetical: the claims are taken as if they were verified.".to_owned());
    }
    let by = explanation.policy.as_ref().map(|name| format!(" by `{name}`")).unwrap_or_default();
    lines.push(format!("{}{by}: {}", outcome(explanation.outcome), explanation.message));
    if let (Some(file), Some(line), Some(column)) =
        (&explanation.file, explanation.line, explanation.column)
    {
        lines.push(format!("  at {}:{line}:{column}", directory.join(file).display()));
    }
    for policy in &explanation.policies {
        lines.push(String::new());
        lines.push(format!("policy {}: {}", policy.name, outcome(policy.outcome)));
        for rule in &policy.rules {
            rule_lines(rule, &mut lines);
        }
    }
    lines.join("\n")
}

fn rule_lines(rule: &RuleExplanation, lines: &mut Vec<String>) {
    let (kind, name, file, line) = (rule.kind, &rule.name, &rule.file, rule.line);
    lines.push(format!("  {kind:<5} {name}: {}  ({file}:{line})", fit(rule.outcome)));
    for field in &rule.fields {
        let actual = field.actual.as_deref().unwrap_or("-");
        lines.push(format!(
            "    {:<20} {:<8}  wants {}, has {actual}",
            field.field,
            fit(field.outcome),
            field.expected
        ));
    }
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Admitted => "admitted",
        Outcome::Refused => "refused",
        Outcome::NeedsFacts => "needs facts",
    }
}

const fn fit(fit: Fit) -> &'static str {
    match fit {
        Fit::Match => "match",
        Fit::NoMatch => "no match",
        Fit::Unknown => "unknown",
    }
}

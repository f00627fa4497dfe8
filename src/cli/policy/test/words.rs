//! Results of tests for people: only what does not hold, and a summary.

use std::path::Path;

use super::{RunCase, Tested};
use crate::policy::RuleNotTried;

/// What `test` says.
pub(super) fn tested(directory: &Path, tested: &Tested) -> String {
    let mut lines = Vec::new();
    for case in tested.all().filter(|case| !case.ok) {
        lines.push(heading(directory, case));
        lines.extend(details(directory, case).into_iter().map(|line| format!("    {line}")));
    }
    let Tested { hash, passed, failed, .. } = tested;
    lines.extend(generated(directory, tested));
    lines.push(format!("{passed} cases hold, {failed} do not; set {hash}"));
    lines.join("\n")
}

/// What was made, and what was not.
fn generated(directory: &Path, tested: &Tested) -> Vec<String> {
    let mut lines: Vec<String> = tested
        .not_tried
        .iter()
        .map(|rule| {
            let place = directory.join(format!("{}:{}", rule.file, rule.line));
            let RuleNotTried { policy, rule, message, .. } = rule;
            format!("{}: nothing lies beside `{rule}` of `{policy}`: {message}", place.display())
        })
        .collect();
    if !tested.made.is_empty() {
        let kinds: Vec<_> =
            tested.made.iter().map(|(kind, made)| format!("{kind} {made}")).collect();
        lines.push(format!("made {} boundary cases: {}", tested.generated.len(), kinds.join(", ")));
    }
    if tested.admitted_by_another_rule > 0 {
        lines.push(format!(
            "{} neighbours are admitted by another rule of their policy, and are no cases",
            tested.admitted_by_another_rule
        ));
    }
    lines
}

fn heading(directory: &Path, case: &RunCase) -> String {
    let place = directory.join(format!("{}:{}", case.file, case.line));
    let mismatch = case.result.mismatch.as_deref().unwrap_or_default();
    format!("{}: {}: {mismatch}", place.display(), title(case))
}

/// The case and its document.
pub(super) fn title(case: &RunCase) -> String {
    match &case.document {
        Some(document) => format!("{document}: {}", case.case),
        None => case.case.clone(),
    }
}

/// Why it came so, and where that is written.
pub(super) fn details(directory: &Path, case: &RunCase) -> Vec<String> {
    let result = &case.result;
    let mut lines = vec![result.message.clone()];
    if let (Some(policy), Some(place)) = (&result.policy, &result.place) {
        let rule = result.rule.as_ref().map(|rule| format!(", rule `{rule}`")).unwrap_or_default();
        let place = directory.join(place.to_string());
        lines.push(format!("by policy `{policy}`{rule}, at {}", place.display()));
    }
    lines
}

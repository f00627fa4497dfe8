//! Results of tests for people: only what does not hold, and a summary.

use std::path::Path;

use super::{RunCase, Tested};

/// What `test` says.
pub(super) fn tested(directory: &Path, tested: &Tested) -> String {
    let mut lines = Vec::new();
    for case in tested.all().filter(|case| !case.ok) {
        lines.push(heading(directory, case));
        lines.extend(details(directory, case).into_iter().map(|line| format!("    {line}")));
    }
    let Tested { hash, passed, failed, .. } = tested;
    lines.push(format!("{passed} cases hold, {failed} do not; set {hash}"));
    lines.join("\n")
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

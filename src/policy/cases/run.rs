//! Putting a case to the decision.

use serde::Serialize;

use super::TestCase;
use crate::domain::{Code, PolicyName, Timestamp};
use crate::policy::denial::Denial;
use crate::policy::explain::{Hypothesis, Outcome, explain};
use crate::policy::finding::Place;
use crate::policy::judge::{Case, judge};
use crate::policy::set::PolicySet;

/// What came of a case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseResult {
    /// How it ended.
    pub outcome: Outcome,
    /// The code that the operator would read.
    pub code: Option<Code>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// The rule that decided, or that comes nearest to admitting.
    pub rule: Option<String>,
    /// The field that keeps the node out.
    pub field: Option<String>,
    /// Where that is written.
    #[serde(skip)]
    pub place: Option<Place>,
    /// The same in a sentence.
    pub message: String,
    /// In what it is not as expected; nothing if the case holds.
    #[serde(skip)]
    pub mismatch: Option<String>,
}

impl TestCase {
    /// What the set says of the node, and whether that is what must come. `now` is the time of a case
    /// that has none of its own.
    pub fn run(&self, set: &PolicySet, now: Timestamp) -> CaseResult {
        let now = self.at.unwrap_or(now);
        let node = self.change.applied(&self.base);
        let facts = node.facts();
        let case = node.case(&facts, self.method, now);
        let name = self.policy.as_ref().map(PolicyName::as_str);
        let hypothesis =
            Hypothesis { method: self.method.name, values: &node.claims, epoch: case.epoch };
        let explanation = explain(set, &hypothesis, Some(&facts), name, now);
        let place = explanation.file.as_deref().map(|file| Place {
            file: file.into(),
            line: explanation.line.unwrap_or(1),
            column: explanation.column.unwrap_or(1),
        });
        let code = match &explanation.policy {
            Some(policy) => code(set, policy, &case, explanation.outcome),
            None => Some(Code::PolicyUnknown),
        };
        let mut result = CaseResult {
            outcome: explanation.outcome,
            code,
            policy: explanation.policy,
            rule: explanation.rule,
            field: explanation.field,
            place,
            message: explanation.message,
            mismatch: None,
        };
        result.mismatch = self.mismatch(&result);
        result
    }

    fn mismatch(&self, came: &CaseResult) -> Option<String> {
        let expected = &self.expected;
        if came.outcome != expected.outcome {
            let (wanted, came) = (expected.outcome.as_str(), came.outcome.as_str());
            return Some(format!("expected {wanted}, came {came}"));
        }
        // Nobody is refused by a policy that is not there.
        if came.policy.is_none() {
            let name = self.policy.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default();
            return Some(format!("there is no policy{name} of the method {}", self.method.name));
        }
        let code = came.code.map(Code::as_str);
        let parts = [
            ("code", expected.code.map(Code::as_str), code),
            ("rule", expected.rule.as_deref(), came.rule.as_deref()),
            ("field", expected.field.as_deref(), came.field.as_deref()),
        ];
        let differs = parts.into_iter().filter_map(|(what, wanted, came)| {
            let wanted = wanted.filter(|wanted| Some(*wanted) != came)?;
            let came = came.map_or("none".to_owned(), |came| format!("`{came}`"));
            Some(format!("expected the {what} `{wanted}`, came {came}"))
        });
        let differs: Vec<String> = differs.collect();
        (!differs.is_empty()).then(|| differs.join("; "))
    }
}

/// The code of a refusal by this policy.
fn code(set: &PolicySet, policy: &str, case: &Case<'_>, outcome: Outcome) -> Option<Code> {
    let policy = set.policy(policy)?;
    match judge(policy, case) {
        // The rules admit, and no name can be made for the node.
        Ok(_) => (outcome != Outcome::Admitted).then_some(Code::NameNotPermitted),
        Err(objection) => Some(Denial::because(policy, objection, &case.view()).code),
    }
}

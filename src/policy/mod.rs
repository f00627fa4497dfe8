//! Policy: claims, facts and a time in; an approval or a denial out. Pure: no I/O, no async, no
//! clock. It knows no join method by name, only the fields that methods declare.
//!
//! `load` turns files into a `PolicySet`, whole or not at all. `PolicySet::candidates` asks the
//! allow-list before the cloud is asked (I3); `Candidates::decide` asks it again on proven values.

mod accounts;
mod analysis;
mod approval;
mod cases;
mod compare;
mod conditions;
mod decide;
mod decode;
mod denial;
mod dns;
mod document;
mod explain;
mod finding;
mod glob;
mod guardrails;
mod join_policy;
mod judge;
mod kinds;
mod lint;
mod publication;
mod reason;
mod rule;
mod set;
mod settings;
mod suppress;
mod teleport;
#[cfg(test)]
mod tests;
mod truth;
mod wording;
mod yaml;

pub use analysis::{
    Access, AccessQuery, Accesses, AdmittingRule, Change, ChangeKind, Comparison, Ground, Horizon,
    Population, Proof as ChangeProof, Refusal, Spot, Witness, access, compare, refusals, replay,
};
pub use approval::{AdmittedBy, Approval, DEFAULT_SLOT, Order, OrderRequest, Strength};
pub use cases::{
    Boundaries, BoundaryCase, CaseResult, PolicyTest, RuleNotTried, TestCase, boundaries,
    document as document_of_tests,
};
pub use decide::Candidates;
pub use denial::Denial;
pub use explain::{
    Explanation, FieldExplanation, Fit, Hypothesis, Outcome, PolicyExplanation, RuleExplanation,
    explain,
};
pub use finding::{Finding, FindingCode, Place, Severity, Suppressed};
pub use join_policy::JoinPolicy;
pub use publication::{
    Layout, ParameterNames, PublicationTarget, TargetRole, TokenPublication, TokenTerms,
};
pub use rule::Rule;
pub use set::{Loaded, MAX_FILES, PolicyFile, PolicySet, Vocabulary, hash_of, load};
pub use settings::{ComeBack, FreshProof, Rejoin};
pub use teleport::{Import, ImportNote, ImportedPolicy, import_teleport};
pub use yaml::{MAX_FILE_BYTES, is_hidden};

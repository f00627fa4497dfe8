//! Policy's no: a code and a reason for the operator, a hint for the node, and what was decided on.

use std::fmt;
use std::sync::Arc;

use super::explain::{Explanation, explain_case};
use super::join_policy::JoinPolicy;
use super::judge::{Case, Objection};
use super::rule::Rule;
use super::set::PolicySet;
use super::truth::View;
use crate::domain::{Code, Lifetime, PolicyName, Timestamp};
use crate::methods::{Claims, FactValues};

/// Policy's no.
#[derive(Debug)]
pub struct Denial {
    /// The stable code, for the operator; a node reads `NOT_ADMITTED`.
    pub code: Code,
    /// What kept the node out, for the operator.
    pub message: String,
    /// What the node may be told: of its own evidence only.
    pub hint: Option<String>,
    /// The policy that refused, if there is one.
    pub policy: Option<PolicyName>,
    decided: Option<Box<Decided>>,
}

/// What was decided on, so that the whole reason can be had when somebody asks for it, and costs
/// nothing when nobody does.
#[derive(Debug)]
struct Decided {
    set: Arc<PolicySet>,
    claims: Claims,
    facts: Option<FactValues>,
    now: Timestamp,
}

impl Denial {
    /// A denial before there was a policy to decide by.
    pub(super) fn early(code: Code, message: &str) -> Self {
        Self { code, message: message.to_owned(), hint: None, policy: None, decided: None }
    }

    pub(super) fn new(policy: &JoinPolicy, code: Code, message: String) -> Self {
        Self { code, message, hint: None, policy: Some(policy.name.clone()), decided: None }
    }

    pub(super) fn because(policy: &JoinPolicy, objection: Objection<'_>, view: &View<'_>) -> Self {
        let name = &policy.name;
        let at = |rule: &Rule| format!("`{}` ({})", rule.name, rule.place);
        let (code, message) = match objection {
            Objection::NoMatch => {
                (Code::PolicyNoMatch, format!("no allow rule of policy `{name}` matches"))
            }
            Objection::Contradicted(found) => (found.code, found.reason.clone()),
            Objection::ProofNotChecked(why) => {
                (Code::StsUnavailable, format!("policy `{name}` requires a fresh proof: {why}"))
            }
            Objection::NotSeen => (
                Code::PolicyFactsMissing,
                format!("policy `{name}` looks at instances, and this one was not looked at"),
            ),
            Objection::NotRunning(state) => {
                (Code::InstanceNotRunning, format!("EC2 says that the instance is {state}"))
            }
            Objection::ProofMissing => (
                Code::FreshProofRequired,
                format!("policy `{name}` requires a fresh proof and none was offered"),
            ),
            Objection::Denied(rule) => {
                (Code::PolicyDenied, format!("the deny rule {} matches", at(rule)))
            }
            Objection::DenyUnknown(rule) => (
                doubt(rule, view, Code::PolicyDenied),
                format!("whether the deny rule {} matches is not known", at(rule)),
            ),
            Objection::AllowUnknown(rule) => (
                doubt(rule, view, Code::PolicyNoMatch),
                format!("whether the allow rule {} matches is not known", at(rule)),
            ),
            Objection::TooOld { age, document_ttl } => (
                Code::DocumentTooOld,
                format!("the document is {}, policy `{name}` takes {document_ttl}", Old(age)),
            ),
        };
        let hint = match objection {
            Objection::TooOld { age, .. } => Some(format!("the document is {}", Old(age))),
            Objection::Contradicted(found) => found.hint.clone(),
            Objection::NotRunning(state) => Some(format!("the instance is {state}")),
            Objection::ProofMissing
            | Objection::NotSeen
            | Objection::ProofNotChecked(_)
            | Objection::Denied(_)
            | Objection::DenyUnknown(_)
            | Objection::NoMatch
            | Objection::AllowUnknown(_) => None,
        };
        Self { hint, ..Self::new(policy, code, message) }
    }

    pub(super) fn of(
        self,
        set: &Arc<PolicySet>,
        claims: Claims,
        facts: Option<&FactValues>,
        now: Timestamp,
    ) -> Self {
        let decided = Decided { set: Arc::clone(set), claims, facts: facts.cloned(), now };
        Self { decided: Some(Box::new(decided)), ..self }
    }

    /// The claims that were refused.
    pub fn claims(&self) -> Option<&Claims> {
        self.decided.as_ref().map(|decided| &decided.claims)
    }

    /// The whole reason, rule by rule. Worked out when it is asked for; nothing where there was no
    /// policy to explain.
    pub fn explanation(&self) -> Option<Explanation> {
        let Decided { set, claims, facts, now } = self.decided.as_deref()?;
        let policy = set.policy(self.policy.as_ref()?.as_str())?;
        let case = Case {
            claims: claims.values(),
            epoch: claims.epoch(),
            facts: facts.as_ref(),
            // Never waived: an explanation of a refusal shows every reason.
            age_waived: false,
            now: *now,
        };
        Some(explain_case([policy], &case))
    }
}

/// An outage if a fact was not read; final if the evidence itself leaves the doubt.
fn doubt(rule: &Rule, view: &View<'_>, otherwise: Code) -> Code {
    if rule.conditions.iter().any(|condition| condition.is_unread(view)) {
        Code::PolicyFactsMissing
    } else {
        otherwise
    }
}

/// An age as people say it: `47 min old`.
pub(super) struct Old(pub(super) Lifetime);

impl fmt::Display for Old {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.seconds() / 60;
        match minutes {
            0 => write!(f, "{} s old", self.0.seconds()),
            1..120 => write!(f, "{minutes} min old"),
            120..2880 => write!(f, "{} h old", minutes / 60),
            _ => write!(f, "{} days old", minutes / 1440),
        }
    }
}

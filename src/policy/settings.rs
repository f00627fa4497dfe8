//! The block of a policy that has its method's name: what a node must prove, and how the instance is
//! looked at.

use super::decode::{self, Keys, invalid};
use super::finding::{FindingCode, Place, Report};
use super::join_policy::{Written, not_yet};
use super::yaml::{Content, Node};
use crate::domain::Lifetime;
use crate::methods::{Declaration, LookUp};

/// The oldest document that may join without a fresh proof.
const MAX_DOCUMENT_TTL: Lifetime = Lifetime::from_hours(24);
/// The least and the most that IAM takes as an external id.
const EXTERNAL_ID_LENGTH: std::ops::RangeInclusive<usize> = 2..=1224;
/// In front of a role's path and name.
const ROLE_PREFIX: &str = "arn:{partition}:iam::{account}:role/";

/// Whether a node must prove itself afresh, bound to its key and connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreshProof {
    /// Every join.
    Required,
    /// The document alone may join, up to this age.
    NotRequired {
        /// The oldest document; none where the method's evidence has no age.
        document_ttl: Option<Lifetime>,
    },
}

/// Reads the block, or what holds without one.
pub(super) fn read(
    node: Option<&Node>,
    method: &'static Declaration,
    place: &Place,
    report: &mut Report,
) -> (Option<Written<FreshProof>>, Written<LookUp>) {
    let mut allowed = vec!["rejoin"];
    if method.has_fresh_proof {
        allowed.extend(["fresh_proof", "document_ttl"]);
    }
    if method.has_look_up() {
        allowed.push("look_up");
    }
    let no_look_up = Written { value: LookUp::None, place: place.clone(), is_default: true };
    let default = if method.has_fresh_proof {
        FreshProof::Required
    } else {
        FreshProof::NotRequired { document_ttl: None }
    };
    let default = Written { value: default, place: place.clone(), is_default: true };
    let Some(node) = node else { return (Some(default), no_look_up) };
    let Some(keys) = Keys::read(node, "the method's settings", &allowed, report) else {
        return (None, no_look_up);
    };
    if let Some(node) = keys.get("rejoin") {
        rejoin(node, report);
    }
    let look_up = match keys.get("look_up") {
        Some(node) => look_up(node, report).unwrap_or_else(|| Written {
            // As if it looked, so that its rules are not reported as well.
            value: LookUp::Own,
            place: node.place.clone(),
            is_default: false,
        }),
        None => no_look_up,
    };
    let proof =
        if method.has_fresh_proof { fresh_proof(&keys, default, report) } else { Some(default) };
    (proof, look_up)
}

fn fresh_proof(
    keys: &Keys<'_>,
    default: Written<FreshProof>,
    report: &mut Report,
) -> Option<Written<FreshProof>> {
    let written = keys.get("fresh_proof");
    let is_required = match written {
        None => true,
        Some(node) => match decode::text(node, "fresh_proof", report)? {
            "required" => true,
            "not_required" => false,
            _ => return invalid(node, "fresh_proof", "required or not_required", report),
        },
    };
    let place = written.map_or(keys.place, |node| &node.place).clone();
    match (is_required, keys.get("document_ttl")) {
        (true, None) => {
            let value = FreshProof::Required;
            Some(written.map_or(default, |_| Written { value, place, is_default: false }))
        }
        (true, Some(node)) => {
            let message = "`document_ttl` does nothing where a fresh proof is required: an old \
                           document may join with one";
            let expected = "no `document_ttl`, or `fresh_proof: not_required`";
            report.add(FindingCode::DocumentTtlUnused, &node.place, message, expected);
            None
        }
        (false, None) => {
            if !keys.has("document_ttl") {
                let message = "without a fresh proof a document would join for ever";
                let expected = "`document_ttl: 15m` beside it, at most 24h";
                report.add(FindingCode::DocumentTtlMissing, &place, message, expected);
            }
            None
        }
        (false, Some(node)) => {
            let span = decode::duration(node, "document_ttl", MAX_DOCUMENT_TTL, report)?;
            let value = FreshProof::NotRequired { document_ttl: Some(span) };
            Some(Written { value, place, is_default: false })
        }
    }
}

fn look_up(node: &Node, report: &mut Report) -> Option<Written<LookUp>> {
    const EXPECTED: &str = "`none`, `own`, or `{role: …, external_id: …}`";
    let written = |value| Written { value, place: node.place.clone(), is_default: false };
    match &node.content {
        Content::Scalar { text, .. } if text == "none" => Some(written(LookUp::None)),
        Content::Scalar { text, .. } if text == "own" => Some(written(LookUp::Own)),
        Content::Scalar { .. } | Content::Sequence(_) => invalid(node, "look_up", EXPECTED, report),
        Content::Mapping(_) => {
            let keys = Keys::read(node, "`look_up`", &["role", "external_id"], report)?;
            let role = keys.required("role", EXPECTED, report)?;
            let text = decode::text(role, "role", report)?;
            if !is_role(text) {
                let expected = "`arn:{partition}:iam::{account}:role/NAME`: the role is always \
                                looked for in the instance's own account";
                return invalid(role, "role", expected, report);
            }
            let external_id = match keys.get("external_id") {
                None => {
                    let message = "the role is assumed without an external id: its trust policy \
                                   cannot tell this server from another that may assume roles";
                    let expected = "`external_id:` as the role's trust policy demands it";
                    report.add(FindingCode::ExternalIdMissing, &role.place, message, expected);
                    None
                }
                Some(node) => Some(external_id(node, report)?),
            };
            Some(written(LookUp::Role { role: text.to_owned(), external_id }))
        }
    }
}

/// Only the instance's own partition and account are ever put in, and both must be: a literal
/// account would look at somebody else's instances (P8).
fn is_role(text: &str) -> bool {
    text.strip_prefix(ROLE_PREFIX).is_some_and(|name| {
        (1..=576).contains(&name.len())
            && !name.ends_with('/')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b))
    })
}

fn external_id(node: &Node, report: &mut Report) -> Option<String> {
    let text = decode::text(node, "external_id", report)?;
    let is_one = EXTERNAL_ID_LENGTH.contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@:_/-".contains(&b));
    if is_one {
        return Some(text.to_owned());
    }
    let expected = "2 to 1224 letters, digits and `+=,.@:_/-`";
    invalid(node, "external_id", expected, report)
}

fn rejoin(node: &Node, report: &mut Report) {
    let is_never = matches!(&node.content,
        Content::Scalar { text, .. } if text == "never");
    if !is_never {
        let message = "`rejoin` other than `never` comes with a later version";
        let expected = "`rejoin: never`; until then `muster nodes allow-rejoin` admits one node";
        not_yet(message, expected, node, report);
    }
}

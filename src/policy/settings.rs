//! The block of a policy that has its method's name: what a node must prove, and how the instance is
//! looked at.

use super::decode::{self, Keys, invalid};
use super::finding::{FindingCode, Place, Report};
use super::join_policy::Written;
use super::yaml::{Content, Node};
use crate::domain::Lifetime;
use crate::methods::{Declaration, LookUp};

/// The oldest document that may join without a fresh proof.
const MAX_DOCUMENT_TTL: Lifetime = Lifetime::from_hours(24);
/// The least and the most that IAM takes as an external id.
const EXTERNAL_ID_LENGTH: std::ops::RangeInclusive<usize> = 2..=1224;
/// The longest silence, and the most often, for which a policy may let a node back in.
const MAX_SILENCE: Lifetime = Lifetime::from_days(7);
const MAX_REJOINS: u32 = 100;
/// The longest time for which a node may be off and still come back, and the most often.
const MAX_ABSENCE: Lifetime = Lifetime::from_days(30);
const MAX_COME_BACKS: u32 = 100;
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

/// When another key may take the place of one that is honestly gone, in the same run of the instance
/// and by a fresh proof: the disk was replaced, or a container lost its volume (K5, K7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejoin {
    /// For how long the bound key must have missed its renewal.
    pub when_silent: Lifetime,
    /// How often in one run.
    pub limit: u32,
}

/// When a node may come back that was off past the end of its certificate, by the key that it still
/// has. Only for methods without a fresh proof: the others prove themselves anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComeBack {
    /// For how long after the certificate's end.
    pub within: Lifetime,
    /// How often before it has to join anew.
    pub limit: u32,
}

/// What the block says; none of it if it cannot be read.
pub(super) struct Settings {
    pub(super) proof: Option<Written<FreshProof>>,
    pub(super) look_up: Written<LookUp>,
    pub(super) rejoin: Option<Rejoin>,
    pub(super) come_back: Option<ComeBack>,
}

/// Reads the block, or what holds without one.
pub(super) fn read(
    node: Option<&Node>,
    method: &'static Declaration,
    place: &Place,
    report: &mut Report,
) -> Settings {
    let mut allowed = if method.has_fresh_proof {
        vec!["rejoin", "fresh_proof", "document_ttl"]
    } else {
        vec!["come_back"]
    };
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
    let Some(node) = node else {
        let (proof, look_up) = (Some(default), no_look_up);
        return Settings { proof, look_up, rejoin: None, come_back: None };
    };
    let Some(keys) = Keys::read(node, "the method's settings", &allowed, report) else {
        return Settings { proof: None, look_up: no_look_up, rejoin: None, come_back: None };
    };
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
    let rejoin = keys.get("rejoin").and_then(|node| rejoin(node, proof.as_ref(), report));
    let come_back = keys.get("come_back").and_then(|node| come_back(node, report));
    Settings { proof, look_up, rejoin, come_back }
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

pub(super) fn external_id(node: &Node, report: &mut Report) -> Option<String> {
    let text = decode::text(node, "external_id", report)?;
    let is_one = EXTERNAL_ID_LENGTH.contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@:_/-".contains(&b));
    if is_one {
        return Some(text.to_owned());
    }
    let expected = "2 to 1224 letters, digits and `+=,.@:_/-`";
    invalid(node, "external_id", expected, report)
}

fn rejoin(node: &Node, proof: Option<&Written<FreshProof>>, report: &mut Report) -> Option<Rejoin> {
    const EXPECTED: &str = "`never`, or `{when_silent: 30m, limit: 2}`";
    match &node.content {
        Content::Scalar { text, .. } if text == "never" => return None,
        Content::Scalar { .. } | Content::Sequence(_) => {
            return invalid(node, "rejoin", EXPECTED, report);
        }
        Content::Mapping(_) => {}
    }
    let keys = Keys::read(node, "`rejoin`", &["when_silent", "limit"], report)?;
    let when_silent = keys.required("when_silent", EXPECTED, report)?;
    let limit = keys.required("limit", EXPECTED, report)?;
    if proof.is_some_and(|proof| proof.value != FreshProof::Required) {
        // Whoever has a copy of the document could wait for the silence (K5).
        let expected = "`rejoin: never`, or `fresh_proof: required`";
        return invalid(node, "rejoin", expected, report);
    }
    Some(Rejoin {
        when_silent: decode::duration(when_silent, "when_silent", MAX_SILENCE, report)?,
        limit: decode::number(limit, "limit", 1..=MAX_REJOINS, report)?,
    })
}

fn come_back(node: &Node, report: &mut Report) -> Option<ComeBack> {
    const EXPECTED: &str = "`never`, or `{within: 7d, limit: 3}`";
    match &node.content {
        Content::Scalar { text, .. } if text == "never" => return None,
        Content::Scalar { .. } | Content::Sequence(_) => {
            return invalid(node, "come_back", EXPECTED, report);
        }
        Content::Mapping(_) => {}
    }
    let keys = Keys::read(node, "`come_back`", &["within", "limit"], report)?;
    let within = keys.required("within", EXPECTED, report)?;
    let limit = keys.required("limit", EXPECTED, report)?;
    Some(ComeBack {
        within: decode::duration(within, "within", MAX_ABSENCE, report)?,
        limit: decode::number(limit, "limit", 1..=MAX_COME_BACKS, report)?,
    })
}

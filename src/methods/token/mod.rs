//! The `token` method: a join token that the server gave out, for nodes that have no document.
//!
//! A token has a public name and a secret, an Ed25519 seed. The secret never crosses the wire: the
//! node signs this stream's key binding with it, so what was seen of one join is worth nothing in
//! another (B2). Evidence is one JSON object of at most 1 KiB:
//!
//! ```json
//! {"token": "web-7f3a", "signature": "128 lower-case hexadecimal digits"}
//! ```
//!
//! The signature is over `"muster/token/v1\0"` and the 32 bytes of the key binding. Unknown and
//! duplicate members are refused.
//!
//! The empty object `{}` is the evidence of a node that has its key and nothing more to show: at a
//! renewal, where its certificate says who it is, and at a join of a node that was off past the end
//! of its certificate and comes back, which its policy has to allow. Then the claims are those of its
//! enrollment, but for the address that it comes from.
//!
//! The subject is `node/<name>`: the name that the token is bound to, or the one under which the key
//! is enrolled, or else `k-` and the beginning of the key's digest. The epoch is the token's making,
//! so that a later token for the same name takes it over and an earlier one never does.

mod evidence;

pub use evidence::{MAX_EVIDENCE_BYTES, evidence};

use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Basis, ClaimValues, Claims, Declaration, Enrolled, Field, JoinMethod, Kind, Presence,
    Presented, Provenance, Rejection, Source, Sources, Value,
};
use crate::domain::{Code, Subject, Timestamp, Token, TokenName};
use evidence::{Evidence, SignedName, signed_message};

/// How many digits of a key's digest a node without a name is called by: 128 bits.
const KEY_DIGITS: usize = 32;
const KEY_PREFIX: &str = "k-";

/// What rules may ask of a token and of who comes with it.
pub(super) const DECLARATION: Declaration = Declaration {
    name: "token",
    fields: &[
        field("tokens", "token_name", Kind::Globs { separators: &[] }, Presence::RequiredOrAny),
        field("nodes", "node", Kind::Globs { separators: &[] }, Presence::Optional),
        field("networks", "source_address", Kind::Networks, Presence::Optional),
        field("token_labels", "token_labels", Kind::Tags, Presence::Optional),
        field("lifetime", "token_lifetime", Kind::Span, Presence::Optional),
        field("uses", "token_max_uses", Kind::Count, Presence::Optional),
    ],
    name_variables: &["node"],
    has_fresh_proof: false,
    uses_tokens: true,
    running: None,
    epoch_claim: None,
    example: &[("token_name", "web-2026"), ("node", "web-1"), ("source_address", "192.0.2.10")],
    unasked: &[],
};

const fn field(name: &'static str, reads: &'static str, kind: Kind, presence: Presence) -> Field {
    Field { name, reads, source: Source::Claim, kind, is_list: false, presence, caution: None }
}

/// The entry in the table of methods.
pub(super) fn build(_sources: &Sources) -> Arc<dyn JoinMethod> {
    Arc::new(ByToken)
}

/// Verifies signatures of tokens that are on record.
pub struct ByToken;

#[async_trait::async_trait]
impl JoinMethod for ByToken {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn token_named(&self, evidence: &[u8]) -> Result<Option<TokenName>, Rejection> {
        Ok(Evidence::parse(evidence)?.signed.map(|signed| signed.name))
    }

    fn verify(&self, presented: &Presented<'_>) -> Result<Claims, Rejection> {
        match Evidence::parse(presented.evidence)?.signed {
            Some(signed) => by_token(&signed, presented),
            None => by_key(presented),
        }
    }
}

fn by_token(signed: &SignedName, presented: &Presented<'_>) -> Result<Claims, Rejection> {
    let message = signed_message(presented.binding);
    let on_record = presented.remembered.token.as_ref();
    // One answer for a name that nobody knows and for a secret that is another's.
    let token = on_record
        .filter(|token| token.public_key.verifies(&message, &signed.signature))
        .ok_or_else(|| {
            let text = format!("no token `{}` of this secret is on record", signed.name);
            Rejection { hint: Some(text.clone()), ..Rejection::new(Code::TokenUnknown, text) }
        })?;
    if let Some(end) = token.expires_at.filter(|_| token.has_expired(presented.now)) {
        return Err(rejected(
            Code::TokenExpired,
            token,
            format!("the token `{}` ended at {end}", token.name),
        ));
    }
    if !token.may_come_from(presented.source) {
        let from = presented.source.map_or_else(|| "nowhere".to_owned(), |from| from.to_string());
        let text = format!("the token `{}` is not for use from {from}", token.name);
        return Err(rejected(Code::TokenNotFromHere, token, text));
    }
    let subject = subject(token, presented)?;
    // The same node may come with an older token that is still good; its run does not go back.
    let known = presented.remembered.node.as_ref().filter(|known| known.subject == subject);
    let epoch = known.map_or(token.created_at, |known| known.epoch.max(token.created_at));
    Ok(claims(token, subject, epoch, presented))
}

fn subject(token: &Token, presented: &Presented<'_>) -> Result<Subject, Rejection> {
    let named = token.node.as_ref().map(|node| node.as_str().to_owned());
    // Who is on record by this key stays who he is. A name that was given by hand goes no further than
    // the policy that it was given for, and not beyond its being forgotten.
    let known = presented.remembered.node.as_ref().filter(|known| {
        let has_own_name = known.subject.name().starts_with(KEY_PREFIX);
        has_own_name || (known.is_bound && known.policy == token.policy)
    });
    if let (None, Some(known)) = (&named, known) {
        return Ok(known.subject.clone());
    }
    let name = named.unwrap_or_else(|| {
        let digits = presented.key.to_string();
        format!("{KEY_PREFIX}{}", digits.get(..KEY_DIGITS).unwrap_or(&digits))
    });
    Subject::new("node", [("node", name.as_str())])
        .map_err(|error| Rejection::new(Code::MalformedRequest, error.to_string()))
}

fn claims(token: &Token, subject: Subject, epoch: Timestamp, presented: &Presented<'_>) -> Claims {
    let mut values = claims_of(token, presented.source);
    values.insert("node", Value::Text(subject.name().to_owned()), Provenance::Proven);
    Claims::assertion(DECLARATION.name, subject, values, epoch)
        .resting_on(Basis::Token(Box::new(token.clone())))
}

/// What is claimed of whoever comes with this token from there, but for the name of a node that it is
/// not bound to. Plain data, for explanations of what might be.
pub fn claims_of(token: &Token, source: Option<IpAddr>) -> ClaimValues {
    let mut values = ClaimValues::default();
    let mut claim = |name, value| values.insert(name, value, Provenance::Proven);
    claim("token_name", Value::Text(token.name.to_string()));
    claim("token_labels", Value::Tags(token.labels.clone()));
    // What never ends and what has no limit is beyond every condition.
    if let Some(lifetime) = token.lifetime() {
        claim("token_lifetime", Value::Span(lifetime));
    }
    if let Some(uses) = token.max_uses {
        claim("token_max_uses", Value::Number(uses));
    }
    if let Some(node) = &token.node {
        claim("node", Value::Text(node.to_string()));
    }
    come_from(&mut values, source);
    values
}

/// A node that shows no more than its key is who it was, from where it is now.
fn by_key(presented: &Presented<'_>) -> Result<Claims, Rejection> {
    let Some(known) = presented.remembered.node.clone() else {
        let text = "the evidence holds no token, and no node with this key is on record";
        let hint = Some(text.to_owned());
        return Err(Rejection { hint, ..Rejection::new(Code::TokenUnknown, text) });
    };
    let Enrolled { subject, mut values, epoch, policy, is_bound: _ } = known;
    come_from(&mut values, presented.source);
    Ok(Claims::assertion(DECLARATION.name, subject, values, epoch).resting_on(Basis::Key(policy)))
}

fn come_from(values: &mut ClaimValues, source: Option<IpAddr>) {
    const NAME: &str = "source_address";
    match source {
        Some(source) => {
            let text = source.to_canonical().to_string();
            values.insert(NAME, Value::Text(text), Provenance::Proven);
        }
        None => values.remove(NAME),
    }
}

/// The node may read it all: it is of the token that it has shown to hold.
fn rejected(code: Code, token: &Token, message: String) -> Rejection {
    Rejection { code, hint: Some(message.clone()), message, token: Some(token.name.clone()) }
}

#[cfg(test)]
mod tests;

//! By which methods a node joins, and in which order: its own list, which no server can widen
//! (red team B2, T58). Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::state::NodeRecord;
use crate::domain::{Class, Code, Timestamp};

/// A join method that this agent knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The instance identity document. Records of a version that had no other do not name it.
    #[default]
    Ec2,
    /// A join token.
    Token,
}

/// Text that names no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `ec2` or `token`")]
pub struct UnknownMethod;

impl Method {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Token => "token",
        }
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Ec2, Self::Token].into_iter().find(|it| it.as_str() == text).ok_or(UnknownMethod)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Methods in the order in which they are tried: at least one, and none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodList(Vec<Method>);

/// A list that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a list of methods has at least one, and none twice")]
pub struct InvalidMethodList;

impl MethodList {
    /// The list, if it is one.
    pub fn new(methods: Vec<Method>) -> Result<Self, InvalidMethodList> {
        let is_new = |(place, method): (usize, &Method)| {
            methods.iter().position(|it| it == method) == Some(place)
        };
        if methods.is_empty() || !methods.iter().enumerate().all(is_new) {
            return Err(InvalidMethodList);
        }
        Ok(Self(methods))
    }

    /// One method.
    pub fn only(method: Method) -> Self {
        Self(vec![method])
    }

    /// Whether it is in the list.
    pub fn contains(&self, method: Method) -> bool {
        self.0.contains(&method)
    }

    /// Whether it is the whole list.
    pub fn is_only(&self, method: Method) -> bool {
        self.0 == [method]
    }

    /// The ways to ask at a join, in order. A node of a token whose certificate has ended first
    /// tries to come back: with the key that it last asked a renewal for, whose reply may be lost, and
    /// with the key that it had.
    pub(super) fn ways(
        &self,
        record: Option<&NodeRecord>,
        starts_over: bool,
        now: Timestamp,
    ) -> Vec<Way> {
        let comes_back = self.contains(Method::Token)
            && !starts_over
            && record.is_some_and(|it| it.method == Method::Token && it.not_after <= now);
        let back = [Way::NextKeyAlone, Way::KeyAlone].into_iter().filter(|_| comes_back);
        back.chain(self.0.iter().copied().map(Way::first)).collect()
    }
}

/// With what the node answers the challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// With the instance identity document, and a proof.
    Ec2,
    /// With a token, which is read from its source.
    Token,
    /// By the method of tokens and without one: the key was admitted before. At a renewal, and to
    /// come back.
    KeyAlone,
    /// Likewise with the key of a renewal that was asked for and never answered.
    NextKeyAlone,
}

impl Way {
    fn first(method: Method) -> Self {
        match method {
            Method::Ec2 => Self::Ec2,
            Method::Token => Self::Token,
        }
    }

    /// How a node of this method renews: the key binding holds the method, so it is that of the
    /// node's record, whatever the list says.
    pub(super) fn to_renew(method: Method) -> Self {
        match method {
            Method::Ec2 => Self::Ec2,
            Method::Token => Self::KeyAlone,
        }
    }

    /// The method that the server is told.
    pub(super) const fn method(self) -> Method {
        match self {
            Self::Ec2 => Method::Ec2,
            Self::Token | Self::KeyAlone | Self::NextKeyAlone => Method::Token,
        }
    }

    /// For people: how the node tried.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Token => "token",
            Self::KeyAlone => "token (key alone)",
            Self::NextKeyAlone => "token (next key alone)",
        }
    }
}

/// Whether the next way of a list may be tried after this error. A denial is an answer; an outage is
/// none, and ends the attempt. What is wrong with the server or with this machine's disk is not mended
/// by another method, and a server that is not trusted must not choose one by refusing (B2).
pub(super) fn moves_on(code: Code) -> bool {
    let is_own = [Code::ServerUntrusted, Code::ResultRejected, Code::StateUnusable];
    match code.class() {
        Class::Denied | Class::Invalid => !is_own.contains(&code),
        Class::Stale | Class::Throttled | Class::Unavailable => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lifetime;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn record(method: Method, ends_in: i64) -> NodeRecord {
        let not_after = Timestamp::from_unix_seconds(NOW.unix_seconds() + ends_in);
        NodeRecord {
            node_id: "n-1".to_owned(),
            spiffe_id: "spiffe://a.example/node".to_owned(),
            method,
            policy: "web".to_owned(),
            serial: "01".to_owned(),
            not_before: not_after.minus(Lifetime::from_hours(12)),
            not_after,
            renew_after: not_after.minus(Lifetime::from_hours(4)),
        }
    }

    #[test]
    fn a_list_has_each_method_once() {
        use Method::{Ec2, Token};
        for (methods, is_list) in [
            (vec![], false),
            (vec![Ec2, Ec2], false),
            (vec![Token, Ec2, Token], false),
            (vec![Ec2], true),
            (vec![Token, Ec2], true),
        ] {
            assert_eq!(MethodList::new(methods.clone()).is_ok(), is_list, "{methods:?}");
        }
        assert!("EC2".parse::<Method>().is_err() && "token".parse() == Ok(Token));
    }

    #[test]
    fn only_a_node_of_a_token_whose_certificate_has_ended_comes_back() {
        let both = MethodList::new(vec![Method::Ec2, Method::Token]).unwrap();
        let only_ec2 = MethodList::only(Method::Ec2);
        let (ended, alive) = (record(Method::Token, 0), record(Method::Token, 1));
        let of_ec2 = record(Method::Ec2, -1);
        for (list, record, starts_over, ways) in [
            (
                &both,
                Some(&ended),
                false,
                vec![Way::NextKeyAlone, Way::KeyAlone, Way::Ec2, Way::Token],
            ),
            (&both, Some(&ended), true, vec![Way::Ec2, Way::Token]),
            (&both, Some(&alive), false, vec![Way::Ec2, Way::Token]),
            (&both, Some(&of_ec2), false, vec![Way::Ec2, Way::Token]),
            (&both, None, false, vec![Way::Ec2, Way::Token]),
            (&only_ec2, Some(&ended), false, vec![Way::Ec2]),
        ] {
            assert_eq!(list.ways(record, starts_over, NOW), ways, "{record:?} {starts_over}");
        }
    }

    // B2: only an answer of a server that is trusted leads on.
    #[test]
    fn a_denial_moves_on_and_nothing_else_does() {
        for code in Code::ALL {
            let is_denial = matches!(code.class(), Class::Denied | Class::Invalid);
            let is_own = ["SERVER_UNTRUSTED", "RESULT_REJECTED", "STATE_UNUSABLE"];
            let expected = is_denial && !is_own.contains(&code.as_str());
            assert_eq!(moves_on(*code), expected, "{code}");
        }
    }
}

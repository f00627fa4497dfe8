//! The rules of a document of method `ec2`.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Content, Node, NotCarried, entries, in_quotes, text};
use crate::domain::{AccountId, Lifetime, Partition, Region, Timestamp};

/// One rule of a document of method `ec2`.
pub(super) struct Rule<'n> {
    pub(super) node: &'n Node,
    account: AccountId,
    pub(super) regions: BTreeSet<Region>,
    /// The role's path and name in the rule's own account.
    role: Option<&'n str>,
}

impl<'n> Rule<'n> {
    /// Whatever a condition cannot be carried over for, the whole rule is not: with one condition less
    /// it would admit more.
    pub(super) fn read(node: &'n Node) -> Result<Self, NotCarried> {
        const KNOWN: &[&str] = &["aws_account", "aws_regions", "aws_role"];
        if !matches!(node.content, Content::Mapping(_)) {
            return Err(NotCarried::at(node, "this is no rule"));
        }
        for (key, value) in entries(node) {
            if !KNOWN.contains(&key) && !value.is_null() {
                let message = format!("a rule with `{key}` is not carried over");
                return Err(NotCarried::at(value, message));
            }
        }
        let account = node.value("aws_account").unwrap_or(node);
        let account: AccountId =
            text(account).and_then(|text| text.parse().ok()).ok_or_else(|| {
                let message = "a rule without one account number of 12 digits would admit every AWS \
                               customer";
                NotCarried::at(account, message)
            })?;
        let mut regions = BTreeSet::new();
        if let Some(list) = node.value("aws_regions").filter(|list| !list.is_null()) {
            let Content::Sequence(items) = &list.content else {
                return Err(NotCarried::at(list, "`aws_regions` is no list"));
            };
            for item in items {
                let region = text(item).and_then(|text| text.parse().ok());
                let region = region.ok_or_else(|| NotCarried::at(item, "this is no region"))?;
                regions.insert(region);
            }
        }
        let role = match node.value("aws_role").filter(|role| !role.is_null()) {
            None => None,
            Some(role) => Some(role_in(role, &account)?),
        };
        Ok(Self { node, account, regions, role })
    }

    /// Rules are of one partition here, and an account number is another account in another one.
    pub(super) fn write(&self, ttl: Lifetime, until: Option<Timestamp>, to: &mut String) {
        let mut partitions: BTreeSet<Partition> =
            self.regions.iter().map(Partition::of_region).collect();
        if partitions.is_empty() {
            partitions.insert(Partition::Aws);
        }
        for partition in partitions {
            let of_it = self.regions.iter().filter(|one| Partition::of_region(one) == partition);
            let names: Vec<_> = of_it.map(Region::as_str).collect();
            let regions =
                if names.is_empty() { "any".to_owned() } else { format!("[{}]", names.join(", ")) };
            let _infallible = write!(
                to,
                "    - accounts: [\"{}\"]\n      partition: {partition}\n      regions: {regions}\n      \
                 launched_within: {ttl}\n",
                self.account
            );
            write_until(until, to);
        }
    }
}

pub(super) fn write_until(until: Option<Timestamp>, to: &mut String) {
    if let Some(until) = until {
        let _infallible = writeln!(to, "      until: \"{until}\"");
    }
}

/// `PATH/NAME` of a role of this account. A role of another account looks at another's instances.
fn role_in<'n>(node: &'n Node, account: &AccountId) -> Result<&'n str, NotCarried> {
    let written = text(node).unwrap_or_default();
    let parts: Vec<&str> = written.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "iam", "", of, name] if *of == account.as_str() => name.strip_prefix("role/"),
        _ => None,
    }
    .ok_or_else(|| {
        NotCarried::at(
            node,
            "`aws_role` is no role of the rule's own account: who would look at \
                              whose instances is not clear",
        )
    })
}

/// How the one policy of these rules looks at instances; nothing if they differ.
pub(super) fn look_up(rules: &[Rule<'_>]) -> Option<String> {
    let mut looks: Vec<_> = rules.iter().map(|rule| rule.role).collect();
    looks.dedup();
    match looks.as_slice() {
        [None] => Some("    look_up: own\n".to_owned()),
        [Some(role)] => Some(format!(
            "    look_up:\n      role: {}\n",
            in_quotes(&format!("arn:{{partition}}:iam::{{account}}:role/{role}"))
        )),
        _ => None,
    }
}

/// Go's form of a duration, `5m`, `1h30m`, `300s`: whole seconds.
pub(super) fn go_duration(text: &str) -> Option<Lifetime> {
    let mut rest = text;
    let mut seconds: u32 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.chars().next()?;
        let factor = match unit {
            'h' => 3600,
            'm' if !tail.starts_with("ms") => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u32>().ok()?.checked_mul(factor)?)?;
        rest = tail.get(1..)?;
    }
    (seconds > 0).then(|| Lifetime::from_seconds(seconds))
}

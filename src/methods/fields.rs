//! What a method says rules may ask of it. Policy parses, matches and explains rules from these
//! declarations and knows no method by name.

/// One method as policy sees it.
#[derive(Debug)]
pub struct Declaration {
    /// The method's name in policies and on the wire.
    pub name: &'static str,
    /// What rules may ask.
    pub fields: &'static [Field],
    /// The claims that DNS names may interpolate: identifiers that nobody can choose (I6, I13).
    pub name_variables: &'static [&'static str],
    /// Whether the method can answer a challenge with a fresh proof. Without one it leans on the
    /// node's key: a renewal and a node that comes back have no more to show.
    pub has_fresh_proof: bool,
    /// Whether its evidence is a token that the server gave out.
    pub uses_tokens: bool,
    /// What a look at the instance must say whatever the rules ask; nothing where there is no look.
    pub running: Option<Running>,
    /// The claim that says when this run of the attester began, if one does.
    pub epoch_claim: Option<&'static str>,
    /// Claims that an attester may well have, by name, for examples; `{region}` stands for its region.
    pub example: &'static [(&'static str, &'static str)],
    /// Claims that evidence has and no rule asks for.
    pub unasked: &'static [&'static str],
}

/// The fact that tells whether an instance runs.
#[derive(Debug)]
pub struct Running {
    /// The fact, for example `state`.
    pub reads: &'static str,
    /// What it says of an instance that runs.
    pub values: &'static [&'static str],
    /// The fact that tells since when, for example `launch_time`.
    pub since: &'static str,
}

impl Declaration {
    /// Whether the instance can be looked at.
    pub fn has_look_up(&self) -> bool {
        self.running.is_some()
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// One thing that a rule may ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// The key in a rule, for example `regions`.
    pub name: &'static str,
    /// The claim or instance fact that it reads, for example `region`.
    pub reads: &'static str,
    /// Where that comes from.
    pub source: Source,
    /// How it is written and compared.
    pub kind: Kind,
    /// Whether one attester may have several of them.
    pub is_list: bool,
    /// Whether an allow rule must have it.
    pub presence: Presence,
    /// What a reviewer should know before relying on it, or nothing.
    pub caution: Option<&'static str>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The evidence.
    Claim,
    /// A look at the instance.
    Instance,
}

/// Whether an allow rule must have a field. A deny rule needs any one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Every allow rule has it, and a condition is written: `any` does not exist for it.
    Required,
    /// Every allow rule has it; `any` may be written.
    RequiredOrAny,
    /// May be left out.
    Optional,
}

/// How a field is written in a rule and compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list of account set names or quoted 12-digit numbers; the latter need `partition` in the
    /// rule. Compared with the claims `partition` and `account_id` together.
    Accounts,
    /// One partition.
    Partition,
    /// A list of known regions.
    Regions,
    /// A list of identifiers with this prefix, compared whole; a value that is a list matches if
    /// one of its members does.
    Ids {
        /// For example `ami-`.
        prefix: &'static str,
    },
    /// A name, or a list of names, where `*` stands for any text without these separators.
    Globs {
        /// What `*` never crosses.
        separators: &'static [char],
    },
    /// A map of tag name to exact value, list of values, `present` or `absent`.
    Tags,
    /// A duration: the time read is at most this long ago.
    Age,
    /// A duration: the one read is at most as long. Something without an end is longer than any.
    Span,
    /// A number: the one read is at most as high. Something without a number is beyond any.
    Count,
    /// A list of networks such as `10.0.0.0/8`, of which one has the address read.
    Networks,
    /// `{v2_only: true, max_hop_limit: 1}`: the instance's metadata options.
    MetadataOptions,
}

//! Findings: what is wrong or doubtful in policy files, where, and what to write instead.
//!
//! The codes are a contract like `domain::Code`: append-only, and documented in
//! `docs/findings.md`, which a test compares with this table.

use std::fmt;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::domain::Timestamp;

/// A place in a policy file; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The name of the file in its directory.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Place {
    /// The beginning of a file.
    pub fn start_of(file: &str) -> Self {
        Self { file: file.into(), line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Whether a finding keeps the set from loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The set does not load.
    Error,
    /// The set loads; somebody should look.
    Warning,
}

impl Severity {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Declares the codes: variant, text, severity, and what it means.
macro_rules! finding_codes {
    ($($variant:ident = $text:literal, $severity:ident, $meaning:literal;)*) => {
        /// A stable identifier of one kind of finding.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FindingCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl FindingCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The identifier.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether it keeps the set from loading.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

finding_codes! {
    FileUnexpected = "FILE_UNEXPECTED", Error, "A visible entry that is no `*.yaml` file.";
    FileNotText = "FILE_NOT_TEXT", Error, "A policy file that is not UTF-8.";
    LimitExceeded = "LIMIT_EXCEEDED", Error, "More than muster reads.";
    CharacterNotAllowed = "CHARACTER_NOT_ALLOWED", Error, "A control or direction character.";
    YamlSyntax = "YAML_SYNTAX", Error, "Text that is not YAML.";
    YamlFeature = "YAML_FEATURE", Error, "An alias, anchor, tag, merge key or key of another kind.";
    KeyRepeated = "KEY_REPEATED", Error, "A key that stands twice in one mapping.";
    KeyUnknown = "KEY_UNKNOWN", Error, "A key that means nothing here.";
    KeyMissing = "KEY_MISSING", Error, "A key that must be there.";
    ValueNull = "VALUE_NULL", Error, "A key without a value.";
    ValueEmpty = "VALUE_EMPTY", Error, "A value that is there and empty.";
    ValueType = "VALUE_TYPE", Error, "A list, mapping or scalar where another is meant.";
    ValueInvalid = "VALUE_INVALID", Error, "A value of the wrong form.";
    ValueRepeated = "VALUE_REPEATED", Error, "A value that stands twice in one list.";
    NeedsQuotes = "NEEDS_QUOTES", Error, "Text that YAML may read as something else.";
    ApiVersionUnknown = "API_VERSION_UNKNOWN", Error, "Not a version that this build reads.";
    KindUnknown = "KIND_UNKNOWN", Error, "Not a kind of policy document.";
    NameTaken = "NAME_TAKEN", Error, "Two documents of one kind, or two rules, with one name.";
    NotInThisVersion = "NOT_IN_THIS_VERSION", Error, "Something that comes with a later version.";
    MethodUnknown = "METHOD_UNKNOWN", Error, "Not a join method of this build.";
    RuleEmpty = "RULE_EMPTY", Error, "A rule without any condition.";
    AccountsMissing = "ACCOUNTS_MISSING", Error, "An allow rule that names no accounts.";
    AccountsAny = "ACCOUNTS_ANY", Error, "An allow-list that would admit every account.";
    AccountInvalid = "ACCOUNT_INVALID", Error, "Not a quoted account number of 12 digits.";
    SetUnknown = "SET_UNKNOWN", Error, "The name of no account set.";
    SetCycle = "SET_CYCLE", Error, "Account sets that include each other.";
    SetEmpty = "SET_EMPTY", Error, "An account set in which nothing is left.";
    PartitionMissing = "PARTITION_MISSING", Error, "A literal account without its partition.";
    PartitionMixed = "PARTITION_MIXED", Error, "One rule or set about two partitions.";
    RegionUnknown = "REGION_UNKNOWN", Error, "A region without a known certificate.";
    DocumentTtlMissing = "DOCUMENT_TTL_MISSING", Error, "No fresh proof and no limit of age.";
    DocumentTtlUnused = "DOCUMENT_TTL_UNUSED", Error, "A limit of age that would not apply.";
    DnsNameInvalid = "DNS_NAME_INVALID", Error, "Not a DNS name that a node may have.";
    DnsNameVariable = "DNS_NAME_VARIABLE", Error, "A variable that names may not be made of.";
    FactNeverRead = "FACT_NEVER_READ", Error, "A rule on a fact that a policy never reads.";
    GuardrailsRepeated = "GUARDRAILS_REPEATED", Error, "More than one Guardrails document.";
    GuardrailExceeded = "GUARDRAIL_EXCEEDED", Error, "A policy beyond the Guardrails.";
    PublicationPolicy = "PUBLICATION_POLICY", Error, "A publication for a policy that takes no tokens.";
    ParameterTaken = "PARAMETER_TAKEN", Error, "Two publications that write one parameter.";
    TokenLifeShort = "TOKEN_LIFE_SHORT", Error, "Published tokens that end before the next is there.";

    NoPolicies = "NO_POLICIES", Warning, "There is no join policy: nobody can join.";
    FileEmpty = "FILE_EMPTY", Warning, "A file without a document.";
    OwnerMissing = "OWNER_MISSING", Warning, "Nobody is named to ask.";
    DescriptionMissing = "DESCRIPTION_MISSING", Warning, "Nothing says what a policy is for.";
    LookUpDefault = "LOOK_UP_DEFAULT", Warning, "Nobody looks whether the instance still runs.";
    LookUpUnused = "LOOK_UP_UNUSED", Warning, "A look at the instance that never happens.";
    ExternalIdMissing = "EXTERNAL_ID_MISSING", Warning, "A role that is assumed without an external id.";
    ConditionEvadable = "CONDITION_EVADABLE", Warning, "A condition that others can evade.";
    DnsNameShared = "DNS_NAME_SHARED", Warning, "One DNS name for every node of a tier.";
    PolicyOverlap = "POLICY_OVERLAP", Warning, "A weaker policy admits the same nodes.";
    RuleShadowed = "RULE_SHADOWED", Warning, "An earlier rule already says this.";
    RuleDead = "RULE_DEAD", Warning, "An allow rule that a deny rule always beats.";
    RuleExpired = "RULE_EXPIRED", Warning, "A rule whose `until` is past.";
    RuleEndsSoon = "RULE_ENDS_SOON", Warning, "An allow rule that ends within 14 days.";
    DenyEndsSoon = "DENY_ENDS_SOON", Warning, "A deny rule whose end opens access.";
    SetUnused = "SET_UNUSED", Warning, "An account set that no rule uses.";
    ExceptWithoutEffect = "EXCEPT_WITHOUT_EFFECT", Warning, "An exception that excepts nothing.";
    DenyNotApplicable = "DENY_NOT_APPLICABLE", Warning, "A deny rule some methods cannot judge.";
    RenewalByCertificate = "RENEWAL_BY_CERTIFICATE", Warning, "A renewal without a fresh proof.";
    AnalysisIncomplete = "ANALYSIS_INCOMPLETE", Warning, "Too many rules to compare them all.";
    TestPolicyUnknown = "TEST_POLICY_UNKNOWN", Warning, "A test of a policy that is not there.";
    SuppressionExpired = "SUPPRESSION_EXPIRED", Warning, "A suppression whose `until` is past.";
    SuppressionTooLong = "SUPPRESSION_TOO_LONG", Warning, "A suppression that ends too far ahead.";
    SuppressionUnused = "SUPPRESSION_UNUSED", Warning, "A suppression of nothing.";
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What kind.
    pub code: FindingCode,
    /// What is there.
    pub message: String,
    /// What to write instead.
    pub expected: String,
    /// Why it does not count, if it does not. Never of an error.
    pub suppressed: Option<Suppressed>,
}

/// Why somebody lives with a warning, and until when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Suppressed {
    /// Why.
    pub reason: String,
    /// The last second in which it is suppressed.
    pub until: Timestamp,
}

impl Finding {
    /// Whether it keeps the set from loading.
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }

    /// Whether it counts: an error always, a warning unless it is suppressed.
    pub fn counts(&self) -> bool {
        self.is_error() || self.suppressed.is_none()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]; expected {}", self.place, self.message, self.code, self.expected)?;
        match &self.suppressed {
            Some(Suppressed { reason, until }) => write!(f, "; suppressed until {until}: {reason}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 8)?;
        object.serialize_field("file", &*self.place.file)?;
        object.serialize_field("line", &self.place.line)?;
        object.serialize_field("column", &self.place.column)?;
        object.serialize_field("severity", self.code.severity().as_str())?;
        object.serialize_field("code", self.code.as_str())?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("expected", &self.expected)?;
        object.serialize_field("suppressed", &self.suppressed)?;
        object.end()
    }
}

/// Where findings are gathered while files are read. Bounded, so that a hostile file cannot fill
/// the memory with complaints about itself.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    errors: usize,
    left_out: usize,
}

/// More than anybody mends in one sitting.
const MAX_FINDINGS: usize = 2000;
/// The most findings that say what may have been meant.
const MAX_GUESSES: usize = 100;

impl Report {
    /// Adds a finding.
    pub(super) fn add(
        &mut self,
        code: FindingCode,
        place: &Place,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) {
        // Errors are counted even where they are not kept: a set with one never loads.
        self.errors += usize::from(code.severity() == Severity::Error);
        if self.findings.len() < MAX_FINDINGS {
            let (place, message, expected) = (place.clone(), message.into(), expected.into());
            self.findings.push(Finding { place, code, message, expected, suppressed: None });
        } else {
            self.left_out += 1;
        }
    }

    /// Whether there are so few findings that each is worth a guess at what its author meant. A file
    /// can hold very many names that are none, and each is compared with all that there are.
    pub(super) fn is_short(&self) -> bool {
        self.findings.len() < MAX_GUESSES
    }

    /// Whether every finding was kept.
    pub(super) fn is_whole(&self) -> bool {
        self.left_out == 0
    }

    /// The findings so far, to be marked.
    pub(super) fn findings_mut(&mut self) -> impl Iterator<Item = &mut Finding> {
        self.findings.iter_mut()
    }

    /// Whether something keeps the set from loading.
    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How many errors there are so far.
    pub(super) fn error_count(&self) -> usize {
        self.errors
    }

    /// The findings, in the order of their places.
    pub(super) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort();
        self.findings
    }
}

/// Text from a file as it may stand in a message: short, on one line, without control characters.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().count() > 64 {
        short.push('…');
    }
    format!("`{short}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_upper_snake_and_documented_in_the_order_of_the_table() {
        let documented: Vec<&str> = include_str!("../../docs/findings.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code))
            .collect();
        let codes: Vec<&str> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes, documented, "docs/findings.md and FindingCode differ");
        for code in codes {
            assert!(code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{code}");
        }
    }

    #[test]
    fn an_error_beyond_the_bound_still_keeps_the_set_from_loading() {
        let mut report = Report::default();
        let place = Place::start_of("a.yaml");
        for _ in 0..MAX_FINDINGS {
            report.add(FindingCode::FileEmpty, &place, "", "");
        }
        report.add(FindingCode::YamlSyntax, &place, "", "");
        assert!(report.has_errors());
        assert_eq!(report.into_findings().len(), MAX_FINDINGS);
    }
}

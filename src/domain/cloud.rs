//! What AWS calls things: partitions, accounts, regions, instances.

use std::fmt;
use std::str::FromStr;

use super::text_form;

/// Text that is not the name of a cloud object. The text itself is capped and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found `{}`", escape(.found))]
pub struct InvalidCloudName {
    /// What the text should have been.
    pub expected: &'static str,
    /// What it was, at most 64 characters of it.
    pub found: String,
}

impl InvalidCloudName {
    fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.chars().take(64).collect() }
    }
}

fn escape(text: &str) -> String {
    text.escape_debug().to_string()
}

/// An AWS partition: a set of regions with accounts of their own. The same twelve digits in two
/// partitions are two accounts (T44).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    /// `aws`: the commercial regions.
    Aws,
    /// `aws-cn`: China.
    China,
    /// `aws-us-gov`: `GovCloud` (US).
    GovCloud,
    /// `aws-eusc`: the European Sovereign Cloud.
    EuropeanSovereign,
    /// `aws-iso`.
    Iso,
    /// `aws-iso-b`.
    IsoB,
    /// `aws-iso-e`.
    IsoE,
    /// `aws-iso-f`.
    IsoF,
}

impl Partition {
    /// All partitions, in the order of their names.
    pub const ALL: [Self; 8] = [
        Self::Aws,
        Self::China,
        Self::EuropeanSovereign,
        Self::Iso,
        Self::IsoB,
        Self::IsoE,
        Self::IsoF,
        Self::GovCloud,
    ];

    /// The name as it stands in an ARN.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::China => "aws-cn",
            Self::GovCloud => "aws-us-gov",
            Self::EuropeanSovereign => "aws-eusc",
            Self::Iso => "aws-iso",
            Self::IsoB => "aws-iso-b",
            Self::IsoE => "aws-iso-e",
            Self::IsoF => "aws-iso-f",
        }
    }

    /// The partition that a region's name tells. AWS names regions by partition: `cn-`, `us-gov-`,
    /// `eusc-`, `us-iso-`, `us-isob-`, `eu-isoe-`, `us-isof-`; every other name is `aws`.
    pub fn of_region(region: &Region) -> Self {
        let name = region.as_str();
        [
            ("cn-", Self::China),
            ("us-gov-", Self::GovCloud),
            ("eusc-", Self::EuropeanSovereign),
            ("us-iso-", Self::Iso),
            ("us-isob-", Self::IsoB),
            ("eu-isoe-", Self::IsoE),
            ("us-isof-", Self::IsoF),
            ("eu-isof-", Self::IsoF),
        ]
        .into_iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map_or(Self::Aws, |(_, partition)| partition)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Partition {
    type Err = InvalidCloudName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|partition| partition.as_str() == text).ok_or_else(|| {
            InvalidCloudName::new("a partition such as aws, aws-cn or aws-us-gov", text)
        })
    }
}

text_form!(Partition);

/// An AWS account number: twelve ASCII digits, leading zeros kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(String);

/// A region's name, for example `us-west-2`. That the region exists is for a table to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(String);

/// An EC2 instance id: `i-` and 8 or 17 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(String);

macro_rules! cloud_name {
    ($type:ident, $expected:literal, $is_valid:expr) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $type {
            type Err = InvalidCloudName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidCloudName::new($expected, text))
                }
            }
        }
        text_form!($type);
    };
}

cloud_name!(AccountId, "an account number of 12 digits", |text| {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
});
impl AccountId {
    /// Its digits as a number.
    pub fn number(&self) -> u64 {
        self.0.bytes().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }
}

cloud_name!(Region, "a region such as us-west-2", |text| {
    (4..=32).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.ends_with(|last: char| last.is_ascii_digit())
        && text.contains('-')
        && !text.contains("--")
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
});
cloud_name!(InstanceId, "an instance id such as i-0123456789abcdef0", |text| {
    text.strip_prefix("i-").is_some_and(|digits| {
        matches!(digits.len(), 8 | 17)
            && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_twelve_ascii_digits_and_nothing_else() {
        assert_eq!("012345678901".parse::<AccountId>().unwrap().as_str(), "012345678901");
        for wrong in ["", "12345678901", "1234567890123", " 12345678901", "12345678901a", "١٢٣٤٥٦"]
        {
            assert!(wrong.parse::<AccountId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_account_is_known_by_its_number_too() {
        let texts =
            ["000000000000", "000000000001", "012345678901", "100000000000", "999999999999"];
        let numbers = texts.map(|text| text.parse::<AccountId>().unwrap().number());
        assert_eq!(numbers, [0, 1, 12_345_678_901, 100_000_000_000, 999_999_999_999]);
    }

    #[test]
    fn a_region_tells_its_partition() {
        for (region, partition) in [
            ("us-west-2", Partition::Aws),
            ("cn-north-1", Partition::China),
            ("us-gov-west-1", Partition::GovCloud),
            ("eusc-de-east-1", Partition::EuropeanSovereign),
            ("us-isob-east-1", Partition::IsoB),
        ] {
            assert_eq!(Partition::of_region(&region.parse().unwrap()), partition, "{region}");
        }
    }

    #[test]
    fn names_with_path_characters_are_no_names() {
        for wrong in ["us-west-2/", "../a-1", "us west-1", "US-WEST-2", "us-west-2\n", "us--west-2"]
        {
            assert!(wrong.parse::<Region>().is_err(), "{wrong:?}");
        }
        for wrong in ["i-", "i-0123456789abcdef", "i-0123456789ABCDEF0", "i-0123456789abcdef0/x"] {
            assert!(wrong.parse::<InstanceId>().is_err(), "{wrong:?}");
        }
        assert!("i-0123abcd".parse::<InstanceId>().is_ok());
    }
}

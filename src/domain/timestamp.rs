//! Points in time and spans of it, in whole seconds.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::text_form;

/// Text that is not a time or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct InvalidTime {
    /// What the text should have been.
    pub expected: &'static str,
}

/// A point in time: whole seconds since 1970-01-01T00:00:00Z, written as RFC 3339 UTC with `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest time that can be written with four digits of year.
    const MIN_SECONDS: i64 = 0;
    /// 9999-12-31T23:59:59Z, the last one that an X.509 certificate can say.
    const MAX_SECONDS: i64 = 253_402_300_799;

    /// From seconds since 1970, held within the years 1970 to 9999.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        if seconds < Self::MIN_SECONDS {
            Self(Self::MIN_SECONDS)
        } else if seconds > Self::MAX_SECONDS {
            Self(Self::MAX_SECONDS)
        } else {
            Self(seconds)
        }
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub const fn unix_seconds(self) -> i64 {
        self.0
    }

    /// Later by `span`.
    #[must_use]
    pub const fn plus(self, span: Lifetime) -> Self {
        Self::from_unix_seconds(self.0.saturating_add(span.0))
    }

    /// Earlier by `span`.
    #[must_use]
    pub const fn minus(self, span: Lifetime) -> Self {
        Self::from_unix_seconds(self.0.saturating_sub(span.0))
    }

    /// How long ago `earlier` was; zero if it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Lifetime {
        let seconds = self.0.saturating_sub(earlier.0);
        Lifetime(if seconds < 0 { 0 } else { seconds })
    }

    /// As a calendar date, for certificates.
    pub fn to_date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.0).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_date_time().format(&Rfc3339).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: InvalidTime =
            InvalidTime { expected: "a time such as 2026-12-31T00:00:00Z (RFC 3339, UTC with Z)" };
        if !text.ends_with('Z') {
            return Err(EXPECTED);
        }
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| EXPECTED)?;
        let seconds = parsed.unix_timestamp();
        if (Self::MIN_SECONDS..=Self::MAX_SECONDS).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(EXPECTED)
        }
    }
}

text_form!(Timestamp);

/// A span of time: whole seconds, never negative, written as a number and `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(i64);

impl Lifetime {
    /// From seconds.
    pub const fn from_seconds(seconds: u32) -> Self {
        Self(seconds as i64)
    }

    /// From minutes.
    pub const fn from_minutes(minutes: u32) -> Self {
        Self(minutes as i64 * 60)
    }

    /// From hours.
    pub const fn from_hours(hours: u32) -> Self {
        Self(hours as i64 * 3600)
    }

    /// From days.
    pub const fn from_days(days: u32) -> Self {
        Self(days as i64 * 86_400)
    }

    /// In seconds.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// A part of this span.
    #[must_use]
    pub const fn fraction(self, numerator: i64, denominator: i64) -> Self {
        Self(self.0.saturating_mul(numerator) / denominator)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0;
        match seconds {
            0 => f.write_str("0s"),
            _ if seconds % 86_400 == 0 => write!(f, "{}d", seconds / 86_400),
            _ if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
            _ if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}

impl FromStr for Lifetime {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: InvalidTime =
            InvalidTime { expected: "a duration such as 90s, 5m, 12h or 7d" };
        let unit = text.chars().next_back().ok_or(EXPECTED)?;
        let digits = text.strip_suffix(unit).ok_or(EXPECTED)?;
        let seconds_per_unit: i64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(EXPECTED),
        };
        if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EXPECTED);
        }
        let count: i64 = digits.parse().map_err(|_| EXPECTED)?;
        Ok(Self(count * seconds_per_unit))
    }
}

text_form!(Lifetime);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let time: Timestamp = "2021-09-03T21:25:44Z".parse().unwrap();
        assert_eq!(time.to_string(), "2021-09-03T21:25:44Z");
        for wrong in ["2021-09-03T21:25:44+00:00", "2021-09-03", "", "Z", "0001-01-01T00:00:00Z"] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        assert_eq!("12h".parse::<Lifetime>().unwrap(), Lifetime::from_hours(12));
        assert_eq!(Lifetime::from_minutes(90).to_string(), "90m");
        for wrong in ["", "h", "12", "1.5h", "-1h", "12 h", "12H", "9999999999s", "1h30m"] {
            assert!(wrong.parse::<Lifetime>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn arithmetic_stays_within_the_calendar() {
        let last = Timestamp::from_unix_seconds(i64::MAX);
        assert_eq!(last.plus(Lifetime::from_days(1)), last);
        assert_eq!(last.to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::from_unix_seconds(-5).unix_seconds(), 0);
    }
}

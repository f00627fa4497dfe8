//! Names with `*`: any text without the field's separators. Nothing else is special, and nothing in
//! the *value* is ever special (I13, T11).

use std::fmt;

/// A pattern that was checked when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    pattern: String,
    separators: &'static [char],
}

/// Characters that other tools give a meaning; a pattern with one would not do what it seems to.
const LOOK_SPECIAL: &[char] = &['?', '[', ']', '{', '}', '\\', '!', '|', ','];

impl Glob {
    /// A pattern, or what to write instead.
    pub(super) fn new(pattern: &str, separators: &'static [char]) -> Result<Self, &'static str> {
        if pattern.chars().count() > 256 {
            Err("a name of at most 256 characters")
        } else if pattern.chars().all(|character| character == '*') {
            Err("a name; `*` alone is no condition: leave the field out")
        } else if pattern.contains("**") {
            Err("one `*` for any text; `**` means nothing more")
        } else if pattern.chars().any(char::is_control) {
            Err("a name without control characters")
        } else if pattern.contains(LOOK_SPECIAL) {
            Err("a name in which only `*` is special; write several names as a list")
        } else {
            Ok(Self { pattern: pattern.to_owned(), separators })
        }
    }

    /// Whether `value`, taken literally, is one of the names.
    pub(super) fn matches(&self, value: &str) -> bool {
        let Some((first, rest)) = self.pattern.split_once('*') else {
            return self.pattern == value;
        };
        let Some(mut value) = value.strip_prefix(first) else { return false };
        let mut segments = rest.split('*').peekable();
        while let Some(segment) = segments.next() {
            let found = if segments.peek().is_none() {
                value.strip_suffix(segment).map(|skipped| (skipped, ""))
            } else {
                value.split_once(segment)
            };
            // The earliest place is enough: what a later one would skip, the next `*` can skip too,
            // because no `*` can cross a separator.
            match found {
                Some((skipped, after)) if !skipped.contains(self.separators) => value = after,
                Some(_) | None => return false,
            }
        }
        true
    }

    /// Whether every name of `other` is one of this pattern's.
    pub(super) fn covers(&self, other: &Self) -> bool {
        // A `*` of `other` that falls into a `*` here is covered, whatever it stands for.
        self == other || (self.separators == other.separators && self.matches(&other.pattern))
    }

    /// Whether some name may be one of both. Says yes where it is not sure.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        match (self.is_literal(), other.is_literal()) {
            (true, _) => other.matches(&self.pattern),
            (_, true) => self.matches(&other.pattern),
            (false, false) => {
                let (start, end) = self.ends();
                let (other_start, other_end) = other.ends();
                (start.starts_with(other_start) || other_start.starts_with(start))
                    && (end.ends_with(other_end) || other_end.ends_with(end))
            }
        }
    }

    /// What `*` never crosses.
    pub(super) fn separators(&self) -> &'static [char] {
        self.separators
    }

    fn is_literal(&self) -> bool {
        !self.pattern.contains('*')
    }

    /// What stands before the first and after the last `*`.
    fn ends(&self) -> (&str, &str) {
        let start = self.pattern.split('*').next().unwrap_or_default();
        let end = self.pattern.rsplit('*').next().unwrap_or_default();
        (start, end)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEPARATORS: &[char] = &['/', ':'];

    fn glob(pattern: &str) -> Glob {
        Glob::new(pattern, SEPARATORS).unwrap()
    }

    #[test]
    fn a_star_stands_for_any_text_without_separators() {
        for (pattern, value, expected) in [
            ("web-*", "web-1", true),
            ("web-*", "web-", true),
            ("web-*", "web", false),
            ("web-*", "web-a/admin", false),
            ("web-*", "web-a:admin", false),
            ("*-web", "shop-web", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "ac", false),
            ("a*b*c", "abbc", true),
            ("*ab*ab", "ab", false),
            ("a*a", "a", false),
            ("path/*", "path/x", true),
            ("*/x*", "a/x/x1", false),
            ("web", "web", true),
            ("web", "web1", false),
        ] {
            assert_eq!(glob(pattern).matches(value), expected, "{pattern} {value}");
        }
    }

    // T11: what looks special in a value is text.
    #[test]
    fn metacharacters_of_a_value_are_literals() {
        for value in ["*", "web-*", "web-?", "web,admin", "web+", "web-[a]", ".*"] {
            assert!(!glob("web-a").matches(value), "{value}");
            assert!(!glob("web-1*").matches(value), "{value}");
        }
    }

    #[test]
    fn patterns_that_promise_more_than_a_star_are_refused() {
        for pattern in ["*", "***", "a**b", "web-?", "web-[12]", "{a,b}", "a|b", "a\\*", "a\nb"] {
            assert!(Glob::new(pattern, SEPARATORS).is_err(), "{pattern}");
        }
    }

    #[test]
    fn covering_is_never_claimed_wrongly() {
        assert!(glob("web-*").covers(&glob("web-a*")));
        assert!(!glob("web-a*").covers(&glob("web-*")));
        assert!(!glob("web-*").covers(&glob("web-a/*")));
        assert!(!glob("web-*").may_meet(&glob("db-*")));
        assert!(glob("web-*").may_meet(&glob("*-db")));
        // Of a name without a star it is known exactly.
        assert!(!glob("web-*").may_meet(&glob("web-a/b")));
        assert!(!glob("web-a/b").may_meet(&glob("web-*")));
    }

    /// The obvious definition, slow.
    fn slow(pattern: &[char], value: &[char]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), None) => slow(rest, value),
            (Some(('*', rest)), Some((first, after))) => {
                slow(rest, value) || (!SEPARATORS.contains(first) && slow(pattern, after))
            }
            (Some((p, rest)), Some((v, after))) => p == v && slow(rest, after),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab/*]{1,8}", value in "[ab/*]{0,10}") {
            let Ok(glob) = Glob::new(&pattern, SEPARATORS) else { return Ok(()) };
            let chars: Vec<char> = pattern.chars().collect();
            let value_chars: Vec<char> = value.chars().collect();
            prop_assert_eq!(glob.matches(&value), slow(&chars, &value_chars));
        }

        #[test]
        fn what_is_covered_matches_too(
            wide in "[ab/*]{1,6}", narrow in "[ab/*]{1,6}", value in "[ab/]{0,8}",
        ) {
            let (Ok(wide), Ok(narrow)) =
                (Glob::new(&wide, SEPARATORS), Glob::new(&narrow, SEPARATORS)) else { return Ok(()) };
            if wide.covers(&narrow) && narrow.matches(&value) {
                prop_assert!(wide.matches(&value));
            }
            if wide.matches(&value) && narrow.matches(&value) {
                prop_assert!(wide.may_meet(&narrow));
            }
        }
    }
}

//! Text of others in our own messages.

/// The most characters that are quoted of a message that is not ours.
const QUOTED_CHARS_MAX: usize = 200;

/// The first 200 characters on one line, without anything that does not print.
pub fn quoted(text: &str) -> String {
    let printable = |c: char| if c.is_control() || is_invisible(c) { ' ' } else { c };
    text.trim().chars().map(printable).take(QUOTED_CHARS_MAX).collect()
}

/// An error and its causes: the outermost one alone seldom says what happened.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Marks that turn the direction of text or take no room: they make logs lie.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_short_and_prints() {
        assert_eq!(quoted(" a\r\nb\u{1b}[31m\u{202e}c "), "a  b [31m c");
        assert_eq!(quoted(&"é".repeat(1_000)).chars().count(), 200);
    }
}

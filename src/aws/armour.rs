//! Text between `-----BEGIN …-----` and `-----END …-----` (RFC 7468), and bare base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Text that is not armoured as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidArmour {
    /// Characters between the lines are not base64.
    #[error("the text is not base64")]
    NotBase64,
    /// A BEGIN line without its END line.
    #[error("a `-----BEGIN` line has no `-----END` line of the same label")]
    Unfinished,
    /// A block of another kind.
    #[error("expected {expected} and nothing else")]
    Label {
        /// The labels that may stand there.
        expected: &'static str,
    },
}

/// The signed message in text: base64 with any line breaks, alone or between `PKCS7` or `CMS`
/// lines. `text` is attacker-controlled and bounded by the caller.
pub fn message_of_text(text: &str) -> Result<Vec<u8>, InvalidArmour> {
    let text = text.trim();
    if !text.starts_with("-----BEGIN ") {
        return base64(text);
    }
    let expected = "one block of label `PKCS7` or `CMS`";
    let mut blocks = blocks(text, &["PKCS7", "CMS"], expected)?;
    match (blocks.pop(), blocks.is_empty() && text.ends_with("-----")) {
        (Some(message), true) => Ok(message),
        _ => Err(InvalidArmour::Label { expected }),
    }
}

/// One block of this label, with the line length of RFC 7468.
pub(super) fn block(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for (place, character) in STANDARD.encode(der).chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text + "\n-----END " + label + "-----\n"
}

/// Decodes base64 with any ASCII white space in it.
pub(super) fn base64(text: &str) -> Result<Vec<u8>, InvalidArmour> {
    let dense: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(dense).map_err(|_| InvalidArmour::NotBase64)
}

/// The decoded blocks of `text`, each of one of these labels. What stands outside of blocks is
/// explanatory text and is skipped (RFC 7468 section 2).
pub(super) fn blocks(
    text: &str,
    labels: &[&str],
    expected: &'static str,
) -> Result<Vec<Vec<u8>>, InvalidArmour> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----").ok_or(InvalidArmour::Unfinished)?;
        if !labels.contains(&label) {
            return Err(InvalidArmour::Label { expected });
        }
        let (body, after) =
            after.split_once(&format!("-----END {label}-----")).ok_or(InvalidArmour::Unfinished)?;
        found.push(base64(body)?);
        rest = after;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_with_text_around_them() {
        let text = "subject: x\n-----BEGIN A-----\nAQID\n-----END A-----\n\n-----BEGIN A-----\r\nBA==\r\n-----END A-----";
        assert_eq!(blocks(text, &["A"], "A").unwrap(), [vec![1, 2, 3], vec![4]]);
        assert_eq!(blocks("no block", &["A"], "A").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_block_that_is_written_is_read() {
        for der in [vec![7; 1], vec![7; 48], vec![7; 49], vec![7; 1000]] {
            let text = block("A", &der);
            assert!(text.lines().all(|line| line.len() <= 64 && !line.is_empty()), "{text}");
            assert_eq!(blocks(&text, &["A"], "A").unwrap(), [der]);
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        for text in [
            "-----BEGIN A-----\nAQID\n",
            "-----BEGIN A",
            "-----BEGIN A-----\nAQID\n-----END B-----",
            "-----BEGIN A-----\n!!\n-----END A-----",
            "-----BEGIN A-----\nAQID-----BEGIN A-----AQID\n-----END A-----",
            "-----BEGIN B-----\nAQID\n-----END B-----",
        ] {
            assert!(blocks(text, &["A"], "A").is_err(), "{text}");
        }
    }
}

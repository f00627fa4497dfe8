//! BER to DER, for messages from strangers: AWS signs documents in indefinite-length BER with a
//! constructed octet string, and every DER parser refuses them.
//!
//! Only lengths and the one constructed string are rewritten; values are never looked at. All work
//! is bounded before it is done (I14).

/// The most bytes that are read. A genuine document has about 1.1 KiB.
pub(super) const MAX_BYTES: usize = 16 * 1024;
/// The most nested elements. A genuine document nests nine deep.
const MAX_DEPTH: usize = 16;
/// The most elements in all. A genuine document has about sixty.
const MAX_NODES: usize = 512;

const OCTET_STRING: u8 = 0x04;
const CONSTRUCTED: u8 = 0x20;
const CONSTRUCTED_OCTET_STRING: u8 = OCTET_STRING | CONSTRUCTED;
const END_OF_CONTENTS: u8 = 0x00;
/// Tag numbers from 31 take more than one byte (X.690 section 8.1.2.4).
const HIGH_TAG_NUMBER: u8 = 0x1f;

/// Bytes that are not one element of bounded BER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBer {
    /// More than 16 KiB.
    #[error("the message is longer than 16 KiB")]
    TooLarge,
    /// Ends inside an element.
    #[error("the message ends too early")]
    Truncated,
    /// Goes on after its one element.
    #[error("bytes follow the message")]
    TrailingBytes,
    /// Nested more than 16 deep.
    #[error("the message is nested more than 16 deep")]
    TooDeep,
    /// More than 512 elements.
    #[error("the message has more than 512 elements")]
    TooManyElements,
    /// A tag of several bytes, or an end-of-contents mark where none can stand.
    #[error("the message has a tag that no signed document has")]
    Tag,
    /// A length of more than two bytes, or a primitive element without one.
    #[error("the message has a length that no signed document has")]
    Length,
    /// A constructed octet string of anything but primitive octet strings.
    #[error("the message has an octet string of parts that are not octet strings")]
    StringParts,
}

/// Rewrites one BER element with definite, minimal lengths and joined octet strings.
///
/// `ber` is attacker-controlled.
pub(super) fn to_der(ber: &[u8]) -> Result<Vec<u8>, InvalidBer> {
    if ber.len() > MAX_BYTES {
        return Err(InvalidBer::TooLarge);
    }
    let mut reader = Reader { rest: ber, nodes: 0 };
    let mut der = Vec::with_capacity(ber.len());
    let header = reader.header()?;
    reader.element(header, 0, &mut der)?;
    if reader.rest.is_empty() { Ok(der) } else { Err(InvalidBer::TrailingBytes) }
}

#[derive(Clone, Copy)]
struct Header {
    tag: u8,
    /// `None` is the indefinite form.
    length: Option<usize>,
}

struct Reader<'a> {
    rest: &'a [u8],
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, InvalidBer> {
        let (first, rest) = self.rest.split_first().ok_or(InvalidBer::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], InvalidBer> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(InvalidBer::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn header(&mut self) -> Result<Header, InvalidBer> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(InvalidBer::TooManyElements);
        }
        let tag = self.byte()?;
        if tag & HIGH_TAG_NUMBER == HIGH_TAG_NUMBER || tag == END_OF_CONTENTS {
            return Err(InvalidBer::Tag);
        }
        let length = match self.byte()? {
            short @ 0..=0x7f => Some(usize::from(short)),
            0x80 => None,
            0x81 => Some(usize::from(self.byte()?)),
            0x82 => Some(usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]))),
            _ => return Err(InvalidBer::Length),
        };
        Ok(Header { tag, length })
    }

    /// Writes the element whose header was just read.
    fn element(
        &mut self,
        header: Header,
        depth: usize,
        der: &mut Vec<u8>,
    ) -> Result<(), InvalidBer> {
        if header.tag & CONSTRUCTED == 0 {
            let length = header.length.ok_or(InvalidBer::Length)?;
            return write(header.tag, self.take(length)?, der);
        }
        if depth >= MAX_DEPTH {
            return Err(InvalidBer::TooDeep);
        }
        let mut contents = Vec::new();
        if let Some(length) = header.length {
            let mut inner = Reader { rest: self.take(length)?, nodes: self.nodes };
            while !inner.rest.is_empty() {
                inner.part(header.tag, depth, &mut contents)?;
            }
            self.nodes = inner.nodes;
        } else {
            while self.rest.first() != Some(&END_OF_CONTENTS) {
                self.part(header.tag, depth, &mut contents)?;
            }
            if self.take(2)? != [END_OF_CONTENTS, 0] {
                return Err(InvalidBer::Tag);
            }
        }
        let tag = if header.tag == CONSTRUCTED_OCTET_STRING { OCTET_STRING } else { header.tag };
        write(tag, &contents, der)
    }

    /// Writes one element inside a constructed one; of an octet string's part only the value.
    fn part(&mut self, parent: u8, depth: usize, der: &mut Vec<u8>) -> Result<(), InvalidBer> {
        let header = self.header()?;
        if parent != CONSTRUCTED_OCTET_STRING {
            return self.element(header, depth + 1, der);
        }
        match header {
            Header { tag: OCTET_STRING, length: Some(length) } => {
                der.extend_from_slice(self.take(length)?);
                Ok(())
            }
            _ => Err(InvalidBer::StringParts),
        }
    }
}

/// Writes tag, minimal length and contents (X.690 section 10.1).
fn write(tag: u8, contents: &[u8], der: &mut Vec<u8>) -> Result<(), InvalidBer> {
    let length = u16::try_from(contents.len()).map_err(|_| InvalidBer::Length)?;
    let [high, low] = length.to_be_bytes();
    der.push(tag);
    match length {
        0..=0x7f => der.push(low),
        0x80..=0xff => der.extend_from_slice(&[0x81, low]),
        0x100.. => der.extend_from_slice(&[0x82, high, low]),
    }
    der.extend_from_slice(contents);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indefinite_lengths_and_split_strings_become_der() {
        let ber = b"\x30\x80\x24\x80\x04\x02ab\x04\x01c\x00\x00\x02\x81\x01\x05\x00\x00";
        assert_eq!(to_der(ber).unwrap(), b"\x30\x08\x04\x03abc\x02\x01\x05");
    }

    #[test]
    fn der_is_left_as_it_is() {
        let mut der = vec![0x30, 0x82, 0x01, 0x04, 0x04, 0x82, 0x01, 0x00];
        der.extend_from_slice(&[7; 256]);
        assert_eq!(to_der(&der).unwrap(), der);
    }

    // T42: each bound and each form that AWS never sends.
    #[test]
    fn hostile_encodings_are_refused_by_name() {
        for (ber, expected) in [
            (&b""[..], InvalidBer::Truncated),
            (b"\x30", InvalidBer::Truncated),
            (b"\x30\x05\x02\x01\x01", InvalidBer::Truncated),
            (b"\x30\x80\x02\x01\x01", InvalidBer::Truncated),
            (b"\x30\x80\x02\x01\x01\x00", InvalidBer::Truncated),
            (b"\x30\x03\x02\x05\x01", InvalidBer::Truncated),
            (b"\x30\x00\x00", InvalidBer::TrailingBytes),
            (b"\x30\x80\x00\x00\x00\x00", InvalidBer::TrailingBytes),
            (b"\x30\x02\x00\x00", InvalidBer::Tag),
            (b"\x30\x80\x00\x01", InvalidBer::Tag),
            (b"\x3f\x81\x01\x00", InvalidBer::Tag),
            (b"\x04\x80\x00\x00", InvalidBer::Length),
            (b"\x30\x83\x00\x00\x00", InvalidBer::Length),
            (b"\x30\xff", InvalidBer::Length),
            (b"\x24\x80\x02\x01a\x00\x00", InvalidBer::StringParts),
            (b"\x24\x80\x24\x80\x00\x00\x00\x00", InvalidBer::StringParts),
            (b"\x24\x80\x04\x80\x00\x00\x00\x00", InvalidBer::StringParts),
        ] {
            assert_eq!(to_der(ber), Err(expected), "{}", hex::encode(ber));
        }
    }

    // T42, T35: depth, elements and bytes are counted before anything is done with them.
    #[test]
    fn bombs_end_at_their_bound() {
        assert_eq!(to_der(&[0x30, 0x80].repeat(1_000)), Err(InvalidBer::TooDeep));
        assert_eq!(to_der(&nested(MAX_DEPTH + 1)), Err(InvalidBer::TooDeep));
        assert!(to_der(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(to_der(&flat(MAX_NODES)), Err(InvalidBer::TooManyElements));
        assert!(to_der(&flat(MAX_NODES - 1)).is_ok());
        assert_eq!(to_der(&vec![0x30; MAX_BYTES + 1]), Err(InvalidBer::TooLarge));
    }

    fn nested(depth: usize) -> Vec<u8> {
        let mut ber = [0x30, 0x80].repeat(depth);
        ber.extend(std::iter::repeat_n(0, 2 * depth));
        ber
    }

    fn flat(children: usize) -> Vec<u8> {
        let mut ber = vec![0x30, 0x80];
        ber.extend([0x05, 0x00].repeat(children));
        ber.extend([0, 0]);
        ber
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_answer_and_der_stays_der(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)
        ) {
            if let Ok(der) = to_der(&bytes) {
                proptest::prop_assert!(der.len() <= 2 * bytes.len());
                proptest::prop_assert_eq!(to_der(&der), Ok(der.clone()));
            }
        }
    }
}

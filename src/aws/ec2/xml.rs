//! XML from a stranger as a small tree: bounded, and without what no answer of AWS has, such as
//! document types, comments, CDATA and processing instructions (T49).

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// How deep elements may nest. `DescribeInstances` nests about twelve deep.
const DEPTH_MAX: usize = 32;
/// The most elements in all; an instance has a few hundred.
const ELEMENTS_MAX: usize = 300_000;
/// The longest text of one element, in bytes; an error that names 200 ids has about 5 KiB.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Why XML, or what it says, is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDescriptions(pub(super) &'static str);

/// An element with its text or its children; attributes are dropped.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The one root of a document.
    pub(super) fn parse(body: &[u8]) -> Result<Self, InvalidDescriptions> {
        let text = std::str::from_utf8(body).map_err(|_| InvalidDescriptions("not UTF-8"))?;
        let mut reader = Reader::from_str(text);
        let mut tree = Tree::default();
        loop {
            let event = reader.read_event().map_err(|_| InvalidDescriptions("broken XML"))?;
            match event {
                Event::Start(start) => tree.open(&start)?,
                Event::End(_) => tree.close()?,
                Event::Empty(start) => {
                    tree.open(&start)?;
                    tree.close()?;
                }
                Event::Text(text) => tree.text(&text.xml10_content())?,
                Event::GeneralRef(reference) => tree.reference(&reference)?,
                Event::Decl(declaration) => {
                    let encoding = declaration.encoding().transpose();
                    let encoding = encoding.map_err(|_| InvalidDescriptions("broken XML"))?;
                    if encoding.is_some_and(|name| !name.eq_ignore_ascii_case("utf-8")) {
                        return Err(InvalidDescriptions("XML in another encoding"));
                    }
                    tree.declaration()?;
                }
                Event::Eof => return tree.finish(),
                Event::CData(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {
                    return Err(InvalidDescriptions("XML of a kind that AWS never sends"));
                }
            }
        }
    }

    /// The child of this name, of which there is at most one.
    pub(super) fn one(&self, name: &str) -> Result<Option<&Self>, InvalidDescriptions> {
        let mut found = self.children.iter().filter(|child| child.name == name);
        match (found.next(), found.next()) {
            (child, None) => Ok(child),
            (_, Some(_)) => Err(InvalidDescriptions("an element that stands once stands twice")),
        }
    }

    /// The text of the child of this name; `None` if it is missing or empty.
    pub(super) fn text_of(&self, name: &str) -> Result<Option<&str>, InvalidDescriptions> {
        match self.one(name)? {
            Some(child) if !child.children.is_empty() => {
                Err(InvalidDescriptions("an element has others where its text should be"))
            }
            Some(child) => Ok(Some(child.text.as_str()).filter(|text| !text.is_empty())),
            None => Ok(None),
        }
    }

    /// The `item` children of the child of this name, at most `most` of them.
    pub(super) fn items(
        &self,
        name: &str,
        most: usize,
    ) -> Result<impl Iterator<Item = &Self>, InvalidDescriptions> {
        let items = self.one(name)?.map(|list| list.children.as_slice()).unwrap_or_default();
        if items.len() > most {
            return Err(InvalidDescriptions("a list is longer than AWS allows"));
        }
        if items.iter().any(|item| item.name != "item") {
            return Err(InvalidDescriptions("a list has something else than items"));
        }
        Ok(items.iter())
    }
}

#[derive(Default)]
struct Tree {
    open: Vec<Element>,
    root: Option<Element>,
    elements: usize,
    has_begun: bool,
}

impl Tree {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), InvalidDescriptions> {
        self.has_begun = true;
        self.elements += 1;
        if self.elements > ELEMENTS_MAX || self.open.len() >= DEPTH_MAX {
            return Err(InvalidDescriptions("more or deeper elements than any answer has"));
        }
        if self.root.is_some() {
            return Err(InvalidDescriptions("two roots"));
        }
        if start.attributes().any(|attribute| attribute.is_err()) {
            return Err(InvalidDescriptions("broken XML"));
        }
        if let Some(parent) = self.open.last_mut() {
            if !parent.text.trim().is_empty() {
                return Err(InvalidDescriptions("text beside elements"));
            }
            // Blanks are looked at once, and not again before each of very many children.
            parent.text.clear();
        }
        let name = start.name().as_ref().to_owned();
        self.open.push(Element { name, ..Element::default() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), InvalidDescriptions> {
        let mut element = self.open.pop().ok_or(InvalidDescriptions("broken XML"))?;
        if !element.children.is_empty() {
            element.text.clear();
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), InvalidDescriptions> {
        self.has_begun = true;
        let is_blank = text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'));
        match self.open.last_mut() {
            Some(element) if element.children.is_empty() || is_blank => {
                if element.text.len() + text.len() > TEXT_BYTES_MAX {
                    return Err(InvalidDescriptions("a text is longer than any answer has"));
                }
                element.text.push_str(text);
                Ok(())
            }
            None if is_blank => Ok(()),
            Some(_) => Err(InvalidDescriptions("text beside elements")),
            None => Err(InvalidDescriptions("text outside of the root")),
        }
    }

    /// A character by number, or one of the five names that XML itself has. An answer cannot
    /// declare others: it has no document type.
    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), InvalidDescriptions> {
        const UNKNOWN: InvalidDescriptions = InvalidDescriptions("an unknown entity");
        let character = match reference.resolve_char_ref() {
            Ok(Some(character)) if is_xml_character(character) => character,
            Ok(None) => match &*reference.xml10_content() {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "apos" => '\'',
                "quot" => '"',
                _ => return Err(UNKNOWN),
            },
            Ok(Some(_)) | Err(_) => return Err(UNKNOWN),
        };
        if self.open.is_empty() {
            return Err(InvalidDescriptions("text outside of the root"));
        }
        self.text(character.encode_utf8(&mut [0; 4]))
    }

    fn declaration(&mut self) -> Result<(), InvalidDescriptions> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Err(InvalidDescriptions("an XML declaration that is not at the start"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Element, InvalidDescriptions> {
        match self.root {
            Some(root) if self.open.is_empty() => Ok(root),
            Some(_) | None => Err(InvalidDescriptions("the XML is cut off, or empty")),
        }
    }
}

/// XML 1.0 section 2.2.
fn is_xml_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

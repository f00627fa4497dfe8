//! YAML to a tree in which every node knows its place. Much of YAML is refused on purpose:
//! aliases, anchors, tags, merge keys and repeated keys make a file say more than a reviewer sees.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use super::finding::{FindingCode, Place, Report, quoted};

/// The largest policy file.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The deepest nesting; a policy needs six levels.
const MAX_DEPTH: usize = 16;
/// More than the largest file of accounts has.
const MAX_NODES: usize = 200_000;

/// A node and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Content {
    /// A scalar. `is_plain` tells text without quotes, which YAML may read as something else.
    Scalar { text: String, is_plain: bool },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file, without repeated keys.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) text: String,
    pub(super) is_plain: bool,
}

impl Node {
    /// Whether YAML reads this as null.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, is_plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value of a key, if this is a mapping that has it.
    pub(super) fn value(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Mapping(entries) => {
                entries.iter().find(|(found, _)| found.text == key).map(|(_, value)| value)
            }
            Content::Scalar { .. } | Content::Sequence(_) => None,
        }
    }

    /// What this is, for messages.
    pub(super) fn describe(&self) -> String {
        match &self.content {
            Content::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Content::Scalar { text, .. } => quoted(text),
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// Reads the documents of a file. What is wrong goes to the report; then nothing of the file is
/// returned. `text` may be anything.
pub(super) fn parse(file: &str, text: &str, report: &mut Report) -> Vec<Node> {
    let start = Place::start_of(file);
    if text.len() > MAX_FILE_BYTES {
        report.add(
            FindingCode::LimitExceeded,
            &start,
            format!("the file has {} bytes", text.len()),
            "at most 1 MiB a file: split it",
        );
        return Vec::new();
    }
    if let Some(place) = forbidden_character(&start, text) {
        report.add(
            FindingCode::CharacterNotAllowed,
            &place,
            "a control or text-direction character, which hides from reviewers what a file says",
            "visible characters only",
        );
        return Vec::new();
    }
    let mut builder = Builder { start, parser: Parser::new_from_str(text), nodes: 0, report };
    builder.documents().unwrap_or_default()
}

/// The place of the first character that a reviewer would not see.
fn forbidden_character(start: &Place, text: &str) -> Option<Place> {
    let mut place = start.clone();
    for (index, character) in text.chars().enumerate() {
        let is_late_mark = character == '\u{feff}' && index > 0;
        if is_hidden(character) || is_late_mark {
            return Some(place);
        }
        if character == '\n' {
            place.line += 1;
            place.column = 1;
        } else {
            place.column += 1;
        }
    }
    None
}

/// Whether a reader does not see this character, or sees others in another order because of it.
pub fn is_hidden(character: char) -> bool {
    let is_control = character.is_control() && !matches!(character, '\n' | '\r' | '\t');
    is_control
        || matches!(character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Already reported: the file is left.
struct Refused;

struct Builder<'i, 'r> {
    start: Place,
    parser: Parser<'i, StrInput<'i>>,
    nodes: usize,
    report: &'r mut Report,
}

impl<'i> Builder<'i, '_> {
    fn documents(&mut self) -> Result<Vec<Node>, Refused> {
        let mut documents = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd => {}
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => {
                    if let Some(document) = self.node(event, span, 0)? {
                        documents.push(document);
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'i>, Span), Refused> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let place = self.place(*error.marker());
                Err(self.refuse(
                    FindingCode::YamlSyntax,
                    &place,
                    error.info(),
                    "YAML 1.2: spaces for indentation, `key: value`, quotes that end",
                ))
            }
            None => Err(Refused),
        }
    }

    /// The node that begins with `event`, or nothing if the event ends a collection.
    fn node(
        &mut self,
        event: Event<'i>,
        span: Span,
        depth: usize,
    ) -> Result<Option<Node>, Refused> {
        let place = self.place(span.start);
        self.nodes += usize::from(!matches!(event, Event::SequenceEnd | Event::MappingEnd));
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            let found = if depth > MAX_DEPTH { "nested too deeply" } else { "too many values" };
            let expected = "at most 16 levels and 200,000 values a file";
            return Err(self.refuse(FindingCode::LimitExceeded, &place, found, expected));
        }
        let content = match event {
            Event::Alias(_) => return Err(self.feature(&place, "an alias (`*name`)")),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                return Err(self.feature(&place, "an anchor (`&name`)"));
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(self.feature(&place, "a tag (`!name`)"));
            }
            Event::Scalar(text, style, ..) => Content::Scalar {
                text: text.into_owned(),
                is_plain: matches!(style, ScalarStyle::Plain),
            },
            Event::SequenceStart(..) => Content::Sequence(self.sequence(depth)?),
            Event::MappingStart(..) => Content::Mapping(self.mapping(depth)?),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Ok(None),
        };
        Ok(Some(Node { place, content }))
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, Refused> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match self.node(event, span, depth + 1)? {
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Refused> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let Some(key) = self.node(event, span, depth + 1)? else { return Ok(entries) };
            let key = self.key(key)?;
            let (event, span) = self.next()?;
            let Some(mut value) = self.node(event, span, depth + 1)? else { return Err(Refused) };
            // The parser places a value that is not written at whatever comes next.
            if value.is_null() {
                value.place = key.place.clone();
            }
            if let Some(first) = seen.get(&key.text) {
                let message = format!("{} stands twice, first in line {first}", quoted(&key.text));
                self.report.add(
                    FindingCode::KeyRepeated,
                    &key.place,
                    message,
                    "each key once in a mapping",
                );
            } else {
                seen.insert(key.text.clone(), key.place.line);
                entries.push((key, value));
            }
        }
    }

    fn key(&mut self, node: Node) -> Result<Key, Refused> {
        match node.content {
            Content::Scalar { text, is_plain: true } if text == "<<" => {
                Err(self.feature(&node.place, "a merge key (`<<`)"))
            }
            Content::Scalar { ref text, is_plain } if !node.is_null() => {
                Ok(Key { place: node.place, text: text.clone(), is_plain })
            }
            Content::Scalar { .. } | Content::Sequence(_) | Content::Mapping(_) => {
                Err(self.feature(&node.place, "a key that is no text"))
            }
        }
    }

    fn feature(&mut self, place: &Place, what: &str) -> Refused {
        self.refuse(
            FindingCode::YamlFeature,
            place,
            format!("{what} makes a file say more than it shows"),
            "plain mappings, lists and text, written out",
        )
    }

    fn refuse(
        &mut self,
        code: FindingCode,
        place: &Place,
        message: impl Into<String>,
        expected: &str,
    ) -> Refused {
        self.report.add(code, place, message, expected);
        Refused
    }

    fn place(&self, marker: Marker) -> Place {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Place {
            file: self.start.file.clone(),
            line: number(marker.line()),
            column: number(marker.col()).saturating_add(1),
        }
    }
}

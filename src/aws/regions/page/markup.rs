//! A page as pieces of text: Markdown and HTML are read by one tolerant reader, in one pass. It
//! knows just enough of HTML to tell text from tags, and nothing of what the text says.

use std::collections::VecDeque;

/// Elements whose whole text is one piece, whatever stands inside of them.
const HEADINGS: &[&str] = &["h1", "h2", "h3", "h4", "h5", "h6", "summary", "button"];
/// Tags that do not end the text of a heading.
const INLINE: &[&str] = &["a", "b", "bdi", "code", "em", "font", "i", "span", "strong", "wbr"];
/// Elements that hold programs and no text.
const PROGRAMS: &[&str] = &["script", "style"];

/// Something on a page, and the line that it begins in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Text up to the next tag or line end.
    Text(String),
    /// The same inside of a link to another place, such as a table of contents.
    LinkText(String),
    /// The whole text of a heading, a button or an attribute `header`.
    Heading(String),
    /// A place that links lead to: an attribute `id` or `name`.
    Anchor(String),
    /// A comment or a program that has no end, so what follows cannot be told from text.
    Unfinished(&'static str),
}

/// The pieces of a page, in its order.
pub(super) struct Pieces<'a> {
    rest: &'a str,
    line: usize,
    is_in_link: bool,
    /// The line and the text of the heading that is being read.
    heading: Option<(usize, String)>,
    ready: VecDeque<Piece>,
}

impl<'a> Pieces<'a> {
    pub(super) fn of(page: &'a str) -> Self {
        Self { rest: page, line: 1, is_in_link: false, heading: None, ready: VecDeque::new() }
    }

    /// Takes `length` bytes, which end at a character.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        taken
    }

    fn emit(&mut self, line: usize, content: Content) {
        self.ready.push_back(Piece { line, content });
    }

    fn end_heading(&mut self) {
        if let Some((line, text)) = self.heading.take() {
            self.emit(line, Content::Heading(text));
        }
    }

    fn read_text(&mut self) {
        // The first character is text even if it is `<`: no tag begins here.
        let first = self.rest.chars().next().map_or(0, char::len_utf8);
        let is_line = self.heading.is_none();
        let ends = |byte: u8| byte == b'<' || (is_line && byte == b'\n');
        let end = match self.rest.as_bytes() {
            [b'\n', ..] if is_line => first,
            bytes => bytes
                .iter()
                .skip(first)
                .position(|byte| ends(*byte))
                .map_or(bytes.len(), |place| first + place),
        };
        let line = self.line;
        let text = without_entities(self.take(end));
        match &mut self.heading {
            Some((_, heading)) => heading.push_str(&text),
            None if text.trim().is_empty() => {}
            None if self.is_in_link => self.emit(line, Content::LinkText(text)),
            None => self.emit(line, Content::Text(text)),
        }
    }

    fn read_tag(&mut self, tag: &Tag<'_>) {
        let line = self.line;
        self.take(tag.length);
        let is = |names: &[&str]| names.iter().any(|name| tag.name.eq_ignore_ascii_case(name));
        if !is(INLINE) {
            self.end_heading();
        }
        if tag.name.starts_with("!--") {
            return self.skip_comment(line);
        }
        if tag.is_end {
            self.is_in_link &= !is(&["a"]);
            return;
        }
        for (name, value) in tag.attributes() {
            if name.eq_ignore_ascii_case("header") {
                self.emit(line, Content::Heading(without_entities(value)));
            } else if name.eq_ignore_ascii_case("id") || name.eq_ignore_ascii_case("name") {
                self.emit(line, Content::Anchor(without_entities(value)));
            } else if name.eq_ignore_ascii_case("href") && is(&["a"]) {
                self.is_in_link = true;
            }
        }
        if is(HEADINGS) {
            self.heading = Some((line, String::new()));
        } else if is(PROGRAMS) {
            self.skip_program(tag.name, line);
        }
    }

    fn skip_comment(&mut self, line: usize) {
        match self.rest.find("-->") {
            Some(end) => {
                self.take(end + "-->".len());
            }
            None => self.give_up(line, "a comment has no end"),
        }
    }

    fn skip_program(&mut self, name: &str, line: usize) {
        while let Some(next) = self.rest.find("</") {
            self.take(next + "</".len());
            let ending = self.rest.get(..name.len());
            if ending.is_some_and(|ending| ending.eq_ignore_ascii_case(name)) {
                let end = self.rest.find('>').map_or(self.rest.len(), |end| end + 1);
                self.take(end);
                return;
            }
        }
        self.give_up(line, "a script or style has no end");
    }

    fn give_up(&mut self, line: usize, what: &'static str) {
        self.rest = "";
        self.emit(line, Content::Unfinished(what));
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while self.ready.is_empty() && !self.rest.is_empty() {
            match Tag::at_start(self.rest) {
                Some(tag) => self.read_tag(&tag),
                None => self.read_text(),
            }
        }
        if self.ready.is_empty() {
            self.end_heading();
        }
        self.ready.pop_front()
    }
}

struct Tag<'a> {
    name: &'a str,
    is_end: bool,
    attributes: &'a str,
    length: usize,
}

impl<'a> Tag<'a> {
    /// The tag that `text` begins with. One that has another `<` before its `>` is text: so no
    /// character is looked at from more than one `<`, and the reader stays linear.
    fn at_start(text: &'a str) -> Option<Self> {
        let inside = text.strip_prefix('<')?;
        if inside.starts_with("!--") {
            return Some(Self { name: "!--", is_end: false, attributes: "", length: "<!--".len() });
        }
        let is_end = inside.starts_with('/');
        let named = inside.trim_start_matches(['/', '!', '?']);
        if inside.len() - named.len() > 1 || !named.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return None;
        }
        let length = named.find(['<', '>'])?;
        let body = named.get(..length).filter(|_| named.as_bytes().get(length) == Some(&b'>'))?;
        let name_ends = body.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(length);
        let (name, attributes) = body.split_at_checked(name_ends)?;
        Some(Self { name, is_end, attributes, length: text.len() - named.len() + length + 1 })
    }

    fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/' || c == '=');
            if rest.is_empty() {
                return None;
            }
            let ends = rest.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(ends)?;
            let Some(after) = after.trim_start().strip_prefix('=').map(str::trim_start) else {
                rest = after;
                return Some((name, ""));
            };
            let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
            let (value, after) = match quote {
                Some(quote) => {
                    let quoted = after.get(1..).unwrap_or_default();
                    quoted.split_once(quote).unwrap_or((quoted, ""))
                }
                None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
            };
            rest = after;
            Some((name, value))
        })
    }
}

/// Replaces the entities that occur in headings and base64; others stay as they are.
fn without_entities(text: &str) -> String {
    const LONGEST: usize = 10;
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        decoded.push_str(before);
        let end = after.bytes().take(LONGEST).position(|byte| byte == b';');
        let entity = end.and_then(|end| after.split_at_checked(end));
        let found = entity.and_then(|(name, tail)| Some((character(name)?, tail.get(1..)?)));
        let (character, tail) = found.unwrap_or(('&', after));
        decoded.push(character);
        rest = tail;
    }
    decoded.push_str(rest);
    decoded
}

fn character(entity: &str) -> Option<char> {
    Some(match entity {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "horbar" => '―',
        "hyphen" | "dash" => '-',
        "lpar" => '(',
        "rpar" => ')',
        "plus" => '+',
        "sol" => '/',
        "equals" => '=',
        "Tab" => '\t',
        "NewLine" => '\n',
        numeric => {
            let digits = numeric.strip_prefix('#')?;
            let number = match digits.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(number)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(page: &str) -> Vec<(usize, Content)> {
        Pieces::of(page).map(|piece| (piece.line, piece.content)).collect()
    }

    fn text(text: &str) -> Content {
        Content::Text(text.to_owned())
    }

    #[test]
    fn text_ends_at_lines_and_tags() {
        let expected = [(1, text("a")), (2, text("b ")), (2, text("c")), (3, text("d < e"))];
        let page = "a\nb <i>c</i>\nd &lt; e<br/>\n";
        assert_eq!(pieces(page), expected);
    }

    #[test]
    fn a_heading_is_one_piece_across_lines_and_inline_tags() {
        let page = "\n<h2 class=x>US <b>East</b>\n&#8212; <code>us-east-1</code></h2>after";
        let heading = Content::Heading("US East\n— us-east-1".to_owned());
        assert_eq!(pieces(page), [(2, heading), (3, text("after"))]);
        let page = "<button>one<div>two";
        assert_eq!(pieces(page), [(1, Content::Heading("one".to_owned())), (1, text("two"))]);
    }

    #[test]
    fn attributes_are_read_however_they_are_quoted() {
        for tag in ["<x id='a' header=\"b &amp; c\">", "<x  id = a  hidden header='b & c'/>"] {
            let anchor = Content::Anchor("a".to_owned());
            let heading = Content::Heading("b & c".to_owned());
            assert_eq!(pieces(tag), [(1, anchor), (1, heading)], "{tag}");
        }
        let link = Content::LinkText("x".to_owned());
        assert_eq!(pieces("<a href='#a'>x</a>y"), [(1, link), (1, text("y"))]);
    }

    #[test]
    fn programs_and_comments_are_no_text() {
        let page = "a<script>if (1 </2) b</SCRIPT>c<!-- d\n <e --><style>f</style>g";
        assert_eq!(pieces(page), [(1, text("a")), (1, text("c")), (2, text("g"))]);
        for page in ["\n<!-- x", "\n<script>x</scrip", "\n<style>x"] {
            assert!(matches!(pieces(page)[0], (2, Content::Unfinished(_))), "{page}");
        }
    }

    #[test]
    fn what_is_no_tag_is_text() {
        let all = |page: &str| -> String {
            let words = pieces(page).into_iter().map(|(_, content)| {
                let Content::Text(text) = content else { panic!("{content:?}") };
                text
            });
            words.collect()
        };
        for page in ["<", "<<<", "a < b", "<1>", "< b>", "<//x>", "&", "&#xffffffff;", "&nope;"] {
            assert_eq!(all(page), page);
        }
        assert_eq!(all("<unfinished"), "<unfinished");
        assert_eq!(all("x<unfinished <b>y"), "x<unfinished y");
    }
}

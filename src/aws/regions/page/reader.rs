//! The first step: what stands where on the page. Labels are paired with the blocks that follow
//! them, in order, and belong to the region whose section it is.

use std::collections::VecDeque;

use der::Decode;
use der::asn1::AnyRef;

use super::markup::{Content, Pieces};
use super::{Block, MAX_PROBLEMS, PageProblem, without_blanks};
use crate::aws::armour;
use crate::domain::Region;

/// Longer than "Asia Pacific (…) — ap-southeast-1" in any language.
const MAX_HEADING_BYTES: usize = 400;
const MAX_LABEL_BYTES: usize = 64;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The blocks under RSA-2048 headings, and what cannot be told.
pub(super) fn read(page: &str) -> (Vec<Block>, Vec<PageProblem>) {
    let mut reader = Reader::default();
    for piece in Pieces::of(page) {
        if reader.problems.len() >= MAX_PROBLEMS {
            break;
        }
        reader.read(piece.line, piece.content);
    }
    reader.end_block("a block has no END line");
    reader.end_section();
    (reader.blocks, reader.problems)
}

/// The three kinds of certificates that a region has on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dsa,
    Rsa,
    Rsa2048,
}

impl Kind {
    /// The kind that a text is the label of, whatever brackets, marks and blanks stand around it.
    fn of_label(text: &str) -> Option<Self> {
        if text.len() > MAX_LABEL_BYTES {
            return None;
        }
        let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
        match letters.to_ascii_uppercase().as_str() {
            "DSA" => Some(Self::Dsa),
            "RSA" => Some(Self::Rsa),
            "RSA2048" => Some(Self::Rsa2048),
            _ => None,
        }
    }
}

/// What a section says of its region: by its heading, by its anchor, or by both.
#[derive(Default)]
struct Section {
    heading: Vec<Region>,
    anchor: Option<Region>,
    labels: Vec<Kind>,
    has_blocks: bool,
}

impl Section {
    /// The region, if there is one, or why it cannot be told.
    fn region(&self) -> Result<Option<Region>, String> {
        match (self.heading.as_slice(), &self.anchor) {
            ([], anchor) => Ok(anchor.clone()),
            ([one], None) => Ok(Some(one.clone())),
            ([one], Some(anchor)) if one == anchor => Ok(Some(one.clone())),
            ([one], Some(anchor)) => {
                Err(format!("the heading says {one}, and the link to the section {anchor}"))
            }
            ([one, another, ..], _) => {
                Err(format!("the heading names two regions, {one} and {another}"))
            }
        }
    }
}

/// A block whose END line is still to come.
struct OpenBlock {
    line: usize,
    label: String,
    base64: String,
}

#[derive(Default)]
struct Reader {
    section: Section,
    /// Labels that wait for their block, each with its line.
    waiting: VecDeque<(Kind, usize)>,
    /// The label of the last block; further blocks belong to it too.
    kind: Option<Kind>,
    open: Option<OpenBlock>,
    blocks: Vec<Block>,
    problems: Vec<PageProblem>,
}

impl Reader {
    fn read(&mut self, line: usize, content: Content) {
        match content {
            Content::Unfinished(reason) => self.problem(line, reason),
            Content::Anchor(name) => {
                if let Some(region) = name.strip_suffix("-cert").and_then(region) {
                    self.begin_section();
                    self.section.anchor = Some(region);
                }
            }
            Content::Text(text) => {
                self.read_blocks(line, &text, heading_of_text);
            }
            Content::LinkText(text) => self.read_blocks(line, &text, |_| Vec::new()),
            Content::Heading(text) => self.read_blocks(line, &text, regions),
        }
    }

    /// Reads blocks and, where the text has none, labels and headings.
    fn read_blocks(&mut self, line: usize, text: &str, heading: impl Fn(&str) -> Vec<Region>) {
        if self.open.is_none() && !text.contains(BEGIN) && !text.contains(END) {
            return self.read_words(line, text, heading);
        }
        let mut rest = text;
        loop {
            if let Some(open) = &mut self.open {
                let Some((body, after)) = rest.split_once(DASHES) else {
                    open.base64.push_str(rest);
                    return;
                };
                open.base64.push_str(body);
                let end = format!("END {}{DASHES}", open.label);
                let Some(after) = after.strip_prefix(&end) else {
                    self.end_block("a block is cut off: its END line is missing");
                    continue;
                };
                self.close_block();
                rest = after;
            }
            let (between, after) = rest.split_once(BEGIN).unwrap_or((rest, ""));
            if between.contains(END) {
                self.problem(line, "a block has no BEGIN line");
            }
            if between.len() == rest.len() {
                return;
            }
            let Some((label, after)) = after.split_once(DASHES) else {
                return self.problem(line, "a BEGIN line has no end");
            };
            self.open = Some(OpenBlock { line, label: label.to_owned(), base64: String::new() });
            rest = after;
        }
    }

    fn read_words(&mut self, line: usize, text: &str, heading: impl Fn(&str) -> Vec<Region>) {
        // Markdown marks characters with backslashes that it could take for its own.
        let words = text.replace('\\', "");
        if let Some(kind) = Kind::of_label(&words) {
            return self.read_label(line, kind);
        }
        if words.len() > MAX_HEADING_BYTES {
            return;
        }
        let regions = heading(words.trim());
        if !regions.is_empty() {
            self.begin_section();
            self.section.heading = regions;
        }
    }

    fn read_label(&mut self, line: usize, kind: Kind) {
        // Where a heading was lost, the labels of the next region come while this one has them.
        if self.section.labels.contains(&kind) && !matches!(self.section.region(), Ok(None)) {
            return self.problem(line, "a heading DSA, RSA or RSA-2048 stands twice in a section");
        }
        self.section.labels.push(kind);
        self.waiting.push_back((kind, line));
    }

    /// A mark of a section: the first mark after the last block begins it, further ones are its own.
    fn begin_section(&mut self) {
        if self.section.has_blocks || !self.waiting.is_empty() {
            self.end_section();
        }
    }

    fn end_section(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let unpaired = waiting.into_iter().find(|(kind, _)| *kind == Kind::Rsa2048);
        // Before the first region the labels are words about the page.
        if let (Some((_, line)), Ok(Some(_)) | Err(_)) = (unpaired, self.section.region()) {
            self.problem(line, "no certificate follows the heading RSA-2048");
        }
        self.section = Section::default();
        self.kind = None;
    }

    fn close_block(&mut self) {
        let Some(OpenBlock { line, label, base64 }) = self.open.take() else { return };
        self.section.has_blocks = true;
        self.kind = self.waiting.pop_front().map(|(kind, _)| kind).or(self.kind);
        if self.kind != Some(Kind::Rsa2048) {
            // Where two blocks were joined by what was cut out between them, the heading of the
            // second one's region may be gone too.
            if !is_whole(&base64) {
                self.problem(line, "a block is damaged: it does not hold one whole value");
            }
            return;
        }
        match self.section.region() {
            Ok(Some(region)) => self.blocks.push(Block { line, region, label, base64 }),
            Ok(None) => {
                self.problem(line, "a certificate under RSA-2048 is in no region's section");
            }
            Err(reason) => self.problem(line, &reason),
        }
    }

    /// Gives up a block that has no end. A page with one is damaged, whatever its label.
    fn end_block(&mut self, reason: &str) {
        if let Some(open) = self.open.take() {
            self.section.has_blocks = true;
            self.kind = self.waiting.pop_front().map(|(kind, _)| kind).or(self.kind);
            self.problem(open.line, reason);
        }
    }

    fn problem(&mut self, line: usize, reason: &str) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let region = self.section.region().ok().flatten();
        self.problems.push(PageProblem { line, region, reason: reason.to_owned() });
    }
}

/// Whether a block holds one value of DER and nothing after it, as certificates and keys are.
fn is_whole(base64: &str) -> bool {
    armour::base64(&without_blanks(base64)).is_ok_and(|der| AnyRef::from_der(&der).is_ok())
}

/// The regions that a line of text is the heading of: one of Markdown, or `NAME — REGION`.
fn heading_of_text(words: &str) -> Vec<Region> {
    let words = words.trim_start_matches('\u{feff}');
    let found = regions(words);
    let ends_in_region = found
        .last()
        .and_then(|region| words.strip_suffix(region.as_str()))
        .is_some_and(|before| before.trim_end().ends_with(['—', '–', '―', '－', 'ー', '-']));
    if words.starts_with('#') || ends_in_region { found } else { Vec::new() }
}

/// The different regions that a text names.
fn regions(text: &str) -> Vec<Region> {
    let mut found: Vec<Region> = Vec::new();
    for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
        if let Some(region) = region(word.trim_matches('-'))
            && !found.contains(&region)
        {
            found.push(region);
        }
    }
    found
}

/// A region of the form that AWS's have, known or not: `us-gov-west-1`. It is narrower than
/// [`Region`], so that no other word of a heading is taken for one.
fn region(word: &str) -> Option<Region> {
    let parts: Vec<&str> = word.split('-').collect();
    let [area, places @ .., number] = parts.as_slice() else { return None };
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
    let has_form = (2..=4).contains(&area.len())
        && is_word(area)
        && !places.is_empty()
        && places.iter().all(|place| is_word(place))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit());
    if has_form { word.parse().ok() } else { None }
}

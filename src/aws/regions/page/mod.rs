//! AWS's page of region certificates, as Markdown or as a browser saves it, and the RSA-2048
//! certificates on it.
//!
//! The page is read in two steps. The first is tolerant: which region, which kind and which block
//! stand where (`reader`). The second is strict: whatever stands under an RSA-2048 heading has to
//! be a region certificate. A key does not tell what a certificate is for (in China those under the
//! DSA heading have RSA-2048 keys too), so only the heading counts.

mod markup;
mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::{CertificateSource, RegionCertificate, SignerName};
use crate::aws::armour;
use crate::domain::Region;

/// Larger than any such page: AWS's own has about 250 KiB.
pub const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;
const MAX_REGIONS: usize = 1_000;
const MAX_CERTIFICATES: usize = 16;
/// More is not listed: the page is none of AWS's.
const MAX_PROBLEMS: usize = 1_000;

/// A page of which nothing is taken: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidPage {
    problems: Vec<PageProblem>,
}

/// One thing that is wrong with a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageProblem {
    line: usize,
    region: Option<Region>,
    reason: String,
}

impl fmt::Display for PageProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(region) = &self.region {
            write!(f, ", {region}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for InvalidPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl InvalidPage {
    fn of(line: usize, reason: &str) -> Self {
        Self { problems: vec![PageProblem { line, region: None, reason: reason.to_owned() }] }
    }
}

/// The RSA-2048 certificates of a page, by region; every one of them, or what is wrong. `page` is
/// attacker-controlled; `file` is what the certificates name as their source.
pub fn read_certificates_page(
    page: &[u8],
    file: &Path,
) -> Result<BTreeMap<Region, Vec<RegionCertificate>>, InvalidPage> {
    if page.len() > MAX_PAGE_BYTES {
        return Err(InvalidPage::of(1, "the page is longer than 4 MiB"));
    }
    let text = std::str::from_utf8(page).map_err(|error| {
        let before = page.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        InvalidPage::of(line, "the page is not text in UTF-8")
    })?;
    let (blocks, problems) = reader::read(text);
    let mut strict = Strict { file, problems, signers: BTreeMap::new(), regions: BTreeMap::new() };
    for block in &blocks {
        if strict.problems.len() >= MAX_PROBLEMS {
            break;
        }
        strict.add(block);
    }
    strict.finish()
}

/// A block under an RSA-2048 heading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    line: usize,
    region: Region,
    label: String,
    base64: String,
}

/// The second step: certificates of blocks.
struct Strict<'a> {
    file: &'a Path,
    problems: Vec<PageProblem>,
    /// Where each issuer and serial was seen.
    signers: BTreeMap<SignerName, (Region, usize)>,
    regions: BTreeMap<Region, Vec<RegionCertificate>>,
}

impl Strict<'_> {
    fn add(&mut self, block: &Block) {
        if let Err(reason) = self.try_add(block) {
            let region = Some(block.region.clone());
            self.problems.push(PageProblem { line: block.line, region, reason });
        }
    }

    fn try_add(&mut self, block: &Block) -> Result<(), String> {
        if block.label != "CERTIFICATE" {
            return Err("what stands under RSA-2048 is no certificate".to_owned());
        }
        let der = armour::base64(&without_blanks(&block.base64))
            .map_err(|_| "the certificate under RSA-2048 is not base64".to_owned())?;
        let source = CertificateSource::File(self.file.to_owned());
        let (name, certificate) = RegionCertificate::from_der(block.region.clone(), &der, source)
            .map_err(|reason| {
            format!("what stands under RSA-2048 cannot be taken: {reason}")
        })?;
        let is_new_region = !self.regions.contains_key(&block.region);
        if is_new_region && self.regions.len() == MAX_REGIONS {
            return Err("the page has more than 1,000 regions".to_owned());
        }
        let of_region = self.regions.entry(block.region.clone()).or_default();
        if let Some((region, line)) = self.signers.get(&name) {
            if *region != block.region {
                return Err(format!("{region} has a certificate of the same name, line {line}"));
            }
            if of_region.iter().any(|known| known.der() == der) {
                return Ok(());
            }
            return Err(format!("another certificate has its issuer and serial, line {line}"));
        }
        if of_region.len() == MAX_CERTIFICATES {
            return Err("the region has more than 16 certificates".to_owned());
        }
        of_region.push(certificate);
        self.signers.insert(name, (block.region.clone(), block.line));
        Ok(())
    }

    fn finish(mut self) -> Result<BTreeMap<Region, Vec<RegionCertificate>>, InvalidPage> {
        if !self.problems.is_empty() {
            self.problems.sort_by_key(|problem| problem.line);
            return Err(InvalidPage { problems: self.problems });
        }
        if self.regions.is_empty() {
            let reason = "the page has no certificate under an RSA-2048 heading of a region";
            return Err(InvalidPage::of(1, reason));
        }
        Ok(self.regions)
    }
}

/// Browsers and pages put blanks of every kind between the lines of base64.
fn without_blanks(base64: &str) -> String {
    base64.chars().filter(|c| !c.is_whitespace()).collect()
}

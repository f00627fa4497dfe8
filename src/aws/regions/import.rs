//! What the certificates of a page would change in a directory of region certificates, and the
//! change itself. Showing, asking and writing are three steps, so that people can look first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    CertificateSource, InvalidCertificates, RegionCertificate, RegionCertificates, directory,
};
use crate::domain::Region;

/// How a certificate of the page stands to those that are known: embedded ones, and those that the
/// directory has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The region has no certificate yet.
    New,
    /// It is known.
    Same,
    /// The region has others, of these serials, and not this one.
    Differs(Vec<String>),
}

/// A certificate of the page.
#[derive(Debug)]
pub struct Imported {
    /// The certificate.
    pub certificate: RegionCertificate,
    /// How it stands to those that are known.
    pub standing: Standing,
}

/// A change that was worked out and not made yet.
#[derive(Debug)]
pub struct Import {
    directory: PathBuf,
    certificates: Vec<Imported>,
    files: BTreeMap<Region, String>,
}

impl Import {
    /// Works out the change. Every region of the page gets its file, those that are embedded too:
    /// the directory is then whole by itself. A region of which the page has another certificate
    /// than is known gets the page's alone; elsewhere the file keeps what it has besides.
    ///
    /// It fails if the directory cannot be loaded as it is.
    pub fn of_page(
        page: BTreeMap<Region, Vec<RegionCertificate>>,
        path: &Path,
    ) -> Result<Self, InvalidCertificates> {
        let mut known = RegionCertificates::embedded();
        if path.exists() {
            known = known.with_directory(path)?;
        }
        let mut files = BTreeMap::new();
        let mut certificates = Vec::new();
        for (region, of_page) in page {
            let of_region: Vec<_> =
                known.list().into_iter().filter(|known| *known.region() == region).collect();
            let imported: Vec<Imported> =
                of_page.into_iter().map(|one| Imported::compared(one, &of_region)).collect();
            let is_replaced = imported.iter().any(Imported::differs);
            let kept = of_region.into_iter().filter(|known| {
                let is_on_page = imported.iter().any(|one| one.certificate.der() == known.der());
                !is_replaced && !is_on_page && *known.source() != CertificateSource::Embedded
            });
            let whole = imported.iter().map(|one| &one.certificate).chain(kept);
            files.insert(region, whole.map(RegionCertificate::to_pem).collect::<String>());
            certificates.extend(imported);
        }
        Ok(Self { directory: path.to_owned(), certificates, files })
    }

    /// The certificates of the page, sorted by region.
    pub fn certificates(&self) -> &[Imported] {
        &self.certificates
    }

    /// The regions whose files are written.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.files.keys()
    }

    /// Whether the directory can be loaded once the change is made: a certificate of the page must
    /// not be known as another region's, nor have the issuer and serial of another that stays.
    pub fn check(&self) -> Result<(), InvalidCertificates> {
        let mut after = RegionCertificates::embedded();
        let path = &self.directory;
        let present = if path.exists() { directory::read(path)? } else { Vec::new() };
        for file in present {
            if !self.files.keys().any(|region| region.as_str() == file.region) {
                after.add_file(&file.region, &file.contents, file.path)?;
            }
        }
        for (region, pem) in &self.files {
            let file = path.join(format!("{region}.pem"));
            after.add_file(region.as_str(), pem.as_bytes(), file)?;
        }
        Ok(())
    }

    /// Makes the change: every file or, as far as files allow, none.
    pub fn write(&self) -> Result<(), InvalidCertificates> {
        directory::write(&self.directory, &self.files)
    }
}

impl Imported {
    fn compared(certificate: RegionCertificate, known: &[&RegionCertificate]) -> Self {
        let standing = if known.is_empty() {
            Standing::New
        } else if known.iter().any(|known| known.der() == certificate.der()) {
            Standing::Same
        } else {
            Standing::Differs(known.iter().map(|known| known.serial().to_owned()).collect())
        };
        Self { certificate, standing }
    }

    /// Whether the region has other certificates and not this one.
    pub fn differs(&self) -> bool {
        matches!(self.standing, Standing::Differs(_))
    }
}

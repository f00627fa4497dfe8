//! The trust store for identity documents: pinned region certificates, chosen by issuer and serial.
//!
//! A certificate speaks for one region and therefore for one partition (T44). Nothing that a
//! message brings along is ever trusted (T7).

mod certificate;
mod directory;
mod embedded;
mod import;
mod page;
mod shared;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

pub use certificate::{CertificateSource, RegionCertificate};
pub use directory::InvalidCertificates;
pub use import::{Import, Imported, Standing};
pub use page::{InvalidPage, MAX_PAGE_BYTES, PageProblem, read_certificates_page};
pub use shared::SharedCertificates;

pub(super) use certificate::SignerName;

use crate::domain::{Partition, Region};

/// The pinned certificates and the names of the known regions.
pub struct RegionCertificates {
    pinned: BTreeMap<SignerName, RegionCertificate>,
    regions: BTreeMap<String, Partition>,
}

impl RegionCertificates {
    /// AWS's certificates as they are built in.
    ///
    /// # Panics
    ///
    /// Never: the files are constants, and a test reads every one of them.
    pub fn embedded() -> Self {
        let mut certificates = Self::without_certificates();
        for (region, pem) in embedded::CERTIFICATES {
            #[expect(clippy::expect_used, reason = "constants; a test reads every one of them")]
            certificates
                .add(region, pem.as_bytes(), &CertificateSource::Embedded)
                .expect("an embedded certificate is whole");
        }
        certificates
    }

    /// The certificates of a directory *instead of* AWS's: what a simulation trusts. The known
    /// regions stay, so that real policies can be tried.
    pub fn only_directory(path: &Path) -> Result<Self, InvalidCertificates> {
        Self::without_certificates().with_directory(path)
    }

    /// Adds the files `<region>.pem` of a directory, each with one or more PEM certificates.
    pub fn with_directory(mut self, path: &Path) -> Result<Self, InvalidCertificates> {
        for file in directory::read(path)? {
            self.add_file(&file.region, &file.contents, file.path)?;
        }
        Ok(self)
    }

    /// Adds several directories.
    pub fn with_directories(self, paths: &[PathBuf]) -> Result<Self, InvalidCertificates> {
        paths.iter().try_fold(self, |certificates, path| certificates.with_directory(path))
    }

    /// The regions that a policy may name, each with its partition.
    pub fn known_regions(&self) -> &BTreeMap<String, Partition> {
        &self.regions
    }

    /// Every pinned certificate, sorted by region and then by serial.
    pub fn list(&self) -> Vec<&RegionCertificate> {
        let mut list: Vec<_> = self.pinned.values().collect();
        list.sort_by(|a, b| (a.region(), a.serial()).cmp(&(b.region(), b.serial())));
        list
    }

    /// SHA-256 over all of them, lower-case hexadecimal: it differs when anything in them does.
    pub fn digest(&self) -> String {
        let mut hash = Context::new(&SHA256);
        for certificate in self.list() {
            hash.update(certificate.region().as_str().as_bytes());
            hash.update(certificate.sha256().as_bytes());
        }
        hex::encode(hash.finish())
    }

    /// The certificate that a message names as its signer's.
    pub(super) fn find(&self, signer: &SignerName) -> Option<&RegionCertificate> {
        self.pinned.get(signer)
    }

    fn without_certificates() -> Self {
        let mut regions = BTreeMap::new();
        for name in embedded::region_names() {
            #[expect(clippy::expect_used, reason = "a constant; a test reads every line of it")]
            let region: Region = name.parse().expect("the table holds region names");
            regions.insert(name.to_owned(), Partition::of_region(&region));
        }
        Self { pinned: BTreeMap::new(), regions }
    }

    fn add_file(
        &mut self,
        region: &str,
        pem: &[u8],
        path: PathBuf,
    ) -> Result<(), InvalidCertificates> {
        self.add(region, pem, &CertificateSource::File(path.clone()))
            .map_err(|reason| InvalidCertificates::file(path, reason))
    }

    fn add(
        &mut self,
        region: &str,
        pem: &[u8],
        source: &CertificateSource,
    ) -> Result<(), &'static str> {
        let region: Region = region
            .parse()
            .map_err(|_| "its name is not `<region>.pem`, for example us-west-2.pem")?;
        for der in directory::certificates(pem)? {
            let (name, certificate) =
                RegionCertificate::from_der(region.clone(), &der, source.clone())?;
            if let Some(known) = self.pinned.get(&name) {
                if known.der() != der {
                    return Err(
                        "it holds another certificate of an issuer and serial that is known",
                    );
                }
                if *known.region() != region {
                    return Err("it holds a certificate that is known as another region's");
                }
                continue;
            }
            self.pinned.insert(name, certificate);
        }
        self.regions.insert(region.to_string(), Partition::of_region(&region));
        Ok(())
    }
}

impl fmt::Debug for RegionCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.list()).finish()
    }
}

#[cfg(test)]
mod tests;

//! Region certificates that can be exchanged while they are used.

use std::sync::{Arc, PoisonError, RwLock};

use super::RegionCertificates;

/// The certificates in force; clones share them.
#[derive(Debug, Clone)]
pub struct SharedCertificates(Arc<RwLock<Arc<RegionCertificates>>>);

impl SharedCertificates {
    /// Those in force now.
    pub fn current(&self) -> Arc<RegionCertificates> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in force, as a whole.
    pub fn exchange(&self, certificates: RegionCertificates) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificates);
    }
}

impl From<RegionCertificates> for SharedCertificates {
    fn from(certificates: RegionCertificates) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(certificates))))
    }
}

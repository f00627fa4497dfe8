//! What the server remembers, in domain terms: enrollments and the keys that belong to them, policy
//! sets that were in force.
//!
//! One instance, one enrollment, one key (I4). Every change of an enrollment is one transaction
//! with its audit record (I9), under the condition that nothing it was decided on has changed.

mod enrollment;
mod issue;
mod lease;
mod locks;
mod operator;
mod policy_sets;
mod publications;
mod recording;
mod renewal;
mod revocation;
mod rules;
mod time;
mod tokens;
mod view;

use std::sync::Arc;

use crate::domain::{KeyDigest, NodeId, Serial, Subject};
use crate::store::{Key, Put, Store, StoreUnavailable};

pub use enrollment::{Enrollment, Event, Grant, State, Superseded, TokenUse};
pub use issue::{Issue, PresentedCertificate};
pub use lease::{Duty, Lease};
pub use locks::{Lock, LockTarget};
pub use publications::{
    CreatingToken, NotChanged, OutgoingToken, Publication, PublicationChange, PublicationOnRecord,
    PublicationPlace, PublishedToken,
};
pub use recording::{Asking, RecordError, Recorded, Recording};
use revocation::Revocations;
use rules::Ruling;
pub use rules::{Change, Conflict};
pub use tokens::{AddTokenError, TokenState};
pub use view::View;

/// How often a transaction that met a change is decided anew before the node is asked to come back.
const ATTEMPTS: usize = 16;

/// Enrollments on top of a store.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    revocations: Revocations,
}

/// To which enrollment a key belongs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    enrollment: String,
    /// A retired key stays taken and is never valid again.
    retired: bool,
}

impl Registry {
    /// A registry on this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, revocations: Revocations::default() }
    }

    /// The enrollment of a node.
    pub async fn find(&self, node: &NodeId) -> Result<Option<Enrollment>, StoreUnavailable> {
        Ok(self.find_versioned(node).await?.map(|(_, enrollment, _)| enrollment))
    }

    /// The enrollment that a certificate of ours was ordered for, whether it still stands or not.
    pub async fn holder(&self, serial: Serial) -> Result<Option<Enrollment>, StoreUnavailable> {
        let Some((place, _)) = self.read::<String>(&certificate_key(serial)).await? else {
            return Ok(None);
        };
        let found = self.read::<Enrollment>(&Key::new([place.as_str()])).await?;
        Ok(found.map(|(enrollment, _)| enrollment))
    }

    /// The enrollment that a key is in use of; none if it was given up.
    pub async fn holder_of_key(
        &self,
        key: KeyDigest,
    ) -> Result<Option<Enrollment>, StoreUnavailable> {
        let found = self.read::<KeyEntry>(&key_key(key)).await?;
        let Some((KeyEntry { enrollment, retired: false }, _)) = found else { return Ok(None) };
        let found = self.read::<Enrollment>(&Key::new([enrollment.as_str()])).await?;
        Ok(found.map(|(enrollment, _)| enrollment))
    }

    /// Enrollments in order, after the one at `after`, at most `limit`, that `wanted` accepts.
    /// Returns where the next page begins.
    pub async fn list(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Enrollment) -> bool,
    ) -> Result<(Vec<Enrollment>, Option<String>), StoreUnavailable> {
        const BATCH: usize = 256;
        let mut found = Vec::new();
        let mut after = after.map(|text| Key::new([text]));
        loop {
            let page = self.store.scan("enrollment/", after.as_ref(), BATCH).await?;
            for (key, versioned) in page.items {
                let enrollment: Enrollment = decode(&key, &versioned.value)?;
                if wanted(&enrollment) {
                    if found.len() == limit {
                        return Ok((found, after.map(|key| key.as_str().to_owned())));
                    }
                    found.push(enrollment);
                }
                after = Some(key);
            }
            if !page.more {
                return Ok((found, None));
            }
        }
    }

    async fn find_versioned(
        &self,
        node: &NodeId,
    ) -> Result<Option<(Key, Enrollment, u64)>, StoreUnavailable> {
        let Some((place, _)) = self.read::<String>(&Key::new(["node", node.as_str()])).await?
        else {
            return Ok(None);
        };
        let place = Key::new([place.as_str()]);
        let found = self.read::<Enrollment>(&place).await?;
        Ok(found.map(|(enrollment, version)| (place, enrollment, version)))
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        key: &Key,
    ) -> Result<Option<(T, u64)>, StoreUnavailable> {
        let Some(found) = self.store.get(key).await? else { return Ok(None) };
        Ok(Some((decode(key, &found.value)?, found.version)))
    }
}

fn enrollment_key(subject: &Subject, slot: &str) -> Key {
    Key::new(["enrollment", subject.path().as_str(), slot])
}

fn certificate_key(serial: Serial) -> Key {
    Key::new(["certificate", serial.to_string().as_str()])
}

fn key_key(key: KeyDigest) -> Key {
    Key::new(["key", key.to_string().as_str()])
}

fn put(key: &Key, value: &impl serde::Serialize) -> Result<Put, StoreUnavailable> {
    let value = serde_json::to_vec(value).map_err(|error| StoreUnavailable(error.to_string()))?;
    Ok(Put { key: key.clone(), value, expires_at: None })
}

/// What cannot be read is an outage, never "there is nothing".
fn decode<T: serde::de::DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, StoreUnavailable> {
    serde_json::from_slice(value)
        .map_err(|error| StoreUnavailable(format!("`{}` cannot be read: {error}", key.as_str())))
}

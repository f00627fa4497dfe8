//! Signed checkpoints: what a chain, and the chains beside it, held at a time (red team X5, X6).
//!
//! A hash chain alone proves little: whoever can write the store can write a chain that fits. The
//! key of the checkpoints is not in the store, so what a checkpoint names cannot be changed or
//! removed without it.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use pkcs8::{Document, LineEnding};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{Class, Entry, Outcome, Record};
use crate::domain::{KeyDigest, PublicKey, Timestamp};
use crate::store::ChainHash;

/// The `kind` of its records.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// How many other chains one checkpoint names at most: it fits into one transaction and one record.
pub(super) const OTHERS_MAX: usize = 64;
/// What the signature begins with, so that it is never taken for one over something else.
const DOMAIN: &[u8] = b"muster/audit-checkpoint/v1\0";
/// The label of a public key's PEM.
const PUBLIC_KEY: &str = "PUBLIC KEY";

/// Signs checkpoints. It has no telling `Debug` (I10).
pub struct CheckpointKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// A key that checkpoints cannot be signed or checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 {0}")]
pub struct UnusableKey(&'static str);

impl CheckpointKey {
    /// A new key as PKCS#8 DER, to be written to a file.
    pub fn generate() -> Result<zeroize::Zeroizing<Vec<u8>>, UnusableKey> {
        let pair = Ed25519KeyPair::generate().map_err(|_| UnusableKey("key can be made"))?;
        let der = pair.to_pkcs8v1().map_err(|_| UnusableKey("key can be made"))?;
        Ok(zeroize::Zeroizing::new(der.as_ref().to_vec()))
    }

    /// A key from PKCS#8 DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, UnusableKey> {
        let unusable = UnusableKey("private key in PKCS#8");
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| unusable)?;
        // RFC 8410: the SubjectPublicKeyInfo of an Ed25519 key is this and its 32 bytes.
        let mut spki = hex::decode("302a300506032b6570032100").map_err(|_| unusable)?;
        spki.extend_from_slice(pair.public_key().as_ref());
        let public = PublicKey::from_spki_der(&spki).map_err(|_| unusable)?;
        Ok(Self { pair, public })
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

/// The public half as PEM.
pub fn public_key_to_pem(key: &PublicKey) -> Result<String, UnusableKey> {
    Document::try_from(key.spki_der())
        .and_then(|document| document.to_pem(PUBLIC_KEY, LineEnding::LF))
        .map_err(|_| UnusableKey("public key"))
}

/// A public half from PEM.
pub fn public_key_from_pem(text: &str) -> Result<PublicKey, UnusableKey> {
    let unusable = UnusableKey("public key in PEM");
    let (label, document) = Document::from_pem(text).map_err(|_| unusable)?;
    if label != PUBLIC_KEY {
        return Err(unusable);
    }
    PublicKey::from_spki_der(document.as_bytes()).map_err(|_| unusable)
}

/// Where a chain stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The chain.
    pub chain: String,
    /// The number of its last record; 0 before the first.
    pub seq: u64,
    /// That record's hash.
    pub hash: ChainHash,
}

/// A checkpoint as it stands in a record. Nothing of it is believed before `is_signed_by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// When it was made.
    pub time: Timestamp,
    /// The writer's own chain, as it was before.
    pub own: Head,
    /// Other chains that changed since the writer's last checkpoint.
    pub others: Vec<Head>,
    /// Which key signed: SHA-256 of its `SubjectPublicKeyInfo`.
    pub key: KeyDigest,
    signature: Vec<u8>,
}

/// A record of the kind `checkpoint` that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint cannot be read")]
pub struct InvalidCheckpoint;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    own: OwnHead,
    others: Vec<OtherHead>,
    key: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnHead {
    seq: u64,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherHead {
    chain: String,
    seq: u64,
    hash: String,
}

impl Checkpoint {
    /// Signs what these chains hold.
    pub(super) fn sign(key: &CheckpointKey, time: Timestamp, own: Head, others: Vec<Head>) -> Self {
        let digest = key.public.digest();
        let mut made = Self { time, own, others, key: digest, signature: Vec::new() };
        made.signature = key.pair.sign(&made.signed_bytes()).as_ref().to_vec();
        made
    }

    /// The record that carries it, in the writer's own chain.
    pub(super) fn to_record(&self) -> Record {
        let hash = |head: &Head| head.hash.to_string();
        let other =
            |head: &Head| OtherHead { chain: head.chain.clone(), seq: head.seq, hash: hash(head) };
        let detail = Detail {
            own: OwnHead { seq: self.own.seq, hash: hash(&self.own) },
            others: self.others.iter().map(other).collect(),
            key: self.key.to_string(),
            signature: hex::encode(&self.signature),
        };
        let mut record = Record::new(self.time, Class::Admission, CHECKPOINT, Outcome::Done);
        if let Ok(Value::Object(detail)) = serde_json::to_value(detail) {
            record.detail = detail;
        }
        record
    }

    /// The checkpoint of a record; nothing if the record is of another kind. Every byte may be
    /// attacker-controlled.
    pub fn read(entry: &Entry) -> Option<Result<Self, InvalidCheckpoint>> {
        (entry.record.kind == CHECKPOINT).then(|| Self::parse(entry).ok_or(InvalidCheckpoint))
    }

    fn parse(entry: &Entry) -> Option<Self> {
        let detail = Value::Object(entry.record.detail.clone());
        let detail: Detail = serde_json::from_value(detail).ok()?;
        if detail.others.len() > OTHERS_MAX {
            return None;
        }
        let hash = |text: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).ok()?;
            Some(ChainHash(bytes))
        };
        let other = |head: OtherHead| {
            Some(Head { hash: hash(&head.hash)?, chain: head.chain, seq: head.seq })
        };
        let own =
            Head { chain: entry.chain.clone(), seq: detail.own.seq, hash: hash(&detail.own.hash)? };
        Some(Self {
            time: entry.record.time,
            own,
            others: detail.others.into_iter().map(other).collect::<Option<_>>()?,
            key: detail.key.parse().ok()?,
            signature: hex::decode(detail.signature).ok()?,
        })
    }

    /// Whether this key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.digest() == self.key && key.has_signed(&self.signed_bytes(), &self.signature)
    }

    /// Every head that it names, its own chain's first.
    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// What is signed: every part has a fixed length or is preceded by it, so that no two
    /// checkpoints have the same bytes.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(&self.time.unix_seconds().to_be_bytes());
        let count = u64::try_from(self.others.len()).unwrap_or(u64::MAX);
        bytes.extend_from_slice(&count.to_be_bytes());
        for head in self.heads() {
            let length = u64::try_from(head.chain.len()).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(head.chain.as_bytes());
            bytes.extend_from_slice(&head.seq.to_be_bytes());
            bytes.extend_from_slice(&head.hash.0);
        }
        bytes
    }
}

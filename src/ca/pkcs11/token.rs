//! A PKCS#11 token: where it is, who may use it, and which key pair is the node CA's.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use der::Decode;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};

use super::{Pkcs11Settings, TokenError, TokenName};
use crate::domain::PublicKey;

/// The named curve P-256 as `CKA_EC_PARAMS` has it: the DER object identifier 1.2.840.10045.3.1.7.
const P256_PARAMETERS: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Length of an uncompressed point of P-256.
const POINT_BYTES: usize = 65;

/// A token that can be logged in to.
pub(super) struct Token {
    module: Pkcs11,
    name: TokenName,
    key_label: String,
    pin: AuthPin,
    /// Tokens lock themselves after a few wrong PINs, so a PIN that was refused is not tried again.
    is_pin_refused: AtomicBool,
    /// How often the module was started. Who calls it reads this meanwhile, because it must not be
    /// started anew under a call.
    starts: RwLock<u64>,
}

impl Token {
    /// Loads the module and starts it, which a process can do only once.
    pub(super) fn load(settings: &Pkcs11Settings, pin: AuthPin) -> Result<Self, TokenError> {
        let unusable =
            |error: Error| TokenError::Unusable(format!("{}: {error}", settings.module.display()));
        let module = Pkcs11::new(&settings.module).map_err(unusable)?;
        // Never unloaded: its threads and exit handlers may outlast whatever holds it here.
        std::mem::forget(module.clone());
        start(&module).map_err(unusable)?;
        Ok(Self {
            module,
            name: settings.token.clone(),
            key_label: settings.key_label.clone(),
            pin,
            is_pin_refused: AtomicBool::new(false),
            starts: RwLock::new(1),
        })
    }

    /// Ends the module and starts it anew; says whether it did. All sessions end with it, and their
    /// handles may be given out again.
    pub(super) fn start_anew(&self) -> bool {
        // Not while a call is under way, and it may hang: then this one does not wait for it.
        let Ok(mut starts) = self.starts.try_write() else { return false };
        // A start that failed, because the token was away, has left the module ended.
        match self.module.clone().finalize() {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => {}
            Err(_) => return false,
        }
        *starts += 1;
        start(&self.module).is_ok()
    }

    pub(super) fn starts(&self) -> RwLockReadGuard<'_, u64> {
        self.starts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the key pair; the private half never leaves the token.
    pub(super) fn create_key(&self) -> Result<(), TokenError> {
        let session = self.module.open_rw_session(self.slot()?)?;
        self.log_in(&session)?;
        // Tools show by the id which halves belong together.
        let mut id = vec![0; 16];
        aws_lc_rs::rand::fill(&mut id)
            .map_err(|_| TokenError::Unavailable("no random bytes".to_owned()))?;
        let label = Attribute::Label(self.key_label.clone().into_bytes());
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Verify(true),
            Attribute::EcParams(P256_PARAMETERS.to_vec()),
            label.clone(),
            Attribute::Id(id.clone()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            label,
            Attribute::Id(id),
        ];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
        Ok(())
    }

    /// The public key of the key pair; none if there is no such key.
    pub(super) fn public_key(&self) -> Result<Option<TokenPublicKey>, TokenError> {
        let session = self.log_in_to_session()?;
        let Some(private) = self.find(&session, ObjectClass::PRIVATE_KEY)? else {
            return Ok(None);
        };
        let flags = session.get_attributes(private, &[AttributeType::Extractable])?;
        if flags.contains(&Attribute::Extractable(true)) {
            tracing::warn!(key = %self.key_label, "the node CA's key can be taken out of the token");
        }
        let public = self.find(&session, ObjectClass::PUBLIC_KEY)?.ok_or_else(|| {
            TokenError::Unusable(format!(
                "{}: the private key `{}` is there, its public key is not",
                self.name, self.key_label
            ))
        })?;
        let wanted = [AttributeType::EcParams, AttributeType::EcPoint];
        let (mut curve, mut point) = (None, None);
        for attribute in session.get_attributes(public, &wanted)? {
            if let Attribute::EcParams(found) = attribute {
                curve = Some(found);
            } else if let Attribute::EcPoint(found) = attribute {
                point = Some(found);
            }
        }
        let of_p256 = point.filter(|_| curve.as_deref() == Some(&P256_PARAMETERS));
        of_p256.and_then(|point| TokenPublicKey::from_ec_point(&point)).map(Some).ok_or_else(|| {
            TokenError::Unusable(format!("{}: `{}` is no P-256 key", self.name, self.key_label))
        })
    }

    /// Whether the PIN was refused: nothing helps then but an operator.
    pub(super) fn has_refused_pin(&self) -> bool {
        self.is_pin_refused.load(Ordering::SeqCst)
    }

    /// The label of the key pair.
    pub(super) fn key_label(&self) -> &str {
        &self.key_label
    }

    /// A new session that may use the private key.
    pub(super) fn log_in_to_session(&self) -> Result<Session, TokenError> {
        let session = self.module.open_ro_session(self.slot()?)?;
        self.log_in(&session)?;
        Ok(session)
    }

    /// The slot where the token is now; after it was away that may be another one.
    fn slot(&self) -> Result<Slot, TokenError> {
        let mut found = Vec::new();
        for slot in self.module.get_slots_with_token()? {
            // Another reader's trouble is not this token's.
            let Ok(token) = self.module.get_token_info(slot) else { continue };
            let is_it = match &self.name {
                TokenName::Label(label) => token.label() == label,
                TokenName::Serial(serial) => token.serial_number() == serial,
            };
            if is_it && token.token_initialized() {
                found.push(slot);
            }
        }
        match found.as_slice() {
            [only] => Ok(*only),
            [] => Err(TokenError::Unavailable(format!("{} is not there", self.name))),
            [..] => Err(TokenError::Unusable(format!(
                "there are several tokens like {}; give `token_serial`",
                self.name
            ))),
        }
    }

    /// A login counts for all sessions of the process, so most of them find it done.
    fn log_in(&self, session: &Session) -> Result<(), TokenError> {
        let refused = || {
            TokenError::Unusable(format!(
                "{} refused the PIN; mend `ca.pkcs11.pin_file` and start again",
                self.name
            ))
        };
        let state = session.get_session_info()?.session_state();
        if matches!(state, SessionState::RoUser | SessionState::RwUser) {
            return Ok(());
        }
        if self.has_refused_pin() {
            return Err(refused());
        }
        match session.login(UserType::User, Some(&self.pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked,
                _,
            )) => {
                self.is_pin_refused.store(true, Ordering::SeqCst);
                Err(refused())
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn find(
        &self,
        session: &Session,
        class: ObjectClass,
    ) -> Result<Option<ObjectHandle>, TokenError> {
        let template = [
            Attribute::Class(class),
            Attribute::KeyType(KeyType::EC),
            Attribute::Label(self.key_label.clone().into_bytes()),
        ];
        match session.find_objects(&template)?.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            [..] => Err(TokenError::Unusable(format!(
                "{} has several keys `{}`; give the node CA's a label of its own",
                self.name, self.key_label
            ))),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

fn start(module: &Pkcs11) -> Result<(), Error> {
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
}

/// What the token said is the public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenPublicKey {
    point: Vec<u8>,
    key: PublicKey,
}

impl TokenPublicKey {
    /// `CKA_EC_POINT` is an octet string around the point; some tokens leave the wrapping out.
    fn from_ec_point(ec_point: &[u8]) -> Option<Self> {
        let point = match ec_point.len() {
            POINT_BYTES => ec_point,
            _ => der::asn1::OctetStringRef::from_der(ec_point).ok()?.as_bytes(),
        };
        let raw = RawPoint(point);
        let key = PublicKey::from_spki_der(&raw.subject_public_key_info()).ok()?;
        Some(Self { point: point.to_vec(), key })
    }

    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// As X.509 has it: uncompressed, without wrapping.
    pub(super) fn point(&self) -> &[u8] {
        &self.point
    }
}

struct RawPoint<'a>(&'a [u8]);

impl PublicKeyData for RawPoint<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_with_its_wrapping_and_without() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let point = pair.public_key_raw().to_vec();
        let wrapped = [&[0x04, 0x41], point.as_slice()].concat();
        let key = TokenPublicKey::from_ec_point(&wrapped).unwrap();
        assert_eq!(key.key.spki_der(), pair.subject_public_key_info());
        assert_eq!(TokenPublicKey::from_ec_point(&point), Some(key));
        let mut elsewhere = point.clone();
        elsewhere[64] ^= 1;
        for wrong in [elsewhere.as_slice(), &point[..64], &wrapped[..66], &[]] {
            assert_eq!(TokenPublicKey::from_ec_point(wrong), None);
        }
    }
}

//! A key in a PKCS#11 token, and what is asked of it: one P-256 signature at a time.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use der::asn1::{SequenceOf, UintRef};
use der::{Decode, Encode};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use super::pool::Device;
use super::{Pkcs11Settings, TokenError, TokenName};
use crate::ca::profile::HEALTH_CHECK_MESSAGE;
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
    fn start_anew(&self) -> bool {
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

    fn starts(&self) -> RwLockReadGuard<'_, u64> {
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
        let session = self.module.open_ro_session(self.slot()?)?;
        self.log_in(&session)?;
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
        if self.is_pin_refused.load(Ordering::SeqCst) {
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

    fn find(
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

/// The node CA's key: a token, and which key it must have.
pub(super) struct TokenKey {
    pub(super) token: Arc<Token>,
    pub(super) public: TokenPublicKey,
}

impl Device for TokenKey {
    type Session = SigningSession;

    fn open(&self) -> Result<SigningSession, String> {
        let opened = self.open_session().or_else(|error| {
            // Some modules, SoftHSM among them, see only after a new start that a token is back.
            let may_help = !self.token.is_pin_refused.load(Ordering::SeqCst);
            if may_help && self.token.start_anew() { self.open_session() } else { Err(error) }
        });
        opened.map_err(|error| error.to_string())
    }
}

impl TokenKey {
    /// Opens a session, which must show that it has the key: the token that came back may be
    /// another one of the same name.
    pub(super) fn open_session(&self) -> Result<SigningSession, TokenError> {
        let token = &self.token;
        let starts = token.starts();
        let session = token.module.open_ro_session(token.slot()?)?;
        token.log_in(&session)?;
        let private = token.find(&session, ObjectClass::PRIVATE_KEY)?.ok_or_else(|| {
            TokenError::Unusable(format!("{} has no key `{}`", token.name, token.key_label))
        })?;
        let session =
            OpenSession { token: Arc::clone(token), start: *starts, session: Some(session) };
        drop(starts);
        let public = self.public.clone();
        let session = SigningSession { session, private, public, failure: Cell::new(None) };
        session.prove()?;
        Ok(session)
    }
}

/// A session that knows whether the module was started anew since. Its handle may be another
/// session's then: it is neither used nor closed.
struct OpenSession {
    token: Arc<Token>,
    start: u64,
    /// There until it is dropped.
    session: Option<Session>,
}

impl OpenSession {
    fn sign(&self, key: ObjectHandle, digest: &[u8]) -> Result<Vec<u8>, TokenError> {
        let starts = self.token.starts();
        let session = self.session.as_ref().filter(|_| *starts == self.start);
        let session = session
            .ok_or_else(|| TokenError::Unavailable(format!("{} was away", self.token.name)))?;
        Ok(session.sign(&Mechanism::Ecdsa, key, digest)?)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let starts = self.token.starts();
        let session = self.session.take();
        if *starts != self.start {
            std::mem::forget(session);
        }
    }
}

/// A session that signs with the node CA's key.
pub(super) struct SigningSession {
    session: OpenSession,
    private: ObjectHandle,
    public: TokenPublicKey,
    /// What the token said when a signature failed: rcgen's errors cannot carry it.
    failure: Cell<Option<String>>,
}

impl SigningSession {
    /// Signs something harmless and verifies it with the public key.
    pub(super) fn prove(&self) -> Result<(), TokenError> {
        let signature = self.signature(HEALTH_CHECK_MESSAGE)?;
        if self.public.key.has_signed(HEALTH_CHECK_MESSAGE, &signature) {
            return Ok(());
        }
        Err(TokenError::Unusable(
            "the token signs with another key than the node CA's certificate has".to_owned(),
        ))
    }

    /// Why the last signature failed, if it was the token.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.failure.take()
    }

    /// Not every token has `CKM_ECDSA_SHA256`, so the digest is made here.
    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
        let raw = self.session.sign(self.private, digest.as_ref())?;
        to_der(&raw).ok_or_else(|| {
            TokenError::Unavailable("the token's signature is no signature of P-256".to_owned())
        })
    }
}

impl PublicKeyData for SigningSession {
    fn der_bytes(&self) -> &[u8] {
        &self.public.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for SigningSession {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signature(message).map_err(|error| {
            self.failure.set(Some(error.to_string()));
            rcgen::Error::RemoteKeyError
        })
    }
}

/// PKCS#11 gives r and s one after the other, certificates want a sequence of two integers.
fn to_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
    let mut integers = SequenceOf::<UintRef<'_>, 2>::new();
    integers.add(UintRef::new(r).ok()?).ok()?;
    integers.add(UintRef::new(s).ok()?).ok()?;
    integers.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_becomes_two_integers_without_needless_zeros() {
        let mut raw = [0; 64];
        raw[31] = 0x7f;
        raw[32] = 0x80;
        let der = to_der(&raw).unwrap();
        assert_eq!(der[..5], [0x30, 0x26, 0x02, 0x01, 0x7f]);
        assert_eq!(der[5..9], [0x02, 0x21, 0x00, 0x80]);
        assert_eq!(der.len(), 40);
        for wrong in [0, 63, 65, 96] {
            assert_eq!(to_der(&vec![1; wrong]), None, "{wrong}");
        }
    }

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

//! A backend whose node CA key is in a PKCS#11 token: an HSM, a smart card, SoftHSM.
//!
//! Certificates are built here, by the same profile as the built-in backend's; the token adds the
//! signature.

mod pool;
mod session;
mod token;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cryptoki::types::AuthPin;
use rcgen::Issuer;
use rustls::pki_types::CertificateDer;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::pool::{Bounds, Failure, Pool};
use self::session::{SigningSession, TokenKey};
use self::token::Token;
use super::authority::{self, Role};
use super::key_file;
use super::{
    Capabilities, CertificateAuthority, IssueError, IssuedCertificate, KeyFileError,
    RevocationList, TrustAnchors, profile,
};
use crate::domain::{KeyDigest, Timestamp, TrustDomain};
use crate::registry::Recorded;

/// How long the start may take: some tokens need seconds to make a key.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Together they are less than a join waits for its CA.
const BOUNDS: Bounds = Bounds { wait: Duration::from_secs(5), answer: Duration::from_secs(10) };
/// PINs of tokens are short.
const PIN_BYTES_MIN: usize = 4;

/// Which key, and how to come to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Settings {
    /// The library that speaks to the token.
    pub module: PathBuf,
    /// Which token.
    pub token: TokenName,
    /// Label of the key pair.
    pub key_label: String,
    /// A file of mode 0600 whose first line is the user's PIN.
    pub pin_file: PathBuf,
    /// Sessions at a time.
    pub sessions: usize,
    /// Whether the key is made if it is not there.
    pub create_key: bool,
}

/// How a token is told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenName {
    /// By its label.
    Label(String),
    /// By its serial number.
    Serial(String),
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "the token `{label}`"),
            Self::Serial(serial) => write!(f, "the token with serial `{serial}`"),
        }
    }
}

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Somebody has to change something.
    #[error("{0}")]
    Unusable(String),
    /// It may work later.
    #[error("{0}")]
    Unavailable(String),
    /// The PIN file, or the certificate.
    #[error(transparent)]
    File(#[from] KeyFileError),
}

impl From<cryptoki::error::Error> for TokenError {
    fn from(error: cryptoki::error::Error) -> Self {
        use cryptoki::error::Error;
        // The name of the code: its text is a paragraph of the standard.
        let said = if let Error::Pkcs11(code, function) = &error {
            format!("{code:?} at C_{function:?}")
        } else {
            error.to_string()
        };
        Self::Unavailable(format!("the token's module says {said}"))
    }
}

/// Issues with a node CA whose key is in a token.
pub struct Pkcs11Ca {
    certificate: CertificateDer<'static>,
    key: KeyDigest,
    pool: Pool<TokenKey>,
}

impl Pkcs11Ca {
    /// Opens the token and the node CA's certificate in `directory`; at the first start the key and
    /// the certificate are made.
    pub async fn open(
        settings: &Pkcs11Settings,
        directory: &Path,
        trust_domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<Self, TokenError> {
        let pin = key_file::read_first_line(&settings.pin_file, "PIN", PIN_BYTES_MIN)?;
        let pin = std::str::from_utf8(&pin)
            .map(AuthPin::from)
            .map_err(|_| KeyFileError::new(&settings.pin_file, "the PIN is not UTF-8"))?;
        let (token, directory, domain) =
            (settings.clone(), directory.to_owned(), trust_domain.clone());
        let opening = spawn_blocking(move || open(&token, pin, &directory, &domain, now));
        let unavailable = |why: &str| TokenError::Unavailable(why.to_owned());
        let (key, certificate) = timeout(OPEN_TIMEOUT, opening)
            .await
            .map_err(|_| unavailable("the token does not answer"))?
            .map_err(|_| unavailable("a call of the token's module panicked"))??;
        Ok(Self {
            certificate,
            key: key.public.key().digest(),
            pool: Pool::new(key, settings.sessions, BOUNDS),
        })
    }

    /// Builds something that the token signs.
    async fn sign<T: Send + 'static>(
        &self,
        build: impl Fn(&Issuer<'_, &SigningSession>) -> Result<T, rcgen::Error> + Send + 'static,
    ) -> Result<T, IssueError> {
        let certificate = self.certificate.clone();
        self.pool
            .run(move |session| {
                Issuer::from_ca_cert_der(&certificate, session)
                    .and_then(|issuer| build(&issuer))
                    .map_err(|error| match session.take_failure() {
                        Some(why) => Failure::Session(why),
                        None => Failure::Request(error.to_string()),
                    })
            })
            .await
    }
}

#[async_trait::async_trait]
impl CertificateAuthority for Pkcs11Ca {
    fn name(&self) -> &'static str {
        "pkcs11"
    }

    async fn issue(&self, recorded: &Recorded) -> Result<IssuedCertificate, IssueError> {
        let order = Arc::new(recorded.order().clone());
        profile::refuse_other_issuer(&order, self.key)?;
        self.sign(move |issuer| profile::certificate(&order, issuer)).await
    }

    async fn sign_revocation_list(&self, list: &RevocationList) -> Result<Vec<u8>, IssueError> {
        let list = list.clone();
        self.sign(move |issuer| profile::revocation_list(&list, issuer)).await
    }

    async fn trust_anchors(&self) -> Result<TrustAnchors, IssueError> {
        Ok(TrustAnchors(vec![self.certificate.clone()]))
    }

    fn issuer(&self) -> KeyDigest {
        self.key
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { needs_csr: false, is_idempotent: true }
    }

    async fn check(&self) -> Result<(), IssueError> {
        self.pool
            .run(|session| session.prove().map_err(|error| Failure::Session(error.to_string())))
            .await
    }
}

/// The key and the certificate that belongs to it. A key is made only where there is no certificate
/// yet: with one, a token without the key is the wrong token.
fn open(
    settings: &Pkcs11Settings,
    pin: AuthPin,
    directory: &Path,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<(TokenKey, CertificateDer<'static>), TokenError> {
    let token = Token::load(settings, pin)?;
    let certificate_path = Role::NodeCa.certificate_path(directory);
    let is_first_start = !certificate_path.exists();
    let mut public = token.public_key()?;
    if public.is_none() && is_first_start && settings.create_key {
        token.create_key()?;
        public = token.public_key()?;
    }
    let (name, label) = (&settings.token, &settings.key_label);
    let public = public.ok_or_else(|| {
        TokenError::Unusable(if is_first_start {
            format!("{name} has no key `{label}`, and `ca.pkcs11.create_key` is false")
        } else {
            format!(
                "{name} has no key `{label}`, which {} belongs to; give back the token it was made with",
                certificate_path.display()
            )
        })
    })?;
    let key = TokenKey { token: Arc::new(token), public };
    let session = key.open_session()?;
    if is_first_start {
        authority::create_certificate(directory, Role::NodeCa, trust_domain, &session, now)?;
    }
    let certificate = authority::read_certificate(directory, Role::NodeCa)?;
    let problem = match authority::is_certificate_of(&certificate, key.public.key().spki_der()) {
        Ok(true) => return Ok((key, certificate)),
        Ok(false) => format!(
            "it is for another key than `{label}` of {name}; give back the token it was made with"
        ),
        Err(problem) => problem.to_owned(),
    };
    Err(KeyFileError::new(&certificate_path, problem).into())
}

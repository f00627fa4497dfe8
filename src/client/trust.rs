//! Which server a node believes: by a pin on the join root, by a CA file, or by public roots.
//!
//! With a pin or a CA file the server must show the URI SAN `spiffe://<trust domain>/muster/server`
//! and nothing else, so no node's certificate is ever taken for a server's (I16, T57).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::JoinError;
use crate::domain::{Code, KeyDigest, TrustDomain};

/// The longest chain that is looked at.
const CHAIN_LENGTH_MAX: usize = 8;

/// Text that is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST or HOST:PORT, an IPv6 address in brackets")]
pub struct InvalidEndpoint;

/// Where a server is: host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// The host, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(InvalidEndpoint)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| InvalidEndpoint)?;
            (host, rest.strip_prefix(':').or(rest.is_empty().then_some("7443")))
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("7443")),
            }
        };
        let port = port.ok_or(InvalidEndpoint)?.parse().map_err(|_| InvalidEndpoint)?;
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'));
        if is_name { Ok(Self { host: host.to_owned(), port }) } else { Err(InvalidEndpoint) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Text that is no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pin is `sha256:` and 64 lower-case hexadecimal digits")]
pub struct InvalidPin;

/// Reads a pin of the join root, as the server prints it.
pub fn parse_pin(text: &str) -> Result<KeyDigest, InvalidPin> {
    text.strip_prefix("sha256:").and_then(|digits| digits.parse().ok()).ok_or(InvalidPin)
}

/// How a node knows its server at first contact.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    /// The join root has one of these keys.
    Pins(Vec<KeyDigest>),
    /// The join root is one of these certificates.
    Roots(Vec<CertificateDer<'static>>),
    /// The machine's public roots and the server's DNS name.
    SystemRoots,
}

impl ServerTrust {
    /// `trust_domain` is the one that the server must be of. With public roots it plays no part:
    /// a public certificate names none.
    pub(super) fn verifier(
        &self,
        endpoint: &Endpoint,
        trust_domain: Option<TrustDomain>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, JoinError> {
        match self {
            Self::Pins(_) | Self::Roots(_) => {
                let trust = self.clone();
                Ok(Arc::new(JoinRootVerifier { trust, trust_domain, provider }))
            }
            Self::SystemRoots => {
                let mut roots = RootCertStore::empty();
                let found = rustls_native_certs::load_native_certs();
                let (added, _) = roots.add_parsable_certificates(found.certs);
                if added == 0 {
                    return Err(JoinError::new(
                        Code::ServerUntrusted,
                        format!("no public roots for {endpoint}; install ca-certificates"),
                    ));
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
                    .map_err(|error| JoinError::new(Code::ServerUntrusted, error.to_string()))
            }
        }
    }
}

/// Demands a chain to the join root and the server's own SPIFFE ID.
#[derive(Debug)]
struct JoinRootVerifier {
    trust: ServerTrust,
    trust_domain: Option<TrustDomain>,
    provider: Arc<CryptoProvider>,
}

impl JoinRootVerifier {
    /// The join root: a certificate that the server sent and that has a pinned key, or one that
    /// the node was given.
    fn roots<'a>(&'a self, sent: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
        match &self.trust {
            ServerTrust::Pins(pins) => sent
                .iter()
                .take(CHAIN_LENGTH_MAX)
                .filter(|one| spki_digest(one).is_some_and(|digest| pins.contains(&digest)))
                .map(|one| CertificateDer::from(one.as_ref()))
                .collect(),
            ServerTrust::Roots(roots) => {
                roots.iter().map(|root| CertificateDer::from(root.as_ref())).collect()
            }
            ServerTrust::SystemRoots => Vec::new(),
        }
    }
}

impl ServerCertVerifier for JoinRootVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        const UNKNOWN: Error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let roots = self.roots(intermediates);
        let anchors: Vec<_> =
            roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        if anchors.is_empty() {
            return Err(UNKNOWN);
        }
        let intermediates: Vec<_> = intermediates.iter().take(CHAIN_LENGTH_MAX).cloned().collect();
        let end_entity = EndEntityCert::try_from(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &intermediates,
                now,
                KeyUsage::server_auth(),
                None,
                None,
            )
            .map_err(|error| {
                if matches!(error, webpki::Error::CertExpired { .. }) {
                    Error::InvalidCertificate(CertificateError::Expired)
                } else if matches!(error, webpki::Error::CertNotValidYet { .. }) {
                    Error::InvalidCertificate(CertificateError::NotValidYet)
                } else {
                    UNKNOWN
                }
            })?;
        match (server_domain(&end_entity), &self.trust_domain) {
            (Some(shown), Some(known)) if shown != *known => {
                let other = format!("the server is of the trust domain {shown}, not of {known}");
                let other = OtherError(Arc::new(std::io::Error::other(other)));
                Err(Error::InvalidCertificate(CertificateError::Other(other)))
            }
            (Some(_), _) => Ok(ServerCertVerified::assertion()),
            (None, _) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The trust domain of a certificate that has exactly one URI, a SPIFFE ID.
pub fn trust_domain_of(certificate: &CertificateDer<'_>) -> Option<TrustDomain> {
    only_spiffe_id(&EndEntityCert::try_from(certificate).ok()?).map(|(domain, _)| domain)
}

/// The trust domain whose server this is: exactly one URI, and it is that server's.
fn server_domain(certificate: &EndEntityCert<'_>) -> Option<TrustDomain> {
    let (domain, id) = only_spiffe_id(certificate)?;
    (id == domain.server_id().as_str()).then_some(domain)
}

fn only_spiffe_id<'a>(certificate: &'a EndEntityCert<'_>) -> Option<(TrustDomain, &'a str)> {
    let mut names = certificate.valid_uri_names();
    let (Some(only), None) = (names.next(), names.next()) else { return None };
    let (domain, _) = only.strip_prefix("spiffe://")?.split_once('/')?;
    Some((domain.parse().ok()?, only))
}

fn spki_digest(certificate: &CertificateDer<'_>) -> Option<KeyDigest> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(KeyDigest::of_spki(parsed.public_key().raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for (text, shown) in [
            ("muster.example", "muster.example:7443"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:7", "[::1]:7"),
            ("[::1]", "[::1]:7443"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for wrong in ["", ":1", "a:", "a:b", "a b:1", "::1", "[::1", "a/b:1", "u@h:1", "a:70000"] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}

//! A CA backend that does what it should not, for one case at a time.
//!
//! It pretends to be a remote CA: it signs with a key of its own whatever the case says.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use muster::ca::{
    Capabilities, CertificateAuthority, IssueError, IssuedCertificate, RevocationList, TrustAnchors,
};
use muster::domain::{KeyDigest, Lifetime};
use muster::policy::Order;
use muster::registry::Recorded;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, OtherNameValue, PublicKeyData, RevokedCertParams, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    OtherKey,
    ExtraDnsName,
    ExtraIp,
    ExtraEmail,
    ExtraUri,
    ExtraOtherName,
    OtherId,
    MissingDnsName,
    Authority,
    LongerLife,
    EarlierStart,
    OtherSerial,
    OtherCommonName,
    ExtraAttribute,
    KeyCertSign,
    OnlyClientAuth,
    NoExtendedUsage,
    CriticalExtension,
    ForeignIssuer,
    TwoLeaves,
    Empty,
    Garbage,
    Refuses,
    Hangs,
    SignsForOthers,
    Inconstant,
    DeadHealthCheck,
    StrayAnchor,
    OneAtATime,
    OtherListNumber,
    ForgetfulList,
}

/// The backend; it can be mended while it runs.
pub(crate) struct FaultyCa {
    fault: Fault,
    pub(crate) is_mended: AtomicBool,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    foreign: Issuer<'static, KeyPair>,
    key: KeyDigest,
    in_work: AtomicUsize,
    has_issued: AtomicBool,
}

impl FaultyCa {
    pub(crate) fn new(fault: Fault) -> Self {
        let (issuer, certificate, key) = authority();
        let (foreign, _, _) = authority();
        let (is_mended, in_work) = (AtomicBool::new(false), AtomicUsize::new(0));
        let has_issued = AtomicBool::new(false);
        Self { fault, is_mended, issuer, certificate, foreign, key, in_work, has_issued }
    }
}

fn authority() -> (Issuer<'static, KeyPair>, CertificateDer<'static>, KeyDigest) {
    let pair = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "a remote CA");
    let certificate = parameters.self_signed(&pair).unwrap();
    let key = KeyDigest::of_spki(&pair.subject_public_key_info());
    (Issuer::new(parameters, pair), certificate.der().clone(), key)
}

#[async_trait::async_trait]
impl CertificateAuthority for FaultyCa {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn issue(&self, recorded: &Recorded) -> Result<IssuedCertificate, IssueError> {
        let fault = if self.is_mended.load(Ordering::SeqCst) { Fault::None } else { self.fault };
        if recorded.order().issuer != self.key && fault != Fault::SignsForOthers {
            return Err(IssueError::Refused("the order is for another issuer".to_owned()));
        }
        // Others come while this one is in work, as with a remote CA.
        let is_alone = self.in_work.fetch_add(1, Ordering::SeqCst) == 0;
        tokio::task::yield_now().await;
        self.in_work.fetch_sub(1, Ordering::SeqCst);
        match fault {
            Fault::OneAtATime if !is_alone => Err(IssueError::Throttled(1)),
            Fault::TwoLeaves => {
                let leaf = || self.sign(recorded.order(), Fault::None);
                Ok(IssuedCertificate { chain: vec![leaf(), leaf()] })
            }
            Fault::Refuses => Err(IssueError::Unavailable("it is down".to_owned())),
            Fault::Hangs => std::future::pending().await,
            Fault::Empty => Ok(IssuedCertificate { chain: Vec::new() }),
            Fault::Garbage => Ok(IssuedCertificate { chain: vec![vec![0x30, 0x80].into()] }),
            _ => Ok(IssuedCertificate { chain: vec![self.sign(recorded.order(), fault)] }),
        }
    }

    async fn sign_revocation_list(&self, list: &RevocationList) -> Result<Vec<u8>, IssueError> {
        let forgotten = usize::from(self.fault == Fault::ForgetfulList);
        let entries = list.entries.iter().skip(forgotten);
        let number = list.number + u64::from(self.fault == Fault::OtherListNumber);
        let revoked_certs = entries.map(|entry| RevokedCertParams {
            serial_number: SerialNumber::from_slice(entry.serial.as_bytes()),
            revocation_time: entry.revoked_at.to_date_time(),
            reason_code: None,
            invalidity_date: None,
        });
        let parameters = CertificateRevocationListParams {
            this_update: list.this_update.to_date_time(),
            next_update: list.next_update.to_date_time(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(parameters.signed_by(&self.issuer).unwrap().der().to_vec())
    }

    async fn trust_anchors(&self) -> Result<TrustAnchors, IssueError> {
        let mut anchors = vec![self.certificate.clone()];
        if self.fault == Fault::StrayAnchor {
            anchors.push(vec![0x30, 0x00].into());
        }
        Ok(TrustAnchors(anchors))
    }

    fn issuer(&self) -> KeyDigest {
        self.key
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { needs_csr: false, is_idempotent: false }
    }

    async fn check(&self) -> Result<(), IssueError> {
        if self.fault == Fault::DeadHealthCheck {
            return Err(IssueError::Unavailable("it is down".to_owned()));
        }
        Ok(())
    }
}

impl FaultyCa {
    fn sign(&self, order: &Order, fault: Fault) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from_slice(order.serial.as_bytes()));
        parameters.not_before = order.not_before.to_date_time();
        parameters.not_after = order.not_after.to_date_time();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, order.common_name.clone());
        parameters.subject_alt_names = names(order, fault);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.use_authority_key_identifier_extension = true;
        match fault {
            Fault::Authority => parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Fault::LongerLife => {
                let end = order.not_after.plus(Lifetime::from_seconds(1));
                parameters.not_after = end.to_date_time();
            }
            Fault::EarlierStart => {
                let start = order.not_before.minus(Lifetime::from_seconds(1));
                parameters.not_before = start.to_date_time();
            }
            Fault::OtherSerial => parameters.serial_number = Some(SerialNumber::from(7_u64)),
            Fault::OtherCommonName => {
                parameters.distinguished_name.push(DnType::CommonName, "i-other");
            }
            Fault::ExtraAttribute => {
                parameters.distinguished_name.push(DnType::OrganizationName, "os:admin");
            }
            // An order that is issued again becomes another certificate, as good as the first.
            Fault::Inconstant => {
                let is_first = !self.has_issued.swap(true, Ordering::SeqCst);
                parameters.use_authority_key_identifier_extension = is_first;
            }
            Fault::KeyCertSign => parameters.key_usages.push(KeyUsagePurpose::KeyCertSign),
            Fault::OnlyClientAuth => {
                parameters.extended_key_usages.remove(0);
            }
            Fault::NoExtendedUsage => parameters.extended_key_usages.clear(),
            Fault::CriticalExtension => {
                let mut extension =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
                extension.set_criticality(true);
                parameters.custom_extensions.push(extension);
            }
            _ => {}
        }
        let issuer = if fault == Fault::ForeignIssuer { &self.foreign } else { &self.issuer };
        if fault == Fault::OtherKey {
            return parameters.signed_by(self.foreign.key(), issuer).unwrap().der().clone();
        }
        let key = SubjectPublicKeyInfo::from_der(order.public_key.spki_der()).unwrap();
        parameters.signed_by(&key, issuer).unwrap().der().clone()
    }
}

/// Every kind of name that could be added or changed (T13).
fn names(order: &Order, fault: Fault) -> Vec<SanType> {
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = |id: &str| SanType::URI(id.try_into().unwrap());
    let mut names = vec![uri(order.spiffe_id.as_str())];
    names.extend(order.dns_names.iter().map(|name| dns(name)));
    match fault {
        Fault::ExtraDnsName => names.push(dns("muster.internal.example")),
        Fault::ExtraUri => names.push(uri("spiffe://prod.example.org/muster/server")),
        Fault::ExtraIp => names.push(SanType::IpAddress([10, 0, 0, 1].into())),
        Fault::ExtraEmail => {
            names.push(SanType::Rfc822Name("root@muster.example".try_into().unwrap()));
        }
        Fault::ExtraOtherName => {
            // A user principal name, by which Windows would log somebody in.
            let name = OtherNameValue::Utf8String("root@muster.example".to_owned());
            names.push(SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], name)));
        }
        Fault::OtherId => names[0] = uri("spiffe://prod.example.org/muster/server"),
        Fault::MissingDnsName => names.truncate(1),
        _ => {}
    }
    names
}

//! The `ec2` method: an instance identity document, signed by AWS, and a fresh proof by the
//! instance's own credentials.
//!
//! Evidence is one JSON object of at most 16 KiB:
//!
//! ```json
//! {
//!   "document": "MIAGCSqGSIb3DQEHAqCAMIAC…",
//!   "proof": {
//!     "region": "us-west-2",
//!     "endpoint": "regional",
//!     "access_key_id": "ASIA…",
//!     "date": "20260102T030405Z",
//!     "session_token": "…",
//!     "signature": "64 lower-case hexadecimal digits",
//!     "key_binding": "64 lower-case hexadecimal digits"
//!   }
//! }
//! ```
//!
//! `document` is the text that the metadata service answers at
//! `/latest/dynamic/instance-identity/rsa2048`: base64 with any line breaks, or the same between
//! `-----BEGIN PKCS7-----` lines. Unknown and duplicate members are refused. Everything that is
//! claimed stands in the signed bytes; nothing beside them is read (T6, T26).
//!
//! `proof` may be missing; whether it may is for the policy to say. It holds what differs from node
//! to node in one fixed request, signed with the credentials of
//! `/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance`; see
//! `docs/protocol.md`. `key_binding` is compared with the server's own and never used.
//!
//! The subject is `instance/<partition>/<account_id>/<region>/<instance_id>`, the epoch is the
//! document's `pendingTime`. Nothing is ever keyed by the bytes of the message: some of them are
//! not signed (T19).

mod budget;
mod evidence;
mod identity_document;
mod look_up;
mod pace;
mod proof;

use std::sync::Arc;

pub use evidence::{MAX_EVIDENCE_BYTES, evidence};
pub use identity_document::{IdentityDocument, MAX_DOCUMENT_BYTES};

use super::{
    ClaimValues, Claims, Declaration, FactsNeeded, Field, Instance, JoinMethod, Kind, Presence,
    Presented, Proof, Provenance, Rejection, Running, Source, SourceUnavailable, Sources,
};
use crate::aws::{Ec2Client, SharedCertificates, Sts};
use crate::domain::{Code, Lifetime, Region, Subject, Timestamp};
use budget::ProofBudget;
use evidence::Evidence;

/// How far a document may lie ahead of the server's clock.
const CLOCK_SKEW: Lifetime = Lifetime::from_seconds(60);

/// What rules may ask of an EC2 instance.
pub(super) const DECLARATION: Declaration = Declaration {
    name: "ec2",
    fields: FIELDS,
    name_variables: &[
        "partition",
        "account_id",
        "region",
        "availability_zone",
        "instance_id",
        "private_ip",
    ],
    has_fresh_proof: true,
    uses_tokens: false,
    running: Some(Running {
        reads: "state",
        values: &["pending", "running"],
        since: "launch_time",
    }),
    epoch_claim: Some("pending_time"),
    example: &[
        ("availability_zone", "{region}a"),
        ("instance_id", "i-0123456789abcdef0"),
        ("image_id", "ami-0123456789abcdef0"),
        ("instance_type", "m7g.large"),
        ("private_ip", "10.0.0.10"),
    ],
    unasked: &["architecture", "signing_time", "certificate_serial"],
};

/// The entry in the table of methods.
pub(super) fn build(sources: &Sources) -> Arc<dyn JoinMethod> {
    Arc::new(Ec2::new(sources.clone()))
}

/// Verifies identity documents against pinned region certificates, and proofs by asking STS.
pub struct Ec2 {
    certificates: SharedCertificates,
    sts: Sts,
    instances: Ec2Client,
    budget: ProofBudget,
}

impl Ec2 {
    /// The method that verifies with these certificates and asks there.
    pub fn new(sources: Sources) -> Self {
        let Sources { certificates, sts, ec2: instances } = sources;
        Self { certificates, sts, instances, budget: ProofBudget::default() }
    }
}

#[async_trait::async_trait]
impl JoinMethod for Ec2 {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn verify(&self, presented: &Presented<'_>) -> Result<Claims, Rejection> {
        let evidence = Evidence::parse(presented.evidence)?;
        let certificates = self.certificates.current();
        let document = IdentityDocument::verify(evidence.document.as_bytes(), &certificates)?;
        let _readable = evidence.into_proof(document.region())?;
        claims(&document, presented.now)
    }

    async fn prove(
        &self,
        claims: &Claims,
        presented: &Presented<'_>,
    ) -> Result<Proof, SourceUnavailable> {
        let Some(offered) = offered(claims, presented)? else { return Ok(Proof::NotOffered) };
        proof::check(&offered, claims.subject(), presented, &self.sts, &self.budget).await
    }

    async fn look_up(
        &self,
        claims: &Claims,
        needed: &FactsNeeded,
        now: Timestamp,
    ) -> Result<Instance, SourceUnavailable> {
        look_up::look_up(&self.instances, claims, needed, now).await
    }
}

/// The proof that was read once before, when the evidence was verified.
fn offered(
    claims: &Claims,
    presented: &Presented<'_>,
) -> Result<Option<evidence::OfferedProof>, SourceUnavailable> {
    let unreadable = || SourceUnavailable {
        code: Code::Internal,
        detail: "evidence that was verified cannot be read again".to_owned(),
    };
    let region = claims.subject().segment("region").and_then(|text| text.parse().ok());
    let region: Region = region.ok_or_else(unreadable)?;
    let evidence = Evidence::parse(presented.evidence).map_err(|_| unreadable())?;
    evidence.into_proof(&region).map_err(|_| unreadable())
}

fn claims(document: &IdentityDocument, now: Timestamp) -> Result<Claims, Rejection> {
    let epoch = document.pending_time();
    if epoch > now.plus(CLOCK_SKEW) {
        let clocks = format!("the document says {epoch}, the server's clock says {now}");
        let message = format!("the document is from the future: {clocks}");
        let hint = Some(clocks);
        return Err(Rejection { hint, ..Rejection::new(Code::DocumentFromFuture, message) });
    }
    let subject = Subject::new(
        "instance",
        [
            ("partition", document.partition().as_str()),
            ("account_id", document.account_id().as_str()),
            ("region", document.region().as_str()),
            ("instance_id", document.instance_id().as_str()),
        ],
    )
    .map_err(|error| Rejection::new(Code::DocumentContentInvalid, error.to_string()))?;
    let mut values = ClaimValues::default();
    for (name, value) in document.values() {
        if let Some(value) = value {
            values.insert(name, value, Provenance::Proven);
        }
    }
    Ok(Claims::assertion(DECLARATION.name, subject, values, epoch))
}

const FIELDS: &[Field] = &[
    claim("accounts", "account_id", Kind::Accounts, Presence::Required, None),
    claim("partition", "partition", Kind::Partition, Presence::Optional, None),
    claim("regions", "region", Kind::Regions, Presence::RequiredOrAny, None),
    claim(
        "availability_zones",
        "availability_zone",
        Kind::Globs { separators: &[] },
        Presence::Optional,
        None,
    ),
    claim(
        "images",
        "image_id",
        Kind::Ids { prefix: "ami-" },
        Presence::Optional,
        Some("whoever may copy an image gives it another id"),
    ),
    claim(
        "instance_types",
        "instance_type",
        Kind::Globs { separators: &['.'] },
        Presence::Optional,
        None,
    ),
    fact("instance_profile", Kind::Globs { separators: &['/', ':'] }, None),
    fact("tags", Kind::Tags, Some("tags admit whoever may call ec2:CreateTags in the account")),
    fact("vpc", Kind::Ids { prefix: "vpc-" }, None),
    fact("subnet", Kind::Ids { prefix: "subnet-" }, None),
    Field { is_list: true, ..fact("security_groups", Kind::Ids { prefix: "sg-" }, None) },
    fact("auto_scaling_group", Kind::Globs { separators: &[] }, None),
    fact("imds", Kind::MetadataOptions, None),
    Field {
        name: "launched_within",
        reads: "launch_time",
        source: Source::Instance,
        kind: Kind::Age,
        is_list: false,
        presence: Presence::Optional,
        caution: Some("a stop and start of the instance begins this time anew"),
    },
];

const fn claim(
    name: &'static str,
    reads: &'static str,
    kind: Kind,
    presence: Presence,
    caution: Option<&'static str>,
) -> Field {
    Field { name, reads, source: Source::Claim, kind, is_list: false, presence, caution }
}

const fn fact(name: &'static str, kind: Kind, caution: Option<&'static str>) -> Field {
    Field {
        name,
        reads: name,
        source: Source::Instance,
        kind,
        is_list: false,
        presence: Presence::Optional,
        caution,
    }
}

//! The `ec2` method: an instance identity document, signed by AWS.
//!
//! Evidence is one JSON object of at most 16 KiB:
//!
//! ```json
//! {"document": "MIAGCSqGSIb3DQEHAqCAMIAC…"}
//! ```
//!
//! `document` is the text that the metadata service answers at
//! `/latest/dynamic/instance-identity/rsa2048`: base64 with any line breaks, or the same between
//! `-----BEGIN PKCS7-----` lines. Unknown and duplicate members are refused. Everything that is
//! claimed stands in the signed bytes; nothing beside them is read (T6, T26).
//!
//! The subject is `instance/<partition>/<account_id>/<region>/<instance_id>`, the epoch is the
//! document's `pendingTime`. Nothing is ever keyed by the bytes of the message: some of them are
//! not signed (T19).

mod evidence;
mod identity_document;

pub use evidence::{MAX_EVIDENCE_BYTES, evidence};
pub use identity_document::{IdentityDocument, MAX_DOCUMENT_BYTES};

use super::{
    ClaimValues, Claims, Declaration, FactsNeeded, Field, Instance, JoinMethod, Kind, Presence,
    Proof, Provenance, Rejection, Source, SourceUnavailable,
};
use crate::aws::RegionCertificates;
use crate::domain::{Code, KeyBinding, Lifetime, Subject, Timestamp};

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
    has_look_up: true,
};

/// Verifies identity documents against pinned region certificates.
#[derive(Debug)]
pub struct Ec2 {
    certificates: RegionCertificates,
}

impl Ec2 {
    /// The method with these certificates.
    pub fn new(certificates: RegionCertificates) -> Self {
        Self { certificates }
    }

    /// The certificates that it trusts.
    pub fn certificates(&self) -> &RegionCertificates {
        &self.certificates
    }
}

#[async_trait::async_trait]
impl JoinMethod for Ec2 {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn verify(
        &self,
        evidence: &[u8],
        _binding: &KeyBinding,
        now: Timestamp,
    ) -> Result<Claims, Rejection> {
        let document = evidence::document(evidence)?;
        let document = IdentityDocument::verify(document.as_bytes(), &self.certificates)?;
        claims(&document, now)
    }

    async fn prove(
        &self,
        _claims: &Claims,
        _binding: &KeyBinding,
    ) -> Result<Proof, SourceUnavailable> {
        Ok(Proof::NotOffered)
    }

    async fn look_up(
        &self,
        _claims: &Claims,
        _needed: &FactsNeeded,
    ) -> Result<Instance, SourceUnavailable> {
        Ok(Instance::NotRead("look-ups come with a later version".to_owned()))
    }
}

fn claims(document: &IdentityDocument, now: Timestamp) -> Result<Claims, Rejection> {
    let epoch = document.pending_time();
    if epoch > now.plus(CLOCK_SKEW) {
        let clocks = format!("the document says {epoch}, the server's clock says {now}");
        return Err(Rejection {
            code: Code::DocumentFromFuture,
            message: format!("the document is from the future: {clocks}"),
            hint: Some(clocks),
        });
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
    .map_err(|error| Rejection {
        code: Code::DocumentContentInvalid,
        message: error.to_string(),
        hint: None,
    })?;
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
    fact("security_groups", Kind::Ids { prefix: "sg-" }, None),
    fact("auto_scaling_group", Kind::Globs { separators: &[] }, None),
    fact("imds", Kind::MetadataOptions, None),
    Field {
        name: "launched_within",
        reads: "launch_time",
        source: Source::Instance,
        kind: Kind::Age,
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
    Field { name, reads, source: Source::Claim, kind, presence, caution }
}

const fn fact(name: &'static str, kind: Kind, caution: Option<&'static str>) -> Field {
    Field {
        name,
        reads: name,
        source: Source::Instance,
        kind,
        presence: Presence::Optional,
        caution,
    }
}

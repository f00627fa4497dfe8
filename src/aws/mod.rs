//! What AWS says and how it says it: region certificates, signed messages, the metadata service.
//! Thin adapters: no policy, no decisions.

mod armour;
mod ber;
mod bucket;
mod call;
mod cms;
mod credentials;
mod ec2;
mod endpoints;
mod http;
mod imds;
mod json;
mod quote;
mod regions;
mod sigv4;
mod ssm;
mod sts;

pub use armour::{InvalidArmour, message_of_text};
pub use ber::InvalidBer;
pub use bucket::{Bucket, Rate};
pub use call::{CallCounts, CallFailed, CallStatistics, Failure};
pub use cms::{InvalidSignedData, MAX_SIGNED_DATA_BYTES, SignedContent, verify_signed_data};
pub use credentials::{OwnCredentials, UnusableCredentials};
pub use ec2::{
    Descriptions, Ec2Client, InstanceDescription, InstanceState, InvalidDescriptions, LookUpBy,
    MetadataOptions, Place, parse_descriptions,
};
pub use endpoints::{EndpointKind, Endpoints, InvalidOverride, Service, host};
pub use http::{Answer, AnswerLimits, AwsHttp, HttpSettings, NoAnswer, UnusableHttp};
pub use imds::{Imds, ImdsSession, InvalidEndpoint, MetadataUnavailable};
pub use json::{InvalidJson, Json};
pub use quote::quoted;
pub use regions::{
    CertificateSource, Import, Imported, InvalidCertificates, InvalidPage, MAX_PAGE_BYTES,
    PageProblem, RegionCertificate, RegionCertificates, SharedCertificates, Standing,
    read_certificates_page,
};
pub use ssm::{Parameter, PutParameter, Ssm, SsmAccess, SsmRole};
pub use sts::{
    CallerIdentity, InvalidSignedRequest, SignedRequest, SigningFailed, Sts, TemporaryCredentials,
    Verdict, account_of_access_key, read_caller_identity,
};

//! The protocol's generated types, `muster.v1`.

#![expect(
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/muster.proto"
)]

tonic::include_proto!("muster.v1");

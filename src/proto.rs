//! What both sides of the wire share: the protocol's generated types (`muster.v1`), the cryptography
//! of the connection, and its channel binding.

mod generated {
    #![expect(
        unreachable_pub,
        unused_qualifications,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated from proto/muster.proto"
    )]

    tonic::include_proto!("muster.v1");
}

pub(crate) use generated::*;

use rustls::ConnectionCommon;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// RFC 9266 `tls-exporter`.
const CHANNEL_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The cryptography of the connection: classical key exchange, chosen here and not by whichever
/// dependency turns something on. A recorded join holds nothing that is worth decrypting later.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// The channel binding of a connection whose handshake is done: each side takes it from its own TLS.
pub(crate) fn channel<Side>(
    connection: &ConnectionCommon<Side>,
) -> Result<[u8; 32], rustls::Error> {
    // Empty context, as RFC 9266 section 2 has it.
    connection.export_keying_material([0; 32], CHANNEL_LABEL, Some(&[]))
}

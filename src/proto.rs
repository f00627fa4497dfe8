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
///
/// AES-128 comes first for its hash: a handshake is dozens of HMACs, and processors have instructions
/// for SHA-256, but few for SHA-384. RFC 8446, section 9.1, has it as the suite that all must know.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Every message of the protocol with every field set, and its bytes as version 0.1 writes them.
    /// A field never changes its number or type: nodes and servers one version apart work together.
    fn messages() -> Vec<(&'static str, Vec<u8>, &'static str)> {
        let challenge = Challenge {
            nonce: vec![1; 4],
            csr_wanted: true,
            server_time: 1_700_000_000,
            fips_wanted: true,
        };
        let evidence = Evidence { evidence: vec![2; 2], pop: vec![3; 2], csr: vec![4; 2] };
        let start = JoinStart {
            policy: "web".to_owned(),
            method: "ec2".to_owned(),
            public_key: vec![5; 2],
            facts: "f".to_owned(),
        };
        let renew = RenewStart { public_key: vec![6; 2], facts: "g".to_owned() };
        let result = JoinResult {
            certificate_chain: vec![vec![7], vec![8]],
            trust_bundle: vec![vec![9]],
            join_root: vec![10],
            renew_after: 1_700_000_100,
            node_id: "n-1".to_owned(),
            correlation_id: "a-1".to_owned(),
            node_record: "{}".to_owned(),
        };
        let sent = |step| JoinRequest { step: Some(step) }.encode_to_vec();
        let answered = |step| JoinResponse { step: Some(step) }.encode_to_vec();
        let asked = |step| RenewRequest { step: Some(step) }.encode_to_vec();
        let told = |step| RenewResponse { step: Some(step) }.encode_to_vec();
        vec![
            ("JoinStart", sent(join_request::Step::Start(start)), JOIN_START),
            ("Evidence of a join", sent(join_request::Step::Evidence(evidence.clone())), EVIDENCE),
            ("Challenge", answered(join_response::Step::Challenge(challenge.clone())), CHALLENGE),
            ("JoinResult", answered(join_response::Step::Result(result.clone())), RESULT),
            ("RenewStart", asked(renew_request::Step::Start(renew)), RENEW_START),
            ("Evidence of a renewal", asked(renew_request::Step::Evidence(evidence)), EVIDENCE),
            ("its Challenge", told(renew_response::Step::Challenge(challenge)), CHALLENGE),
            ("its result", told(renew_response::Step::Result(result)), RESULT),
        ]
    }

    const JOIN_START: &str = "0a110a0377656212036563321a020505220166";
    const EVIDENCE: &str = "120c0a020202120203031a020404";
    const CHALLENGE: &str = "0a100a040101010110011880e2cfaa062001";
    const RESULT: &str = "12200a01070a01081201091a010a20e4e2cfaa062a036e2d313203612d313a027b7d";
    const RENEW_START: &str = "0a070a020606120167";

    #[test]
    fn the_wire_is_that_of_version_0_1() {
        for (name, bytes, of_then) in messages() {
            assert_eq!(hex::encode(bytes), of_then, "{name}");
        }
    }

    // What a later version adds is not seen by this one, and does no harm.
    #[test]
    fn fields_of_a_later_version_are_left_out() {
        let later = Challenge { nonce: vec![1], ..Challenge::default() };
        let mut bytes = later.encode_to_vec();
        // Field 100, a string.
        bytes.extend_from_slice(b"\xa2\x06\x03new");
        assert_eq!(Challenge::decode(bytes.as_slice()).unwrap(), later);
    }
}

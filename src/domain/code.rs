//! The codes that muster speaks in: one identifier on the wire, in JSON, in the audit log, in
//! metrics and in `docs/errors.md`.
//!
//! Append-only: a code is never renamed and never reused. A test compares this table with the
//! documentation.

use std::fmt;
use std::str::FromStr;

use super::text_form;

/// What the caller should do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The answer is no, and asking again with the same evidence gives the same answer.
    Denied,
    /// The request is not what it should be. Final.
    Invalid,
    /// Worth one more try at once, with fresh evidence.
    Stale,
    /// Too much at the moment; says after how long.
    Throttled,
    /// Something that is needed did not answer; says after how long.
    Unavailable,
}

impl Class {
    /// The name in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Stale => "stale",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Declares the codes: variant, text, class, gRPC status, and what somebody can do about it.
macro_rules! codes {
    ($($variant:ident = $text:literal, $class:ident, $grpc:literal, $remedy:literal;)*) => {
        /// A stable identifier of one kind of refusal or failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $remedy] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The identifier.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What a caller should do about it.
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// The code that a node is told: what policies hold cannot be probed, so every refusal
            /// by policy looks the same from outside (design, "Errors").
            #[must_use]
            pub const fn outward(self) -> Self {
                match self {
                    Self::PolicyUnknown
                    | Self::PolicyAmbiguous
                    | Self::PolicyNoMatch
                    | Self::PolicyDenied
                    | Self::DocumentTooOld
                    | Self::NameNotPermitted
                    | Self::TokenOtherPolicy
                    | Self::ComeBackRefused
                    | Self::Locked => Self::NotAdmitted,
                    other => other,
                }
            }

            /// The name of the gRPC status that carries it.
            pub const fn grpc_status(self) -> &'static str {
                match self { $(Self::$variant => $grpc,)* }
            }

            /// What somebody can do about it, in a sentence.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    MalformedRequest = "MALFORMED_REQUEST", Invalid, "INVALID_ARGUMENT",
        "The client and the server disagree about the protocol; use one version of muster on both sides.";
    UnknownMethod = "UNKNOWN_METHOD", Invalid, "INVALID_ARGUMENT",
        "The server does not know this join method; check the spelling and the server's version.";
    PublicKeyUnsupported = "PUBLIC_KEY_UNSUPPORTED", Invalid, "INVALID_ARGUMENT",
        "Use a P-256, P-384, Ed25519 or RSA 2048 to 4096 key in its canonical encoding.";
    ChallengeExpired = "CHALLENGE_EXPIRED", Stale, "UNAUTHENTICATED",
        "The node took more than 30 seconds to answer the challenge; it may try again at once.";
    PossessionNotProven = "POSSESSION_NOT_PROVEN", Denied, "UNAUTHENTICATED",
        "The signature of the node key does not fit this connection, challenge, key and evidence; something between node and server changes bytes or ends TLS.";

    DocumentTooLarge = "DOCUMENT_TOO_LARGE", Invalid, "INVALID_ARGUMENT",
        "An identity document has about 1.5 KiB; send what the metadata service's rsa2048 path answers.";
    DocumentMalformed = "DOCUMENT_MALFORMED", Invalid, "INVALID_ARGUMENT",
        "This is not a signed identity document; send what the metadata service's rsa2048 path answers.";
    DocumentFormUnsupported = "DOCUMENT_FORM_UNSUPPORTED", Invalid, "INVALID_ARGUMENT",
        "Only the rsa2048 form is accepted: read /latest/dynamic/instance-identity/rsa2048.";
    DocumentSignerUnknown = "DOCUMENT_SIGNER_UNKNOWN", Denied, "UNAUTHENTICATED",
        "No known region certificate has this issuer and serial; `muster regions ls` lists them, and a new region's certificate can be added.";
    DocumentDigestMismatch = "DOCUMENT_DIGEST_MISMATCH", Denied, "UNAUTHENTICATED",
        "The document's content was changed after AWS signed it.";
    DocumentSignatureInvalid = "DOCUMENT_SIGNATURE_INVALID", Denied, "UNAUTHENTICATED",
        "The document's signature does not verify with the certificate it names.";
    DocumentRegionMismatch = "DOCUMENT_REGION_MISMATCH", Denied, "UNAUTHENTICATED",
        "The document names another region than the certificate that signed it.";
    DocumentContentInvalid = "DOCUMENT_CONTENT_INVALID", Invalid, "INVALID_ARGUMENT",
        "The signed content is not the JSON of an identity document.";
    DocumentFromFuture = "DOCUMENT_FROM_FUTURE", Denied, "UNAUTHENTICATED",
        "The document is later than the server's clock by more than a minute: correct the server's clock.";

    NotAdmitted = "NOT_ADMITTED", Denied, "PERMISSION_DENIED",
        "Policy does not admit this node; an operator reads why with `muster audit show CORRELATION_ID`.";
    PolicyUnknown = "POLICY_UNKNOWN", Denied, "PERMISSION_DENIED",
        "No join policy of this name and method is loaded; `muster policy status` shows the set in force.";
    PolicyAmbiguous = "POLICY_AMBIGUOUS", Denied, "PERMISSION_DENIED",
        "The node named no policy and there is not exactly one for its method; give `--policy`.";
    PolicyNoMatch = "POLICY_NO_MATCH", Denied, "PERMISSION_DENIED",
        "No allow rule of the policy matches; the explanation names the field that differs.";
    PolicyDenied = "POLICY_DENIED", Denied, "PERMISSION_DENIED",
        "A deny rule matches; the explanation names it.";
    PolicyFactsMissing = "POLICY_FACTS_MISSING", Unavailable, "UNAVAILABLE",
        "A rule needs a fact that could not be read.";
    DocumentTooOld = "DOCUMENT_TOO_OLD", Denied, "PERMISSION_DENIED",
        "The document is older than the policy's `document_ttl`; stop and start the instance, or allow one rejoin with `muster nodes allow-rejoin`.";
    FreshProofRequired = "FRESH_PROOF_REQUIRED", Denied, "PERMISSION_DENIED",
        "The policy requires a fresh proof and the node offered none; an agent of this version always does.";
    NameNotPermitted = "NAME_NOT_PERMITTED", Denied, "PERMISSION_DENIED",
        "The policy would give a name that is reserved or not permitted; mend its `dns_names`.";
    ProofDisproven = "PROOF_DISPROVEN", Denied, "PERMISSION_DENIED",
        "The fresh proof is good and another instance's than the document's. Treat it as an attempt.";
    ProofMalformed = "PROOF_MALFORMED", Invalid, "INVALID_ARGUMENT",
        "The fresh proof is not what a node of this version sends; use one version of muster on both sides.";
    ProofDateSkewed = "PROOF_DATE_SKEWED", Stale, "UNAUTHENTICATED",
        "The proof was signed more than 5 minutes from the server's clock: one of the two clocks is wrong; the hint shows both.";
    ProofBindingMismatch = "PROOF_BINDING_MISMATCH", Denied, "UNAUTHENTICATED",
        "The proof was signed for another key, connection, challenge or purpose; something between node and server ends TLS, or a proof was copied.";
    ProofOtherAccount = "PROOF_OTHER_ACCOUNT", Denied, "PERMISSION_DENIED",
        "The access key id of the proof names another account than the document; somebody shows a document of an account that is not his.";
    ProofSignatureRejected = "PROOF_SIGNATURE_REJECTED", Denied, "UNAUTHENTICATED",
        "AWS says that these credentials did not sign this request: the proof is of another connection or key, or was made up.";
    ProofCredentialsExpired = "PROOF_CREDENTIALS_EXPIRED", Stale, "UNAUTHENTICATED",
        "The instance's credentials have ended; the node may try again at once with new ones of its metadata service.";
    ProofThrottled = "PROOF_THROTTLED", Throttled, "RESOURCE_EXHAUSTED",
        "Too many proofs of this instance or account failed or wait; wait as long as it says. A flood of bad proofs shows in `muster_joins_total` by code.";
    EvidenceDisagrees = "EVIDENCE_DISAGREES", Denied, "PERMISSION_DENIED",
        "EC2 says something else of the instance than its document does; compare the two in the audit record, and treat it as an attempt.";
    InstanceUnknown = "INSTANCE_UNKNOWN", Denied, "PERMISSION_DENIED",
        "EC2 knows no such instance in the account that the policy's `look_up` reads; it is gone, or the role is another account's.";
    InstanceNotRunning = "INSTANCE_NOT_RUNNING", Denied, "PERMISSION_DENIED",
        "EC2 says that the instance does not run; a machine that is stopping or terminated gets no certificate.";
    InstanceNotVisible = "INSTANCE_NOT_VISIBLE", Unavailable, "UNAVAILABLE",
        "EC2 does not know the new instance yet, which can take minutes; the node tries again.";
    StsUnavailable = "STS_UNAVAILABLE", Unavailable, "UNAVAILABLE",
        "STS gave the server no usable answer; check the way from the server to STS, and `aws` in its configuration.";
    StsThrottled = "STS_THROTTLED", Throttled, "RESOURCE_EXHAUSTED",
        "STS answers the server that there are too many calls; wait as long as it says.";
    Ec2Unavailable = "EC2_UNAVAILABLE", Unavailable, "UNAVAILABLE",
        "EC2 gave the server no usable answer; check the way from the server to EC2, its role and the permission ec2:DescribeInstances.";
    Ec2Throttled = "EC2_THROTTLED", Throttled, "RESOURCE_EXHAUSTED",
        "EC2 answers the server that there are too many calls in this account and region; wait as long as it says.";

    EnrollmentConflict = "ENROLLMENT_CONFLICT", Denied, "PERMISSION_DENIED",
        "This instance is enrolled with another key. If the node lost its key, allow one rejoin with `muster nodes allow-rejoin`; if not, somebody else holds its document.";
    EpochStale = "EPOCH_STALE", Denied, "PERMISSION_DENIED",
        "The document is from before the instance's last known start; fetch a new one.";
    KeyInUse = "KEY_IN_USE", Denied, "PERMISSION_DENIED",
        "Another instance is enrolled with this key: the disk was copied. Remove the state directory and join again.";

    TokenUnknown = "TOKEN_UNKNOWN", Denied, "UNAUTHENTICATED",
        "No token of this name and secret is on record: it was removed, or is another server's. `muster tokens ls` lists what there is.";
    TokenExpired = "TOKEN_EXPIRED", Denied, "PERMISSION_DENIED",
        "The token has ended; `muster tokens add` makes another, or look whether its publication goes on (`muster publications ls`).";
    TokenExhausted = "TOKEN_EXHAUSTED", Denied, "PERMISSION_DENIED",
        "As many nodes as may have joined with this token; `muster tokens add --max-uses N` makes another.";
    TokenNotFromHere = "TOKEN_NOT_FROM_HERE", Denied, "PERMISSION_DENIED",
        "The token is for other networks than the one that the node comes from; behind a balancer the server needs the PROXY protocol to see it.";
    TokenOtherPolicy = "TOKEN_OTHER_POLICY", Denied, "PERMISSION_DENIED",
        "The node names another policy than the one that its token, or its enrollment, is for; leave `--policy` out, or name that one.";
    TokenChanged = "TOKEN_CHANGED", Stale, "ABORTED",
        "The token was changed while this node was judged; it asks again at once.";
    ComeBackRefused = "COME_BACK_REFUSED", Denied, "PERMISSION_DENIED",
        "The node's certificate has ended, and its policy does not let it back in by its key alone; it needs a token, or the policy `come_back`.";

    TokenTooWide = "TOKEN_TOO_WIDE", Invalid, "-",
        "No rule of the policy would admit who comes with such a token; ask for a shorter life, fewer uses or narrower networks, or change the policy.";
    NameTaken = "NAME_TAKEN", Invalid, "-",
        "There is one of this name already; give another, or remove that one first.";
    TokenMalformed = "TOKEN_MALFORMED", Invalid, "-",
        "What the source of the token holds is no token, or has a wrong character; nothing of it was sent. Put the text of `muster tokens add` there as it was printed.";
    TokenSourceUnavailable = "TOKEN_SOURCE_UNAVAILABLE", Unavailable, "-",
        "The source of the token did not answer; check the way from the node to SSM. The node tries again.";
    TokenSourceDenied = "TOKEN_SOURCE_DENIED", Denied, "-",
        "The node may not read the source of its token, or there is nothing; the message says which. Check the file's owner and mode, or the role's ssm:GetParameters and the parameter's name.";

    CertificateRequired = "CERTIFICATE_REQUIRED", Denied, "UNAUTHENTICATED",
        "A renewal comes over a connection with the node's certificate; without one the node joins.";
    NodeUnknown = "NODE_UNKNOWN", Denied, "PERMISSION_DENIED",
        "The certificate is good and of no enrollment that stands: it was forgotten. The agent joins again by itself.";
    CloneSuspected = "CLONE_SUSPECTED", Denied, "PERMISSION_DENIED",
        "A key or certificate of this node is in use that its agent gave up: somebody has a copy of its state directory. `muster nodes show` tells the story; if it is the node itself, restored from a snapshot, allow one rejoin.";
    Locked = "LOCKED", Denied, "PERMISSION_DENIED",
        "An operator, or a clone signal, has locked this node, its instance, account, policy or certificate; `muster nodes unlock` lifts it.";
    TooManyCertificates = "TOO_MANY_CERTIFICATES", Throttled, "RESOURCE_EXHAUSTED",
        "This node has 50 certificates that have not ended; it gets the next one when some have. No agent asks for so many: look at `muster nodes show`.";
    PolicySetChanged = "POLICY_SET_CHANGED", Stale, "ABORTED",
        "The policy set was exchanged while this node was judged; it asks again at once.";
    ServerClockWrong = "SERVER_CLOCK_WRONG", Unavailable, "UNAVAILABLE",
        "The server's clock is behind what it has seen before, or more than 2 minutes from AWS's; nothing is issued until it is right.";

    Overloaded = "OVERLOADED", Throttled, "RESOURCE_EXHAUSTED",
        "The server has too many joins in flight; wait as long as it says.";
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable, "UNAVAILABLE",
        "The server cannot read or write its store; look at its log and its disk.";
    CaUnavailable = "CA_UNAVAILABLE", Unavailable, "UNAVAILABLE",
        "The CA backend did not issue; look at the server's log.";
    CertificateRejected = "CERTIFICATE_REJECTED", Unavailable, "UNAVAILABLE",
        "The CA backend returned another certificate than the one ordered; it was discarded. Mend the backend's configuration.";
    TimedOut = "TIMED_OUT", Unavailable, "DEADLINE_EXCEEDED",
        "The other side did not answer in time; try again.";
    Internal = "INTERNAL", Unavailable, "INTERNAL",
        "A defect of muster; report it with the correlation id.";

    ConfigurationInvalid = "CONFIGURATION_INVALID", Invalid, "-",
        "Mend the configuration file or the flag that the message names; `muster server config --example` prints every key.";
    PolicySetInvalid = "POLICY_SET_INVALID", Invalid, "-",
        "Mend the policy files; `muster policy check DIR` lists every finding.";
    FileUnreadable = "FILE_UNREADABLE", Invalid, "-",
        "The file cannot be opened or read; check path and permissions.";
    FileTooLarge = "FILE_TOO_LARGE", Invalid, "-",
        "The file is larger than muster reads; check that it is the right one.";
    CertificatesInvalid = "CERTIFICATES_INVALID", Invalid, "-",
        "A file of region certificates is not what it should be: `<region>.pem` with RSA-2048 certificates.";
    ClaimsInvalid = "CLAIMS_INVALID", Invalid, "-",
        "The file is not the JSON that `muster iid verify --output json` prints.";
    DataDirectoryUnusable = "DATA_DIRECTORY_UNUSABLE", Invalid, "-",
        "The data directory cannot be used; the message says what to change.";
    MetadataUnavailable = "METADATA_UNAVAILABLE", Unavailable, "-",
        "The instance metadata service did not answer; is this an EC2 instance, is IMDSv2 enabled, and is the hop limit high enough for a container?";
    ServerUnreachable = "SERVER_UNREACHABLE", Unavailable, "-",
        "The server could not be reached; check address, DNS, security groups and that it runs.";
    ServerUntrusted = "SERVER_UNTRUSTED", Denied, "-",
        "The server's certificate does not lead to what --pin, --ca-file or --system-roots name; nothing was sent to it.";
    ResultRejected = "RESULT_REJECTED", Denied, "-",
        "The server answered with a certificate that is not for this node's key; nothing was written.";
    StateUnusable = "STATE_UNUSABLE", Invalid, "-",
        "The state directory cannot be used; check its permissions and contents.";
    ServerNotRunning = "SERVER_NOT_RUNNING", Unavailable, "-",
        "No server answers on this data directory's socket; start it, or give the right --data-dir.";
    NotPermitted = "NOT_PERMITTED", Denied, "-",
        "Local commands are for root and the server's own user.";
    SsmUnavailable = "SSM_UNAVAILABLE", Unavailable, "-",
        "SSM gave the server no usable answer, or does not let it write; the message says which. Check the way to SSM, the publishing role and its KMS key. The server tries again.";
    PublisherNotReady = "PUBLISHER_NOT_READY", Unavailable, "-",
        "This server does not publish: it has just begun, another one does, or `publisher.join_address` is not configured; the message says which.";
    NotFound = "NOT_FOUND", Invalid, "-",
        "There is no such record; `ls` lists what there is.";
    PolicySetAltered = "POLICY_SET_ALTERED", Denied, "-",
        "Somebody changed the text in the store. Do not trust it: take the set from its repository, and find out who could write to the data directory.";
    AuditKeyUnusable = "AUDIT_KEY_UNUSABLE", Invalid, "-",
        "The key of the audit checkpoints is missing, unreadable or another one than before; the message says what to restore.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not a code of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a code of docs/errors.md")]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(UnknownCode)
    }
}

text_form!(Code);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_upper_snake_and_unique() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            let text = code.as_str();
            let is_upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            assert!(text.bytes().all(is_upper), "{text}");
            assert!(seen.insert(text), "{text} stands twice");
            assert_eq!(text.parse::<Code>().unwrap(), *code);
        }
    }
}

//! The fresh proof: STS says that the instance's own credentials signed for this very key,
//! connection and challenge.
//!
//! What it proves: somebody who could read this instance's metadata within the last hours holds
//! this key and speaks on this connection. Not that he is on the instance (red team K3).

use super::budget::{Asker, ProofBudget};
use super::evidence::OfferedProof;
use crate::aws::{
    CallFailed, CallerIdentity, EndpointKind, Failure, Service, Sts, Verdict,
    account_of_access_key, quoted,
};
use crate::domain::{Code, Lifetime, Subject, Timestamp};
use crate::methods::{Contradiction, Presented, Proof, SourceUnavailable};

/// How far the date of a proof may be from the server's clock. STS itself takes 15 minutes.
const DATE_SKEW: Lifetime = Lifetime::from_minutes(5);

/// The instance that a document names, in the words of STS.
struct Expected<'s> {
    partition: &'s str,
    account: &'s str,
    instance: &'s str,
}

impl<'s> Expected<'s> {
    fn of(subject: &'s Subject) -> Option<Self> {
        Some(Self {
            partition: subject.segment("partition")?,
            account: subject.segment("account_id")?,
            instance: subject.segment("instance_id")?,
        })
    }

    /// Three whole strings, nothing parsed: `assumed-role/aws:ec2-instance` is a role name that no
    /// customer can make, and every other role's session name can be chosen by whoever assumes it
    /// (R1 to R3, T50, T69).
    fn is(&self, identity: &CallerIdentity) -> bool {
        let Self { partition, account, instance } = self;
        let arn =
            format!("arn:{partition}:sts::{account}:assumed-role/aws:ec2-instance/{instance}");
        let user_id = format!("{account}:aws:ec2-instance:{instance}");
        identity.account == *account && identity.arn == arn && identity.user_id == user_id
    }
}

/// What can be said of a proof without asking anybody: its date and endpoint.
fn check_locally(
    proof: &OfferedProof,
    wants_fips: bool,
    now: Timestamp,
) -> Result<(), Contradiction> {
    let signed_at = proof.signed.signed_at();
    if signed_at.since(now) > DATE_SKEW || now.since(signed_at) > DATE_SKEW {
        let clocks = format!("the node's clock says {signed_at}, the server's says {now}");
        return Err(Contradiction {
            code: Code::ProofDateSkewed,
            reason: format!("the proof is not of now: {clocks}"),
            hint: Some(clocks),
        });
    }
    let wanted = EndpointKind::wanted(wants_fips, Service::Sts, proof.signed.region());
    if wants_fips && proof.signed.endpoint() != wanted {
        let message = "the server asks STS at FIPS endpoints alone, and the proof is for another";
        return Err(Contradiction {
            code: Code::ProofMalformed,
            reason: message.to_owned(),
            hint: Some(message.to_owned()),
        });
    }
    Ok(())
}

/// Checks a proof: what costs nothing first, STS last.
pub(super) async fn check(
    proof: &OfferedProof,
    subject: &Subject,
    presented: &Presented<'_>,
    sts: &Sts,
    budget: &ProofBudget,
) -> Result<Proof, SourceUnavailable> {
    let OfferedProof { signed, key_binding } = proof;
    let wants_fips = sts.endpoints().wants_fips();
    if let Err(found) = check_locally(proof, wants_fips, presented.now) {
        return Ok(Proof::Disproven(found));
    }
    if *key_binding != hex::encode(presented.binding.as_bytes()) {
        let reason = "the proof was signed for another key, connection, challenge or purpose";
        return Ok(disproven(Code::ProofBindingMismatch, reason.to_owned(), Some(reason)));
    }
    let Some(expected) = Expected::of(subject) else {
        let detail = "the evidence names no instance".to_owned();
        return Err(SourceUnavailable { code: Code::Internal, detail });
    };
    if let Some(account) = account_of_access_key(signed.access_key_id())
        && account.as_str() != expected.account
    {
        let reason = format!(
            "the proof is by credentials of account {account}, the document of account {}",
            expected.account
        );
        // A code of its own: anybody can write any key id, so this rings no bell.
        return Ok(disproven(Code::ProofOtherAccount, reason, Some(OTHER_INSTANCE)));
    }
    if budget.refused_before(signed) {
        // Whatever STS said then: a signature fits one binding, and this stream has another.
        let reason = "STS refused these very values within the last minute";
        return Ok(disproven(Code::ProofSignatureRejected, reason.to_owned(), Some(REFUSED)));
    }
    let account = (expected.partition.to_owned(), expected.account.to_owned());
    let asker = Asker::new(account.clone(), expected.instance, presented.source);
    let turn = budget.turn(&asker).await.map_err(|spent| SourceUnavailable {
        code: Code::ProofThrottled,
        detail: spent.to_string(),
    })?;
    budget.pace(account, signed.region()).await;
    let verdict = sts.who_signed(signed, presented.binding).await;
    let judged = judge(&expected, verdict.map_err(|error| unavailable(&error))?);
    if !matches!(judged, Ok(Proof::Proven)) {
        turn.failed(signed);
    }
    judged
}

const REFUSED: &str = "STS refused the proof";

const OTHER_INSTANCE: &str = "the proof is by credentials of another instance than the document's";

fn judge(expected: &Expected<'_>, verdict: Verdict) -> Result<Proof, SourceUnavailable> {
    let proof = match verdict {
        Verdict::Signed(identity) if expected.is(&identity) => Proof::Proven,
        Verdict::Signed(identity) => {
            let reason = format!(
                "STS says that `{}` signed, which is not the document's instance",
                quoted(&identity.arn)
            );
            disproven(Code::ProofDisproven, reason, Some(OTHER_INSTANCE))
        }
        Verdict::Rejected(code) => {
            let reason = format!("STS says that the proof's signature is not good ({code})");
            disproven(Code::ProofSignatureRejected, reason, Some(REFUSED))
        }
        Verdict::Expired => {
            let reason = "the credentials that signed the proof have ended";
            disproven(Code::ProofCredentialsExpired, reason.to_owned(), Some(reason))
        }
        Verdict::Unclear(code) => {
            let detail =
                format!("STS: it refused with {code}, which says nothing of the signature");
            return Err(SourceUnavailable { code: Code::StsUnavailable, detail });
        }
    };
    Ok(proof)
}

fn disproven(code: Code, reason: String, hint: Option<&str>) -> Proof {
    Proof::Disproven(Contradiction { code, reason, hint: hint.map(str::to_owned) })
}

fn unavailable(error: &CallFailed) -> SourceUnavailable {
    let code = match error.kind {
        Failure::Throttled => Code::StsThrottled,
        Failure::Unavailable | Failure::Forbidden => Code::StsUnavailable,
    };
    SourceUnavailable { code, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected<'static> =
        Expected { partition: "aws", account: "111122223333", instance: "i-0123456789abcdef0" };

    fn identity(arn: &str, user_id: &str) -> CallerIdentity {
        CallerIdentity {
            account: "111122223333".to_owned(),
            arn: arn.to_owned(),
            user_id: user_id.to_owned(),
        }
    }

    // T50, T69, R1 to R3: only the identity role of this very instance, whole and equal.
    #[test]
    fn no_other_identity_is_the_instance() {
        const ARN: &str =
            "arn:aws:sts::111122223333:assumed-role/aws:ec2-instance/i-0123456789abcdef0";
        const USER: &str = "111122223333:aws:ec2-instance:i-0123456789abcdef0";
        assert!(EXPECTED.is(&identity(ARN, USER)));
        for (arn, user_id) in [
            (ARN, "AROAEXAMPLEEXAMPLEEX:i-0123456789abcdef0"),
            ("arn:aws:sts::111122223333:assumed-role/Role/i-0123456789abcdef0", USER),
            ("arn:aws:sts::111122223333:assumed-role/ec2-instance/i-0123456789abcdef0", USER),
            (
                "arn:aws:sts::111122223333:assumed-role/aws:ec2-infrastructure/i-0123456789abcdef0",
                "111122223333:aws:ec2-infrastructure:i-0123456789abcdef0",
            ),
            ("arn:aws:iam::111122223333:assumed-role/aws:ec2-instance/i-0123456789abcdef0", USER),
            (
                "arn:aws-cn:sts::111122223333:assumed-role/aws:ec2-instance/i-0123456789abcdef0",
                USER,
            ),
            ("arn:aws:sts::444455556666:assumed-role/aws:ec2-instance/i-0123456789abcdef0", USER),
            (ARN, "111122223333:aws:ec2-instance:i-0123456789abcdef1"),
            (ARN, "444455556666:aws:ec2-instance:i-0123456789abcdef0"),
            (&format!("{ARN} "), USER),
            (&ARN.to_uppercase(), USER),
            (&format!("{ARN}\0"), USER),
            ("", ""),
        ] {
            assert!(!EXPECTED.is(&identity(arn, user_id)), "{arn} {user_id}");
        }
        let other = CallerIdentity { account: "444455556666".to_owned(), ..identity(ARN, USER) };
        assert!(!EXPECTED.is(&other));
    }
}

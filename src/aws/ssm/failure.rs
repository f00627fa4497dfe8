//! How calls to SSM fail, by what helps.

use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};

use crate::aws::quote::{quoted, with_causes};
use crate::aws::{CallFailed, Failure, Service};

/// A call that was refused or not answered, and AWS's code for it.
pub(super) struct Refused {
    failure: CallFailed,
    code: Option<String>,
}

impl Refused {
    /// What the SDK says. Never holds the request: a value may be secret (I10).
    pub(super) fn by_sdk<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let SdkError::ServiceError(refused) = error else {
            let causes = quoted(&with_causes(error));
            return unusable(causes).into();
        };
        let code = refused.err().code().map(ToOwned::to_owned);
        let status = refused.raw().status().as_u16();
        let kind = kind_of(status, code.as_deref().unwrap_or_default());
        let said = quoted(refused.err().message().unwrap_or_default());
        let detail = format!("{} ({said})", quoted(code.as_deref().unwrap_or("no code")));
        let detail = match kind {
            Failure::Unavailable => format!("status {status}, {detail}"),
            Failure::Throttled | Failure::Forbidden => detail,
        };
        Self { failure: CallFailed::new(Service::Ssm, kind, detail), code }
    }

    pub(super) fn failure(&self) -> &CallFailed {
        &self.failure
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code.as_deref() == Some("ParameterNotFound")
    }

    pub(super) fn wants_new_credentials(&self) -> bool {
        let ended = ["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException"];
        self.code.as_deref().is_some_and(|code| ended.contains(&code))
    }

    /// The failure of this operation.
    pub(super) fn of(self, operation: &str) -> CallFailed {
        let CallFailed { service, kind, detail } = self.failure;
        match service {
            Service::Ssm => CallFailed { service, kind, detail: format!("{operation}: {detail}") },
            // Whoever failed before SSM was asked says so himself.
            Service::Sts | Service::Ec2 => CallFailed { service, kind, detail },
        }
    }
}

impl From<CallFailed> for Refused {
    fn from(failure: CallFailed) -> Self {
        Self { failure, code: None }
    }
}

pub(super) fn unusable(detail: impl Into<String>) -> CallFailed {
    CallFailed::new(Service::Ssm, Failure::Unavailable, detail)
}

/// By code before status: SSM throttles with 400. What is wrong with a signature or its credentials
/// passes: a clock is set soon after a boot, and credentials are renewed.
fn kind_of(status: u16, code: &str) -> Failure {
    match code {
        "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyUpdates" => {
            Failure::Throttled
        }
        _ if status == 429 => Failure::Throttled,
        "AccessDeniedException"
        | "AccessDenied"
        | "OptInRequired"
        | "ValidationException"
        | "InvalidKeyId"
        | "HierarchyLevelLimitExceededException"
        | "ParameterLimitExceeded"
        | "ParameterMaxVersionLimitExceeded"
        | "ParameterPatternMismatchException"
        | "HierarchyTypeMismatchException"
        | "UnsupportedParameterType" => Failure::Forbidden,
        _ => Failure::Unavailable,
    }
}

//! Codes on the wire: a gRPC status with `google.rpc.ErrorInfo`, a fixed sentence, never the detail.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::domain::{Code, CorrelationId};
use crate::join::Refusal;

/// The status of a refusal.
pub(super) fn refused(refusal: &Refusal) -> Status {
    status(
        refusal.code,
        refusal.correlation_id.as_ref(),
        refusal.hint.clone(),
        refusal.retry_after_seconds,
    )
}

/// The status that carries this code.
pub(super) fn status(
    code: Code,
    correlation_id: Option<&CorrelationId>,
    hint: Option<String>,
    retry_after_seconds: Option<u32>,
) -> Status {
    let mut metadata = HashMap::from([("class".to_owned(), code.class().to_string())]);
    if let Some(id) = correlation_id {
        metadata.insert("correlation_id".to_owned(), id.to_string());
    }
    if let Some(hint) = hint {
        metadata.insert("hint".to_owned(), hint);
    }
    let mut details = ErrorDetails::with_error_info(code.as_str(), "muster", metadata);
    if let Some(seconds) = retry_after_seconds {
        details.set_retry_info(Some(Duration::from_secs(seconds.into())));
    }
    Status::with_error_details(grpc_code(code), code.remedy(), details)
}

fn grpc_code(code: Code) -> tonic::Code {
    match code.grpc_status() {
        "INVALID_ARGUMENT" => tonic::Code::InvalidArgument,
        "UNAUTHENTICATED" => tonic::Code::Unauthenticated,
        "PERMISSION_DENIED" => tonic::Code::PermissionDenied,
        "RESOURCE_EXHAUSTED" => tonic::Code::ResourceExhausted,
        "ABORTED" => tonic::Code::Aborted,
        "UNAVAILABLE" => tonic::Code::Unavailable,
        "DEADLINE_EXCEEDED" => tonic::Code::DeadlineExceeded,
        _ => tonic::Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_wire_has_a_status_and_its_reason() {
        for code in Code::ALL.iter().filter(|code| code.grpc_status() != "-") {
            let status = status(*code, None, None, Some(2));
            let is_internal = *code == Code::Internal;
            assert_eq!(status.code() == tonic::Code::Internal, is_internal, "{code}");
            let details = status.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, code.as_str());
            assert_eq!(details.error_info().unwrap().domain, "muster");
        }
    }

    #[test]
    fn no_refusal_by_policy_can_be_told_from_another() {
        for code in [Code::PolicyNoMatch, Code::PolicyDenied, Code::PolicyUnknown] {
            assert_eq!(code.outward(), Code::NotAdmitted);
        }
    }
}

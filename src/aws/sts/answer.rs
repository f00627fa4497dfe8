//! Reading STS's answer: exactly the one shape, or it is no answer (T1, T5, T49).

use std::collections::BTreeMap;

use super::super::{Answer, CallFailed, Failure, Json, Service};
use super::Verdict;

/// Codes that speak of the request's credentials or signature: the proof is false.
const REJECTIONS: [&str; 4] = [
    "SignatureDoesNotMatch",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidSignatureException",
];
/// With these words STS speaks of the date, under the code of a wrong signature. The date was within
/// minutes of the server's clock, so it is that clock which is wrong.
const DATE_MESSAGES: [&str; 2] = ["Signature expired", "Signature not yet current"];
const EXPIRED: [&str; 2] = ["ExpiredToken", "ExpiredTokenException"];
const THROTTLED: [&str; 5] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
];
const FORBIDDEN: [&str; 5] = [
    "AccessDenied",
    "AccessDeniedException",
    "NotAuthorized",
    "OptInRequired",
    "RegionDisabledException",
];

/// Who signed, as STS says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerIdentity {
    /// Twelve digits.
    pub account: String,
    /// `arn:aws:sts::111122223333:assumed-role/…`.
    pub arn: String,
    /// The unique id.
    pub user_id: String,
}

/// Reads an answer to `GetCallerIdentity`, which may come from anybody. A denial is only what STS
/// itself says of the credentials; whatever else is not the one good shape is an outage, and never
/// an admission.
pub fn read_caller_identity(answer: &Answer) -> Result<Verdict, CallFailed> {
    let failed = |kind, detail: &str| CallFailed::new(Service::Sts, kind, detail);
    let status = answer.status.as_u16();
    if status == 429 {
        return Err(failed(Failure::Throttled, "too many calls (429)"));
    }
    if answer.content_type != "application/json" {
        let detail = format!("status {status} and no JSON");
        return Err(failed(Failure::Unavailable, &detail));
    }
    let json = Json::parse(&answer.body)
        .map_err(|_| failed(Failure::Unavailable, "an answer that is no strict JSON"))?;
    if status == 200 {
        let identity = identity(json).ok_or_else(|| {
            failed(Failure::Unavailable, "an answer that is not GetCallerIdentity's")
        })?;
        return Ok(Verdict::Signed(identity));
    }
    let (code, message) = error_of(json)
        .ok_or_else(|| failed(Failure::Unavailable, &format!("status {status} without a code")))?;
    let is_about_the_request = matches!(status, 400 | 401 | 403);
    match code.as_str() {
        code if THROTTLED.contains(&code) => Err(failed(Failure::Throttled, code)),
        code if is_about_the_request && EXPIRED.contains(&code) => Ok(Verdict::Expired),
        code if REJECTIONS.contains(&code)
            && DATE_MESSAGES.iter().any(|words| message.starts_with(words)) =>
        {
            let detail =
                "STS says that a date near the server's clock is wrong: correct that clock";
            Err(failed(Failure::Unavailable, detail))
        }
        code if is_about_the_request && REJECTIONS.contains(&code) => {
            Ok(Verdict::Rejected(code.to_owned()))
        }
        code if FORBIDDEN.contains(&code) => {
            let detail = format!(
                "{code}: an endpoint policy, or a region that is switched off, keeps \
                 sts:GetCallerIdentity from the nodes' accounts"
            );
            Err(failed(Failure::Forbidden, &detail))
        }
        code if is_about_the_request => Ok(Verdict::Unclear(code.to_owned())),
        code => Err(failed(Failure::Unavailable, &format!("status {status}, code {code}"))),
    }
}

/// `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{…},"ResponseMetadata":{…}}}` and
/// nothing beside it: another action's answer may repeat text of an attacker's choice (T1).
fn identity(json: Json) -> Option<CallerIdentity> {
    let [response] = members(json, ["GetCallerIdentityResponse"])?;
    let [result, metadata] = members(response, ["GetCallerIdentityResult", "ResponseMetadata"])?;
    let [_request_id] = members(metadata, ["RequestId"])?;
    let [account, arn, user_id] = members(result, ["Account", "Arn", "UserId"])?;
    Some(CallerIdentity { account: text(account)?, arn: text(arn)?, user_id: text(user_id)? })
}

/// Code and message of `{"Error":{"Code":…}}`. The code is of letters only, so that it can be
/// quoted; the message is not.
fn error_of(json: Json) -> Option<(String, String)> {
    let mut error = json.into_object()?.remove("Error")?.into_object()?;
    let code = text(error.remove("Code")?)?;
    let is_code = (1..=64).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
    let message = error.remove("Message").and_then(text).unwrap_or_default();
    is_code.then_some((code, message))
}

/// The members of an object that has exactly these.
fn members<const N: usize>(json: Json, names: [&str; N]) -> Option<[Json; N]> {
    let mut object: BTreeMap<String, Json> = json.into_object()?;
    let found: Vec<Json> = names.iter().filter_map(|name| object.remove(*name)).collect();
    let found = <[Json; N]>::try_from(found).ok()?;
    object.is_empty().then_some(found)
}

fn text(json: Json) -> Option<String> {
    match json {
        Json::Text(text) => Some(text),
        Json::Null | Json::Bool(_) | Json::Number | Json::List(_) | Json::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"111122223333","Arn":"arn:aws:sts::111122223333:assumed-role/aws:ec2-instance/i-0123456789abcdef0","UserId":"111122223333:aws:ec2-instance:i-0123456789abcdef0"},"ResponseMetadata":{"RequestId":"1"}}}"#;

    fn kind(status: u16, content_type: &str, body: &str) -> Result<Verdict, Failure> {
        let status = http::StatusCode::from_u16(status).unwrap();
        let body = body.as_bytes().to_vec();
        let answer = Answer { status, date: None, content_type: content_type.to_owned(), body };
        read_caller_identity(&answer).map_err(|error| error.kind)
    }

    #[test]
    fn the_one_good_answer_is_read() {
        let Ok(Verdict::Signed(identity)) = kind(200, "application/json", GOOD) else {
            panic!("not read")
        };
        assert_eq!(identity.account, "111122223333");
        assert_eq!(identity.user_id, "111122223333:aws:ec2-instance:i-0123456789abcdef0");
    }

    // T1, T5, T49: nothing that is a little different says who signed.
    #[test]
    fn every_other_success_is_an_outage() {
        let reflected = format!(
            r#"{{"AssumeRoleWithWebIdentityResponse":{{"Error":"x"}},"note":{}}}"#,
            serde_json::Value::from(GOOD)
        );
        let twice = GOOD.replace("\"Arn\"", "\"Account\":\"444455556666\",\"Arn\"");
        let folded = GOOD.replace("\"Arn\"", "\"account\":\"444455556666\",\"Arn\"");
        let two_results = format!("{GOOD}{GOOD}");
        let list = format!("[{GOOD},{GOOD}]");
        let more = GOOD
            .replace("\"ResponseMetadata\"", "\"GetSessionTokenResult\":{},\"ResponseMetadata\"");
        let beside = GOOD.replacen('{', "{\"Error\":null,", 1);
        let number = GOOD.replace("\"111122223333\",\"Arn\"", "111122223333,\"Arn\"");
        let no_metadata = GOOD.replace(r#","ResponseMetadata":{"RequestId":"1"}"#, "");
        let error = r#"{"Error":{"Code":"SignatureDoesNotMatch","Message":"","Type":"Sender"},"RequestId":"1"}"#;
        for body in [
            "",
            "null",
            "{}",
            "[]",
            "<html></html>",
            &GOOD[..100],
            &reflected,
            &twice,
            &folded,
            &two_results,
            &list,
            &more,
            &beside,
            &number,
            &no_metadata,
            error,
        ] {
            assert_eq!(kind(200, "application/json", body), Err(Failure::Unavailable), "{body}");
        }
        for content_type in ["text/html", "text/xml", "", "application/jsonp"] {
            assert_eq!(kind(200, content_type, GOOD), Err(Failure::Unavailable));
        }
        for status in [201, 204, 206, 301, 302, 307, 400, 403, 500] {
            assert_eq!(kind(status, "application/json", GOOD), Err(Failure::Unavailable));
        }
    }

    // Throttling comes as status 400: by the status alone an outage would be a denial.
    #[test]
    fn errors_are_told_apart_by_their_code() {
        let error = |status, code: &str| {
            let body = format!(r#"{{"Error":{{"Code":"{code}","Message":"m","Type":"Sender"}}}}"#);
            kind(status, "application/json", &body)
        };
        let rejected = |code: &str| Ok(Verdict::Rejected(code.to_owned()));
        assert_eq!(error(400, "Throttling"), Err(Failure::Throttled));
        assert_eq!(error(503, "ThrottlingException"), Err(Failure::Throttled));
        assert_eq!(error(403, "SignatureDoesNotMatch"), rejected("SignatureDoesNotMatch"));
        assert_eq!(error(403, "InvalidClientTokenId"), rejected("InvalidClientTokenId"));
        assert_eq!(error(403, "ExpiredToken"), Ok(Verdict::Expired));
        assert_eq!(error(403, "AccessDenied"), Err(Failure::Forbidden));
        assert_eq!(error(500, "InternalFailure"), Err(Failure::Unavailable));
        assert_eq!(error(500, "SignatureDoesNotMatch"), Err(Failure::Unavailable));
        assert_eq!(error(302, "ExpiredToken"), Err(Failure::Unavailable));
        assert_eq!(error(403, "New Line\\n"), Err(Failure::Unavailable));
        // Codes that only a fault of the server or of something between could cause.
        assert_eq!(error(403, "NotAuthorized"), Err(Failure::Forbidden));
        for code in ["MissingAuthenticationToken", "IncompleteSignature", "ValidationError"] {
            assert_eq!(error(400, code), Ok(Verdict::Unclear(code.to_owned())));
        }
        for words in ["Signature expired: 2026 is now earlier than", "Signature not yet current: "]
        {
            let body = format!(
                r#"{{"Error":{{"Code":"SignatureDoesNotMatch","Message":"{words}","Type":"Sender"}}}}"#
            );
            let found = kind(403, "application/json", &body);
            assert_eq!(found, Err(Failure::Unavailable), "{words}");
        }
        assert_eq!(kind(429, "text/html", ""), Err(Failure::Throttled));
        assert_eq!(kind(503, "text/html", "x"), Err(Failure::Unavailable));
    }
}

//! Answers of STS, as if whoever answers were not STS.

#![no_main]

use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use muster::aws::{Answer, Verdict, read_caller_identity};

const STATUSES: [u16; 8] = [200, 204, 302, 400, 403, 429, 500, 503];

fuzz_target!(|input: (u8, bool, Vec<u8>)| {
    let (status, is_json, body) = input;
    let status = STATUSES[usize::from(status) % STATUSES.len()];
    let content_type = if is_json { "application/json" } else { "text/xml" }.to_owned();
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = Answer { status, date: None, content_type, body: body.clone() };
    if let Ok(Verdict::Signed(identity)) = read_caller_identity(&answer) {
        assert!(status == StatusCode::OK && is_json);
        // Every other reader of this JSON sees the same three strings.
        let json: serde_json::Value = serde_json::from_slice(&body).expect("strict JSON is JSON");
        let result = &json["GetCallerIdentityResponse"]["GetCallerIdentityResult"];
        assert_eq!(result["Account"], identity.account);
        assert_eq!(result["Arn"], identity.arn);
        assert_eq!(result["UserId"], identity.user_id);
    }
});

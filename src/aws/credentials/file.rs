//! Credentials in a file, for a simulator.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use aws_credential_types::Credentials;

use crate::aws::Json;

const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A file of credentials that cannot be used; quotes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableCredentials(String);

pub(super) fn read(path: &Path) -> Result<Credentials, UnusableCredentials> {
    let name = path.display();
    let mut contents = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut contents))
        .map_err(|error| UnusableCredentials(format!("{name} cannot be read: {error}")))?;
    parse(&contents).map_err(|wrong| UnusableCredentials(format!("{name}: {wrong}")))
}

fn parse(contents: &[u8]) -> Result<Credentials, String> {
    if contents.len() as u64 > FILE_BYTES_MAX {
        return Err("longer than 64 KiB".to_owned());
    }
    let members = Json::parse(contents).map_err(|error| error.to_string())?.into_object();
    let mut members = members.ok_or("expected a JSON object")?;
    let id = text(&mut members, "access_key_id")?.ok_or("`access_key_id` is missing")?;
    let secret =
        text(&mut members, "secret_access_key")?.ok_or("`secret_access_key` is missing")?;
    let token = text(&mut members, "session_token")?;
    if !members.is_empty() {
        return Err("expected access_key_id, secret_access_key and session_token alone".to_owned());
    }
    Ok(Credentials::new(id, secret, token, None, "file"))
}

/// Takes a member that is printable ASCII, as headers need it; `None` if it is null or missing.
fn text(members: &mut BTreeMap<String, Json>, name: &str) -> Result<Option<String>, String> {
    match members.remove(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(text))
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Ok(Some(text))
        }
        Some(_) => Err(format!("`{name}` is not a text of printable ASCII")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_strict_json_and_its_errors_quote_nothing() {
        let whole =
            br#"{"access_key_id":"AKIA1","secret_access_key":"canary","session_token":null}"#;
        let read = parse(whole).unwrap();
        assert_eq!((read.access_key_id(), read.secret_access_key()), ("AKIA1", "canary"));
        assert!(!format!("{read:?}").contains("canary"));
        for wrong in [
            &br#"{"access_key_id":"AKIA1"}"#[..],
            br#"{"access_key_id":"AKIA1","secret_access_key":"canary","x":1}"#,
            br#"{"access_key_id":"AKIA1","secret_access_key":"canary","secret_access_key":"b"}"#,
            br#"{"access_key_id":"AKIA1","secret_access_key":"canary\r\nx: y"}"#,
            br#"{"access_key_id":1,"secret_access_key":"canary"}"#,
            b"[\"canary\"]",
            b"",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
        assert!(parse(&vec![b' '; 70_000]).unwrap_err().contains("64 KiB"));
    }
}

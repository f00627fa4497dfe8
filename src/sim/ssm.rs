//! SSM: the few actions on parameters that muster needs, in memory, for each account and region.
//! With an emulator behind the simulator that one answers, after the same questions for permission.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::{Answer, Refused};
use super::calls::known_action;
use super::permission::may;
use super::scenario::is_made_of;
use super::sigv4::Signed;
use crate::domain::{AccountId, Region, Timestamp};

/// How the JSON protocol names an action of SSM.
const TARGET: &str = "AmazonSSM.";
/// AWS's limits: of a value of the standard tier, of names in one call, of a page, of levels.
const VALUE_BYTES_MAX: usize = 4096;
const NAMES_MAX: usize = 10;
const PAGE_MAX: usize = 10;
const LEVELS_MAX: usize = 15;

/// The action that a request names.
pub(super) fn action_of(headers: &HeaderMap) -> Option<&'static str> {
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    known_action(target.strip_prefix(TARGET)?)
}

/// Whether the signer may do this with every parameter that the request names. An action that is not
/// known here may be done only by who may do everything.
pub(super) fn authorize(signed: &Signed, action: Option<&str>, body: &[u8]) -> Result<(), Refused> {
    let Some(action) = action else {
        if may(&signed.principal.kind, "ssm:*", "*", &signed.region) {
            return Ok(());
        }
        return Err(Refused::new(400, "AccessDeniedException", "This session may not do that."));
    };
    let body: Value = serde_json::from_slice(body).map_err(|_| malformed())?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let one = [text("Name"), text("Path"), text("ResourceId")];
    let many = body.get("Names").and_then(Value::as_array);
    let many = many.into_iter().flatten().filter_map(Value::as_str);
    let mut needed: Vec<(String, String)> = one
        .into_iter()
        .flatten()
        .chain(many)
        .map(|name| (format!("ssm:{action}"), arn(signed, name)))
        .collect();
    if body.get("WithDecryption").and_then(Value::as_bool) == Some(true) {
        needed.push(("kms:Decrypt".to_owned(), "*".to_owned()));
    }
    if text("Type") == Some("SecureString") {
        needed.push(("kms:Encrypt".to_owned(), "*".to_owned()));
    }
    let who = &signed.principal;
    let missing = needed.iter().find(|(action, on)| !may(&who.kind, action, on, &signed.region));
    match missing {
        None if !needed.is_empty() => Ok(()),
        None => Err(invalid("1 validation error detected: no parameter is named")),
        Some((action, on)) => {
            let user = who.arn(signed.partition());
            let message = format!(
                "User: {user} is not authorized to perform: {action} on resource: {on} because no \
                 policy allows the {action} action"
            );
            Err(Refused::new(400, "AccessDeniedException", message))
        }
    }
}

/// The parameters of all accounts and regions.
#[derive(Default)]
pub(super) struct Parameters(Mutex<BTreeMap<Place, BTreeMap<String, Stored>>>);

type Place = (AccountId, Region);

/// One parameter. No `Debug`: a value may be secret.
struct Stored {
    kind: Kind,
    value: String,
    version: u64,
    tags: BTreeMap<String, String>,
    changed: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Kind {
    String,
    StringList,
    SecureString,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::StringList => "StringList",
            Self::SecureString => "SecureString",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Put {
    name: String,
    value: String,
    r#type: Option<Kind>,
    #[serde(rename = "KeyId")]
    _key: Option<String>,
    #[serde(rename = "Description")]
    _description: Option<String>,
    #[serde(default)]
    overwrite: bool,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Tag {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Get {
    name: String,
    #[serde(default)]
    with_decryption: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetMany {
    names: Vec<String>,
    #[serde(default)]
    with_decryption: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetByPath {
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    with_decryption: bool,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct AddTags {
    resource_type: String,
    resource_id: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Delete {
    name: String,
}

impl Parameters {
    /// Does what was asked, for somebody who may.
    pub(super) fn answer(
        &self,
        signed: &Signed,
        action: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Answer, Refused> {
        let answer = match action {
            "PutParameter" => self.put(signed, read(body)?, now)?,
            "GetParameter" => self.get(signed, &read(body)?)?,
            "GetParameters" => self.get_many(signed, &read(body)?)?,
            "GetParametersByPath" => self.get_by_path(signed, &read(body)?)?,
            "AddTagsToResource" => self.add_tags(signed, read(body)?)?,
            "DeleteParameter" => self.delete(signed, &read(body)?)?,
            _ => return Err(Refused::new(400, "UnknownOperationException", "")),
        };
        Ok(Answer::aws_json(answer.to_string()))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Place, BTreeMap<String, Stored>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, signed: &Signed, put: Put, now: Timestamp) -> Result<Value, Refused> {
        check_name(&put.name)?;
        if put.value.is_empty() || put.value.len() > VALUE_BYTES_MAX {
            return Err(invalid("Standard tier parameters support a maximum of 4096 characters."));
        }
        if put.overwrite && !put.tags.is_empty() {
            return Err(invalid(
                "Invalid request: tags and overwrite can't be used together. To create a parameter \
                 with tags, please remove overwrite flag. To update tags for an existing \
                 parameter, please use AddTagsToResource or RemoveTagsFromResource.",
            ));
        }
        let mut all = self.all();
        let parameters = all.entry(place(signed)).or_default();
        let tags = put.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
        let stored = match (parameters.remove(&put.name), put.r#type) {
            (Some(known), _) if !put.overwrite => {
                parameters.insert(put.name, known);
                let message = "The parameter already exists. To overwrite this value, set the \
                               overwrite option in the request to true.";
                return Err(Refused::new(400, "ParameterAlreadyExists", message));
            }
            (Some(known), kind) => Stored {
                kind: kind.unwrap_or(known.kind),
                value: put.value,
                version: known.version + 1,
                changed: now,
                ..known
            },
            (None, Some(kind)) => Stored { kind, value: put.value, version: 1, tags, changed: now },
            (None, None) => return Err(invalid("A parameter type is required")),
        };
        let version = stored.version;
        parameters.insert(put.name, stored);
        Ok(json!({"Version": version, "Tier": "Standard"}))
    }

    fn get(&self, signed: &Signed, get: &Get) -> Result<Value, Refused> {
        let all = self.all();
        let stored = all.get(&place(signed)).and_then(|known| known.get(&get.name));
        let stored = stored.ok_or_else(|| not_found(""))?;
        Ok(json!({"Parameter": stored.as_json(signed, &get.name, get.with_decryption)}))
    }

    fn get_many(&self, signed: &Signed, get: &GetMany) -> Result<Value, Refused> {
        if get.names.is_empty() || get.names.len() > NAMES_MAX {
            return Err(invalid("Member must have length less than or equal to 10"));
        }
        let all = self.all();
        let known = all.get(&place(signed));
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for name in &get.names {
            match known.and_then(|known| known.get(name)) {
                Some(stored) => found.push(stored.as_json(signed, name, get.with_decryption)),
                None => unknown.push(name),
            }
        }
        Ok(json!({"Parameters": found, "InvalidParameters": unknown}))
    }

    fn get_by_path(&self, signed: &Signed, get: &GetByPath) -> Result<Value, Refused> {
        if !get.path.starts_with('/') {
            return Err(invalid("The parameter path must begin with a slash"));
        }
        let most = get.max_results.unwrap_or(PAGE_MAX);
        if !(1..=PAGE_MAX).contains(&most) {
            return Err(invalid("MaxResults must be between 1 and 10"));
        }
        let folder = format!("{}/", get.path.trim_end_matches('/'));
        let all = self.all();
        let known = all.get(&place(signed));
        let after = get.next_token.as_deref().unwrap_or_default();
        let is_there = |name: &str| {
            let rest = name.strip_prefix(&folder);
            rest.is_some_and(|rest| get.recursive || !rest.contains('/')) && name > after
        };
        let mut found = known.into_iter().flatten().filter(|(name, _)| is_there(name));
        let page: Vec<_> = found.by_ref().take(most).collect();
        let last = page.last().map(|(name, _)| (*name).clone());
        let next = found.next().and(last);
        let parameters: Vec<Value> = page
            .into_iter()
            .map(|(name, stored)| stored.as_json(signed, name, get.with_decryption))
            .collect();
        Ok(json!({"Parameters": parameters, "NextToken": next}))
    }

    fn add_tags(&self, signed: &Signed, add: AddTags) -> Result<Value, Refused> {
        if add.resource_type != "Parameter" || add.tags.is_empty() {
            return Err(invalid("The simulator tags parameters alone"));
        }
        let mut all = self.all();
        let known = all.get_mut(&place(signed));
        let stored = known.and_then(|known| known.get_mut(&add.resource_id));
        let stored = stored.ok_or_else(|| {
            Refused::new(400, "InvalidResourceId", "The resource ID isn't valid.")
        })?;
        stored.tags.extend(add.tags.into_iter().map(|tag| (tag.key, tag.value)));
        Ok(json!({}))
    }

    fn delete(&self, signed: &Signed, delete: &Delete) -> Result<Value, Refused> {
        let mut all = self.all();
        let known = all.get_mut(&place(signed));
        match known.and_then(|known| known.remove(&delete.name)) {
            Some(_) => Ok(json!({})),
            None => Err(not_found(&delete.name)),
        }
    }
}

impl Stored {
    fn as_json(&self, signed: &Signed, name: &str, decrypt: bool) -> Value {
        let is_sealed = self.kind == Kind::SecureString && !decrypt;
        // In AWS's place: what KMS sealed, which tells nothing of the value.
        let sealed = || format!("AQICAHsimulated{}{}", name.len(), self.version);
        json!({
            "Name": name,
            "Type": self.kind.as_str(),
            "Value": if is_sealed { sealed() } else { self.value.clone() },
            "Version": self.version,
            "LastModifiedDate": self.changed.unix_seconds(),
            "ARN": arn(signed, name),
            "DataType": "text",
        })
    }
}

fn place(signed: &Signed) -> Place {
    (signed.principal.account.clone(), signed.region.clone())
}

fn arn(signed: &Signed, name: &str) -> String {
    let (partition, account) = (signed.partition(), &signed.principal.account);
    let region = &signed.region;
    format!("arn:{partition}:ssm:{region}:{account}:parameter/{}", name.trim_start_matches('/'))
}

fn check_name(name: &str) -> Result<(), Refused> {
    let is_path = name.starts_with('/') || !name.contains('/');
    let first = name.trim_start_matches('/').to_ascii_lowercase();
    let is_reserved = first.starts_with("aws") || first.starts_with("ssm");
    let levels = name.matches('/').count();
    let fits = !name.is_empty() && name.len() <= 1011 && !name.ends_with('/');
    if is_path && fits && !is_reserved && levels <= LEVELS_MAX && is_made_of(name, "_.-/") {
        return Ok(());
    }
    Err(invalid(
        "Parameter name: can't be prefixed with \"aws\" or \"ssm\", must be fully qualified",
    ))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        // serde names members and kinds, and for a wrong text the text itself: not for a value.
        let at = format!("line {} column {}", error.line(), error.column());
        Refused::new(400, "SerializationException", format!("not as the simulator knows it: {at}"))
    })
}

fn malformed() -> Refused {
    Refused::new(400, "SerializationException", "The body is not JSON")
}

fn not_found(name: &str) -> Refused {
    Refused::new(400, "ParameterNotFound", format!("Parameter {name} not found."))
}

fn invalid(message: &str) -> Refused {
    Refused::new(400, "ValidationException", message)
}

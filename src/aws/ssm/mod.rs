//! Parameters of AWS Systems Manager, by the SDK's client: read, written, tagged, deleted.
//!
//! Each call is made once and is bounded; who calls repeats it. Nothing of the environment is read.

mod client;
mod failure;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_sdk_ssm::types::{ParameterType, ResourceTypeForTagging, Tag};
use zeroize::{Zeroize, Zeroizing};

use self::client::Caller;
use self::failure::unusable;
use super::{AwsHttp, CallFailed, CallStatistics, Endpoints, OwnCredentials};
use crate::clock::Clock;
use crate::domain::{AccountId, Partition, Region};

/// The most names of one `GetParameters`.
const NAMES_MAX: usize = 10;
/// The most pages of one listing, of ten parameters each.
const PAGES_MAX: usize = 20;

/// A parameter with its value. Wiped from memory when it is dropped; no `Debug`.
pub struct Parameter {
    /// Its name, with its path.
    pub name: String,
    /// What it says.
    pub value: Zeroizing<String>,
    /// Counts the values that it had.
    pub version: i64,
    /// Its ARN.
    pub arn: String,
}

/// Where SSM is asked, and with whose credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsmAccess {
    /// The region of the parameters.
    pub region: Region,
    /// A role to be assumed; without one the caller's own credentials sign.
    pub role: Option<SsmRole>,
}

/// A role of the account that has the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SsmRole {
    /// The partition of account and region.
    pub partition: Partition,
    /// The account.
    pub account: AccountId,
    /// `arn:<partition>:iam::<account>:role/<name>`.
    pub arn: String,
    /// What the role's trust policy asks for.
    pub external_id: Option<String>,
    /// The parameters that its session may touch; a `*` at the end stands for all below.
    pub names: Vec<String>,
}

/// A value to be written. No `Debug`: it may be secret.
pub struct PutParameter<'a> {
    /// The parameter's name, with its path.
    pub name: &'a str,
    /// Its next value.
    pub value: &'a str,
    /// Whether it is a `SecureString`.
    pub is_secure: bool,
    /// The KMS key that seals it; the account's own for SSM without one.
    pub kms_key: Option<&'a str>,
    /// Set after the value: AWS takes no tags with a value that replaces another.
    pub tags: &'a BTreeMap<String, String>,
    /// For people.
    pub description: &'a str,
}

/// Asks SSM; cheap to clone.
#[derive(Clone)]
pub struct Ssm(Arc<Caller>);

impl Ssm {
    /// A client with these credentials. Makes no call yet.
    pub fn new(
        http: AwsHttp,
        endpoints: Endpoints,
        own: OwnCredentials,
        clock: Clock,
        statistics: Arc<CallStatistics>,
    ) -> Self {
        Self(Arc::new(Caller::new(http, endpoints, own, clock, statistics)))
    }

    /// Reads up to ten parameters. One that is not there is absent from the answer.
    pub async fn get(
        &self,
        access: &SsmAccess,
        names: &[&str],
        decrypt: bool,
    ) -> Result<Vec<Parameter>, CallFailed> {
        if names.is_empty() || names.len() > NAMES_MAX {
            return Err(unusable("GetParameters takes 1 to 10 names"));
        }
        let asked = self.0.call(access, |client| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            client.get_parameters().set_names(Some(names)).with_decryption(decrypt).send()
        });
        let answer = asked.await.map_err(|refused| refused.of("GetParameters"))?;
        let parameters = answer.parameters.unwrap_or_default();
        // AWS names what is not there: an answer that says nothing of it is none.
        let unknown = answer.invalid_parameters.unwrap_or_default();
        if parameters.len() + unknown.len() != names.len() {
            return Err(unusable("GetParameters: an answer to another question"));
        }
        parameters.into_iter().map(|parameter| read(parameter, names)).collect()
    }

    /// The names of the parameters below a path, of which no value is decrypted and none is kept.
    pub async fn names_below(
        &self,
        region: &Region,
        path: &str,
        is_recursive: bool,
    ) -> Result<Vec<String>, CallFailed> {
        // A role's session is for parameters that are named.
        let access = &SsmAccess { region: region.clone(), role: None };
        let (mut names, mut next) = (Vec::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let asked = self.0.call(access, |client| {
                let asked = client.get_parameters_by_path().path(path).recursive(is_recursive);
                asked.with_decryption(false).set_next_token(next.clone()).send()
            });
            let answer = asked.await.map_err(|refused| refused.of("GetParametersByPath"))?;
            for mut parameter in answer.parameters.unwrap_or_default() {
                parameter.value.zeroize();
                names.push(parameter.name.ok_or_else(|| unusable("a parameter has no name"))?);
            }
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(names);
            }
        }
        Err(unusable("the path has more than 200 parameters; name a longer one"))
    }

    /// Writes a value over the one that is there, if any, and sets the tags. The value's version.
    pub async fn put(
        &self,
        access: &SsmAccess,
        parameter: &PutParameter<'_>,
    ) -> Result<i64, CallFailed> {
        let PutParameter { name, value, is_secure, kms_key, tags, description } = parameter;
        let kind = if *is_secure { ParameterType::SecureString } else { ParameterType::String };
        let asked = self.0.call(access, |client| {
            let asked = client.put_parameter().name(*name).value(*value).description(*description);
            let asked = asked.r#type(kind.clone()).set_key_id(kms_key.map(ToOwned::to_owned));
            asked.overwrite(true).send()
        });
        let answer = asked.await.map_err(|refused| refused.of("PutParameter"))?;
        if answer.version < 1 {
            return Err(unusable("PutParameter: an answer without a version"));
        }
        if !tags.is_empty() {
            self.tag(access, name, tags).await?;
        }
        Ok(answer.version)
    }

    async fn tag(
        &self,
        access: &SsmAccess,
        name: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), CallFailed> {
        let built = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let built: Vec<Tag> =
            built.collect::<Result<_, _>>().map_err(|_| unusable("a tag lacks a part"))?;
        let asked = self.0.call(access, |client| {
            let asked = client.add_tags_to_resource().resource_id(name);
            let asked = asked.resource_type(ResourceTypeForTagging::Parameter);
            asked.set_tags(Some(built.clone())).send()
        });
        asked.await.map(drop).map_err(|refused| refused.of("AddTagsToResource"))
    }

    /// Deletes a parameter; `false` if it is not there.
    pub async fn delete(&self, access: &SsmAccess, name: &str) -> Result<bool, CallFailed> {
        let asked = self.0.call(access, |client| client.delete_parameter().name(name).send());
        match asked.await {
            Ok(_) => Ok(true),
            Err(refused) if refused.is_not_found() => Ok(false),
            Err(refused) => Err(refused.of("DeleteParameter")),
        }
    }
}

impl fmt::Debug for Ssm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssm").finish_non_exhaustive()
    }
}

/// A parameter of an answer, if it was asked for.
fn read(parameter: aws_sdk_ssm::types::Parameter, asked: &[&str]) -> Result<Parameter, CallFailed> {
    let value = parameter.value.map(Zeroizing::new);
    match (parameter.name, value, parameter.arn) {
        (Some(name), Some(value), Some(arn)) if asked.contains(&name.as_str()) => {
            Ok(Parameter { name, value, version: parameter.version, arn })
        }
        _ => Err(unusable("a parameter lacks a part, or was not asked for")),
    }
}

//! What credentials allow: session policies, read strictly, and what the roles of instances may do.

use serde::Deserialize;
use serde_json::Value;

use super::credentials::PrincipalKind;
use crate::aws::{EndpointKind, Service, host};
use crate::domain::Region;

/// What the role of an instance's profile may do with any parameter of its account.
const OF_PROFILES: [&str; 4] =
    ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath", "kms:Decrypt"];

/// Whether somebody may do this with that. A session without a policy of its own may do everything
/// that its role may, which the simulator does not limit.
pub(super) fn may(who: &PrincipalKind, action: &str, resource: &str, region: &Region) -> bool {
    match who {
        PrincipalKind::InstanceRole { .. } => false,
        PrincipalKind::InstanceProfile { .. } => OF_PROFILES.contains(&action),
        PrincipalKind::ServerUser | PrincipalKind::RoleSession { policy: None, .. } => true,
        PrincipalKind::RoleSession { policy: Some(policy), .. } => {
            serde_json::from_str::<Policy>(policy).is_ok_and(|policy| {
                policy.statement.iter().any(|one| one.allows(action, resource, region))
            })
        }
    }
}

/// A session policy. What it says beyond this makes the whole of it allow nothing.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Policy {
    #[serde(rename = "Version")]
    _version: String,
    statement: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    effect: String,
    action: OneOrMany,
    resource: OneOrMany,
    condition: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn any(&self, is_it: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::One(text) => is_it(text),
            Self::Many(texts) => texts.iter().any(|text| is_it(text)),
        }
    }
}

impl Statement {
    fn allows(&self, action: &str, resource: &str, region: &Region) -> bool {
        self.effect == "Allow"
            && self.action.any(|allowed| allowed == action)
            && self.resource.any(|pattern| matches(pattern, resource))
            && self.condition.as_ref().is_none_or(|condition| holds(condition, action, region))
    }
}

/// A `*` counts at the end alone.
fn matches(pattern: &str, resource: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => resource.starts_with(prefix),
        None => pattern == resource,
    }
}

/// The one condition that is known: KMS is asked by SSM of this region and by nobody else.
fn holds(condition: &Value, action: &str, region: &Region) -> bool {
    let ssm = host(Service::Ssm, region, EndpointKind::Regional);
    let known = serde_json::json!({"StringEquals": {"kms:ViaService": ssm}});
    action.starts_with("kms:") && *condition == known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Partition;

    fn allows(policy: &str, action: &str, resource: &str) -> bool {
        let who = PrincipalKind::RoleSession {
            partition: Partition::Aws,
            role: "r".to_owned(),
            session: "s".to_owned(),
            policy: Some(policy.to_owned()),
        };
        may(&who, action, resource, &"us-west-2".parse().unwrap())
    }

    #[test]
    fn a_session_may_do_what_its_policy_says_and_nothing_else() {
        let policy = r#"{"Version":"2012-10-17","Statement":[
            {"Effect":"Allow","Action":["ssm:PutParameter"],"Resource":["arn:p/a/*","arn:p/b"]},
            {"Effect":"Allow","Action":"kms:Decrypt","Resource":"*",
             "Condition":{"StringEquals":{"kms:ViaService":"ssm.us-west-2.amazonaws.com"}}}]}"#;
        for (action, resource, expected) in [
            ("ssm:PutParameter", "arn:p/a/token", true),
            ("ssm:PutParameter", "arn:p/b", true),
            ("ssm:PutParameter", "arn:p/b/c", false),
            ("ssm:PutParameter", "arn:p/c", false),
            ("ssm:GetParameters", "arn:p/a/token", false),
            ("kms:Decrypt", "*", true),
            ("kms:Encrypt", "*", false),
        ] {
            assert_eq!(allows(policy, action, resource), expected, "{action} {resource}");
        }
        let elsewhere = policy.replace("us-west-2", "eu-west-1");
        assert!(!allows(&elsewhere, "kms:Decrypt", "*"));
        for wrong in ["", "{}", r#"{"Version":"1","Statement":[],"Id":"x"}"#] {
            assert!(!allows(wrong, "ssm:PutParameter", "arn:p/b"), "{wrong}");
        }
    }
}

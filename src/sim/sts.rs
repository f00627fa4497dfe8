//! STS: `GetCallerIdentity` and `AssumeRole`.

use serde_json::json;

use super::answer::{Answer, Refused, Style, element, request_id, sts_document, text};
use super::credentials::{Principal, PrincipalKind};
use super::form::Form;
use super::scenario::{Role, is_made_of};
use super::sigv4::Signed;
use super::{Simulator, scenario::Span};
use crate::domain::{AccountId, Lifetime, Partition};

/// AWS's limits for `DurationSeconds`, and what it takes if nothing is asked for.
const SESSION_SECONDS: std::ops::RangeInclusive<u32> = 900..=43_200;
const DEFAULT_SESSION_SECONDS: u32 = 3600;
/// The most characters of a session policy.
const MAX_POLICY: usize = 2048;

/// Who signed this.
pub(super) fn get_caller_identity(signed: &Signed, style: Style) -> Answer {
    let account = &signed.principal.account;
    let arn = signed.principal.arn(signed.partition());
    let user_id = signed.principal.user_id();
    match style {
        Style::Json => Answer::json(
            json!({"GetCallerIdentityResponse": {
                "GetCallerIdentityResult": {"Account": account, "Arn": arn, "UserId": user_id},
                "ResponseMetadata": {"RequestId": request_id()},
            }})
            .to_string(),
        ),
        Style::Xml | Style::Ec2 | Style::AwsJson => Answer::xml(sts_document(
            "GetCallerIdentity",
            &[text("Arn", arn), text("UserId", user_id), text("Account", account)],
        )),
    }
}

/// Credentials of a role, for whom the scenario lets assume it.
pub(super) fn assume_role(
    simulator: &Simulator,
    signed: &Signed,
    form: &Form,
) -> Result<Answer, Refused> {
    let request = Request::read(form)?;
    let account = &request.account;
    let settings = &simulator.settings;
    let found =
        settings.roles.iter().find(|role| role.account == *account && role.name == request.role);
    let is_allowed = request.partition == signed.partition()
        && found.is_some_and(|role| is_open_to(role, &request, signed, &settings.server_account));
    if !is_allowed {
        // AWS does not tell a role that is not there from one that may not be assumed.
        return Err(Refused::new(
            403,
            "AccessDenied",
            format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {}",
                signed.principal.arn(signed.partition()),
                request.role_arn
            ),
        ));
    }
    let asked = Lifetime::from_seconds(request.seconds);
    let life = settings.session_life.map_or(asked, |life| asked.min(Span::in_seconds(life)));
    let expires = simulator.clock.now().plus(life);
    let principal = Principal {
        account: request.account,
        kind: PrincipalKind::RoleSession {
            partition: request.partition,
            role: request.role.to_owned(),
            session: request.session.to_owned(),
            policy: request.policy.map(str::to_owned),
        },
    };
    let (arn, user_id) = (principal.arn(request.partition), principal.user_id());
    let credentials = simulator
        .mint
        .role_session(principal, expires)
        .ok_or_else(|| Refused::new(500, "InternalFailure", "The simulator has no randomness."))?;
    let user = element("AssumedRoleUser", &[text("AssumedRoleId", user_id), text("Arn", arn)]);
    let credentials = element(
        "Credentials",
        &[
            text("AccessKeyId", credentials.access_key_id()),
            text("SecretAccessKey", credentials.secret_access_key()),
            text("SessionToken", credentials.session_token().unwrap_or_default()),
            text("Expiration", expires),
        ],
    );
    Ok(Answer::xml(sts_document("AssumeRole", &[user, credentials])))
}

fn is_open_to(role: &Role, request: &Request<'_>, signed: &Signed, server: &AccountId) -> bool {
    let caller = &signed.principal.account;
    let is_trusted = match &role.trusted {
        None => caller == server,
        Some(trusted) => trusted.contains(caller),
    };
    let has_external_id = match &role.external_id {
        None => true,
        Some(expected) => request.external_id == Some(expected),
    };
    // An instance's roles may do next to nothing, whatever a role trusts.
    let may_assume = match signed.principal.kind {
        PrincipalKind::InstanceRole { .. } | PrincipalKind::InstanceProfile { .. } => false,
        PrincipalKind::ServerUser | PrincipalKind::RoleSession { .. } => true,
    };
    is_trusted && has_external_id && may_assume
}

struct Request<'a> {
    role_arn: &'a str,
    partition: Partition,
    account: AccountId,
    role: &'a str,
    session: &'a str,
    external_id: Option<&'a str>,
    seconds: u32,
    policy: Option<&'a str>,
}

impl<'a> Request<'a> {
    fn read(form: &'a Form) -> Result<Self, Refused> {
        let names = [
            "Action",
            "Version",
            "RoleArn",
            "RoleSessionName",
            "ExternalId",
            "DurationSeconds",
            "Policy",
        ];
        if let Some(name) = form.other_than(&names, &[]) {
            return Err(invalid(&format!("the simulator does not know the parameter {name}")));
        }
        let role_arn = form.get("RoleArn").unwrap_or_default();
        let (partition, account, role) = role_of(role_arn)
            .ok_or_else(|| invalid(&format!("{role_arn} is invalid as the ARN of a role")))?;
        let session = form.get("RoleSessionName").unwrap_or_default();
        if !(2..=64).contains(&session.len()) || !is_made_of(session, "+=,.@_-") {
            return Err(invalid("Value at 'roleSessionName' failed to satisfy constraint"));
        }
        let external_id = form.get("ExternalId");
        if external_id.is_some_and(|id| id.len() < 2 || !is_made_of(id, "+=,.@:/_-")) {
            return Err(invalid("Value at 'externalId' failed to satisfy constraint"));
        }
        let seconds = form
            .get("DurationSeconds")
            .map_or(Ok(DEFAULT_SESSION_SECONDS), str::parse)
            .ok()
            .filter(|seconds| SESSION_SECONDS.contains(seconds))
            .ok_or_else(|| invalid("Value at 'durationSeconds' failed to satisfy constraint"))?;
        let policy = form.get("Policy");
        let is_policy = |policy: &str| {
            policy.len() <= MAX_POLICY
                && serde_json::from_str::<serde_json::Map<_, _>>(policy).is_ok()
        };
        if policy.is_some_and(|policy| !is_policy(policy)) {
            let message = "The policy is not JSON of at most 2048 characters.";
            return Err(Refused::new(400, "MalformedPolicyDocument", message));
        }
        Ok(Self { role_arn, partition, account, role, session, external_id, seconds, policy })
    }
}

/// `arn:{partition}:iam::{account}:role/{path/}{name}`; a path is not part of the name.
fn role_of(arn: &str) -> Option<(Partition, AccountId, &str)> {
    let (partition, rest) = arn.strip_prefix("arn:")?.split_once(":iam::")?;
    let (account, path) = rest.split_once(":role/")?;
    let name = path.rsplit('/').next()?;
    let is_name = !name.is_empty() && is_made_of(name, "+=,.@_-");
    is_name.then_some((partition.parse().ok()?, account.parse().ok()?, name))
}

fn invalid(message: &str) -> Refused {
    Refused::new(400, "ValidationError", message)
}

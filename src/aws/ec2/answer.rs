//! What EC2 answers: descriptions of the instances that were asked for, or an error. An answer
//! that is odd in any way is no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use http::StatusCode;

use super::xml::{Element, InvalidDescriptions};
use crate::aws::quote::quoted;
use crate::aws::{Answer, CallFailed, Failure, Service};
use crate::domain::{AccountId, InstanceId, Timestamp};

/// The most instances in one answer: what `MaxResults` allows.
const INSTANCES_MAX: usize = 1_000;
/// AWS allows 50 of the customer's own; those that AWS sets come on top.
const TAGS_MAX: usize = 100;
/// AWS's limits on tags, in characters.
const TAG_KEY_MAX: usize = 128;
const TAG_VALUE_MAX: usize = 256;
/// AWS allows 16 for each interface.
const GROUPS_MAX: usize = 100;
/// The longest name or identifier: AWS's longest ARN.
const NAME_BYTES_MAX: usize = 2_048;

/// What EC2 says of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceDescription {
    /// The account that owns it.
    pub owner_id: AccountId,
    /// Which one it is.
    pub instance_id: InstanceId,
    /// Where it is in its life.
    pub state: InstanceState,
    /// For example `ami-0123456789abcdef0`.
    pub image_id: String,
    /// For example `m7g.large`.
    pub instance_type: String,
    /// For example `us-west-2b`.
    pub availability_zone: String,
    /// Its last start, to the second.
    pub launch_time: Timestamp,
    /// The instance profile, not the role in it.
    pub instance_profile_arn: Option<String>,
    /// All tags, those of AWS (`aws:…`) too.
    pub tags: BTreeMap<String, String>,
    /// Missing once it is terminated.
    pub vpc_id: Option<String>,
    /// Missing once it is terminated.
    pub subnet_id: Option<String>,
    /// Ids, `sg-…`, of its primary interface.
    pub security_groups: Vec<String>,
    /// How its metadata service answers.
    pub metadata_options: Option<MetadataOptions>,
    /// Its primary private address.
    pub private_ip: Option<IpAddr>,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// `pending`.
    Pending,
    /// `running`.
    Running,
    /// `shutting-down`.
    ShuttingDown,
    /// `terminated`.
    Terminated,
    /// `stopping`.
    Stopping,
    /// `stopped`.
    Stopped,
}

impl InstanceState {
    /// The name that AWS uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::ShuttingDown,
        Self::Terminated,
        Self::Stopping,
        Self::Stopped,
    ];
}

/// How an instance's metadata service answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataOptions {
    /// Session tokens are required (IMDSv2 only).
    pub v2_only: bool,
    /// How many network hops an answer may take.
    pub hop_limit: u32,
    /// Whether it answers at all.
    pub is_enabled: bool,
}

/// One page of descriptions, each instance once.
#[derive(Debug, Default)]
pub struct Descriptions {
    /// By instance.
    pub found: BTreeMap<InstanceId, InstanceDescription>,
    /// Where the next page begins, if there is one.
    pub next_token: Option<String>,
}

/// An answer that can be worked with.
#[derive(Debug)]
pub(super) enum Reply {
    Found(Descriptions),
    /// These do not exist; there may be more that do not.
    Unknown(BTreeSet<InstanceId>),
}

/// An answer that cannot.
#[derive(Debug)]
pub(super) struct NotAnswered {
    pub(super) failure: CallFailed,
    /// The credentials are at fault, so new ones may help.
    pub(super) wants_new_credentials: bool,
}

impl From<CallFailed> for NotAnswered {
    fn from(failure: CallFailed) -> Self {
        Self { failure, wants_new_credentials: false }
    }
}

/// Reads an answer to a question about `asked`.
pub(super) fn read(answer: &Answer, asked: &BTreeSet<InstanceId>) -> Result<Reply, NotAnswered> {
    let is_xml = matches!(answer.content_type.as_str(), "text/xml" | "application/xml");
    let status = answer.status;
    if status == StatusCode::OK && is_xml {
        return parse_descriptions(&answer.body, asked).map(Reply::Found).map_err(|error| {
            failed(Failure::Unavailable, format!("an answer that is not taken: {error}")).into()
        });
    }
    let error = if is_xml && (status.is_client_error() || status.is_server_error()) {
        error_of(&answer.body)
    } else {
        None
    };
    let (code, message) = error.unwrap_or_default();
    if status == StatusCode::BAD_REQUEST
        && matches!(&*code, "InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed")
    {
        return Ok(Reply::Unknown(named(&message)));
    }
    let detail = match &*code {
        "" => format!("status {} with `{}`", status.as_u16(), quoted(&answer.content_type)),
        _ => format!("status {}, {}: {}", status.as_u16(), quoted(&code), quoted(&message)),
    };
    Err(NotAnswered {
        failure: failed(kind_of(status, &code), detail),
        wants_new_credentials: matches!(
            &*code,
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "AuthFailure"
        ),
    })
}

/// By code before status: EC2 throttles with 503, and STS with 400.
fn kind_of(status: StatusCode, code: &str) -> Failure {
    match code {
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "EC2ThrottledException" => {
            Failure::Throttled
        }
        _ if status == StatusCode::TOO_MANY_REQUESTS => Failure::Throttled,
        "UnauthorizedOperation"
        | "AuthFailure"
        | "AccessDenied"
        | "OptInRequired"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
            if status.is_client_error() =>
        {
            Failure::Forbidden
        }
        _ => Failure::Unavailable,
    }
}

fn failed(kind: Failure, detail: impl Into<String>) -> CallFailed {
    CallFailed::new(Service::Ec2, kind, detail)
}

/// Code and message of an error: `<Response><Errors><Error><Code/><Message/></Error></Errors>`.
fn error_of(body: &[u8]) -> Option<(String, String)> {
    let root = Element::parse(body).ok().filter(|root| root.name == "Response")?;
    let error = root.one("Errors").ok()??.one("Error").ok()??;
    let code = error.text_of("Code").ok()??;
    let message = error.text_of("Message").ok()?.unwrap_or_default();
    Some((code.to_owned(), message.to_owned()))
}

/// The instance ids in a message such as `The instance IDs 'i-…, i-…' do not exist`.
fn named(message: &str) -> BTreeSet<InstanceId> {
    let words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Reads the body of a `DescribeInstances` answer; `body` is not trusted. Whatever is accepted was
/// asked for.
pub fn parse_descriptions(
    body: &[u8],
    asked: &BTreeSet<InstanceId>,
) -> Result<Descriptions, InvalidDescriptions> {
    let root = Element::parse(body)?;
    if root.name != "DescribeInstancesResponse" {
        return Err(InvalidDescriptions("an answer to another question"));
    }
    let mut descriptions = Descriptions::default();
    for reservation in root.items("reservationSet", INSTANCES_MAX)? {
        let owner_id: AccountId = parsed(reservation, "ownerId")?;
        for instance in reservation.items("instancesSet", INSTANCES_MAX)? {
            let description = instance_of(instance, owner_id.clone())?;
            let id = description.instance_id.clone();
            if !asked.contains(&id) {
                return Err(InvalidDescriptions("an instance that was not asked for"));
            }
            if descriptions.found.insert(id, description).is_some() {
                return Err(InvalidDescriptions("an instance twice"));
            }
        }
    }
    descriptions.next_token = name_of(&root, "nextToken")?.map(ToOwned::to_owned);
    Ok(descriptions)
}

fn instance_of(
    instance: &Element,
    owner_id: AccountId,
) -> Result<InstanceDescription, InvalidDescriptions> {
    const MISSING: InvalidDescriptions = InvalidDescriptions("a part of an instance is missing");
    let owned = |name| Ok(name_of(instance, name)?.map(ToOwned::to_owned));
    let state = instance.one("instanceState")?.ok_or(MISSING)?;
    let state = name_of(state, "name")?.ok_or(MISSING)?;
    let placement = instance.one("placement")?.ok_or(MISSING)?;
    let zone = name_of(placement, "availabilityZone")?.ok_or(MISSING)?;
    let profile = match instance.one("iamInstanceProfile")? {
        Some(profile) => name_of(profile, "arn")?,
        None => None,
    };
    let groups = instance.items("groupSet", GROUPS_MAX)?;
    let groups = groups.map(|group| Ok(name_of(group, "groupId")?.ok_or(MISSING)?.to_owned()));
    Ok(InstanceDescription {
        owner_id,
        instance_id: parsed(instance, "instanceId")?,
        state: InstanceState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or(InvalidDescriptions("an unknown state"))?,
        image_id: owned("imageId")?.ok_or(MISSING)?,
        instance_type: owned("instanceType")?.ok_or(MISSING)?,
        availability_zone: zone.to_owned(),
        launch_time: parsed(instance, "launchTime")?,
        instance_profile_arn: profile.map(ToOwned::to_owned),
        tags: tags_of(instance)?,
        vpc_id: owned("vpcId")?,
        subnet_id: owned("subnetId")?,
        security_groups: groups.collect::<Result<_, _>>()?,
        metadata_options: metadata_options_of(instance)?,
        private_ip: match name_of(instance, "privateIpAddress")? {
            Some(_) => Some(parsed(instance, "privateIpAddress")?),
            None => None,
        },
    })
}

fn tags_of(instance: &Element) -> Result<BTreeMap<String, String>, InvalidDescriptions> {
    let mut tags = BTreeMap::new();
    for tag in instance.items("tagSet", TAGS_MAX)? {
        let key = tag.text_of("key")?.unwrap_or_default();
        let value = tag.text_of("value")?.unwrap_or_default();
        let is_short = key.chars().count() <= TAG_KEY_MAX && value.chars().count() <= TAG_VALUE_MAX;
        if key.is_empty() || !is_short {
            return Err(InvalidDescriptions("a tag that AWS does not allow"));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(InvalidDescriptions("a tag twice"));
        }
    }
    Ok(tags)
}

fn metadata_options_of(instance: &Element) -> Result<Option<MetadataOptions>, InvalidDescriptions> {
    let Some(options) = instance.one("metadataOptions")? else { return Ok(None) };
    Ok(Some(MetadataOptions {
        v2_only: either(options, "httpTokens", "required", "optional")?,
        hop_limit: parsed(options, "httpPutResponseHopLimit")?,
        is_enabled: either(options, "httpEndpoint", "enabled", "disabled")?,
    }))
}

/// Whether a word is `yes`, where it can only be `yes` or `no`.
fn either(element: &Element, name: &str, yes: &str, no: &str) -> Result<bool, InvalidDescriptions> {
    match element.text_of(name)? {
        Some(word) if word == yes => Ok(true),
        Some(word) if word == no => Ok(false),
        Some(_) | None => Err(InvalidDescriptions("a metadata option of an unknown kind")),
    }
}

fn parsed<T: FromStr>(element: &Element, name: &str) -> Result<T, InvalidDescriptions> {
    let text = name_of(element, name)?;
    text.and_then(|text| text.parse().ok())
        .ok_or(InvalidDescriptions("an id, time or number is missing or has another form"))
}

/// A name or identifier: short, on one line.
fn name_of<'a>(element: &'a Element, name: &str) -> Result<Option<&'a str>, InvalidDescriptions> {
    let text = element.text_of(name)?;
    if text.is_some_and(|text| text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control)) {
        return Err(InvalidDescriptions("a name that AWS does not allow"));
    }
    Ok(text)
}

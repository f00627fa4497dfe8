//! A look at the instance: what EC2 says of it, and whether that is the instance of the document.

use crate::aws::{CallFailed, Ec2Client, Failure, InstanceDescription, LookUpBy, Place};
use crate::domain::{AccountId, Code, InstanceId, Lifetime, Partition, Region, Timestamp};
use crate::methods::{
    ClaimValues, Claims, Contradiction, FactsNeeded, Instance, InstanceFacts, LookUp,
    SourceUnavailable, Value,
};

/// A tag that AWS sets and nobody else can: the prefix `aws:` is reserved.
const AUTO_SCALING_GROUP: &str = "aws:autoscaling:groupName";
/// For how long after its start EC2 may honestly not know an instance. AWS says "a couple of
/// seconds" and means minutes.
const MAY_BE_UNKNOWN: Lifetime = Lifetime::from_minutes(10);

/// Whom a document speaks of, as EC2 is asked about it.
struct Asked {
    place: Place,
    instance: InstanceId,
}

impl Asked {
    fn of(claims: &Claims) -> Option<Self> {
        let segment = |name| claims.subject().segment(name);
        let partition: Partition = segment("partition")?.parse().ok()?;
        let account: AccountId = segment("account_id")?.parse().ok()?;
        let region: Region = segment("region")?.parse().ok()?;
        let instance: InstanceId = segment("instance_id")?.parse().ok()?;
        Some(Self { place: Place { partition, account, region }, instance })
    }

    /// The role is only ever looked for in the account of the document, which a rule lists (P8).
    fn by(&self, look_up: &LookUp) -> Option<LookUpBy> {
        match look_up {
            LookUp::None => None,
            LookUp::Own => Some(LookUpBy::Own),
            LookUp::Role { role, external_id } => {
                let arn = role
                    .replace("{partition}", self.place.partition.as_str())
                    .replace("{account}", self.place.account.as_str());
                Some(LookUpBy::Role { arn, external_id: external_id.clone() })
            }
        }
    }
}

/// Asks EC2 and compares.
pub(super) async fn look_up(
    client: &Ec2Client,
    claims: &Claims,
    needed: &FactsNeeded,
    now: Timestamp,
) -> Result<Instance, SourceUnavailable> {
    let asked = Asked::of(claims);
    let Some((asked, by)) = asked.and_then(|asked| asked.by(&needed.look_up).map(|by| (asked, by)))
    else {
        let detail = "the evidence names no instance that could be looked at".to_owned();
        return Err(SourceUnavailable { code: Code::Internal, detail });
    };
    let found = client.describe(&asked.place, &by, &asked.instance, claims.epoch()).await;
    let Some(found) = found.map_err(|error| unavailable(&error))? else {
        return unknown(&asked, claims, now);
    };
    if let Some(difference) = difference(claims.values(), &asked.place.account, &found) {
        return Ok(Instance::Refuted(Contradiction {
            code: Code::EvidenceDisagrees,
            reason: difference,
            hint: None,
        }));
    }
    Ok(Instance::Known(facts(found)))
}

/// EC2 does not know the instance: too early to tell, or gone for good.
fn unknown(asked: &Asked, claims: &Claims, now: Timestamp) -> Result<Instance, SourceUnavailable> {
    let Place { account, region, .. } = &asked.place;
    let words = format!(
        "EC2 knows no instance {} in the part of account {account}, region {region}, that the \
         server may see",
        asked.instance
    );
    if now.since(claims.epoch()) <= MAY_BE_UNKNOWN {
        return Err(SourceUnavailable { code: Code::InstanceNotVisible, detail: words });
    }
    Ok(Instance::Refuted(Contradiction { code: Code::InstanceUnknown, reason: words, hint: None }))
}

/// In what EC2 and the document differ, if they do (R5).
fn difference(
    claims: &ClaimValues,
    account: &AccountId,
    found: &InstanceDescription,
) -> Option<String> {
    [
        ("account", Some(account.as_str()), Some(found.owner_id.as_str())),
        ("image", claims.proven_text("image_id"), Some(found.image_id.as_str())),
        ("type", claims.proven_text("instance_type"), Some(found.instance_type.as_str())),
        ("zone", claims.proven_text("availability_zone"), Some(found.availability_zone.as_str())),
    ]
    .into_iter()
    .find(|(_, said, seen)| said != seen)
    .map(|(what, said, seen)| {
        let (said, seen) = (said.unwrap_or("nothing"), seen.unwrap_or("nothing"));
        format!("the document says {what} `{said}`, EC2 says `{seen}`")
    })
}

/// The description under the names of the declared fields. What EC2 always says and did not say this
/// time, or said in words that cannot be read, is left out: not read, never "has none" (I11).
fn facts(found: InstanceDescription) -> InstanceFacts {
    let group = found.tags.get(AUTO_SCALING_GROUP).cloned();
    let imds = found.metadata_options.map(|options| Value::MetadataOptions {
        v2_only: options.v2_only,
        hop_limit: options.hop_limit,
    });
    let profile = found.instance_profile_arn.as_deref().and_then(profile_name);
    let mut facts = InstanceFacts::from([
        ("state", Some(Value::Text(found.state.as_str().to_owned()))),
        ("tags", Some(Value::Tags(found.tags))),
        ("vpc", found.vpc_id.map(Value::Text)),
        ("subnet", found.subnet_id.map(Value::Text)),
        ("security_groups", Some(Value::List(found.security_groups))),
        ("auto_scaling_group", group.map(Value::Text)),
        ("launch_time", Some(Value::Time(found.launch_time))),
    ]);
    match (&found.instance_profile_arn, profile) {
        (None, _) => drop(facts.insert("instance_profile", None)),
        (Some(_), Some(name)) => {
            drop(facts.insert("instance_profile", Some(Value::Text(name))));
        }
        (Some(_), None) => {}
    }
    if let Some(imds) = imds {
        facts.insert("imds", Some(imds));
    }
    facts
}

/// `path/name` of `arn:aws:iam::111122223333:instance-profile/path/name`: in the instance's own
/// account, which was compared, so the rest of the ARN says nothing more.
fn profile_name(arn: &str) -> Option<String> {
    let (_, name) = arn.split_once(":instance-profile/")?;
    Some(name.to_owned())
}

fn unavailable(error: &CallFailed) -> SourceUnavailable {
    let code = match error.kind {
        Failure::Throttled => Code::Ec2Throttled,
        Failure::Unavailable | Failure::Forbidden => Code::Ec2Unavailable,
    };
    SourceUnavailable { code, detail: error.to_string() }
}

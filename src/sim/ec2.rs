//! EC2: `DescribeInstances`, by ids or by the filter `instance-id`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::answer::{Answer, Refused, ec2_document, element, text};
use super::credentials::unique_id;
use super::form::Form;
use super::permission::may;
use super::sigv4::Signed;
use super::{InstanceState, Machine, SimulatedInstance, Simulator};
use crate::domain::{InstanceId, Partition};

/// The most values of one filter.
const MAX_FILTER_VALUES: usize = 200;
/// AWS's limits for `MaxResults`.
const PAGE: std::ops::RangeInclusive<usize> = 5..=1000;
/// How many unknown ids a refusal names at most: fewer than a caller may ask for, because AWS's
/// does not promise to name all.
const NAMED: usize = 2;

/// The instances that were asked for. Also says how many the answer has.
pub(super) fn describe_instances(
    simulator: &Simulator,
    signed: &Signed,
    form: &Form,
) -> Result<(Answer, usize), Refused> {
    if !may(&signed.principal.kind, "ec2:DescribeInstances", "*", &signed.region) {
        let message = "You are not authorized to perform this operation.";
        return Err(Refused::new(403, "UnauthorizedOperation", message));
    }
    let known = ["Action", "Version", "MaxResults", "NextToken", "Filter.1.Name"];
    if let Some(name) = form.other_than(&known, &["InstanceId", "Filter.1.Value"]) {
        let message = format!("The parameter {name} is not recognized");
        return Err(Refused::new(400, "UnknownParameter", message));
    }
    let (found, next) = match Asked::read(form)? {
        Asked::Ids(ids) => (by_id(simulator, signed, &ids)?, None),
        Asked::Page { ids, offset, most } => {
            let mut found = by_filter(simulator, signed, ids.as_deref());
            let next = offset.saturating_add(most);
            let next = (found.len() > next).then(|| text("nextToken", format!("page-{next}")));
            found = found.into_iter().skip(offset).take(most).collect();
            (found, next)
        }
    };
    let items: Vec<String> = found.iter().map(|machine| reservation(&machine.instance)).collect();
    let mut content = vec![element("reservationSet", &items)];
    content.extend(next);
    Ok((Answer::xml(ec2_document("DescribeInstances", &content)), found.len()))
}

enum Asked {
    Ids(BTreeSet<InstanceId>),
    Page { ids: Option<Vec<String>>, offset: usize, most: usize },
}

impl Asked {
    fn read(form: &Form) -> Result<Self, Refused> {
        let ids = form.list("InstanceId");
        let most = form.get("MaxResults");
        if !ids.is_empty() {
            if most.is_some() || form.get("NextToken").is_some() {
                let message =
                    "The parameter instancesSet cannot be used with the parameter maxResults";
                return Err(Refused::new(400, "InvalidParameterCombination", message));
            }
            if form.get("Filter.1.Name").is_some() {
                let message = "The simulator takes ids or a filter, not both";
                return Err(Refused::new(400, "InvalidParameterCombination", message));
            }
            return ids.into_iter().map(well_formed).collect::<Result<_, _>>().map(Self::Ids);
        }
        let values = form.list("Filter.1.Value");
        let ids = match form.get("Filter.1.Name") {
            None if values.is_empty() => None,
            Some("instance-id") if !values.is_empty() => {
                Some(values.into_iter().map(str::to_owned).collect::<Vec<_>>())
            }
            other => {
                let other = other.unwrap_or_default();
                return Err(invalid(&format!("The filter '{other}' is invalid")));
            }
        };
        if ids.as_ref().is_some_and(|ids| ids.len() > MAX_FILTER_VALUES) {
            let message = "The maximum number of filter values specified on a single call is 200";
            return Err(Refused::new(400, "FilterLimitExceeded", message));
        }
        let most = match most {
            None => *PAGE.end(),
            Some(most) => most
                .parse()
                .ok()
                .filter(|most| PAGE.contains(most))
                .ok_or_else(|| invalid("MaxResults must be between 5 and 1000"))?,
        };
        let offset = match form.get("NextToken") {
            None => 0,
            Some(token) => token
                .strip_prefix("page-")
                .and_then(|offset| offset.parse().ok())
                .ok_or_else(|| invalid("Unable to parse pagination token"))?,
        };
        Ok(Self::Page { ids, offset, most })
    }
}

fn well_formed(id: &str) -> Result<InstanceId, Refused> {
    id.parse().map_err(|_| {
        Refused::new(400, "InvalidInstanceID.Malformed", format!("Invalid id: \"{id}\""))
    })
}

fn invalid(message: &str) -> Refused {
    Refused::new(400, "InvalidParameterValue", message)
}

/// One unknown id fails the whole call. An instance of somebody else is known, and left out ("an
/// instance that you do not own is not included in the output", API reference).
fn by_id(
    simulator: &Simulator,
    signed: &Signed,
    ids: &BTreeSet<InstanceId>,
) -> Result<Vec<Arc<Machine>>, Refused> {
    let mut found = Vec::new();
    let mut unknown = Vec::new();
    for id in ids {
        match simulator.visible(id.as_str(), &signed.region) {
            None => unknown.push(format!("{id}")),
            Some(machine) if machine.instance.account_id == signed.principal.account => {
                found.push(machine);
            }
            Some(_) => {}
        }
    }
    let named = unknown.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let message = match unknown.len() {
        0 => return Ok(found),
        1 => format!("The instance ID '{named}' does not exist"),
        2.. => format!("The instance IDs '{named}' do not exist"),
    };
    Err(Refused::new(400, "InvalidInstanceID.NotFound", message))
}

fn by_filter(simulator: &Simulator, signed: &Signed, ids: Option<&[String]>) -> Vec<Arc<Machine>> {
    let is_own = |machine: &Arc<Machine>| machine.instance.account_id == signed.principal.account;
    let mut all = match ids {
        Some(ids) => ids.iter().filter_map(|id| simulator.visible(id, &signed.region)).collect(),
        None => simulator.all_visible(&signed.region),
    };
    all.retain(is_own);
    all.sort_by(|a, b| a.instance.instance_id.cmp(&b.instance.instance_id));
    all.dedup_by(|a, b| a.instance.instance_id == b.instance.instance_id);
    all
}

/// One reservation with one instance, in the shapes of the API reference.
fn reservation(instance: &SimulatedInstance) -> String {
    let id = instance.instance_id.as_str();
    let content = [
        text("reservationId", id.replacen("i-", "r-", 1)),
        text("ownerId", &instance.account_id),
        element("groupSet", &[]),
        element("instancesSet", &[element("item", &described(instance))]),
    ];
    element("item", &content)
}

fn described(instance: &SimulatedInstance) -> Vec<String> {
    let record = &instance.record;
    let state = [text("code", record.state.code()), text("name", record.state.as_str())];
    let launched = record.launch_time.unwrap_or(instance.pending_time).to_string();
    let placement =
        [text("availabilityZone", instance.availability_zone()), text("tenancy", "default")];
    let metadata = [
        text("state", "applied"),
        text("httpTokens", if record.v2_only { "required" } else { "optional" }),
        text("httpPutResponseHopLimit", instance.hop_limit.max(1)),
        text("httpEndpoint", "enabled"),
    ];
    let group =
        record.auto_scaling_group.as_deref().map(|name| ("aws:autoscaling:groupName", name));
    let own = record.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let tags: Vec<String> = group
        .into_iter()
        .chain(own)
        .map(|(key, value)| element("item", &[text("key", key), text("value", value)]))
        .collect();
    let mut content = vec![
        text("instanceId", &instance.instance_id),
        text("imageId", &instance.image_id),
        element("instanceState", &state),
        text("instanceType", &instance.instance_type),
        text("launchTime", launched.replace('Z', ".000Z")),
        element("placement", &placement),
        element("tagSet", &tags),
        element("metadataOptions", &metadata),
    ];
    // An instance that is gone has no network and no profile any more.
    if record.state != InstanceState::Terminated {
        content.extend(network(instance));
        content.extend(profile(instance));
    }
    content
}

fn network(instance: &SimulatedInstance) -> Vec<String> {
    let record = &instance.record;
    let groups: Vec<String> = record
        .security_groups
        .iter()
        .map(|id| element("item", &[text("groupId", id), text("groupName", "simulated")]))
        .collect();
    vec![
        text("privateIpAddress", instance.private_ip),
        text("vpcId", &record.vpc),
        text("subnetId", &record.subnet),
        element("groupSet", &groups),
    ]
}

fn profile(instance: &SimulatedInstance) -> Option<String> {
    let name = instance.record.instance_profile.as_deref()?;
    let (partition, account) = (Partition::of_region(&instance.region), &instance.account_id);
    let arn = format!("arn:{partition}:iam::{account}:instance-profile/{name}");
    let id = unique_id("AIPA", &[account.as_str(), name]);
    Some(element("iamInstanceProfile", &[text("arn", arn), text("id", id)]))
}

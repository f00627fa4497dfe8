//! Reading publications from their documents, and holding them against the policies and each other.

use std::collections::BTreeMap;

use super::target::NameTemplates;
use super::{Layout, PublicationTarget, TargetRole, TokenPublication, TokenTerms};
use crate::domain::{AccountId, Lifetime, Partition, PolicyName, Region};
use crate::policy::accounts::account;
use crate::policy::decode::{self, Keys, invalid};
use crate::policy::document::{Document, Kind};
use crate::policy::finding::{FindingCode, Report, quoted};
use crate::policy::join_policy::{JoinPolicy, labels};
use crate::policy::kinds::networks;
use crate::policy::lint;
use crate::policy::settings::external_id;
use crate::policy::yaml::{Content, Node};

const PERIOD_MAX: Lifetime = Lifetime::from_days(30);
const LIFE_MAX: Lifetime = Lifetime::from_days(90);
/// Half of less would be no whole second.
const PERIOD_MIN: Lifetime = Lifetime::from_seconds(2);
const TARGETS_MAX: usize = 100;
/// A token's name is its publication's, `-` and eight digits, and has at most 63 characters.
const NAME_MAX: usize = 54;
const TAGS_MAX: usize = 50;
/// AWS's limits of parameter names, with room for what is written beside the token.
const PATH_BYTES_MAX: usize = 500;
const LEVELS_MAX: usize = 15;

/// Reads all publications; holds each against its policy and against the others.
pub(crate) fn publications(
    documents: &[Document<'_>],
    regions: &BTreeMap<String, Partition>,
    policies: &BTreeMap<PolicyName, JoinPolicy>,
    report: &mut Report,
) -> BTreeMap<PolicyName, TokenPublication> {
    let mut publications = BTreeMap::new();
    for document in documents.iter().filter(|document| document.kind == Kind::TokenPublication) {
        let Some(publication) = read(document, regions, report) else { continue };
        hold(&publication, policies, report);
        apart(&publication, publications.values(), report);
        if document.metadata.owner.is_none() {
            lint::no_owner("publication", &publication.name, &publication.place, report);
        }
        publications.insert(publication.name.clone(), publication);
    }
    publications
}

fn read(
    document: &Document<'_>,
    regions: &BTreeMap<String, Partition>,
    report: &mut Report,
) -> Option<TokenPublication> {
    const KEYS: &[&str] = &["policy", "targets", "period", "overlap", "token", "layout"];
    let keys = Keys::read(document.spec, "the `spec` of a TokenPublication", KEYS, report)?;
    let name = &document.metadata.name;
    if name.as_str().len() > NAME_MAX {
        let message = format!("the name {} is too long", quoted(name.as_str()));
        let expected = "at most 54 characters: tokens are named by it and eight digits more";
        report.add(FindingCode::ValueInvalid, &document.metadata.place, message, expected);
    }
    let policy_node = keys.required("policy", "`policy:` and the name of a JoinPolicy", report);
    let policy = policy_node.and_then(|node| decode::parsed(node, "policy", report));
    let times = times(&keys, report);
    let layout = match keys.get("layout") {
        Some(node) => layout_of(node, report),
        None => Some(Layout::Muster),
    };
    let tokens = keys.required("token", "`token: {life: 30m, max_uses: 1}`", report);
    let tokens = tokens.and_then(|node| tokens_of(node, times, report));
    let targets = keys.required("targets", "`targets:` with at least one region", report);
    let (Some(policy), Some(layout)) = (policy, layout) else {
        return None;
    };
    let targets = targets.and_then(|node| targets_of(node, &layout, &policy, regions, report));
    let (period, overlap) = times?;
    Some(TokenPublication {
        name: name.clone(),
        place: document.metadata.place.clone(),
        policy_place: policy_node.map(|node| node.place.clone())?,
        policy,
        targets: targets?,
        period,
        overlap,
        tokens: tokens?,
    })
}

/// Period and overlap.
fn times(keys: &Keys<'_>, report: &mut Report) -> Option<(Lifetime, Lifetime)> {
    let node = keys.required("period", "`period: 10m`", report)?;
    let period = decode::duration(node, "period", PERIOD_MAX, report)?;
    if period < PERIOD_MIN {
        return invalid(node, "period", "at least 2s", report);
    }
    let Some(node) = keys.get("overlap") else { return Some((period, period.fraction(1, 2))) };
    let overlap = decode::duration(node, "overlap", PERIOD_MAX, report)?;
    if overlap >= period {
        let expected = "shorter than the period: never more than two tokens live at a time";
        return invalid(node, "overlap", expected, report);
    }
    Some((period, overlap))
}

fn tokens_of(
    node: &Node,
    times: Option<(Lifetime, Lifetime)>,
    report: &mut Report,
) -> Option<TokenTerms> {
    let keys = Keys::read(node, "`token`", &["life", "max_uses", "cidrs", "labels"], report)?;
    let life_node = keys.required("life", "`life: 30m`", report);
    let life = life_node.and_then(|node| decode::duration(node, "life", LIFE_MAX, report));
    if let (Some((period, overlap)), Some(node), Some(life)) = (times, life_node, life)
        && life.seconds() < period.seconds() + overlap.seconds()
    {
        let message = format!("a token of {life} ends before the one after it has taken over");
        let expected = format!("at least {period} and {overlap}: period and overlap together");
        report.add(FindingCode::TokenLifeShort, &node.place, message, expected);
    }
    let uses = keys.required("max_uses", "`max_uses: 100`, or `unlimited`", report);
    let max_uses = uses.and_then(|node| max_uses(node, report));
    let cidrs = match keys.get("cidrs") {
        Some(node) => networks("cidrs", node, report)?,
        None => Vec::new(),
    };
    let labels = keys.get("labels").map(|node| labels(node, report)).unwrap_or_default();
    Some(TokenTerms { life: life?, max_uses: max_uses?, cidrs, labels })
}

/// A number, or `unlimited` in so many words (I2).
#[expect(clippy::option_option, reason = "the outer one says that it was reported")]
fn max_uses(node: &Node, report: &mut Report) -> Option<Option<u32>> {
    if matches!(&node.content, Content::Scalar { text, is_plain: true } if text == "unlimited") {
        return Some(None);
    }
    decode::number(node, "max_uses", 1..=999_999_999, report).map(Some)
}

const LAYOUTS: &str = "`muster`, or `{teleport: {cluster: prod, role: node}}`";

fn layout_of(node: &Node, report: &mut Report) -> Option<Layout> {
    if let Content::Scalar { .. } = node.content {
        let text = decode::text(node, "layout", report)?;
        return if text == "muster" {
            Some(Layout::Muster)
        } else {
            invalid(node, "layout", LAYOUTS, report)
        };
    }
    let keys = Keys::read(node, "`layout`", &["teleport"], report)?;
    let teleport = keys.required("teleport", LAYOUTS, report)?;
    let keys = Keys::read(teleport, "`teleport`", &["cluster", "role"], report)?;
    let cluster = keys.required("cluster", LAYOUTS, report);
    let cluster = cluster.and_then(|node| segment(node, "cluster", report));
    let role = keys.required("role", LAYOUTS, report);
    let role = role.and_then(|node| segment(node, "role", report));
    Some(Layout::Teleport { cluster: cluster?, role: role? })
}

/// One level of a parameter's name.
fn segment(node: &Node, what: &str, report: &mut Report) -> Option<String> {
    let text = decode::text(node, what, report)?;
    if text.len() <= 128 && is_segment(text) {
        return Some(text.to_owned());
    }
    invalid(node, what, "letters, digits, `.`, `_` and `-`, at most 128", report)
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn targets_of(
    node: &Node,
    layout: &Layout,
    policy: &PolicyName,
    regions: &BTreeMap<String, Partition>,
    report: &mut Report,
) -> Option<Vec<PublicationTarget>> {
    let items = decode::list(node, "targets", "[{region: us-west-2}]", report)?;
    if items.len() > TARGETS_MAX {
        let message = format!("there are {} targets", items.len());
        report.add(FindingCode::LimitExceeded, &node.place, message, "at most 100");
        return None;
    }
    let mut targets: Vec<PublicationTarget> = Vec::new();
    let mut is_whole = true;
    for item in items {
        let Some(target) = target(item, layout, policy, regions, report) else {
            is_whole = false;
            continue;
        };
        if targets.iter().any(|known| known.is_beside(&target)) {
            let message = format!("`{target}` stands twice in `targets`");
            let expected = "each region of an account once; another publication for more";
            report.add(FindingCode::ValueRepeated, &item.place, message, expected);
        }
        targets.push(target);
    }
    is_whole.then_some(targets)
}

fn target(
    node: &Node,
    layout: &Layout,
    policy: &PolicyName,
    regions: &BTreeMap<String, Partition>,
    report: &mut Report,
) -> Option<PublicationTarget> {
    const KEYS: &[&str] = &["region", "account", "role", "external_id", "path", "kms_key", "tags"];
    let keys = Keys::read(node, "a target", KEYS, report)?;
    let region = keys.required("region", "`region: us-west-2`", report);
    let region = region.and_then(|node| region_of(node, regions, report));
    let role = role_of(&keys, region.as_ref(), report);
    let path = match keys.get("path") {
        None => Some(None),
        Some(node) => path_of(node, layout, report).map(Some),
    };
    let kms_key = match keys.get("kms_key") {
        None => Some(None),
        Some(node) => kms_key(node, report).map(Some),
    };
    let tags = match keys.get("tags") {
        None => Some(BTreeMap::new()),
        Some(node) => tags_of(node, report),
    };
    Some(PublicationTarget {
        region: region?,
        role: role?,
        kms_key: kms_key?,
        tags: tags?,
        names: NameTemplates::new(layout, policy, path?),
    })
}

fn region_of(
    node: &Node,
    regions: &BTreeMap<String, Partition>,
    report: &mut Report,
) -> Option<Region> {
    let text = decode::text(node, "region", report)?;
    if regions.contains_key(text) {
        return decode::parsed(node, "region", report);
    }
    let message = format!("{} is no region with a known certificate", quoted(text));
    let expected = match decode::nearest(text, regions.keys().map(String::as_str), report) {
        Some(near) => format!("`{near}`? `muster regions ls` lists the known ones"),
        None => "a region that `muster regions ls` lists".to_owned(),
    };
    report.add(FindingCode::RegionUnknown, &node.place, message, expected);
    None
}

/// The role, its account and its external id go together; the account is literal, and the role's.
#[expect(clippy::option_option, reason = "the outer one says that it was reported")]
fn role_of(
    keys: &Keys<'_>,
    region: Option<&Region>,
    report: &mut Report,
) -> Option<Option<TargetRole>> {
    const ROLE: &str = "`role: arn:aws:iam::111122223333:role/NAME`, of the target's account";
    let account = keys.get("account").map(|node| (account(node, report), node));
    let Some(node) = keys.get("role") else {
        let alone = [account.map(|(_, node)| node), keys.get("external_id")];
        let Some(node) = alone.into_iter().flatten().next() else { return Some(None) };
        let message = "without a role the server writes in its own account";
        report.add(FindingCode::KeyMissing, &node.place, message, ROLE);
        return None;
    };
    let Some((account, _)) = account else {
        let message = "the target does not say of which account its role is";
        let expected = "`account: \"111122223333\"`";
        report.add(FindingCode::KeyMissing, &node.place, message, expected);
        return None;
    };
    let arn = decode::text(node, "role", report)?;
    let external_id = if let Some(node) = keys.get("external_id") {
        Some(external_id(node, report)?)
    } else {
        let message = "the role is assumed without an external id: its trust policy cannot tell \
                       this server from another that may assume roles";
        let expected = "`external_id:` as the role's trust policy demands it";
        report.add(FindingCode::ExternalIdMissing, &node.place, message, expected);
        None
    };
    let (account, region) = (account?, region?);
    if !is_role(arn, Partition::of_region(region), &account) {
        return invalid(node, "role", ROLE, report);
    }
    Some(Some(TargetRole { account, arn: arn.to_owned(), external_id }))
}

/// A role of another account would write what nobody reads, or what others read (P8).
fn is_role(arn: &str, partition: Partition, account: &AccountId) -> bool {
    arn.strip_prefix(&format!("arn:{partition}:iam::{account}:role/")).is_some_and(|name| {
        (1..=576).contains(&name.len())
            && !name.ends_with('/')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b))
    })
}

fn path_of<'n>(node: &'n Node, layout: &Layout, report: &mut Report) -> Option<&'n str> {
    let text = decode::text(node, "path", report)?;
    if *layout != Layout::Muster {
        return invalid(node, "path", "no `path`: the layout says where tokens are", report);
    }
    let mut levels = text.split('/');
    let is_absolute = levels.next() == Some("");
    let levels: Vec<&str> = levels.collect();
    let first = levels.first().copied().unwrap_or_default().to_ascii_lowercase();
    let last = levels.last().copied().unwrap_or_default();
    let is_path = is_absolute
        && text.len() <= PATH_BYTES_MAX
        && (2..=LEVELS_MAX).contains(&levels.len())
        && levels.iter().all(|level| is_segment(level))
        && !first.starts_with("aws")
        && !first.starts_with("ssm")
        && !["pin", "server", "policy", "bundle"].contains(&last);
    if is_path {
        return Some(text);
    }
    let expected = "`/muster/prod/web/token`: 2 to 15 levels of letters, digits, `.`, `_` and `-`, \
                    the first not `aws…` or `ssm…`, the last not pin, server, policy or bundle";
    invalid(node, "path", expected, report)
}

fn kms_key(node: &Node, report: &mut Report) -> Option<String> {
    let text = decode::text(node, "kms_key", report)?;
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_/-".contains(&b))
    };
    let is_id = |id: &str| id.len() >= 36 && is_segment(id);
    let is_arn = text.starts_with("arn:") && text.contains(":kms:");
    let is_arn = is_arn && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":_/-".contains(&b));
    let is_key = text.strip_prefix("alias/").is_some_and(is_name) || is_id(text) || is_arn;
    if is_key && text.len() <= 2048 {
        return Some(text.to_owned());
    }
    invalid(node, "kms_key", "`alias/NAME`, a key id or the ARN of a key", report)
}

fn tags_of(node: &Node, report: &mut Report) -> Option<BTreeMap<String, String>> {
    let entries = decode::mapping(node, "`tags`", report)?;
    if entries.len() > TAGS_MAX {
        let message = format!("there are {} tags", entries.len());
        report.add(FindingCode::LimitExceeded, &node.place, message, "at most 50");
        return None;
    }
    let mut tags = BTreeMap::new();
    let mut is_whole = true;
    for (key, value) in entries {
        if value.is_null() {
            decode::report_null(&quoted(&key.text), &value.place, report);
        }
        let text = if value.is_null() { None } else { decode::text(value, &key.text, report) };
        let Some(text) = text else {
            is_whole = false;
            continue;
        };
        let is_free = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
        let fits = (1..=128).contains(&key.text.chars().count())
            && text.chars().count() <= 256
            && !key.text.to_ascii_lowercase().starts_with("aws:")
            && key.text.chars().chain(text.chars()).all(is_free);
        if !fits {
            let message = format!("{} is no tag that AWS takes", quoted(&key.text));
            let expected = "letters, digits, spaces and `_.:/=+-@`, not `aws:…`; 128 and 256 long";
            report.add(FindingCode::ValueInvalid, &key.place, message, expected);
            is_whole = false;
        }
        tags.insert(key.text.clone(), text.to_owned());
    }
    is_whole.then_some(tags)
}

/// Tokens join under a policy that is there and takes tokens.
fn hold(
    publication: &TokenPublication,
    policies: &BTreeMap<PolicyName, JoinPolicy>,
    report: &mut Report,
) {
    let name = &publication.policy;
    let message = match policies.get(name) {
        Some(policy) if policy.method.uses_tokens => return,
        Some(policy) => format!("the method of `{name}`, {}, takes no tokens", policy.method()),
        None => format!("there is no policy `{name}`"),
    };
    let expected = "the name of a JoinPolicy whose method takes tokens";
    report.add(FindingCode::PublicationPolicy, &publication.policy_place, message, expected);
}

/// Two that write one parameter would revoke each other's tokens for ever.
fn apart<'p>(
    publication: &TokenPublication,
    others: impl Iterator<Item = &'p TokenPublication>,
    report: &mut Report,
) {
    for other in others {
        let mut pairs = publication
            .targets
            .iter()
            .flat_map(|target| other.targets.iter().map(move |others| (target, others)));
        if let Some((target, _)) = pairs.find(|(target, others)| target.meets(others)) {
            let message =
                format!("`{}` ({}) writes the same parameter in {target}", other.name, other.place);
            let expected = "another `path` or layout for one of the two";
            report.add(FindingCode::ParameterTaken, &publication.place, message, expected);
        }
    }
}

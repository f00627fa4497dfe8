//! Hostile XML, and what a genuine answer says (T49).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fake::{HEAD, TAIL, instance};
use super::*;

fn wrapped(reservations: &str) -> String {
    format!("{HEAD}<reservationSet>{reservations}</reservationSet>{TAIL}")
}

fn good() -> String {
    wrapped(&instance(id(1).as_str(), OWN_ACCOUNT))
}

fn parse(body: &str) -> Result<Descriptions, InvalidDescriptions> {
    parse_descriptions(body.as_bytes(), &BTreeSet::from([id(1), id(2)]))
}

#[test]
fn a_genuine_answer_says_everything() {
    let parsed = parse(&good()).unwrap();
    let found = &parsed.found[&id(1)];
    assert_eq!(found.owner_id.as_str(), OWN_ACCOUNT);
    assert_eq!(found.state, InstanceState::Running);
    assert_eq!(found.image_id, "ami-0123456789abcdef0");
    assert_eq!(found.instance_type, "m7g.large");
    assert_eq!(found.availability_zone, "us-west-2b");
    assert_eq!(found.launch_time.to_string(), "2027-01-15T07:16:10Z");
    let profile = format!("arn:aws:iam::{OWN_ACCOUNT}:instance-profile/web");
    assert_eq!(found.instance_profile_arn, Some(profile));
    assert_eq!(found.tags["Name"], "a & b");
    assert_eq!(found.tags["aws:autoscaling:groupName"], "web");
    assert_eq!(found.vpc_id.as_deref(), Some("vpc-1"));
    assert_eq!(found.subnet_id.as_deref(), Some("subnet-1"));
    assert_eq!(found.security_groups, ["sg-1"]);
    let expected = MetadataOptions { v2_only: true, hop_limit: 1, is_enabled: true };
    assert_eq!(found.metadata_options, Some(expected));
    assert_eq!(found.private_ip, Some("10.0.0.7".parse().unwrap()));
    assert_eq!(parsed.next_token, None);
}

#[test]
fn what_may_be_missing_may_be_missing() {
    let mut body = good().replace("running", "terminated");
    for (from, to) in [
        ("<subnetId>", "</vpcId>"),
        ("<privateIpAddress>", "</privateIpAddress>"),
        ("<iamInstanceProfile>", "</iamInstanceProfile>"),
        ("<tagSet>", "</tagSet>"),
        ("<metadataOptions>", "</metadataOptions>"),
    ] {
        let (start, end) = (body.find(from).unwrap(), body.find(to).unwrap() + to.len());
        body.replace_range(start..end, "");
    }
    let parsed = parse(&body).unwrap();
    let found = &parsed.found[&id(1)];
    assert_eq!(found.state, InstanceState::Terminated);
    assert_eq!((&found.vpc_id, &found.subnet_id, found.private_ip), (&None, &None, None));
    assert!(found.tags.is_empty() && found.metadata_options.is_none());
    assert!(parse(&wrapped("")).unwrap().found.is_empty());
    assert!(parse("<DescribeInstancesResponse/>").unwrap().found.is_empty());
}

#[test]
fn tag_values_are_kept_as_they_are() {
    for (written, meant) in [
        (" a  b ", " a  b "),
        ("&lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;", "<>&\"'A😀"),
        ("&amp;lt;", "&lt;"),
        ("", ""),
        ("]]", "]]"),
    ] {
        let parsed = parse(&good().replace("a &amp; b", written)).unwrap();
        assert_eq!(parsed.found[&id(1)].tags["Name"], meant, "{written}");
    }
}

// Each of these is one change of a genuine answer.
#[test]
fn a_changed_answer_is_refused() {
    let one = id(1).to_string();
    let long_tag = format!("<value>{}</value>", "x".repeat(257));
    let many_tags = (0..101).map(|n| format!("<item><key>{n}</key><value/></item>"));
    let many_tags = format!("<tagSet>{}", many_tags.collect::<Vec<_>>().concat());
    let deep = format!("<tagSet/>{}{}", "<a>".repeat(40), "</a>".repeat(40));
    let long_text = format!("<x>{}</x><imageId>", "y".repeat(17_000));
    for (from, to) in [
        ("<?xml", "<!DOCTYPE a [<!ENTITY b \"c\">]><?xml"),
        ("\n<Describe", "<!DOCTYPE a><Describe"),
        ("\n<Describe", "<?pi?><Describe"),
        ("\n<Describe", "x<Describe"),
        ("<reservationSet>", "<!-- c --><reservationSet>"),
        ("a &amp; b", "&b;"),
        ("a &amp; b", "&nbsp;"),
        ("a &amp; b", "&#0;"),
        ("a &amp; b", "&#xD800;"),
        ("a &amp; b", "<![CDATA[x]]>"),
        ("a &amp; b", "a & b"),
        ("<value>a &amp; b</value>", &long_tag),
        ("<key>Name</key>", "<key>aws:autoscaling:groupName</key>"),
        ("<key>Name</key>", "<key/>"),
        ("<key>Name</key>", ""),
        ("<key>Name</key>", "<key>Name</key><key>Name</key>"),
        ("<tagSet>", &many_tags),
        ("<tagSet>", "<tagSet/><tagSet>"),
        ("<tagSet>", "<tagSet><tag/>"),
        ("<tagSet>", &deep),
        ("<imageId>", &long_text),
        ("<imageId>ami-0123456789abcdef0</imageId>", ""),
        ("<imageId>", "<imageId>ami-1</imageId><imageId>"),
        ("<imageId>ami", "<imageId>ami<b/>"),
        ("<imageId>ami", "<imageId>&#10;ami"),
        ("<instanceType>m7g.large</instanceType>", "<instanceType/>"),
        ("running", "hibernating"),
        ("running", "RUNNING"),
        ("<name>running</name>", "<name>running</name><name>stopped</name>"),
        (one.as_str(), "i-00000000000000003"),
        (one.as_str(), "i-1"),
        (one.as_str(), ""),
        (OWN_ACCOUNT, "11112222333"),
        ("2027-01-15T07:16:10.000Z", "yesterday"),
        ("10.0.0.7", "10.0.0.700"),
        ("required", "perhaps"),
        ("<httpPutResponseHopLimit>1<", "<httpPutResponseHopLimit>-1<"),
        ("enabled", ""),
        ("<instancesSet>", "<instancesSet>text"),
        ("</reservationSet>", "</reservationSet><reservationSet/>"),
        ("</reservationSet>", ""),
        ("</DescribeInstancesResponse>", "</DescribeInstancesResponse>x"),
        ("</DescribeInstancesResponse>", "</DescribeInstancesResponse>&amp;"),
        ("</DescribeInstancesResponse>", "</DescribeInstancesResponse><a/>"),
        ("</DescribeInstancesResponse>", ""),
        ("encoding=\"UTF-8\"", "encoding=\"UTF-16\""),
        ("<requestId>", "<requestId a=b>"),
        ("<requestId>", "<requestId a=\"1\" a=\"2\">"),
        ("DescribeInstancesResponse", "x:DescribeInstancesResponse"),
    ] {
        let changed = good().replacen(from, to, 1);
        assert_ne!(changed, good(), "{from}");
        let changed =
            if from == "DescribeInstancesResponse" { good().replace(from, to) } else { changed };
        assert!(parse(&changed).is_err(), "{from} -> {}", &to[..to.len().min(80)]);
    }
}

#[test]
fn an_instance_twice_or_unasked_refuses_the_answer() {
    let (one, two) = (instance(id(1).as_str(), OWN_ACCOUNT), instance(id(2).as_str(), OWN_ACCOUNT));
    assert_eq!(parse(&wrapped(&format!("{one}{two}"))).unwrap().found.len(), 2);
    assert!(parse(&wrapped(&format!("{one}{two}{one}"))).is_err());
    let other = instance(id(3).as_str(), OWN_ACCOUNT);
    assert!(parse(&wrapped(&format!("{one}{other}"))).is_err());
}

#[test]
fn bombs_end_at_their_bound() {
    let elements = format!("<a>{}</a>", "<b/>".repeat(400_000));
    assert!(parse(&elements).is_err());
    assert!(parse(&"<a>".repeat(1_000_000)).is_err());
    assert!(parse_descriptions(&[0xff, 0xfe, 0x3c], &BTreeSet::new()).is_err());
    assert!(parse_descriptions(b"", &BTreeSet::new()).is_err());
}

// Blanks before many children are looked at once, and not again before each: what is kept of them is
// nothing, so they do not add up to more than a text may have.
#[test]
fn blanks_before_very_many_children_are_looked_at_once() {
    let body = format!("<a>{}{}</a>", " ".repeat(16 * 1024), "<b/>".repeat(299_000));
    assert!(parse(&body).is_err());
}

#[test]
fn blanks_between_children_are_no_text() {
    let blanks = format!("\n{}<item>", " ".repeat(10_000));
    assert_eq!(parse(&good().replace("<item>", &blanks)).unwrap().found.len(), 1);
}

proptest! {
    #[test]
    fn any_text_gives_an_answer(body in "[<>/a-zA-Z&;!?\\[\\]\"= -]{0,200}") {
        prop_assert!(parse(&body).is_ok_and(|parsed| parsed.found.is_empty()) || parse(&body).is_err());
    }

    #[test]
    fn whatever_is_accepted_was_asked_for(
        at in 0_usize..2_000,
        length in 0_usize..40,
        with in proptest::collection::vec(any::<u8>(), 0..40),
        asks_for_it in any::<bool>(),
    ) {
        let mut body = good().into_bytes();
        let at = at.min(body.len());
        let end = (at + length).min(body.len());
        body.splice(at..end, with);
        let asked = BTreeSet::from([if asks_for_it { id(1) } else { id(9) }]);
        if let Ok(parsed) = parse_descriptions(&body, &asked) {
            for (id, found) in parsed.found {
                prop_assert!(asked.contains(&id));
                prop_assert_eq!(id, found.instance_id);
            }
        }
    }
}

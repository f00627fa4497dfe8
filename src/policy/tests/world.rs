//! One policy set and one node that it admits.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::{Code, Partition, Subject, Timestamp};
use crate::methods::{
    ALL, ClaimValues, Contradiction, FactValues, Facts, Instance, InstanceFacts, Proof, Provenance,
    Value, fake,
};
use crate::policy::{
    Approval, Candidates, Denial, FindingCode, Loaded, OrderRequest, PolicyFile, PolicySet,
    Vocabulary,
};

pub(super) const NOW: &str = "2026-06-01T12:00:00Z";

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn now() -> Timestamp {
    time(NOW)
}

pub(super) fn vocabulary() -> Vocabulary {
    let regions = [
        ("us-east-1", Partition::Aws),
        ("us-west-2", Partition::Aws),
        ("eu-west-1", Partition::Aws),
        ("cn-north-1", Partition::China),
        ("us-gov-west-1", Partition::GovCloud),
    ];
    let regions = regions.into_iter().map(|(name, of)| (name.to_owned(), of)).collect();
    Vocabulary { methods: ALL, regions }
}

/// Files `a.yaml`, `b.yaml`, …
pub(super) fn files(texts: &[&str]) -> Vec<PolicyFile> {
    let names = ('a'..='z').map(|letter| format!("{letter}.yaml"));
    names.zip(texts).map(|(name, text)| PolicyFile { name, text: (*text).to_owned() }).collect()
}

pub(super) fn load(texts: &[&str]) -> Loaded {
    crate::policy::load(&files(texts), &vocabulary(), Some(now()))
}

pub(super) fn set(texts: &[&str]) -> Arc<PolicySet> {
    let loaded = load(texts);
    loaded.set.unwrap_or_else(|| panic!("{:#?}", loaded.findings))
}

pub(super) fn codes(loaded: &Loaded) -> Vec<FindingCode> {
    loaded.findings.iter().map(|finding| finding.code).collect()
}

pub(super) const ACCOUNTS: &str = r#"
apiVersion: muster/v1
kind: AccountSet
metadata: {name: production, owner: platform}
spec:
  partition: aws
  accounts:
    - {id: "111122223333", name: shop-prod}
    - {id: "444455556666", name: shop-staging}
"#;

/// A policy `web` with these lines in `spec`.
pub(super) fn policy(spec: &str) -> String {
    named_policy("web", spec)
}

pub(super) fn named_policy(name: &str, spec: &str) -> String {
    let spec = spec.trim_matches('\n').replace('\n', "\n  ");
    format!(
        "apiVersion: muster/v1\nkind: JoinPolicy\n\
         metadata: {{name: {name}, owner: platform, description: test}}\n\
         spec:\n  method: ec2\n  roles: [node]\n  {spec}\n"
    )
}

/// A node and what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) values: ClaimValues,
    pub(super) epoch: Timestamp,
    pub(super) facts: FactValues,
}

/// An instance of `production` that everybody would admit.
pub(super) fn worker() -> Node {
    let mut values = ClaimValues::default();
    for (name, value) in [
        ("partition", "aws"),
        ("account_id", "111122223333"),
        ("region", "us-east-1"),
        ("availability_zone", "us-east-1a"),
        ("instance_id", "i-0123456789abcdef0"),
        ("image_id", "ami-0aaaaaaaaaaaaaaa1"),
        ("instance_type", "m7g.large"),
        ("private_ip", "10.0.12.7"),
    ] {
        values.insert(name, Value::Text(value.to_owned()), Provenance::Proven);
    }
    let facts = FactValues { proof: Proof::Proven, instance: Instance::Known(instance()) };
    Node { values, epoch: time("2026-06-01T11:50:00Z"), facts }
}

/// A proof that is another instance's.
pub(super) fn false_proof() -> Proof {
    Proof::Disproven(contradiction(Code::ProofDisproven))
}

pub(super) fn contradiction(code: Code) -> Contradiction {
    Contradiction { code, reason: "another instance".to_owned(), hint: None }
}

fn instance() -> InstanceFacts {
    let text = |value: &str| Value::Text(value.to_owned());
    let facts = BTreeMap::from([
        ("state", text("running")),
        ("instance_profile", text("web-1")),
        ("tags", Value::Tags(BTreeMap::from([("Tier".to_owned(), "web".to_owned())]))),
        ("vpc", text("vpc-0123456789abcdef0")),
        ("subnet", text("subnet-0123456789abcdef0")),
        ("security_groups", Value::List(vec!["sg-0123456789abcdef0".into(), "sg-0a0a0a0a".into()])),
        ("auto_scaling_group", text("web-asg")),
        ("imds", Value::MetadataOptions { v2_only: true, hop_limit: 1 }),
        ("launch_time", Value::Time(time("2026-06-01T11:50:00Z"))),
    ]);
    facts.into_iter().map(|(name, value)| (name, Some(value))).collect()
}

impl Node {
    /// The same node, but for one claim.
    pub(super) fn claiming(mut self, name: &'static str, value: &str) -> Self {
        self.values.insert(name, Value::Text(value.to_owned()), Provenance::Proven);
        self
    }

    /// The same node, but this claim is only what the node says.
    pub(super) fn hinting(mut self, name: &'static str, value: &str) -> Self {
        self.values.insert(name, Value::Text(value.to_owned()), Provenance::Hinted);
        self
    }

    /// The same node, whose evidence does not say this.
    pub(super) fn silent_on(mut self, name: &str) -> Self {
        let mut values = ClaimValues::default();
        for (other, claim) in self.values.iter().filter(|(other, _)| *other != name) {
            values.insert(other, claim.value.clone(), claim.provenance);
        }
        self.values = values;
        self
    }

    /// The same node, but for one fact.
    pub(super) fn with_fact(mut self, name: &'static str, value: Value) -> Self {
        if let Instance::Known(facts) = &mut self.facts.instance {
            facts.insert(name, Some(value));
        }
        self
    }

    /// The same node, which does not have this.
    pub(super) fn without(mut self, name: &'static str) -> Self {
        if let Instance::Known(facts) = &mut self.facts.instance {
            facts.insert(name, None);
        }
        self
    }

    /// The same node, of which nobody read this.
    pub(super) fn unread(mut self, name: &'static str) -> Self {
        if let Instance::Known(facts) = &mut self.facts.instance {
            facts.remove(name);
        }
        self
    }

    pub(super) fn with_tag(self, name: &str, value: &str) -> Self {
        let tags = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        self.with_fact("tags", Value::Tags(tags))
    }

    pub(super) fn with_proof(mut self, proof: Proof) -> Self {
        self.facts.proof = proof;
        self
    }

    /// The same node, which EC2 says is another.
    pub(super) fn refuted(mut self) -> Self {
        self.facts.instance = Instance::Refuted(contradiction(Code::EvidenceDisagrees));
        self
    }

    /// The same node, at which nobody could look.
    pub(super) fn unseen(mut self) -> Self {
        self.facts.instance = Instance::NotRead("EC2 did not answer".to_owned());
        self
    }

    pub(super) fn since(mut self, epoch: &str) -> Self {
        self.epoch = time(epoch);
        self
    }

    pub(super) fn candidates(
        &self,
        set: &Arc<PolicySet>,
        policy: &str,
    ) -> Result<Candidates, Box<Denial>> {
        let subject = [
            ("partition", "aws"),
            ("account_id", "111122223333"),
            ("region", "us-east-1"),
            ("instance_id", "i-0123456789abcdef0"),
        ];
        let subject = Subject::new("instance", subject).unwrap();
        let claims = fake::claims("ec2", subject, self.values.clone(), self.epoch);
        set.candidates(policy, claims, now())
    }

    pub(super) fn facts(&self) -> Facts {
        fake::facts(self.facts.clone())
    }

    pub(super) fn joins(
        &self,
        set: &Arc<PolicySet>,
        policy: &str,
    ) -> Result<Approval, Box<Denial>> {
        self.joins_as(set, policy, request())
    }

    pub(super) fn joins_as(
        &self,
        set: &Arc<PolicySet>,
        policy: &str,
        request: OrderRequest,
    ) -> Result<Approval, Box<Denial>> {
        self.candidates(set, policy)?.decide(&self.facts(), request, now())
    }
}

pub(super) fn request() -> OrderRequest {
    use std::sync::LazyLock;

    use rcgen::PublicKeyData;

    use crate::domain::{PublicKey, Serial};

    static KEY: LazyLock<PublicKey> = LazyLock::new(|| {
        let pair = rcgen::KeyPair::generate().unwrap();
        PublicKey::from_spki_der(&pair.subject_public_key_info()).unwrap()
    });
    OrderRequest {
        serial: Serial::from_random([7; 16]),
        public_key: KEY.clone(),
        trust_domain: "prod.example.org".parse().unwrap(),
        issuer: KEY.digest(),
        slot: "default".to_owned(),
        age_waived: false,
        reserved_names: vec!["muster.internal.example".to_owned()],
    }
}

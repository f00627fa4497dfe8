//! Allow-lists of any length, and nodes that are on them.

use std::sync::Arc;

use muster::aws::RegionCertificates;
use muster::join::Attempt;
use muster::methods;
use muster::policy::{self, PolicyFile, PolicySet, Vocabulary};

use crate::world::Node;

/// How many accounts a file can hold: its size and its YAML nodes are bounded.
const ACCOUNTS_OF_A_FILE: usize = 25_000;
/// How many accounts nodes come from, at most.
const ACCOUNTS_THAT_COME: usize = 512;

/// A policy `web` for so many accounts, in as many sets as it takes.
pub(crate) fn policies(accounts: usize) -> Arc<PolicySet> {
    let all: Vec<String> = (0..accounts).map(account).collect();
    let mut files: Vec<PolicyFile> = Vec::new();
    let mut sets = Vec::new();
    for (number, some) in all.chunks(ACCOUNTS_OF_A_FILE).enumerate() {
        let name = format!("production-{number}");
        let ids: Vec<String> = some.iter().map(|id| format!("{{id: \"{id}\"}}")).collect();
        let text = format!(
            "apiVersion: muster/v1\nkind: AccountSet\nmetadata: {{name: {name}, owner: platform}}\n\
             spec: {{partition: aws, accounts: [{}]}}\n",
            ids.join(", ")
        );
        files.push(PolicyFile { name: format!("{name}.yaml"), text });
        sets.push(name);
    }
    let text = format!(
        r#"apiVersion: muster/v1
kind: JoinPolicy
metadata: {{name: web, description: "web tier", owner: "platform"}}
spec:
  method: ec2
  roles: [node]
  allow: [{{name: production, accounts: [{}], regions: [us-east-1, us-west-2]}}]
  ec2: {{fresh_proof: not_required, document_ttl: 24h, look_up: none}}
  certificate: {{ttl: 12h, dns_names: ["{{instance_id}}.web.internal.example"], labels: {{tier: web}}}}
"#,
        sets.join(", ")
    );
    files.push(PolicyFile { name: "web.yaml".to_owned(), text });
    let vocabulary = Vocabulary {
        methods: methods::ALL,
        regions: RegionCertificates::embedded().known_regions().clone(),
    };
    let loaded = policy::load(&files, &vocabulary, None);
    loaded.set.unwrap_or_else(|| panic!("{:?}", loaded.findings))
}

/// What nodes of accounts all over such a list come with, in no order.
pub(crate) fn attempts(accounts: usize) -> Vec<Attempt> {
    // A prime that divides no such length: every step leads far away, and to no account twice.
    let coming = (0..accounts.min(ACCOUNTS_THAT_COME)).map(|step| account(step * 7_919 % accounts));
    coming.zip(1..).map(|(account, number)| Node::new(&account, number).attempt("web")).collect()
}

/// Account numbers are as good as random.
fn account(number: usize) -> String {
    format!("{:012}", number as u64 * 618_033_988_749 % 1_000_000_000_000)
}

//! The shape of the crate: which module may import which, what the pure modules may not touch, and
//! documents that must stay true.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// Each module and what it may import of this crate, in the order of `lib.rs`. A module never
/// imports one that is listed below it. `methods::…` names the only parts that policy may see.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("turns", &["domain", "clock"]),
    ("store", &["domain"]),
    ("aws", &["domain", "clock"]),
    ("methods", &["domain", "clock", "aws"]),
    ("policy", &["domain", "methods"]),
    ("registry", &["domain", "store", "policy"]),
    ("audit", &["domain", "clock", "store"]),
    ("ca", &["domain", "policy", "registry"]),
    (
        "join",
        &["domain", "clock", "turns", "store", "methods", "policy", "registry", "audit", "ca"],
    ),
    ("proto", &[]),
    (
        "server",
        &[
            "domain", "clock", "turns", "store", "aws", "methods", "policy", "registry", "audit",
            "ca", "join", "proto",
        ],
    ),
    ("client", &["domain", "proto"]),
    ("agent", &["domain", "clock", "aws", "methods", "client", "proto"]),
    ("sim", &["domain", "clock", "aws"]),
    (
        "cli",
        &[
            "domain", "clock", "store", "aws", "methods", "policy", "audit", "server", "client",
            "agent", "sim",
        ],
    ),
];

/// What policy may use of `methods`: claims, facts and declarations, never a method.
const METHODS_SEEN_BY_POLICY: &[&str] = &[
    "Basis",
    "Claim",
    "ClaimValues",
    "Claims",
    "Contradiction",
    "Declaration",
    "FactValues",
    "Facts",
    "FactsNeeded",
    "Field",
    "Instance",
    "InstanceFacts",
    "Kind",
    "LookUp",
    "Presence",
    "Proof",
    "Provenance",
    "Source",
    "Value",
];

/// External crates that belong to some modules alone.
const CONFINED: &[(&str, &[&str])] = &[
    ("tonic", &["server", "client", "proto"]),
    ("rusqlite", &["store"]),
    ("rcgen", &["ca", "sim"]),
    ("cryptoki", &["ca"]),
    ("axum", &["server", "sim"]),
    ("clap", &["cli"]),
    ("aws_config", &["aws"]),
    ("aws_sdk_ssm", &["aws"]),
    ("aws_sdk_sts", &["aws"]),
    ("aws_sigv4", &["aws", "sim"]),
    ("aws_credential_types", &["aws", "sim"]),
    ("aws_smithy_async", &["aws"]),
    ("aws_smithy_http_client", &["aws"]),
    ("aws_smithy_runtime_api", &["aws", "sim"]),
    ("aws_smithy_types", &["aws", "sim"]),
    ("quick_xml", &["aws", "sim", "cli"]),
    ("moka", &["turns", "aws", "methods"]),
];

/// What the pure modules never name: files, network, clocks, threads, randomness, async runtimes.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::time::SystemTime",
    "std::time::Instant",
    "tokio",
    "aws_lc_rs::rand",
    "crate::clock",
    "hyper",
    "tracing",
];

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut broken = Vec::new();
    for (module, path, used) in product_paths() {
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        let Some((_, allowed)) = allowed else {
            broken.push(format!("`{module}` is not in the table ({})", path.display()));
            continue;
        };
        for target in used.iter().filter_map(|used| used.strip_prefix("crate::")) {
            let target = target.split("::").next().unwrap();
            let is_module = MAY_IMPORT.iter().any(|(name, _)| *name == target);
            if is_module && target != module && !allowed.contains(&target) {
                broken.push(format!("{}: `{module}` imports `{target}`", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_table_follows_the_order_of_lib_rs() {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    let declared: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(|name| name.trim_end_matches(';').to_owned())
        .collect();
    let listed: Vec<_> = MAY_IMPORT.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(declared, listed);
    for (place, (module, allowed)) in MAY_IMPORT.iter().enumerate() {
        for target in *allowed {
            let target_place = MAY_IMPORT.iter().position(|(name, _)| name == target).unwrap();
            assert!(target_place < place, "`{module}` would import `{target}` from below");
        }
    }
}

#[test]
fn policy_sees_claims_and_facts_and_no_method() {
    let mut broken = Vec::new();
    for (module, path, used) in product_paths() {
        if module != "policy" {
            continue;
        }
        for name in used.iter().filter_map(|used| used.strip_prefix("crate::methods::")) {
            let name = name.split("::").next().unwrap();
            if !METHODS_SEEN_BY_POLICY.contains(&name) {
                broken.push(format!("{}: policy uses methods::{name}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn policy_and_domain_read_no_clock_no_file_and_no_network() {
    let mut broken = Vec::new();
    for (module, path, used) in product_paths() {
        if module != "policy" && module != "domain" {
            continue;
        }
        for name in &used {
            if IMPURE.iter().any(|bad| name == bad || name.starts_with(&format!("{bad}::"))) {
                broken.push(format!("{}: `{module}` uses {name}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn some_crates_are_confined() {
    let mut broken = Vec::new();
    for (module, path, used) in product_paths() {
        for (krate, homes) in CONFINED {
            let uses = used.iter().any(|name| name.split("::").next() == Some(*krate));
            if uses && !homes.contains(&module.as_str()) {
                broken.push(format!("{}: `{module}` uses {krate}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

// The test above must fail for a forbidden import; this holds the reader of paths to it.
#[test]
fn a_forbidden_path_is_seen_however_it_is_written() {
    for (text, expected) in [
        ("use crate::policy::Order;", "crate::policy::Order"),
        ("use crate::{domain::Code, policy};", "crate::policy"),
        ("fn f() { crate::policy::load(); }", "crate::policy::load"),
        ("fn f(x: crate::policy::Order) {}", "crate::policy::Order"),
        ("use std::{fs, io::Read};", "std::fs"),
        ("fn f() { std::fs::read(\"x\"); }", "std::fs::read"),
        ("mod a { mod b { use crate::clock::Clock as C; } }", "crate::clock::Clock"),
        ("fn f() { let x = crate::policy::A { b: 1 }; }", "crate::policy::A"),
        ("fn f() { g!(crate::policy::load(1)); }", "crate::policy::load"),
    ] {
        let found = paths_of(&syn::parse_file(text).unwrap());
        assert!(found.contains(expected), "{text}: {found:?}");
    }
}

// The same rules as in deny.toml, for machines without cargo-deny.
#[test]
fn there_is_one_cryptographic_library_and_one_tls_stack() {
    // Cargo.lock also lists what no feature turns on; the tree is what is built.
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}"])
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?.trim_start_matches('v')))
        })
        .collect();
    assert!(packages.len() > 100, "{packages:?}");
    for banned in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!packages.iter().any(|(name, _)| *name == banned), "{banned} is built");
    }
    let tls: Vec<_> = packages.iter().filter(|(name, _)| *name == "rustls").collect();
    assert!(matches!(tls.as_slice(), [(_, version)] if version.starts_with("0.23.")), "{tls:?}");
}

#[test]
fn every_code_is_documented_and_nothing_else_is() {
    use muster::domain::Code;
    let text = fs::read_to_string("docs/errors.md").unwrap();
    let rows: Vec<Vec<String>> = text
        .lines()
        .filter(|line| {
            line.starts_with("| ") && line.contains('_') || line.starts_with("| INTERNAL")
        })
        .map(|line| {
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
        })
        .filter(|row: &Vec<String>| {
            let is_upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            row.len() >= 4 && row[0].bytes().all(is_upper)
        })
        .collect();
    let documented: Vec<_> = rows.iter().map(|row| row[..4].to_vec()).collect();
    let declared: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            let class = code.class().to_string();
            vec![
                code.as_str().to_owned(),
                class,
                code.grpc_status().to_owned(),
                code.remedy().to_owned(),
            ]
        })
        .collect();
    assert_eq!(documented, declared);
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    for named in
        text.split('`').filter(|word| word.starts_with("src/") || word.starts_with("tests/"))
    {
        let path = named.trim_end_matches('/').split("::").next().unwrap();
        assert!(Path::new(path).exists(), "ARCHITECTURE.md names `{named}`, which is not there");
    }
}

#[test]
fn every_place_that_creates_trust_is_called_assertion() {
    let expected: BTreeSet<&str> = [
        "src/ca/conformance.rs",
        "src/methods/claims.rs",
        "src/methods/facts.rs",
        "src/policy/approval.rs",
        "src/registry/recording.rs",
    ]
    .into();
    let mut found = BTreeSet::new();
    for path in rust_files(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        if text.contains("fn assertion(") {
            found.insert(path.to_str().unwrap().to_owned());
        }
    }
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
}

/// Module, file and all paths in it, of every file of the product; test modules are left out.
fn product_paths() -> Vec<(String, PathBuf, BTreeSet<String>)> {
    let mut all = Vec::new();
    for path in rust_files(Path::new("src")) {
        let inside = path.strip_prefix("src").unwrap();
        let is_test = inside.iter().any(|part| {
            let part = part.to_str().unwrap();
            matches!(part, "tests" | "tests.rs" | "contract.rs")
        });
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if is_test || matches!(module, "lib" | "main") {
            continue;
        }
        let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
        all.push((module.to_owned(), path.clone(), paths_of(&file)));
    }
    assert!(all.len() > 50, "the reader found only {} files", all.len());
    all
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[derive(Default)]
struct Paths {
    found: BTreeSet<String>,
    renamed: BTreeMap<String, String>,
}

fn paths_of(file: &syn::File) -> BTreeSet<String> {
    let mut paths = Paths::default();
    paths.visit_file(file);
    paths.found
}

impl Paths {
    fn add_tree(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: &dyn std::fmt::Display| {
            if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") }
        };
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&join(&path.ident), &path.tree),
            syn::UseTree::Name(name) => {
                self.found.insert(join(&name.ident));
            }
            syn::UseTree::Rename(rename) => {
                let full = join(&rename.ident);
                self.renamed.insert(rename.rename.to_string(), full.clone());
                self.found.insert(full);
            }
            syn::UseTree::Glob(_) => {
                self.found.insert(prefix.to_owned());
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_tree(prefix, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree("", &item.tree);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
        });
        if !is_test {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|one| one.ident.to_string()).collect();
        self.found.insert(names.join("::"));
        syn::visit::visit_path(self, path);
    }

    // Paths inside macros are tokens; read them as text.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let text = item.tokens.to_string().replace(" :: ", "::");
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            if word.contains("::") {
                self.found.insert(word.trim_matches(':').to_owned());
            }
        }
        self.found.insert(
            item.path
                .segments
                .iter()
                .map(|one| one.ident.to_string())
                .collect::<Vec<_>>()
                .join("::"),
        );
    }
}

//! Fuzz targets are complete: each is declared, has a bound, and seeds that are few and small. That they
//! compile is for `make check` to say.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const SEEDS_MAX: usize = 200;
const SEED_BYTES_MAX: u64 = 300 * 1024;

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&directory).unwrap_or_else(|_| panic!("no {}", directory.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn names(directory: &str) -> BTreeSet<String> {
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files(directory).iter().map(name).collect()
}

fn text(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[test]
fn every_fuzz_target_is_declared_and_has_a_bound() {
    let manifest: toml::Table = text("fuzz/Cargo.toml").parse().unwrap();
    let declared = manifest["bin"].as_array().unwrap().iter();
    let declared: BTreeSet<_> =
        declared.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(declared, names("fuzz/fuzz_targets"));
    let script = text("scripts/fuzz");
    let bounds = script.lines().filter(|line| line.contains("bytes=")).filter_map(|line| {
        Some(line.split_once(')')?.0.split('|').map(|name| name.trim().to_owned()))
    });
    let bounded: BTreeSet<_> = bounds.flatten().collect();
    assert!(declared.is_subset(&bounded), "without a bound: {:?}", &declared - &bounded);
}

#[test]
fn every_fuzz_target_has_seeds_that_are_few_and_small() {
    for target in names("fuzz/fuzz_targets") {
        let seeds = files(&format!("fuzz/seeds/{target}"));
        let bytes: u64 = seeds.iter().map(|seed| fs::metadata(seed).unwrap().len()).sum();
        assert!((1..=SEEDS_MAX).contains(&seeds.len()), "{target}: {} seeds", seeds.len());
        assert!(bytes <= SEED_BYTES_MAX, "{target}: {bytes} bytes");
    }
    assert_eq!(names("fuzz/seeds"), names("fuzz/fuzz_targets"));
}

//! AWS's page of certificates, or whatever somebody saved as it. What is taken stands in the
//! section of its region.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use muster::aws::read_certificates_page;

fuzz_target!(|page: &[u8]| {
    if let Ok(regions) = read_certificates_page(page, Path::new("page")) {
        assert!(!regions.is_empty());
        for (region, certificates) in regions {
            assert!((1..=16).contains(&certificates.len()));
            assert!(certificates.iter().all(|one| *one.region() == region));
        }
    }
});

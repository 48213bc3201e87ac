//! Every target on what the fuzzer set out from, without a fuzzer: the seeds, each cut short at some
//! places and with some bits flipped.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_fuzz_targets::{ALL, Target};

/// Cuts and flips for each seed: so many that all of it takes a few seconds.
const VARIANTS: usize = 6;

fn seeds_of(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../seeds")
        .join(target.name);
    let listed = fs::read_dir(&folder).expect("every target has seeds");
    let mut seeds: Vec<_> = listed
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path| {
            let seed = fs::read(&path).expect("it can be read");
            (path, seed)
        })
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn every_seed_of_every_target_keeps_what_is_promised() {
    for target in ALL {
        let seeds = seeds_of(&target);
        assert!(!seeds.is_empty(), "{} has seeds", target.name);
        for (path, seed) in seeds {
            // Printed only if what follows panics.
            println!("{}: {}", target.name, path.display());
            (target.check)(&seed);
        }
    }
}

#[test]
fn seeds_that_are_cut_or_changed_keep_what_is_promised() {
    for target in ALL {
        for (path, seed) in seeds_of(&target) {
            for variant in 1..=VARIANTS {
                let mut changed = seed.clone();
                let at = seed.len() * variant / (VARIANTS + 1);
                println!("{}: {}, at {at}", target.name, path.display());
                (target.check)(&changed[..at]);
                if let Some(byte) = changed.get_mut(at) {
                    *byte ^= 1 << (variant % 8);
                }
                (target.check)(&changed);
            }
        }
    }
}

#[test]
fn every_target_has_a_binary_and_no_binary_is_without_a_target() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("it is there");
    let binaries: Vec<&str> = manifest
        .lines()
        .filter_map(|line| {
            line.strip_prefix("path = \"fuzz_targets/")?
                .strip_suffix(".rs\"")
        })
        .collect();
    let targets: Vec<&str> = ALL.iter().map(|target| target.name).collect();
    assert_eq!(binaries, targets);
}

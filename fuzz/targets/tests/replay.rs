//! Every target on what the fuzzer set out from, without a fuzzer: the seeds and what was found worth
//! keeping, as it is, and the seeds cut short at some places and with some bits flipped.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_fuzz_targets::{ALL, Target, pack, unpack};

/// Cuts and flips for each seed: so many that all of it takes a few seconds.
const VARIANTS: usize = 6;

fn seeds_of(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../seeds")
        .join(target.name);
    // Not every target has seeds that were made.
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path| {
            let seed = fs::read(&path).expect("it can be read");
            (path, seed)
        })
        .collect();
    seeds.sort();
    seeds
}

fn pack_of(target: &Target) -> Vec<u8> {
    let file = format!("../seeds/{}.pack", target.name);
    // Not every target has one.
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default()
}

#[test]
fn what_was_found_worth_keeping_keeps_what_is_promised() {
    for target in ALL {
        let packed = pack_of(&target);
        let inputs = unpack(&packed).expect("a pack is whole");
        assert!(!inputs.is_empty() || !seeds_of(&target).is_empty());
        for (number, input) in inputs.into_iter().enumerate() {
            // Printed only if what follows panics.
            println!("{}: {number} of the pack", target.name);
            (target.check)(input);
        }
    }
}

#[test]
fn a_pack_holds_what_was_put_into_it_and_a_cut_one_is_none() {
    let inputs = [b"a".to_vec(), Vec::new(), vec![7; 300]];
    let packed = pack(&inputs).expect("they are short");
    assert_eq!(unpack(&packed).expect("it is whole"), inputs);
    assert_eq!(unpack(&packed[..packed.len() - 1]), None);
    assert_eq!(unpack(&packed[..3]), None);
}

#[test]
fn every_seed_of_every_target_keeps_what_is_promised() {
    for target in ALL {
        for (path, seed) in seeds_of(&target) {
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

//! See `quorate_fuzz_targets::disk::snapshot_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::disk::snapshot_file(input));

//! See `quorate_fuzz_targets::recipes::recipe_records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::recipes::recipe_records(input));

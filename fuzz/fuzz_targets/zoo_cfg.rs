//! See `quorate_fuzz_targets::config::zoo_cfg`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::config::zoo_cfg(input));

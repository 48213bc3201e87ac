//! See `quorate_fuzz_targets::config::dynamic_config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::config::dynamic_config(input));

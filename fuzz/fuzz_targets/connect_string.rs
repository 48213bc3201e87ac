//! See `quorate_fuzz_targets::config::connect_string`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::config::connect_string(input));

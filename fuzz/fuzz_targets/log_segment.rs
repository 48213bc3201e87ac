//! See `quorate_fuzz_targets::disk::log_segment`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::disk::log_segment(input));

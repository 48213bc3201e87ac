//! See `quorate_fuzz_targets::state::command`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::state::command(input));

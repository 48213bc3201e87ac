//! See `quorate_fuzz_targets::state::state_snapshot`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::state::state_snapshot(input));

//! See `quorate_fuzz_targets::peers::peer_stream`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::peers::peer_stream(input));

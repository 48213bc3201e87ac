//! See `quorate_fuzz_targets::client_port::frame_stream`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::client_port::frame_stream(input));

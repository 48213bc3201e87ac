//! See `quorate_fuzz_targets::client::client_session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz_targets::client::client_session(input));

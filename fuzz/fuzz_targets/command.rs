//! An entry of the log.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_state::Command;

fuzz_target!(|stored: &[u8]| {
    let Ok(command) = Command::decode(stored) else {
        return;
    };
    let again = command.encode(stored.len()).expect("what was decoded encodes");
    assert_eq!(
        Command::decode(&again).expect("what was encoded decodes"),
        command
    );
});

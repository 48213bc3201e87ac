//! The contents of a snapshot: a state.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate_state::State;

fuzz_target!(|contents: &[u8]| {
    let mut reader = contents;
    let Ok(state) = State::load(&mut reader) else {
        return;
    };
    let mut again = Vec::new();
    state
        .view()
        .write(&mut again)
        .expect("what was loaded can be written");
    let loaded = State::load(&mut again.as_slice()).expect("what was written loads");
    assert_eq!(loaded.digest(), state.digest());
    let mut third = Vec::new();
    loaded.view().write(&mut third).expect("it was written before");
    assert_eq!(third, again, "equal states give equal bytes");
});

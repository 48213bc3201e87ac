//! The log's first segment, as found on the disk: torn, cut, changed or made up.
//!
//! The first byte says whether the rest is the whole file, or what follows a valid header: few
//! inputs would get past its checksum.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use quorate_fuzz::{SECTOR, open_twice, segment_header, segment_path};

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let file = if first & 1 == 0 {
        // Free space follows.
        let length = (SECTOR + rest.len()).next_multiple_of(SECTOR) + SECTOR;
        let mut file = segment_header(1, length as u64).to_vec();
        file.extend_from_slice(rest);
        file.resize(length, 0);
        file
    } else {
        rest.to_vec()
    };
    open_twice(BTreeMap::from([(segment_path(1), file)]));
});

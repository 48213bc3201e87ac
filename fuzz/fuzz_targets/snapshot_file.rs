//! A snapshot file: found on the disk, or received from another server.

#![no_main]

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use quorate_fuzz::{IDENTITY, folder};
use quorate_server::consensus::types::StoredMembership;
use quorate_server::storage::file::Disk;
use quorate_server::storage::memory::MemoryDisk;
use quorate_server::storage::snapshots::SnapshotStore;
use quorate_state::State;

/// The first byte's lowest bit asks for the header's checksum to be set right, the next one for all
/// that blocks have.
fn mend(file: &mut [u8], how: u8) {
    let number = |file: &[u8], at: usize| {
        let bytes = file.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let Some(header) = number(file, 12).filter(|length| (52..=file.len()).contains(length)) else {
        return;
    };
    if how & 1 != 0 {
        let checksum = crc32c::crc32c(&file[..header - 4]);
        file[header - 4..header].copy_from_slice(&checksum.to_le_bytes());
    }
    let seed = number(file, header - 4).and_then(|seed| u32::try_from(seed).ok());
    let (Some(seed), true) = (seed, how & 2 != 0) else {
        return;
    };
    let mut start = header;
    for block in 0_u64.. {
        let Some(stored) = number(file, start + 4) else {
            return;
        };
        let Some(bytes) = file.get(start + 16..).and_then(|rest| rest.get(..stored)) else {
            return;
        };
        let checksum = crc32c::crc32c_append(seed, &block.to_le_bytes());
        let checksum = crc32c::crc32c_append(checksum, &file[start..start + 12]);
        let checksum = crc32c::crc32c_append(checksum, bytes);
        file[start + 12..start + 16].copy_from_slice(&checksum.to_le_bytes());
        start += 16 + stored;
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let mut file = rest.to_vec();
    mend(&mut file, *first);

    let disk = MemoryDisk::new();
    disk.plant(&folder().join("snapshot-00000000000000000007.snap"), &file);
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let open = |folder: &Path| SnapshotStore::open(shared.clone(), folder, IDENTITY.cluster);
    let store = open(folder()).expect("a folder with any file opens");
    let listed = store.list().expect("a folder can be listed");
    let found = listed.into_iter().next().expect("there is one file");

    let mut receiver = store.receive().expect("there is space");
    receiver.write(&file).expect("there is space");
    let received = receiver.finish().is_ok();

    let Ok(found) = found else {
        assert!(!received, "what cannot be opened must not be received");
        return;
    };
    // What peers and the engine make of it; both may refuse.
    let _ = rmp_serde::from_slice::<StoredMembership>(&found.info().membership);
    let verified = store.verify(&found).is_ok();
    let mut contents = Vec::new();
    let mut reader = found.read().expect("its header was read before");
    // Blocks may say that they are large.
    let read = reader.by_ref().take(64 << 20).read_to_end(&mut contents);
    let whole = read.is_ok() && contents.len() < 64 << 20;
    assert!(!whole || verified, "what reads to its end is whole");
    if contents.len() < 64 << 20 {
        assert_eq!(received, whole, "received and found, it is the same file");
    }
    if whole {
        let _ = State::load(&mut contents.as_slice());
    }
});

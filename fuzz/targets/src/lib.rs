//! What fuzzing says of whatever reads bytes that this program did not write.
//!
//! One function for each thing that reads; it panics if what is promised of that thing does not hold.
//! The fuzzer's binaries in the folder above call them, and so does the test in `tests`, which needs
//! no fuzzer. Nothing here keeps anything from one input to the next.

mod chunks;
pub mod client;
pub mod client_port;
pub mod config;
mod cursor;
pub mod disk;
pub mod peers;
pub mod recipes;
pub mod state;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Of the binary, and of the folder with its seeds.
    pub name: &'static str,
    /// Panics if what is promised does not hold.
    pub check: fn(&[u8]),
    /// How often it is to be run in all before anybody trusts it.
    pub runs: u64,
    /// Inputs beyond this length cost time and say nothing new.
    pub input_bytes_max: usize,
}

impl Target {
    /// Whether whoever reaches the client port may send it something.
    pub fn is_open_to_all(&self) -> bool {
        self.runs == OPEN_TO_ALL
    }
}

/// Whoever reaches the client port may send these without being known: they are run most.
const OPEN_TO_ALL: u64 = 100_000_000;
/// The others need a peer's or an administrator's access, or a znode.
const INSIDE: u64 = 20_000_000;

/// All targets, those that matter most first.
pub const ALL: [Target; 19] = [
    target("frame_stream", client_port::frame_stream, OPEN_TO_ALL, 128),
    target("handshake", client_port::handshake, OPEN_TO_ALL, 96),
    target("jute_request", client_port::jute_request, OPEN_TO_ALL, 192),
    target("multi", client_port::multi, OPEN_TO_ALL, 256),
    target("four_letter", client_port::four_letter, OPEN_TO_ALL, 128),
    target("response", client_port::response, INSIDE, 192),
    target("client_session", client::client_session, INSIDE, 384),
    target("state_machine", state::state_machine, INSIDE, 512),
    target("command", state::command, INSIDE, 256),
    target("peer_messages", peers::peer_messages, INSIDE, 256),
    target("peer_stream", peers::peer_stream, INSIDE, 256),
    target("connect_string", config::connect_string, INSIDE, 128),
    target("dynamic_config", config::dynamic_config, INSIDE, 192),
    target("recipe_records", recipes::recipe_records, INSIDE, 256),
    target("log_records", disk::log_records, INSIDE, 256),
    target("log_segment", disk::log_segment, INSIDE, 4096),
    target("state_snapshot", state::state_snapshot, INSIDE, 512),
    target("snapshot_file", disk::snapshot_file, INSIDE, 768),
    target("zoo_cfg", config::zoo_cfg, INSIDE, 512),
];

const fn target(name: &'static str, check: fn(&[u8]), runs: u64, input_bytes_max: usize) -> Target {
    Target {
        name,
        check,
        runs,
        input_bytes_max,
    }
}

/// The inputs in a pack, the form in which those that the fuzzer found worth keeping are checked in:
/// each with its length in front, in four bytes, little-endian. `None` if it is none.
pub fn unpack(mut pack: &[u8]) -> Option<Vec<&[u8]>> {
    let mut inputs = Vec::new();
    while let Some((length, rest)) = pack.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (input, rest) = rest.split_at_checked(length)?;
        inputs.push(input);
        pack = rest;
    }
    pack.is_empty().then_some(inputs)
}

/// The pack with these inputs; `None` if one is too long for it.
pub fn pack(inputs: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut pack = Vec::new();
    for input in inputs {
        let length = u32::try_from(input.len()).ok()?;
        pack.extend_from_slice(&length.to_le_bytes());
        pack.extend_from_slice(input);
    }
    Some(pack)
}

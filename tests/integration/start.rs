//! A server that cannot start says why in one line, exits with the number for it, and leaves the
//! folders as they were.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use quorate_tests::client::{Message, create, get_data, set_data};
use quorate_tests::process::{Finished, run};

use crate::harness::{
    EXIT_BIND, EXIT_DATA_DIRECTORY, EXIT_USAGE, Node, PATIENCE, Wrapper, fingerprint, skip,
    succeeds,
};

const SECTOR: usize = 512;

/// A stopped server with several log segments and snapshots.
fn used_node() -> Node {
    used(Node::new().with_busy_storage())
}

/// `node`, after it has filled several small log segments and stopped in order.
fn used(node: Node) -> Node {
    let mut node = node.started();
    let mut client = node.connect();
    client.call(&create("/kept", b"first", 0)).unwrap();
    let writes: Vec<_> = (0..1_500)
        .map(|number| set_data("/kept", &vec![b'a'; 3_000 + number], -1))
        .collect();
    client.send_all(&writes).unwrap();
    for _ in &writes {
        assert!(matches!(client.receive().unwrap(), Message::Reply(_)));
    }
    node.signal("TERM");
    assert_eq!(node.wait_exit(PATIENCE).code(), Some(0));
    node
}

/// Starts a server that must refuse with `code` and one line that has all of `words`, and must not
/// touch its folder.
fn refuses(node: &mut Node, code: i32, words: &[&str]) -> String {
    let before = fingerprint_without_lock(node.data_dir());
    let mut command = node.command();
    command.env("QUORATE_LOG_LEVEL", "off");
    let done = run(command, "", PATIENCE).unwrap();
    let line = refusal(&done, code, words);
    let after = fingerprint_without_lock(node.data_dir());
    let differs = |path: &&PathBuf| before.get(*path) != after.get(*path);
    let changed: Vec<&PathBuf> = before.keys().chain(after.keys()).filter(differs).collect();
    assert!(
        changed.is_empty(),
        "changed on disk: {changed:?}; it said: {line}"
    );
    line
}

fn refusal(done: &Finished, code: i32, words: &[&str]) -> String {
    assert_eq!(done.code, Some(code), "{}", done.stderr);
    assert_eq!(done.stdout, "");
    let lines: Vec<&str> = done.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one line is enough: {}", done.stderr);
    assert!(lines[0].starts_with("quorate: "), "{}", lines[0]);
    for word in words {
        assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
    }
    lines[0].to_owned()
}

/// The lock file holds the id of the last process that tried, and nothing of value.
fn fingerprint_without_lock(folder: &Path) -> std::collections::BTreeMap<PathBuf, (u64, u64)> {
    let mut found = fingerprint(folder);
    found.remove(&folder.join("lock"));
    found
}

fn files(node: &Node, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(node.data_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, offset: u64) {
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// CRC-32C, bit by bit: a second opinion on the checksums in the files.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => (crc >> 1) ^ 0x82f6_3b78,
        })
    })
}

/// Writes a format version into a header whose last four bytes are its checksum.
fn set_version(path: &Path, header_bytes: usize, version: u32) {
    let mut bytes = fs::read(path).unwrap();
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let checksum = crc32c(&bytes[..header_bytes - 4]);
    bytes[header_bytes - 4..header_bytes].copy_from_slice(&checksum.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_port_in_use_is_refused_before_the_data_is_touched() {
    let mut node = Node::new();
    let other = TcpListener::bind(node.address()).unwrap();
    let address = node.address().to_string();
    refuses(&mut node, EXIT_BIND, &[&address, "in use", "port"]);
    assert!(!node.data_dir().exists(), "nothing was created");
    drop(other);
    node.start();
}

#[test]
fn a_data_directory_in_use_is_refused_and_its_server_goes_on() {
    let node = Node::new().started();
    let mut client = node.connect();
    client.call(&create("/a", b"1", 0)).unwrap();
    let mut second = Node::new();
    second.set_data_dir(node.data_dir());
    let mut command = second.command();
    command.env("QUORATE_LOG_LEVEL", "off");
    let done = run(command, "", PATIENCE).unwrap();
    let holder = format!("process {}", node.pid());
    let folder = node.data_dir().to_str().unwrap().to_owned();
    refusal(
        &done,
        EXIT_DATA_DIRECTORY,
        &[&folder, "in use", &holder, "stop"],
    );
    assert_eq!(client.call(&set_data("/a", b"2", 0)).unwrap().code(), 0);
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let mut node = Node::new();
    fs::write(node.data_dir(), b"precious").unwrap();
    let folder = node.data_dir().to_str().unwrap().to_owned();
    refuses(&mut node, EXIT_DATA_DIRECTORY, &[&folder, "not a folder"]);
    assert_eq!(fs::read(node.data_dir()).unwrap(), b"precious");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_refused() {
    let test = "a_data_directory_that_cannot_be_written_is_refused";
    let mut node = used_node();
    // Root may write anywhere but on a file system that is mounted read-only.
    let folder = node.data_dir().to_str().unwrap().to_owned();
    let script = format!(
        "mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}' && exec \"$@\""
    );
    let program: Vec<String> = ["unshare", "--mount", "sh", "-c", &script, "sh"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let arguments: Vec<&str> = program[1..].iter().map(String::as_str).collect();
    if !succeeds(&program[0], &[&arguments[..], &["true"]].concat()) {
        skip(
            test,
            "it takes root and mount namespaces to make a folder read-only",
        );
        return;
    }
    node.set_wrapper(Some(Wrapper {
        program,
        ..Wrapper::default()
    }));
    refuses(
        &mut node,
        EXIT_DATA_DIRECTORY,
        &[&folder, "cannot write", "give"],
    );
    node.set_wrapper(None);
    node.start();
}

#[test]
fn files_of_a_newer_format_are_refused() {
    let mut node = used_node();
    let identity = node.data_dir().join("identity");
    let whole = fs::read(&identity).unwrap();
    set_version(&identity, 64, 2);
    let words = ["identity", "format version 2", "reads up to 1", "release"];
    refuses(&mut node, EXIT_DATA_DIRECTORY, &words);
    fs::write(&identity, whole).unwrap();

    let segment = files(&node, ".log").pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    set_version(&segment, SECTOR, 9);
    let words = [
        name(&segment),
        "format version 9",
        "reads up to 1",
        "release",
    ];
    refuses(&mut node, EXIT_DATA_DIRECTORY, &words);
    fs::write(&segment, whole).unwrap();
    node.start();
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_with_file_and_place() {
    // Without snapshots no segment is purged, so the first is full.
    let mut node = used(Node::new().with("quorate.logSegmentBytes", "1048576"));
    let segments = files(&node, ".log");
    assert!(segments.len() > 2, "{segments:?}");
    // What does not fit goes to the next segment and leaves zeros here, which hold nothing to damage.
    let contents = fs::read(&segments[0]).unwrap();
    let end = contents.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for place in [SECTOR as u64 * 2 + 3, end / 2, end] {
        flip(&segments[0], place);
        let words = [
            name(&segments[0]),
            "damaged at byte",
            "Keep the files",
            "backup",
        ];
        refuses(&mut node, EXIT_DATA_DIRECTORY, &words);
        flip(&segments[0], place);
    }
    node.start();
    assert_eq!(
        node.connect()
            .call(&get_data("/kept", false))
            .unwrap()
            .stat()
            .unwrap()
            .version,
        1_500
    );
}

#[test]
fn a_missing_log_segment_is_refused_by_name() {
    let mut node = used_node();
    let segments = files(&node, ".log");
    let aside = node.folder().join("aside");
    for segment in [&segments[0], &segments[1]] {
        fs::rename(segment, &aside).unwrap();
        refuses(
            &mut node,
            EXIT_DATA_DIRECTORY,
            &[name(segment), "missing", "backup"],
        );
        fs::rename(&aside, segment).unwrap();
    }
    for segment in &segments {
        fs::rename(segment, node.folder().join(name(segment))).unwrap();
    }
    refuses(&mut node, EXIT_DATA_DIRECTORY, &["missing", "backup"]);
    for segment in &segments {
        fs::rename(node.folder().join(name(segment)), segment).unwrap();
    }
    node.start();
}

#[test]
fn a_missing_identity_beside_a_log_is_refused() {
    let mut node = used_node();
    fs::remove_file(node.data_dir().join("identity")).unwrap();
    refuses(&mut node, EXIT_DATA_DIRECTORY, &["identity", "missing"]);
}

#[test]
fn files_of_another_server_are_refused() {
    let mut node = used_node();
    let other = used_node();
    let segment = files(&node, ".log").pop().unwrap();
    let foreign = other.data_dir().join(name(&segment));
    if !foreign.exists() {
        fs::copy(files(&other, ".log").pop().unwrap(), &foreign).unwrap();
    }
    fs::copy(foreign, &segment).unwrap();
    refuses(
        &mut node,
        EXIT_DATA_DIRECTORY,
        &[name(&segment), "belongs to", "check"],
    );
}

#[test]
fn data_of_another_server_id_is_refused() {
    let mut node = used_node();
    fs::write(node.data_dir().join("myid"), "2").unwrap();
    refuses(
        &mut node,
        EXIT_DATA_DIRECTORY,
        &["belongs to server 1", "not to server 2", "check"],
    );
}

#[test]
fn a_damaged_newest_snapshot_is_made_up_for_by_an_older_one_and_the_log() {
    let mut node = used_node();
    let snapshots = files(&node, ".snap");
    assert!(snapshots.len() > 1, "{snapshots:?}");
    let newest = snapshots.last().unwrap();
    let length = fs::metadata(newest).unwrap().len();
    flip(newest, length / 2);
    node.start();
    let reply = node.connect().call(&get_data("/kept", false)).unwrap();
    assert_eq!(reply.stat().unwrap().version, 1_500);
    assert_eq!(reply.data().unwrap().len(), 3_000 + 1_499);
    let log = node.log_tail();
    assert!(
        log.contains(name(newest)) && log.contains("damaged"),
        "it is reported: {log}"
    );
}

#[test]
fn damage_that_nothing_makes_up_for_is_refused() {
    let mut node = used_node();
    let snapshots = files(&node, ".snap");
    for snapshot in &snapshots {
        flip(snapshot, fs::metadata(snapshot).unwrap().len() / 2);
    }
    // Without the beginning of the log, nobody can tell what was in the snapshots.
    let first_segment = node.data_dir().join(format!("{:016x}.log", 1));
    assert!(!first_segment.exists(), "the log was never cut");
    refuses(
        &mut node,
        EXIT_DATA_DIRECTORY,
        &[".snap", "damaged at byte", "backup"],
    );
    for snapshot in &snapshots {
        fs::remove_file(snapshot).unwrap();
    }
    refuses(&mut node, EXIT_DATA_DIRECTORY, &["snapshot", "missing"]);
}

#[test]
fn a_missing_zoo_cfg_is_refused() {
    let node = Node::new();
    let mut command = node.command_with(&node.folder().join("absent.cfg"));
    command.env("QUORATE_LOG_LEVEL", "off");
    let done = run(command, "", PATIENCE).unwrap();
    refusal(&done, EXIT_USAGE, &["absent.cfg"]);
    assert!(!node.data_dir().exists());
}

#[test]
fn a_bad_value_in_zoo_cfg_is_refused_with_its_line() {
    for (key, value) in [
        ("tickTime", "soon"),
        ("tickTime", "0"),
        ("maxClientCnxns", "-3x"),
        ("minSessionTimeout", "70000"),
        ("snapCount", "99999999999999999999"),
        ("secureClientPort", "2281"),
    ] {
        let mut node = Node::new().with(key, value);
        let line = refuses(&mut node, EXIT_USAGE, &["zoo.cfg", key]);
        let has_line_number = line
            .split("zoo.cfg:")
            .nth(1)
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
        assert!(has_line_number, "{line}");
        assert!(!node.data_dir().exists());
    }
}

#[test]
fn exit_codes_differ() {
    let mut codes = [
        EXIT_USAGE,
        EXIT_DATA_DIRECTORY,
        EXIT_BIND,
        crate::harness::EXIT_STORAGE,
    ];
    codes.sort_unstable();
    assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
}

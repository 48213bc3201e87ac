//! What administrators and operators' programs write: files, lines of members, connection strings.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use quorate_client::ConnectString;
use quorate_server::config::{Config, Member, Override};
use quorate_server::consensus::membership::plan::{Wish, plan};
use quorate_server::consensus::types::Membership;
use rustix::fs::{MemfdFlags, memfd_create};

/// Files without a name, in memory: they leave nothing behind.
static FILES: LazyLock<Mutex<[File; 2]>> = LazyLock::new(|| {
    let file = || File::from(memfd_create("cfg", MemfdFlags::CLOEXEC).expect("there is memory"));
    Mutex::new([file(), file()])
});

fn fill(file: &mut File, contents: &[u8]) -> PathBuf {
    file.set_len(0).expect("it can be emptied");
    file.rewind().expect("it can be written from its start");
    file.write_all(contents).expect("it can be written");
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// `zoo.cfg`, and after the first NUL the `dynamicConfigFile` it points to.
///
/// Overrides keep the rest of this machine out of it: no `myid` is found, and no name is looked up.
pub fn zoo_cfg(input: &[u8]) {
    let mut files = FILES.lock().unwrap_or_else(|held| held.into_inner());
    let [main, dynamic] = &mut *files;
    let (text, dynamic_text) = match input.iter().position(|byte| *byte == 0) {
        Some(nul) => (&input[..nul], Some(&input[nul + 1..])),
        None => (input, None),
    };
    let mut contents = text.to_vec();
    if let Some(text) = dynamic_text {
        let path = fill(dynamic, text);
        contents.extend_from_slice(format!("\ndynamicConfigFile={}\n", path.display()).as_bytes());
    }
    let path = fill(main, &contents);
    let setting = |key, value: &str| Override {
        key,
        value: value.to_owned(),
        name: format!("--{key}"),
    };
    let overrides = [
        setting("dataDir", "/dev/null"),
        setting("clientPortAddress", "127.0.0.1"),
    ];
    match Config::load(Some(&path), &overrides) {
        Ok((config, warnings)) => {
            assert!(config.session_timeout_min_ms <= config.session_timeout_max_ms);
            assert!(config.request_bytes_outstanding_max >= u64::from(config.frame_bytes_max));
            assert!(config.outbox_bytes_max >= u64::from(config.frame_bytes_max));
            for warning in warnings {
                assert!(!warning.to_string().contains('\n'), "one line each");
            }
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "one line"),
    }
}

/// The members of an ensemble, as clients change them: what a reconfig makes of a text, the same said
/// again makes no difference, and every line it keeps can be read again.
///
/// Parts are separated by NUL: the members there are to be; then those who join; then who leaves.
pub fn dynamic_config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(member) = Member::parse(1, text) {
        assert!(!member.addresses.is_empty());
        let written = member.to_string();
        let read = plan(&Membership::default(), &members_wish(&written), 0);
        let read = read.expect("what the ensemble's text says can be sent back");
        let line = &read.members[&1].line;
        assert_eq!(Member::parse(1, line).as_ref(), Ok(&member), "{written}");
    }
    let mut parts = text.split('\0');
    let nobody = Membership::default();
    let Ok(first) = plan(&nobody, &members_wish(parts.next().unwrap_or_default()), 0) else {
        return;
    };
    assert!(first.voters.iter().all(|id| first.members.contains_key(id)));
    let lines: String = first
        .members
        .iter()
        .map(|(id, node)| format!("server.{id}={}\n", node.line))
        .collect();
    let again = plan(&nobody, &members_wish(&lines), 0);
    assert_eq!(again.as_ref(), Ok(&first), "it is written as it is read");

    // The engine knows no membership without voters.
    let Ok(now) = Membership::new(vec![first.voters.clone()], first.members.clone()) else {
        return;
    };
    let wish = Wish {
        joining: parts.next().map(ToOwned::to_owned),
        leaving: parts.next().map(ToOwned::to_owned),
        new_members: None,
        version: -1,
    };
    if let Ok(second) = plan(&now, &wish, 0) {
        for (id, node) in &second.members {
            let id = u8::try_from(*id).expect("ids are checked");
            Member::parse(id, &node.line).expect("what is kept can be read");
        }
    }
}

fn members_wish(text: &str) -> Wish {
    Wish {
        new_members: Some(text.to_owned()),
        version: -1,
        ..Wish::default()
    }
}

/// A connection string: what it says is what it says when it is written again.
pub fn connect_string(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match text.parse::<ConnectString>() {
        Ok(parsed) => {
            assert!(!parsed.hosts().is_empty());
            let written = parsed.to_string();
            assert_eq!(written.parse().as_ref(), Ok(&parsed), "{written}");
            for host in parsed.hosts() {
                assert!(host.port() > 0 && !host.name().is_empty());
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

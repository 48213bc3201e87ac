//! `zoo.cfg`, and after the first NUL the `dynamicConfigFile` it points to.
//!
//! Overrides keep the rest of this machine out of it: no `myid` is found, and no name is looked up.

#![no_main]

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use quorate_server::config::{Config, Override};

/// Files without a name: they leave nothing behind.
static FILES: LazyLock<Mutex<[File; 2]>> = LazyLock::new(|| {
    let file = || tempfile::tempfile().expect("there is a folder for temporary files");
    Mutex::new([file(), file()])
});

fn fill(file: &mut File, contents: &[u8]) -> PathBuf {
    file.set_len(0).expect("it can be emptied");
    file.rewind().expect("it can be written from its start");
    file.write_all(contents).expect("it can be written");
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fuzz_target!(|input: &[u8]| {
    let mut files = FILES.lock().expect("nothing panics while it is held");
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
});

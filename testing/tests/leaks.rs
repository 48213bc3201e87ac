//! What is left of an ensemble that is dropped: nothing. Alone in its process, to be able to count.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use quorate_testing::Ensemble;

/// What this process has open: sockets, files.
fn open_files() -> usize {
    let open = fs::read_dir("/proc/self/fd").expect("a list");
    open.count()
}

fn threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("a list");
    threads.count()
}

/// The folders of ensembles in which this process has files open.
fn folders() -> BTreeSet<PathBuf> {
    let open = fs::read_dir("/proc/self/fd").expect("a list");
    let files = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let is_ours = |folder: &PathBuf| {
        let name = folder.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("quorate-testing-"))
    };
    files
        .filter_map(|file| file.ancestors().map(PathBuf::from).find(is_ours))
        .collect()
}

#[test]
fn nothing_is_left_of_an_ensemble_that_is_dropped() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (files_before, threads_before) = (open_files(), threads());
    let (addresses, folders) = runtime.block_on(async {
        let ensemble = Ensemble::start(3).await.expect("it starts");
        // One of each: up, down, about to be something else.
        ensemble.server(1).stop().await.expect("it runs");
        ensemble.server(2).kill().await.expect("it runs");
        ensemble.server(2).start().await.expect("it starts");
        ensemble.server(3).hang(true);
        let _client = TcpStream::connect(ensemble.server(3).address()).expect("it listens");
        assert!(threads() > threads_before && open_files() > files_before);
        let addresses: Vec<_> = ensemble.servers().map(|server| server.address()).collect();
        (addresses, folders())
    });
    assert_eq!(folders.len(), 1);
    for folder in folders {
        assert!(!folder.exists(), "{}", folder.display());
    }
    assert_eq!(threads(), threads_before);
    assert_eq!(open_files(), files_before);
    for address in addresses {
        TcpStream::connect(address).expect_err("nobody listens");
    }
}

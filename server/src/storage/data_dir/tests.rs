//! Who may use a folder, and what is said when something is wrong with it.

use std::os::unix::fs::PermissionsExt;

use super::super::memory::MemoryDisk;
use super::*;

const IDENTITY: Identity = Identity {
    cluster: 0xabc,
    server: 3,
    incarnation: 0xdef,
};

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 16 << 10,
        reserve_bytes: 8 << 10,
        ..LogOptions::default()
    }
}

fn no_hook() -> FatalHook {
    Arc::new(|_: &StorageError| {})
}

fn initialized(folder: &Path) -> DataDir {
    let mut opened = DataDir::open(folder, &folder.join("log")).unwrap();
    opened.initialize(IDENTITY, &options()).unwrap();
    opened
}

#[test]
fn folders_and_files_are_for_their_owner_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("deep/data");
    let opened = initialized(&folder);
    opened
        .open_log(options(), no_hook())
        .unwrap()
        .close()
        .unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("log")), 0o700);
    for file in ["lock", "identity", "log/lock", "log/0000000000000001.log"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_second_server_is_told_who_uses_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = initialized(folder.path());
    let error = DataDir::open(folder.path(), &folder.path().join("log")).unwrap_err();
    let holder = format!("process {}", std::process::id());
    assert!(matches!(&error, StorageError::Locked { holder: found, .. } if *found == holder));
    assert!(error.to_string().contains("is in use by"), "{error}");
    // The log's folder is locked as well, whatever the other one is.
    let other = tempfile::tempdir().unwrap();
    let shared_log = DataDir::open(other.path(), &folder.path().join("log"));
    assert!(matches!(shared_log, Err(StorageError::Locked { .. })));
    drop(first);
    let again = DataDir::open(folder.path(), &folder.path().join("log")).unwrap();
    assert_eq!(again.identity(), Some(IDENTITY));
}

#[test]
fn data_and_log_may_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let same = folder.path().join("x");
    let mut opened = DataDir::open(&same, &folder.path().join("./x")).unwrap();
    opened.initialize(IDENTITY, &options()).unwrap();
    opened
        .open_log(options(), no_hook())
        .unwrap()
        .close()
        .unwrap();
}

#[test]
fn a_file_in_place_of_a_folder_and_a_place_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = DataDir::open(&file, folder.path()).unwrap_err();
    assert!(
        matches!(&error, StorageError::NotAFolder { path } if *path == file),
        "{error}"
    );
    let error = DataDir::open(Path::new("/proc/quorate"), folder.path()).unwrap_err();
    assert!(matches!(error, StorageError::NotWritable { .. }), "{error}");
}

/// That the holder cannot be named is no reason not to hold it.
#[test]
fn a_folder_on_a_full_disk_is_locked_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // Every write to it finds no space.
    std::os::unix::fs::symlink("/dev/full", folder.path().join(LOCK)).unwrap();
    let first = DataDir::open(folder.path(), folder.path()).unwrap();
    let error = DataDir::open(folder.path(), folder.path()).unwrap_err();
    assert!(matches!(error, StorageError::Locked { .. }), "{error}");
    drop(first);
    DataDir::open(folder.path(), folder.path()).unwrap();
}

#[test]
fn every_message_is_one_line_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let errors = [
        DataDir::open(Path::new("/proc/quorate"), &path).unwrap_err(),
        StorageError::damaged(&path, 7, "this"),
        StorageError::io("sync", &path, io::ErrorKind::StorageFull.into()),
        StorageError::Missing {
            path: path.clone(),
            what: "it was there".to_owned(),
        },
        StorageError::NewerFormat {
            path,
            found: 2,
            supported: 1,
        },
        StorageError::Closed,
    ];
    for error in errors {
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        assert!(text.contains("; "), "{text}");
    }
}

#[test]
fn a_start_interrupted_at_any_moment_can_be_repeated() {
    let data = Path::new("/data");
    let log = Path::new("/data/log");
    let mut interrupted = 0;
    for nth in 1.. {
        let disk = MemoryDisk::new();
        disk.cut_power_at(nth, nth);
        let start = |disk: &MemoryDisk, cluster| -> Result<Identity, StorageError> {
            let mut opened = DataDir::open_on(Arc::new(disk.clone()), data, log)?;
            if opened.identity().is_none() {
                let identity = Identity {
                    cluster,
                    server: 1,
                    incarnation: 1,
                };
                opened.initialize(identity, &options())?;
            }
            opened.open_log(options(), no_hook())?.close()?;
            opened.open_snapshots()?;
            opened.known_identity()
        };
        let first = start(&disk, 1);
        let disk = disk.crash(|| nth % 2 == 0);
        // Nobody has heard of the ensemble's first id, unless the start went through.
        let second = start(&disk, 2).unwrap();
        if let Ok(first) = first {
            assert_eq!(second, first);
            break;
        }
        interrupted += 1;
    }
    assert!(interrupted > 10, "{interrupted}");
}

#[test]
fn a_lost_log_and_a_lost_or_damaged_identity_are_refused() {
    let data = Path::new("/data");
    let log = Path::new("/data/log");
    let disk = MemoryDisk::new();
    let mut opened = DataDir::open_on(Arc::new(disk.clone()), data, log).unwrap();
    opened.initialize(IDENTITY, &options()).unwrap();
    let running = opened.open_log(options(), no_hook()).unwrap();
    let entry = super::super::log::LogEntry {
        id: EntryId { term: 1, index: 0 },
        kind: 0,
        payload: bytes::Bytes::new(),
    };
    running
        .append([entry], Box::new(|_: Result<(), StorageError>| {}))
        .unwrap();
    running.close().unwrap();
    let image = disk.image();
    let open = |image: &std::collections::BTreeMap<PathBuf, Vec<u8>>| {
        let disk = MemoryDisk::from_image(image);
        let mut opened = DataDir::open_on(Arc::new(disk), data, log)?;
        if opened.identity().is_none() {
            opened.initialize(IDENTITY, &options())?;
        }
        opened.open_log(options(), no_hook())?.close()
    };
    open(&image).unwrap();

    let mut without_log = image.clone();
    without_log.retain(|path, _| path.parent() != Some(log));
    assert!(matches!(
        open(&without_log),
        Err(StorageError::Missing { .. })
    ));

    let mut without_identity = image.clone();
    without_identity.remove(&data.join(IDENTITY_FILE));
    assert!(matches!(
        open(&without_identity),
        Err(StorageError::Damaged { .. })
    ));

    let identity = image[&data.join(IDENTITY_FILE)].clone();
    for length in 0..identity.len() {
        let mut cut = image.clone();
        cut.insert(data.join(IDENTITY_FILE), identity[..length].to_vec());
        assert!(
            matches!(open(&cut), Err(StorageError::Damaged { .. })),
            "{length}"
        );
    }
    for bit in 0..identity.len() * 8 {
        let mut flipped = image.clone();
        flipped.get_mut(&data.join(IDENTITY_FILE)).unwrap()[bit / 8] ^= 1 << (bit % 8);
        assert!(
            matches!(open(&flipped), Err(StorageError::Damaged { .. })),
            "{bit}"
        );
    }
}

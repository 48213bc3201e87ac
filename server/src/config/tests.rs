//! What a `zoo.cfg`, the environment and flags turn into, and how mistakes are reported.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::properties::FILE_BYTES_MAX;
use super::*;

/// A directory with a `zoo.cfg`, and whatever else a test puts there.
struct Files {
    dir: TempDir,
}

impl Files {
    /// A file with what every file needs, then `lines`. The data directory is `data` beside it.
    fn with(lines: &str) -> Self {
        let files = Self::raw(b"");
        let data = files.path("data");
        let text = format!("dataDir={}\nclientPort=2181\n{lines}", data.display());
        files.write("zoo.cfg", text.as_bytes());
        files
    }

    fn raw(bytes: &[u8]) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let files = Self { dir };
        files.write("zoo.cfg", bytes);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn load(&self) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
        Config::load(Some(&self.path("zoo.cfg")), &[])
    }

    /// The configuration, which must have come without a warning.
    fn config(&self) -> Config {
        let (config, warnings) = self.load().unwrap();
        assert_eq!(texts(self, &warnings), Vec::<String>::new());
        config
    }

    /// The warnings, with the directory left out of their text.
    fn warnings(&self) -> Vec<String> {
        let (_, warnings) = self.load().unwrap();
        texts(self, &warnings)
    }

    /// The error, with the directory left out of its text.
    fn error(&self) -> String {
        self.short(&self.load().unwrap_err().to_string())
    }

    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn texts(files: &Files, warnings: &[ConfigWarning]) -> Vec<String> {
    warnings
        .iter()
        .map(|warning| files.short(&warning.to_string()))
        .collect()
}

fn flag(key: &'static str, name: &str, value: &str) -> Override {
    Override {
        key,
        value: value.to_owned(),
        name: name.to_owned(),
    }
}

fn some(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

// Defaults and layers.

#[test]
fn without_a_file_a_server_listens_on_loopback_only_and_keeps_its_data_beside_it() {
    let (config, warnings) = Config::load(None, &[]).unwrap();
    assert_eq!(warnings, Vec::new());
    assert_eq!(config.client_address.to_string(), "127.0.0.1:2181");
    assert_eq!(config.data_dir, PathBuf::from("quorate-data"));
    assert_eq!(config.log_dir, config.data_dir);
    assert_eq!(config.tick_ms, 2000);
    assert_eq!(
        (config.session_timeout_min_ms, config.session_timeout_max_ms),
        (4000, 40_000)
    );
    assert_eq!(config.server_id, 1);
    assert_eq!(config.this_member(), None);
}

#[test]
fn a_file_that_says_little_gets_zookeepers_defaults() {
    let files = Files::with("");
    let config = files.config();
    assert_eq!(config.client_address.to_string(), "0.0.0.0:2181");
    assert_eq!(config.data_dir, files.path("data"));
    assert_eq!(config.log_dir, files.path("data"));
    assert_eq!(config.tick_ms, 3000);
    assert_eq!(config.session_timeout_min_ms, 6000);
    assert_eq!(config.session_timeout_max_ms, 60_000);
    assert_eq!(config.connections_per_address_max, some(60));
    assert_eq!(config.connections_max, None);
    assert_eq!(config.client_listen_backlog, None);
    assert_eq!(config.client_handshake_timeout_ms, 10_000);
    assert_eq!(config.frame_bytes_max, 0xfffff);
    assert_eq!(config.requests_outstanding_max, 16_384);
    assert_eq!(config.requests_per_connection_max, 4096);
    assert_eq!(config.log_segment_bytes, 65536 * 1024);
    assert_eq!(config.snapshot_entries, 1_000_000);
    assert_eq!(config.snapshot_log_bytes, Some(256 << 20));
    assert_eq!(config.snapshot_interval_ms, Some(86_400_000));
    assert_eq!(config.snapshots_kept, some(3));
    assert!(config.four_letter_words.allows("srvr"));
    assert!(!config.four_letter_words.allows("isro"));
    assert_eq!(config.super_digest, None);
    assert!(!config.skip_acl && !config.eager_acl_check && !config.enforce_quota);
    assert!(!config.read_only_mode_enabled && !config.reconfig_enabled);
    assert!(config.standalone_enabled && config.ttl_nodes_enabled);
    assert_eq!(config.container_check_interval_ms, 60_000);
    assert_eq!(config.container_deletes_per_minute_max, 10_000);
    assert_eq!(config.container_never_used_ms, None);
}

#[test]
fn every_key_reaches_its_field() {
    let files = Files::with(
        "dataLogDir=log/relative\n\
         clientPortAddress=127.0.0.2\n\
         clientPortListenBacklog=77\n\
         nio.sessionlessCnxnTimeout=1234\n\
         maxClientCnxns=0\n\
         maxCnxns=500\n\
         jute.maxbuffer=0x3fffff\n\
         globalOutstandingLimit=40\n\
         quorate.requestsPerConnectionMax=7\n\
         quorate.requestBytesMax=9000000\n\
         quorate.outboxBytesMax=8000000\n\
         tickTime=500\n\
         initLimit=11\n\
         syncLimit=6\n\
         minSessionTimeout=700\n\
         maxSessionTimeout=-1\n\
         preAllocSize=2048\n\
         snapCount=5000\n\
         snapSizeLimitInKb=10\n\
         autopurge.snapRetainCount=9\n\
         autopurge.purgeInterval=24\n\
         4lw.commands.whitelist=ruok, mntr ,conf\n\
         DigestAuthenticationProvider.superDigest=super:gTmFuTZBmGXBUZ4NrKAk5uSWfOQ=\n\
         skipACL=yes\n\
         enableEagerACLCheck=true\n\
         enforceQuota=TRUE\n\
         readonlymode.enabled=true\n\
         extendedTypesEnabled=false\n\
         znode.container.checkIntervalMs=100\n\
         znode.container.maxPerMinute=20\n\
         znode.container.maxNeverUsedIntervalMs=30\n\
         standaloneEnabled=false\n\
         reconfigEnabled=true\n\
         electionAlg=3\n\
         forceSync=yes\n\
         admin.enableServer=false\n",
    );
    let config = files.config();
    assert_eq!(config.log_dir, PathBuf::from("log/relative"));
    assert_eq!(config.client_address.to_string(), "127.0.0.2:2181");
    assert_eq!(config.client_listen_backlog, some(77));
    assert_eq!(config.client_handshake_timeout_ms, 1234);
    assert_eq!(config.connections_per_address_max, None);
    assert_eq!(config.connections_max, some(500));
    assert_eq!(config.frame_bytes_max, 4_194_303);
    assert_eq!(config.requests_outstanding_max, 40);
    assert_eq!(config.requests_per_connection_max, 7);
    assert_eq!(config.request_bytes_outstanding_max, 9_000_000);
    assert_eq!(config.outbox_bytes_max, 8_000_000);
    assert_eq!(config.tick_ms, 500);
    assert_eq!((config.init_limit_ticks, config.sync_limit_ticks), (11, 6));
    assert_eq!(config.session_timeout_min_ms, 700);
    assert_eq!(config.session_timeout_max_ms, 10_000);
    assert_eq!(config.log_segment_bytes, 2 << 20);
    assert_eq!(config.snapshot_entries, 5000);
    assert_eq!(config.snapshot_log_bytes, Some(10_240));
    assert_eq!(config.snapshots_kept, some(9));
    for word in ["ruok", "mntr", "conf"] {
        assert!(config.four_letter_words.allows(word), "{word}");
    }
    assert!(!config.four_letter_words.allows("srvr"));
    assert_eq!(
        config.super_digest.unwrap().expose(),
        "super:gTmFuTZBmGXBUZ4NrKAk5uSWfOQ="
    );
    assert!(config.skip_acl && config.eager_acl_check && config.enforce_quota);
    assert!(config.read_only_mode_enabled && config.reconfig_enabled);
    assert!(!config.ttl_nodes_enabled && !config.standalone_enabled);
    assert_eq!(config.container_check_interval_ms, 100);
    assert_eq!(config.container_deletes_per_minute_max, 20);
    assert_eq!(config.container_never_used_ms, some(30));
}

#[test]
fn flags_beat_the_environment_and_both_beat_the_file() {
    let files = Files::with("tickTime=100\nmaxClientCnxns=5\nmaxCnxns=6\n");
    let overrides = [
        flag("tickTime", "QUORATE_TICK_MS", "200"),
        flag("maxClientCnxns", "QUORATE_CLIENT_CONNECTIONS_MAX", "7"),
        flag("tickTime", "--tick-ms", "300"),
    ];
    let (config, _) = Config::load(Some(&files.path("zoo.cfg")), &overrides).unwrap();
    assert_eq!(config.tick_ms, 300);
    assert_eq!(config.connections_per_address_max, some(7));
    assert_eq!(config.connections_max, some(6));
}

#[test]
fn flags_alone_make_a_whole_configuration() {
    let overrides = [
        flag("dataDir", "--data-dir", "/d"),
        flag("clientPort", "--client-port", "0"),
        flag("clientPortAddress", "--client-address", "::1"),
    ];
    let (config, _) = Config::load(None, &overrides).unwrap();
    assert_eq!(config.client_address.to_string(), "[::1]:0");
    assert_eq!(config.data_dir, PathBuf::from("/d"));
    assert_eq!(config.log_dir, PathBuf::from("/d"));
}

#[test]
fn a_port_from_a_flag_stays_on_loopback_without_a_file_and_opens_up_with_one() {
    let port = [flag("clientPort", "--client-port", "2999")];
    let (alone, _) = Config::load(None, &port).unwrap();
    assert_eq!(alone.client_address.to_string(), "127.0.0.1:2999");
    let files = Files::with("");
    let (with_file, _) = Config::load(Some(&files.path("zoo.cfg")), &port).unwrap();
    assert_eq!(with_file.client_address.to_string(), "0.0.0.0:2999");
}

#[test]
fn a_bad_flag_is_named_as_the_user_knows_it() {
    let error = Config::load(None, &[flag("tickTime", "--tick-ms", "soon")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--tick-ms: \"soon\" is not a whole number from 1 to 86400000"
    );
}

#[test]
fn any_key_may_carry_zookeepers_prefix() {
    let files = Files::raw(
        b"zookeeper.dataDir=/d\nzookeeper.clientPort=1\nzookeeper.4lw.commands.whitelist=*\n\
          zookeeper.snapCount=44\nzookeeper.extendedTypesEnabled=false\n",
    );
    let config = files.config();
    assert_eq!(config.four_letter_words, FourLetterWords::All);
    assert_eq!(config.snapshot_entries, 44);
    assert!(!config.ttl_nodes_enabled);
}

// The format of the file.

#[test]
fn one_configuration_may_be_written_in_many_ways() {
    let variants: &[&[u8]] = &[
        b"dataDir=/d\nclientPort=2182\ntickTime=700\n",
        b"dataDir=/d\nclientPort=2182\ntickTime=700",
        b"dataDir=/d\r\nclientPort=2182\r\ntickTime=700\r\n",
        b"dataDir=/d\rclientPort=2182\rtickTime=700\r",
        b"dataDir = /d\nclientPort : 2182\ntickTime 700\n",
        b"  \t dataDir=/d   \n\n\n clientPort=2182\t\n\x0ctickTime=700 \n",
        b"# c\n! c\n   # c\ndataDir=/d\nclientPort=2182\n#tickTime=1\ntickTime=700\n",
        b"dataDir=/d\nclientPort=\\\n    2182\ntick\\\n  Time=7\\\n00\n",
        b"dataDir=/d\r\nclientPort=\\\r\n    2182\r\ntickTime=7\\\r\n00\r\n",
        b"\xef\xbb\xbfdataDir=/d\nclientPort=2182\ntickTime=700\n",
        b"data\\u0044ir=/\\u0064\nclientPort=\\u0032182\ntick\\Time=700\n",
        b"# comment of C:\\users, in windows' spelling \\\ndataDir=/d\nclientPort=2182\ntickTime=700\n",
        b"dataDir=/d\nclientPort=2182\ntickTime=700\\",
        b"tickTime=+700\nclientPort=002182\ndataDir=/d\n",
    ];
    for variant in variants {
        let shown = String::from_utf8_lossy(variant);
        let config = Files::raw(variant).config();
        assert_eq!(config.data_dir, PathBuf::from("/d"), "{shown:?}");
        assert_eq!(config.client_address.port(), 2182, "{shown:?}");
        assert_eq!(config.tick_ms, 700, "{shown:?}");
    }
}

#[test]
fn a_path_is_read_as_utf_8_and_as_latin_1_only_if_it_is_not() {
    let path = |bytes: &[u8]| {
        let files = Files::raw(&[b"clientPort=1\ndataDir=/d/", bytes, b"\n"].concat());
        files.config().data_dir
    };
    assert_eq!(
        path("städte/東京/🦀".as_bytes()),
        PathBuf::from("/d/städte/東京/🦀")
    );
    assert_eq!(path(b"st\xe4dte"), PathBuf::from("/d/städte"));
    assert_eq!(path(b"st\\u00e4dte"), PathBuf::from("/d/städte"));
    assert_eq!(
        path(b"with blanks = and #"),
        PathBuf::from("/d/with blanks = and #")
    );
}

#[test]
fn a_continued_line_is_no_comment_whatever_it_begins_with() {
    let config = Files::raw(b"clientPort=1\ndataDir=/d/\\\n  #x\\\\\n# \\\nsnapCount=9\n").config();
    assert_eq!(config.data_dir, PathBuf::from("/d/#x\\"));
    assert_eq!(config.snapshot_entries, 9);
}

#[test]
fn the_last_of_several_lines_counts_and_the_others_are_named() {
    let files = Files::with("tickTime=bad\nzookeeper.tickTime=20\n# c\ntickTime=30\n");
    assert_eq!(
        files.warnings(),
        [
            "zoo.cfg:3: tickTime: ignored, set again on line 6",
            "zoo.cfg:4: zookeeper.tickTime: ignored, set again on line 6",
        ]
    );
    assert_eq!(files.load().unwrap().0.tick_ms, 30);
}

#[test]
fn unknown_keys_are_named_one_by_one_without_their_values() {
    let files = Files::with("tikcTime=1\n\nfoo.bar : hush\nodd\\nkey=1\n=x\n");
    assert_eq!(
        files.warnings(),
        [
            "zoo.cfg:3: tikcTime: unknown key, ignored",
            "zoo.cfg:5: foo.bar: unknown key, ignored",
            "zoo.cfg:6: odd\\nkey: unknown key, ignored",
            "zoo.cfg:7: : unknown key, ignored",
        ]
    );
}

#[test]
fn keys_without_effect_are_accepted_with_the_reason() {
    let files = Files::with(
        "localSessionsEnabled=true\nadmin.serverPort=8080\nssl.keyStore.location=/k\n\
         nio.numWorkerThreads=4\nzookeeper.commitProcessor.numWorkerThreads=4\n\
         authProvider.1=org.example.Auth\n",
    );
    let warnings = files.warnings();
    assert_eq!(warnings.len(), 6);
    for (line, warning) in warnings.iter().enumerate() {
        assert!(
            warning.starts_with(&format!("zoo.cfg:{}: ", line + 3)),
            "{warning}"
        );
        assert!(warning.contains(": no effect: "), "{warning}");
    }
}

#[test]
fn line_numbers_point_to_where_an_entry_begins() {
    let files = Files::raw(
        b"\xef\xbb\xbf# \\u is fine in a comment\r\n\r\ndataDir=\\\r\n  /d\r\n! x\r\ntickTime=\\\r\n\\\r\n x\r\n",
    );
    assert_eq!(
        files.error(),
        "zoo.cfg:6: tickTime: \"x\" is not a whole number from 1 to 86400000"
    );
}

#[test]
fn a_malformed_escape_is_reported_with_its_line() {
    let files = Files::with("tickTime=\\u12\n");
    assert_eq!(
        files.error(),
        "zoo.cfg:3: Malformed \\uxxxx encoding: not enough digits."
    );
}

// Files that are none.

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let files = Files::with("");
    let load = |path: PathBuf| Config::load(Some(&path), &[]).unwrap_err();
    let missing = load(files.path("nowhere.cfg"));
    assert!(
        matches!(missing, ConfigError::Unreadable { .. }),
        "{missing}"
    );
    assert!(
        missing
            .to_string()
            .contains("nowhere.cfg: cannot be read (No such file")
    );
    let below_a_file = load(files.path("zoo.cfg/zoo.cfg"));
    assert!(matches!(below_a_file, ConfigError::Unreadable { .. }));
    let directory = load(files.dir.path().to_owned());
    assert!(matches!(directory, ConfigError::IsDirectory { .. }));
}

/// Reading it fails for everyone, the superuser included: address 0 is not mapped.
#[cfg(target_os = "linux")]
#[test]
fn a_read_error_after_opening_is_reported() {
    let error = Config::load(Some(Path::new("/proc/self/mem")), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
}

#[test]
fn a_file_is_read_up_to_a_bound() {
    let fits = usize::try_from(FILE_BYTES_MAX).unwrap();
    let mut text = b"dataDir=/d\nclientPort=1\n#".to_vec();
    text.resize(fits, b'x');
    Files::raw(&text).config();
    text.push(b'x');
    let error = Files::raw(&text).load().unwrap_err();
    assert!(matches!(error, ConfigError::TooLong { .. }), "{error}");
}

#[test]
fn an_empty_file_asks_for_the_data_directory() {
    assert_eq!(
        Files::raw(b"").error(),
        "zoo.cfg: dataDir is not set: name the directory for snapshots and myid"
    );
    assert!(
        Files::raw(b"\xff\xfe\x00\x01\n\x00")
            .error()
            .contains("dataDir is not set")
    );
}

// Values.

/// No name server is asked for it: a label has 63 letters at most.
const LONG_LABEL: &str = "clientPortAddress=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.invalid";

#[test]
fn bad_values_stop_the_server_with_file_line_and_key() {
    let table = [
        (
            "tickTime=0",
            "\"0\" is not a whole number from 1 to 86400000",
        ),
        ("tickTime=-5", "\"-5\" is not"),
        ("tickTime=", "\"\" is not"),
        ("tickTime=2 000", "\"2 000\" is not"),
        ("tickTime=2000ms", "\"2000ms\" is not"),
        ("tickTime=99999999999999999999999", "is not a whole number"),
        ("tickTime=\u{0662}\u{0660}", "is not a whole number"),
        (
            "clientPort=0",
            "\"0\" is not a whole number from 1 to 65535",
        ),
        ("clientPort=65536", "from 1 to 65535"),
        (
            "clientPortAddress=not a host",
            "neither an IP address nor a host name",
        ),
        (LONG_LABEL, "cannot be resolved"),
        ("dataDir=", "the path is empty"),
        ("dataLogDir=a\\u0000b", "\"a\\0b\" holds a zero byte"),
        ("minSessionTimeout=-2", "\"-2\" is not"),
        ("minSessionTimeout=0", "\"0\" is not"),
        ("maxSessionTimeout=2147483648", "\"2147483648\" is not"),
        ("maxClientCnxns=many", "\"many\" is not"),
        ("maxCnxns=2147483648", "is not a whole number"),
        ("globalOutstandingLimit=0", "from 1"),
        ("jute.maxbuffer=10", "from 1024"),
        ("jute.maxbuffer=0x", "not a hexadecimal number"),
        ("jute.maxbuffer=0xffffffff", "from 1024 to 1073741824"),
        ("snapCount=-1", "is not a whole number"),
        ("autopurge.purgeInterval=1w", "not a number of hours"),
        ("autopurge.purgeInterval=h", "not a number of hours"),
        ("skipACL=true", "neither yes nor no"),
        ("enforceQuota=yes", "neither true nor false"),
        ("extendedTypesEnabled=", "neither true nor false"),
        ("electionAlg=0", "there is only algorithm 3"),
        ("peerType=boss", "neither participant nor observer"),
        ("forceSync=maybe", "expected yes"),
        ("forceSync=no", "never acknowledges what is not on disk"),
        (
            "zookeeper.forceSync=No",
            "never acknowledges what is not on disk",
        ),
        (
            "secureClientPort=2281",
            "a client port with TLS is not supported yet",
        ),
        (
            "client.portUnification=true",
            "TLS on the client port is not supported yet",
        ),
        ("sslQuorum=true", "TLS between servers is not supported yet"),
        (
            "sessionRequireClientSASLAuth=true",
            "required authentication is not supported yet",
        ),
        (
            "enforce.auth.enabled=true",
            "required authentication is not supported yet",
        ),
        (
            "DigestAuthenticationProvider.enabled=false",
            "is not supported yet",
        ),
        (
            "DigestAuthenticationProvider.digestAlg=SHA-256",
            "another digest than SHA1 is",
        ),
        ("group.1=1:x", "expected server ids"),
        ("weight.1=x", "is not a whole number"),
    ];
    for (line, reason) in table {
        let error = Files::with(&format!("# c\n{line}\n")).error();
        let key = line.split('=').next().unwrap();
        assert!(
            error.starts_with(&format!("zoo.cfg:4: {key}: ")),
            "{line}: {error}"
        );
        assert!(error.contains(reason), "{line}: {error}");
        assert!(!error.contains('\n'), "{line}: {error}");
    }
}

#[test]
fn switches_that_ask_for_what_is_so_anyway_pass_without_a_word() {
    Files::with(
        "sslQuorum=false\nclient.portUnification=false\nsessionRequireClientSASLAuth=false\n\
         enforce.auth.enabled=false\nDigestAuthenticationProvider.enabled=true\n\
         DigestAuthenticationProvider.digestAlg=SHA1\nforceSync=true\n",
    )
    .config();
}

#[test]
fn a_client_port_must_be_given_by_someone() {
    let remedy = "clientPort is not set: no client could connect; add clientPort=2181";
    assert_eq!(
        Files::raw(b"dataDir=/d\n").error(),
        format!("zoo.cfg: {remedy}")
    );
    // ZooKeeper: "clientPortAddress is set but clientPort is not set".
    let address_only = Files::raw(b"dataDir=/d\nclientPortAddress=127.0.0.1\n");
    assert_eq!(address_only.error(), format!("zoo.cfg: {remedy}"));
}

#[test]
fn a_host_name_is_resolved_once_at_start() {
    let config = Files::with("clientPortAddress=localhost\n").config();
    assert!(config.client_address.ip().is_loopback());
    let bracketed = Files::with("clientPortAddress=[::1]\n").config();
    assert_eq!(bracketed.client_address.to_string(), "[::1]:2181");
}

#[test]
fn the_lowest_session_timeout_may_not_exceed_the_highest() {
    assert_eq!(
        Files::with("minSessionTimeout=5000\nmaxSessionTimeout=4999\n").error(),
        "the lowest session timeout, 5000 ms (zoo.cfg:3: minSessionTimeout), is above the highest, \
         4999 ms (zoo.cfg:4: maxSessionTimeout): change one of them"
    );
    assert_eq!(
        Files::with("tickTime=100\nminSessionTimeout=5000\n").error(),
        "the lowest session timeout, 5000 ms (zoo.cfg:4: minSessionTimeout), is above the highest, \
         2000 ms (maxSessionTimeout (default)): change one of them"
    );
    let equal = Files::with("minSessionTimeout=5000\nmaxSessionTimeout=5000\n").config();
    assert_eq!(equal.session_timeout_min_ms, equal.session_timeout_max_ms);
}

#[test]
fn values_below_zookeepers_minimum_are_raised_with_a_warning() {
    let files = Files::with("autopurge.snapRetainCount=1\nsnapCount=1\npreAllocSize=100\n");
    let (config, warnings) = files.load().unwrap();
    assert_eq!(config.snapshots_kept, some(3));
    assert_eq!(config.snapshot_entries, 2);
    assert_eq!(config.log_segment_bytes, 1 << 20);
    assert_eq!(
        texts(&files, &warnings),
        [
            "zoo.cfg:3: autopurge.snapRetainCount: using 3: the lowest number of snapshots to keep",
            "zoo.cfg:4: snapCount: using 2: the lowest number of entries between snapshots",
            "zoo.cfg:5: preAllocSize: using 1048576: bytes: log segments have 1 MiB to 4 GiB",
        ]
    );
}

#[test]
fn snapshots_are_all_kept_only_when_that_is_asked_for() {
    let kept = |lines| Files::with(lines).config().snapshots_kept;
    assert_eq!(kept("autopurge.purgeInterval=0\n"), None);
    assert_eq!(
        kept("autopurge.purgeInterval=-1\nautopurge.snapRetainCount=5\n"),
        None
    );
    assert_eq!(kept("autopurge.purgeInterval=1\n"), some(3));
    assert_eq!(
        kept("autopurge.purgeInterval=12h\nautopurge.snapRetainCount=5\n"),
        some(5)
    );
}

#[test]
fn zero_and_less_take_a_bound_away() {
    let config = Files::with(
        "maxClientCnxns=-1\nmaxCnxns=0\nsnapSizeLimitInKb=-1\nclientPortListenBacklog=-1\n\
         znode.container.maxNeverUsedIntervalMs=0\n",
    )
    .config();
    assert_eq!(config.connections_per_address_max, None);
    assert_eq!(config.connections_max, None);
    assert_eq!(config.snapshot_log_bytes, None);
    assert_eq!(config.client_listen_backlog, None);
    assert_eq!(config.container_never_used_ms, None);
}

#[test]
fn bounds_in_bytes_hold_at_least_one_frame() {
    let grown = Files::with("jute.maxbuffer=100000000\n").config();
    assert_eq!(grown.request_bytes_outstanding_max, 400_000_000);
    assert_eq!(grown.outbox_bytes_max, 400_000_000);
    for key in ["quorate.outboxBytesMax", "quorate.requestBytesMax"] {
        let error = Files::with(&format!("jute.maxbuffer=5000\n{key}=4999\n")).error();
        assert!(
            error.starts_with(&format!(
                "zoo.cfg:4: {key}: 4999 bytes is less than the longest frame, 5000 bytes \
                 (zoo.cfg:3: jute.maxbuffer)"
            )),
            "{error}"
        );
        Files::with(&format!("jute.maxbuffer=5000\n{key}=5000\n")).config();
    }
}

#[test]
fn the_default_whitelist_answers_isro_in_read_only_mode() {
    let config = Files::with("readonlymode.enabled=true\n").config();
    assert!(config.four_letter_words.allows("isro"));
    let listed = Files::with("readonlymode.enabled=true\n4lw.commands.whitelist=srvr\n").config();
    assert!(!listed.four_letter_words.allows("isro"));
}

#[test]
fn a_star_anywhere_on_the_whitelist_allows_every_word() {
    let words = FourLetterWords::parse("ruok, *");
    assert!(words.allows("wchp"));
    let none = FourLetterWords::parse("  ,,");
    assert!(!none.allows("srvr") && !none.allows(""));
}

#[test]
fn the_super_digest_shows_nowhere() {
    let secret = "super:c2VjcmV0";
    let files = Files::with(&format!(
        "zookeeper.DigestAuthenticationProvider.superDigest={secret}\n"
    ));
    let config = files.config();
    assert_eq!(config.super_digest.as_ref().unwrap().expose(), secret);
    assert!(!format!("{config:?}").contains("c2VjcmV0"));

    for bad in ["c2VjcmV0", "super:", ":c2VjcmV0", "super:c2Vj cmV0"] {
        let key = "DigestAuthenticationProvider.superDigest";
        let error = Files::with(&format!("{key}={bad}\n")).load().unwrap_err();
        assert!(
            error.to_string().contains("expected user:base64"),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("cmV0"), "{error:?}");
        let setting = flag(key, "QUORATE_SUPER_DIGEST", bad);
        assert!(!format!("{setting:?}").contains("cmV0"));
        let error = Config::load(None, &[setting]).unwrap_err();
        assert!(
            error.to_string().starts_with("QUORATE_SUPER_DIGEST: "),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("cmV0"), "{error:?}");
    }
}

// Members.

#[test]
fn a_server_line_that_a_reconfig_could_not_repeat_is_refused() {
    for text in ["a,b:1:2", "server.,=a:2:38", "a=b:1:2", "a:1:2;b,c:3"] {
        assert!(Member::parse(1, text).is_err(), "{text}");
    }
}

#[test]
fn server_lines_are_understood_in_all_their_forms() {
    let table = [
        ("a:2888:3888", "a:2888:3888:participant"),
        ("a:2888:3888:observer", "a:2888:3888:observer"),
        ("a:2888:3888:PARTICIPANT", "a:2888:3888:participant"),
        ("a:2888:3888;2181", "a:2888:3888:participant;0.0.0.0:2181"),
        ("a:2888:3888:observer;b:2181", "a:2888:3888:observer;b:2181"),
        (
            "a : 2888 : 3888 ; b : 2181",
            "a:2888:3888:participant;b:2181",
        ),
        (
            "[::1]:2888:3888;[fe80::1]:2181",
            "[::1]:2888:3888:participant;[fe80::1]:2181",
        ),
        (
            "10.0.0.1:1:65535;10.0.0.2:1",
            "10.0.0.1:1:65535:participant;10.0.0.2:1",
        ),
        (
            "a:1:2|b:3:4;5",
            "a:1:2:participant|b:3:4:participant;0.0.0.0:5",
        ),
        (
            "a:1:2:observer|b:3:4:observer",
            "a:1:2:observer|b:3:4:observer",
        ),
    ];
    for (text, written) in table {
        let member = Member::parse(7, text).unwrap();
        assert_eq!(member.to_string(), format!("server.7={written}"), "{text}");
    }
    let bad = [
        "",
        "a",
        "a:1",
        "a:1:2:3:4",
        "a:1:2:boss",
        ":1:2",
        "a:0:2",
        "a:1:65536",
        "a:x:2",
        "a:1:-2",
        "a:1:2;",
        "a:1:2;x",
        "a:1:2;b:",
        "a:1:2;:1",
        "a:1:2;b:1:2",
        "a:1:2;1;2",
        "[::1:1:2",
        "[a]:1:2",
        "[::1]",
        "[::1]1:2",
        "::1:1:2",
        "a:1:2|",
        "|a:1:2",
        "a:1:2|b:1:2:observer",
        "a b:1:2",
        "a:1:2:participant:observer",
    ];
    for text in bad {
        assert!(Member::parse(1, text).is_err(), "{text}");
        let error = Files::with(&format!("server.1={text}\n")).error();
        assert!(error.starts_with("zoo.cfg:3: server.1: "), "{error}");
    }
}

#[test]
fn a_lone_server_line_makes_a_standalone_server() {
    let files = Files::raw(b"dataDir=/nowhere\nserver.5=a:2888:3888;127.0.0.1:2190\n");
    let config = Config::load(Some(&files.path("zoo.cfg")), &[]).unwrap().0;
    assert_eq!(config.server_id, 5);
    assert_eq!(config.client_address.to_string(), "127.0.0.1:2190");
    let member = config.this_member().unwrap();
    assert_eq!(member.addresses[0].election_port, 3888);
    assert_eq!(member.role, Role::Participant);
}

#[test]
fn a_port_in_both_places_must_be_the_same_one() {
    let error = Files::with("server.1=a:1:2;2182\n").error();
    assert_eq!(
        error,
        "zoo.cfg:2: clientPort: port 2181 differs from port 2182 at zoo.cfg:3: server.1: remove one \
         of them"
    );
    Files::with("server.1=a:1:2;2181\n").config();
    let files = Files::with("server.1=a:1:2;2181\n");
    let port = [flag("clientPort", "--client-port", "2183")];
    let (config, _) = Config::load(Some(&files.path("zoo.cfg")), &port).unwrap();
    assert_eq!(config.client_address.port(), 2183);
}

#[test]
fn myid_tells_a_server_who_it_is() {
    for (text, id) in [
        ("3", 3),
        ("3\n", 3),
        (" 3 \r\nrest", 3),
        ("0", 0),
        ("254", 254),
    ] {
        let files = Files::with("");
        files.write("data/myid", text.as_bytes());
        assert_eq!(files.config().server_id, id, "{text:?}");
    }
    for text in [
        "",
        "\n3",
        "x",
        "-1",
        "255",
        "3.0",
        "99999999999999999999",
        "\u{0663}",
    ] {
        let files = Files::with("");
        files.write("data/myid", text.as_bytes());
        let error = files.error();
        assert!(error.starts_with("data/myid: holds "), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_myid_that_cannot_be_read_stops_the_server() {
    let files = Files::with("");
    files.write("data/myid/inner", b"");
    assert!(files.error().starts_with("data/myid: cannot be read"));
}

#[test]
fn a_lone_server_line_for_somebody_else_is_left_out_of_account() {
    let files = Files::with("server.1=a:1:2;2999\n");
    files.write("data/myid", b"2");
    let (config, warnings) = files.load().unwrap();
    assert_eq!(config.server_id, 2);
    assert_eq!(config.this_member(), None);
    assert_eq!(config.client_address.port(), 2181);
    assert_eq!(
        texts(&files, &warnings),
        ["zoo.cfg:3: server.1: myid says 2, not 1: running as server 2, alone"]
    );
}

const THREE: &str = "initLimit=10\nsyncLimit=5\nserver.1=a:2888:3888\nserver.2=b:2888:3888\n\
                     server.3=c:2888:3888:observer\n";

#[test]
fn an_ensemble_is_read_in_full() {
    let files = Files::with(THREE);
    files.write("data/myid", b"3\n");
    let (config, _) = files.load().unwrap();
    assert_eq!(config.members.len(), 3);
    assert_eq!(config.this_member().unwrap().role, Role::Observer);
    assert!(config.is_ensemble());
}

#[test]
fn servers_named_by_flags_replace_those_of_the_file() {
    let files = Files::with(THREE);
    let server = |value| flag("quorate.server", "--server", value);
    let id = |value| flag("quorate.serverId", "--server-id", value);
    let load = |overrides: &[Override]| Config::load(Some(&files.path("zoo.cfg")), overrides);
    let flags = [
        server("7=x:2888:3888;2181"),
        server("server.8 = y:2888:3888:observer"),
        id("8"),
    ];
    let (config, _) = load(&flags).unwrap();
    let lines: Vec<String> = config.members.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "server.7=x:2888:3888:participant;0.0.0.0:2181",
            "server.8=y:2888:3888:observer",
        ]
    );
    assert_eq!(config.server_id, 8);
    assert!(config.is_ensemble());

    // The same without a file; then a line with a client port means all addresses.
    let flags = [
        server("7=x:2888:3888;2199"),
        server("8=y:2888:3888"),
        id("7"),
    ];
    let (config, _) = Config::load(None, &flags).unwrap();
    assert_eq!(config.client_address.to_string(), "0.0.0.0:2199");

    let error = |overrides: &[Override]| Config::load(None, overrides).unwrap_err().to_string();
    let both = [server("7=x:1:2"), server("7=y:1:2"), id("7")];
    assert!(error(&both).starts_with("--server: server 7 is already defined at --server"));
    let unlisted = [server("7=x:1:2"), server("8=y:1:2"), id("9")];
    assert_eq!(
        error(&unlisted),
        "--server-id: there is no line server.9: change one of them"
    );
    assert!(error(&[server("x:1:2")]).starts_with("--server: expected 1=host:2888:3888"));
    assert!(error(&[id("255")]).contains("server ids are numbers from 0 to 254"));
}

#[test]
fn a_server_id_by_flag_counts_more_than_myid() {
    let files = Files::with(THREE);
    files.write("data/myid", b"3\n");
    let id = [flag("quorate.serverId", "--server-id", "2")];
    let (config, _) = Config::load(Some(&files.path("zoo.cfg")), &id).unwrap();
    assert_eq!(config.server_id, 2);
}

#[test]
fn a_number_of_servers_that_is_worth_no_more_than_a_lower_one_is_named() {
    let advice = |voters: u8| {
        let flags: Vec<Override> = (1..=voters)
            .map(|id| flag("quorate.server", "--server", &format!("{id}=h{id}:1:2")))
            .chain([flag("quorate.serverId", "--server-id", "1")])
            .collect();
        let (_, warnings) = Config::load(None, &flags).unwrap();
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(advice(1), [""; 0]);
    assert_eq!(advice(3), [""; 0]);
    assert_eq!(advice(5), [""; 0]);
    assert_eq!(
        advice(2),
        [
            "--server: with 2 voting servers the ensemble survives the loss of 0; with 3 it would \
          survive 1"
        ]
    );
    assert_eq!(
        advice(4),
        [
            "--server: with 4 voting servers the ensemble survives the loss of 1; with 5 it would \
          survive 2"
        ]
    );
}

#[test]
fn an_ensemble_must_be_complete() {
    let with_id = |lines: &str, id: &str| {
        let files = Files::with(lines);
        files.write("data/myid", id.as_bytes());
        files.error()
    };
    assert!(
        Files::with(THREE)
            .error()
            .starts_with("data/myid: is missing")
    );
    assert!(with_id(THREE, "4").starts_with("data/myid: says 4, but there is no line server.4"));
    let no_init = THREE.replace("initLimit=10\n", "");
    assert!(with_id(&no_init, "1").starts_with("zoo.cfg: initLimit is not set"));
    let no_sync = THREE.replace("syncLimit=5\n", "");
    assert!(with_id(&no_sync, "1").starts_with("zoo.cfg: syncLimit is not set"));
    let observers = "server.1=a:1:2:observer\nserver.2=b:1:2:observer\n";
    assert!(with_id(observers, "1").contains("observers without a participant"));
    assert!(
        with_id("server.1=a:1:2\nserver.01=b:1:2\n", "1").contains("server 1 is already defined")
    );
    assert!(with_id("server.255=a:1:2\n", "1").contains("server ids are numbers from 0 to 254"));
    assert!(with_id("server.one=a:1:2\n", "1").contains("server ids are numbers from 0 to 254"));
    assert!(with_id("server.1=a:1:2|b:1:2\n", "1").contains("multiAddress.enabled"));
}

#[test]
fn one_server_with_standalone_mode_off_is_an_ensemble_of_one() {
    let lines = "standaloneEnabled=false\nserver.1=a:1:2\ninitLimit=1\nsyncLimit=1\n";
    assert!(
        Files::with(lines)
            .error()
            .starts_with("data/myid: is missing")
    );
    let files = Files::with(lines);
    files.write("data/myid", b"1");
    let config = Config::load(Some(&files.path("zoo.cfg")), &[]).unwrap().0;
    assert!(!config.standalone_enabled);
    assert_eq!(config.members.len(), 1);
}

#[test]
fn the_role_on_the_server_line_counts() {
    let files = Files::with("peerType=observer\nserver.1=a:1:2\n");
    let warnings = files.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("zoo.cfg:3: peerType: "),
        "{warnings:?}"
    );
}

#[test]
fn groups_and_weights_are_accepted_without_effect() {
    let warnings = Files::with("server.1=a:1:2\ngroup.1=1:2\nweight.1=3\n").warnings();
    assert_eq!(warnings.len(), 2);
    assert!(warnings.iter().all(|warning| warning.contains("no effect")));
}

#[test]
fn members_may_stand_in_a_dynamic_file() {
    let files = Files::raw(b"");
    files.write(
        "dynamic",
        b"# written by zookeeper\nserver.1=a\\:1\\:2;2199\nversion=100000\n",
    );
    let head = format!(
        "dataDir={}\ndynamicConfigFile={}\n",
        files.path("data").display(),
        files.path("dynamic").display()
    );
    files.write("zoo.cfg", head.as_bytes());
    let config = files.config();
    assert_eq!(config.members.len(), 1);
    assert_eq!(config.client_address.port(), 2199);

    files.write("zoo.cfg", format!("{head}server.2=b:1:2\n").as_bytes());
    assert!(
        files
            .error()
            .starts_with("zoo.cfg:3: server.2: dynamicConfigFile is set")
    );

    files.write("zoo.cfg", head.as_bytes());
    files.write("dynamic", b"server.1=a:1:2;1\ntickTime=5\n");
    assert!(
        files
            .error()
            .starts_with("dynamic:2: tickTime: a dynamicConfigFile holds")
    );
    files.write("dynamic", b"server.1=a:1\n");
    assert!(
        files
            .error()
            .starts_with("dynamic:1: server.1: expected host")
    );
    fs::remove_file(files.path("dynamic")).unwrap();
    assert!(files.error().starts_with("dynamic: cannot be read"));
}

// Anything at all.

/// Lines that look like a configuration, with all that makes the format hard.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        "(tickTime|clientPort|dataDir|server\\.[0-9]{1,3}|autopurge\\.purgeInterval)",
        "(4lw\\.commands\\.whitelist|jute\\.maxbuffer|snapCount|minSessionTimeout|group\\.1)",
        "\\PC{0,8}",
    ];
    let value = prop_oneof![
        "[-+0-9a-fx]{0,20}",
        "[a-c:;|\\[\\]0-9]{0,24}",
        "(.|\\\\|\\\\u00|\r|\n){0,12}",
    ];
    let line = (key, "( |=|:| = |\t)", value, "(\n|\r\n|\r|\\\\\n)")
        .prop_map(|(key, separator, value, end)| format!("{key}{separator}{value}{end}"));
    prop_oneof![
        4 => proptest::collection::vec(line, 0..8).prop_map(|lines| lines.concat().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_it_panic_and_every_message_is_one_line(bytes in lines()) {
        let messages = match Files::raw(&bytes).load() {
            Ok((config, warnings)) => {
                prop_assert!(config.session_timeout_min_ms <= config.session_timeout_max_ms);
                prop_assert!(config.outbox_bytes_max >= u64::from(config.frame_bytes_max));
                warnings.iter().map(ToString::to_string).collect()
            }
            Err(error) => vec![error.to_string()],
        };
        for message in messages {
            prop_assert!(!message.chars().any(char::is_control), "{message:?}");
            prop_assert!(message.len() < 2000, "{} bytes", message.len());
        }
    }

    #[test]
    fn numbers_outside_their_bounds_are_refused_and_all_others_kept(number in any::<i64>()) {
        let files = Files::with(&format!("globalOutstandingLimit={number}\n"));
        match u32::try_from(number).ok().filter(|n| (1..=i32::MAX as u32).contains(n)) {
            Some(number) => prop_assert_eq!(files.config().requests_outstanding_max, number),
            None => prop_assert!(files.load().is_err()),
        }
    }

    #[test]
    fn a_member_reads_back_as_it_is_written(
        id in 0..=254u8, host in "[a-z][a-z0-9.-]{0,20}", quorum in 1..=u16::MAX,
        election in 1..=u16::MAX, client in proptest::option::of(1..=u16::MAX), observer: bool,
    ) {
        let member = Member {
            id,
            role: if observer { Role::Observer } else { Role::Participant },
            addresses: vec![PeerAddress {
                host: host.clone(), quorum_port: quorum, election_port: election,
            }],
            client: client.map(|port| ClientAddress { host: Some(host), port }),
        };
        let written = member.to_string();
        let value = written.split_once('=').unwrap().1;
        prop_assert_eq!(Member::parse(id, value), Ok(member));
    }
}

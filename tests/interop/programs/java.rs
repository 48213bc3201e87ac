//! The Java client of Apache ZooKeeper 3.8.0 and Curator 5.4, as Debian packages them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use quorate_tests::process::run;
use quorate_tests::proxy::Proxy;
use quorate_tests::server::{Settings, class_path};
use quorate_tests::skip::{Need, available};

use super::{recorded, transcript};
use crate::compare;
use crate::recording::record;

const CLIENT_JARS: &[&str] = &["zookeeper", "zookeeper-jute", "slf4j-simple"];
const CURATOR_JARS: &[&str] = &[
    "zookeeper",
    "zookeeper-jute",
    "curator-client",
    "curator-framework",
    "curator-recipes",
    "guava",
    "slf4j-simple",
];

fn compare_java(
    test: &'static str,
    jars: &'static [&'static str],
    sources: &'static [&'static str],
    classes: &Classes,
) {
    compare(
        test,
        &[Need::Jars(jars), Need::JavaCompiler],
        &Settings::default(),
        |server| transcript(server, script(jars, sources, classes)),
    );
}

/// The command that runs the first of `sources`; it still lacks its addresses.
fn script(jars: &[&str], sources: &[&str], classes: &Classes) -> Command {
    let folder = classes.compiled(jars, sources);
    let mut command = Command::new("java");
    command
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-cp")
        .arg(format!("{}:{}", folder.display(), class_path(jars)))
        .arg(sources[0]);
    command
}

#[test]
fn the_java_client_sends_the_bytes_that_were_recorded() {
    static OPERATIONS: Classes = Classes::new("recorded-operations");
    static WATCHES: Classes = Classes::new("recorded-watches");
    static SESSIONS: Classes = Classes::new("recorded-sessions");
    let test = "the_java_client_sends_the_bytes_that_were_recorded";
    if !available(test, &[Need::Jars(CLIENT_JARS), Need::JavaCompiler]) {
        return;
    }
    let run = |main, classes: &Classes, direct: &Proxy, steered: &Proxy| {
        recorded(
            script(CLIENT_JARS, &[main, "Script"], classes),
            direct,
            steered,
        );
    };
    record(
        "java-3.8.0.txt",
        "the Java client 3.8.0",
        &[
            &|direct, steered| run("Operations", &OPERATIONS, direct, steered),
            &|direct, steered| run("Watches", &WATCHES, direct, steered),
            &|direct, steered| run("Sessions", &SESSIONS, direct, steered),
        ],
    );
}

/// A set of sources, compiled once per run of the tests.
struct Classes {
    name: &'static str,
    folder: OnceLock<PathBuf>,
}

impl Classes {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            folder: OnceLock::new(),
        }
    }

    fn compiled(&self, jars: &[&str], sources: &[&str]) -> &Path {
        self.folder.get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.name);
            std::fs::create_dir_all(&folder).unwrap();
            let mut command = Command::new("javac");
            command
                .args(["-nowarn", "-cp"])
                .arg(class_path(jars))
                .arg("-d")
                .arg(&folder);
            for source in sources {
                let path = format!("{}/interop/java/{source}.java", env!("CARGO_MANIFEST_DIR"));
                command.arg(path);
            }
            let done = run(command, "", Duration::from_secs(120)).unwrap();
            assert!(done.success, "the scripts do not compile:\n{}", done.stderr);
            folder
        })
    }
}

#[test]
fn every_operation_of_the_java_client_has_the_same_outcome() {
    static CLASSES: Classes = Classes::new("operations");
    let test = "every_operation_of_the_java_client_has_the_same_outcome";
    compare_java(test, CLIENT_JARS, &["Operations", "Script"], &CLASSES);
}

#[test]
fn watches_of_the_java_client_fire_alike_and_survive_a_reconnect() {
    static CLASSES: Classes = Classes::new("watches");
    let test = "watches_of_the_java_client_fire_alike_and_survive_a_reconnect";
    compare_java(test, CLIENT_JARS, &["Watches", "Script"], &CLASSES);
}

#[test]
fn sessions_of_the_java_client_are_resumed_expired_and_closed_alike() {
    static CLASSES: Classes = Classes::new("sessions");
    let test = "sessions_of_the_java_client_are_resumed_expired_and_closed_alike";
    compare_java(test, CLIENT_JARS, &["Sessions", "Script"], &CLASSES);
}

#[test]
fn recipes_of_curator_work_alike() {
    static CLASSES: Classes = Classes::new("recipes");
    compare_java(
        "recipes_of_curator_work_alike",
        CURATOR_JARS,
        &["Recipes", "Script"],
        &CLASSES,
    );
}

//! The Java client of Apache ZooKeeper 3.8.0 and Curator 5.4, as Debian packages them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use quorate_tests::process::run;
use quorate_tests::server::{Settings, class_path};
use quorate_tests::skip::Need;

use super::transcript;
use crate::compare;

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
    let main = sources[0];
    compare(
        test,
        &[Need::Jars(jars), Need::JavaCompiler],
        &Settings::default(),
        |server| {
            let folder = classes.compiled(jars, sources);
            let mut command = Command::new("java");
            command
                .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"])
                .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
                .arg("-cp")
                .arg(format!("{}:{}", folder.display(), class_path(jars)))
                .arg(main);
            transcript(server, command)
        },
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

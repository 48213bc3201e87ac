//! The Java client of Apache ZooKeeper 3.8.0 and Curator 5.4, as Debian packages them.

use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_tests::java::Classes;
use quorate_tests::proxy::Proxy;
use quorate_tests::server::Settings;
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
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/java");
    let files: Vec<PathBuf> = sources
        .iter()
        .map(|source| folder.join(format!("{source}.java")))
        .collect();
    classes.program(target, jars, &files, sources[0])
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

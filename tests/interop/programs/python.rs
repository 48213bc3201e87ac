//! kazoo 2.11, the Python client.

use std::process::Command;

use quorate_tests::server::Settings;
use quorate_tests::skip::{Need, available};

use super::{recorded, transcript};
use crate::recording::record;
use crate::{REFERENCE, compare};

const KAZOO: Need = Need::Kazoo("2.11.");

fn compare_kazoo(test: &'static str, script: &str) {
    compare(test, &[KAZOO], &Settings::default(), |server| {
        transcript(server, command(script))
    });
}

/// The command that runs a script; it still lacks its addresses.
fn command(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(format!(
        "{}/interop/python/{script}",
        env!("CARGO_MANIFEST_DIR")
    ));
    command
}

#[test]
fn kazoo_sends_the_bytes_that_were_recorded() {
    if !available(
        "kazoo_sends_the_bytes_that_were_recorded",
        &[REFERENCE, KAZOO],
    ) {
        return;
    }
    record(
        "kazoo-2.11.txt",
        "kazoo 2.11.0",
        &[
            &|direct, steered| recorded(command("operations.py"), direct, steered),
            &|direct, steered| recorded(command("sessions.py"), direct, steered),
        ],
    );
}

#[test]
fn every_operation_of_kazoo_has_the_same_outcome() {
    compare_kazoo(
        "every_operation_of_kazoo_has_the_same_outcome",
        "operations.py",
    );
}

#[test]
fn watches_and_sessions_of_kazoo_behave_alike() {
    compare_kazoo("watches_and_sessions_of_kazoo_behave_alike", "sessions.py");
}

#[test]
fn recipes_of_kazoo_work_alike() {
    compare_kazoo("recipes_of_kazoo_work_alike", "recipes.py");
}

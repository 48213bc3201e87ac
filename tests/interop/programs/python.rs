//! kazoo 2.11, the Python client.

use std::process::Command;

use quorate_tests::server::Settings;
use quorate_tests::skip::Need;

use super::transcript;
use crate::compare;

fn compare_kazoo(test: &'static str, script: &str) {
    compare(
        test,
        &[Need::Kazoo("2.11.")],
        &Settings::default(),
        |server| {
            let mut command = Command::new("python3");
            command.env("PYTHONDONTWRITEBYTECODE", "1").arg(format!(
                "{}/interop/python/{script}",
                env!("CARGO_MANIFEST_DIR")
            ));
            transcript(server, command)
        },
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

//! The examples do what they say.
//!
//! Each starts a server of its own, and ends with an error if what it shows does not hold. They are built
//! by `cargo test`, beside the tests.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// More than any of them takes, on a busy machine as well.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs an example to its end: whether it has succeeded, and what it has said.
fn run(example: &str, arguments: &[&str]) -> (bool, String) {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap().join("examples");
    let program = built.join(example);
    assert!(
        program.exists(),
        "{} is missing: run `cargo build -p quorate-recipes --examples` first",
        program.display()
    );
    // In a group of its own, as one of them starts more processes.
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        tell.send(()).unwrap();
        said
    });
    let in_time = told.recv_timeout(LIMIT).is_ok();
    if !in_time {
        kill_process_group(Pid::from_child(&child), Signal::KILL).unwrap();
    }
    let status = child.wait().unwrap();
    let said = reader.join().unwrap();
    assert!(in_time, "{example} goes on for too long:\n{said}");
    (status.success(), said)
}

fn succeeds(example: &str) -> String {
    let (success, said) = run(example, &[]);
    assert!(success, "{example}:\n{said}");
    said
}

#[test]
fn a_nightly_job_is_done_by_one_of_two() {
    succeeds("nightly_job");
}

#[test]
fn a_configuration_is_rolled_out_one_at_a_time() {
    succeeds("rolling_config");
}

#[test]
fn a_caller_is_answered_while_instances_come_and_go() {
    succeeds("service_registry");
}

#[test]
fn no_job_of_a_worker_pool_is_lost() {
    succeeds("worker_pool");
}

#[test]
fn every_customer_is_charged_once_by_a_leader_that_was_stopped() {
    let said = succeeds("payments");
    assert!(said.contains("was refused"), "{said}");
}

#[test]
fn without_fencing_a_customer_is_charged_twice() {
    let (success, said) = run("payments", &["--without-fencing"]);
    assert!(!success, "{said}");
    assert!(said.contains("customer 3 was charged 2 times"), "{said}");
}

/// The lines of the code blocks that are not compiled where they stand, without those that rustdoc hides.
fn samples(page: &str, fence: &str) -> Vec<Vec<String>> {
    let mut samples = Vec::new();
    let mut open: Option<Vec<String>> = None;
    for line in page
        .lines()
        .map(|line| line.trim_start_matches("//!").trim())
    {
        match (&mut open, line) {
            (None, line) if line == fence => open = Some(Vec::new()),
            (Some(_), "```") => samples.extend(open.take()),
            (Some(_), line) if line.starts_with("# ") => {}
            (Some(sample), line) => sample.push(line.to_owned()),
            (None, _) => {}
        }
    }
    samples
}

#[test]
fn the_samples_in_the_documentation_are_those_that_are_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let compiled = samples(&read("recipes/src/lib.rs"), "```no_run");
    assert_eq!(compiled.len(), 2);
    assert_eq!(
        samples(&read("docs/recipes/README.md"), "```rust,ignore"),
        compiled
    );
    assert_eq!(samples(&read("README.md"), "```rust,ignore"), compiled[..1]);
}

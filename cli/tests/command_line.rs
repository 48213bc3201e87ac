//! The binary as scripts see it: exit codes, streams, and messages of one line.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

/// The binary in an empty directory, with nothing of the tester's environment that it reads.
struct Quorate {
    dir: TempDir,
}

impl Quorate {
    fn new() -> Self {
        Self {
            dir: TempDir::new().expect("a temporary directory"),
        }
    }

    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command.current_dir(self.dir.path()).args(args);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("QUORATE_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.envs(variables.iter().copied());
        command.output().expect("the binary runs")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("a file in a temporary directory");
    }
}

fn run(args: &[&str]) -> Output {
    Quorate::new().run(args, &[])
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A usage error: exit code 2 and one line.
fn refusal(output: &Output) -> &str {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(text(&output.stdout), "");
    assert!(error.starts_with("quorate: "), "{error}");
    assert!(
        error.ends_with('\n') && error.lines().count() == 1,
        "{error}"
    );
    error.trim_end()
}

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["serve", "--help"],
        &["--version"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
    let version = run(&["--version"]);
    assert_eq!(
        text(&version.stdout),
        format!("quorate {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn help_shows_examples_groups_variables_and_exit_codes() {
    let output = run(&["serve", "--help"]);
    let help = text(&output.stdout);
    for part in [
        "Usage: quorate serve [OPTIONS] [ZOO_CFG]",
        "Examples:",
        "Files:",
        "Bounds:",
        "QUORATE_TICK_MS",
        "Exit codes:",
        "5  storage failed while running",
    ] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn help_does_not_show_the_environments_values() {
    let variables = [
        ("QUORATE_DATA_DIR", "hush"),
        ("QUORATE_SUPER_DIGEST", "hush"),
    ];
    let output = Quorate::new().run(&["serve", "--help"], &variables);
    assert!(!text(&output.stdout).contains("hush"));
}

#[test]
fn without_a_command_the_help_is_an_error() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("Usage: quorate"));
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    assert_eq!(
        refusal(&run(&["serve", "--tick-m", "1"])),
        "quorate: unexpected argument '--tick-m' found (tip: a similar argument exists: \
         '--tick-ms'): try 'quorate serve --help'"
    );
    for args in [
        &["server"][..],
        &["serve", "a", "b"],
        &["serve", "--tick-ms"],
        &["serve", "--log-format", "xml"],
    ] {
        refusal(&run(args));
    }
}

#[test]
fn the_secret_has_no_flag_of_its_own() {
    refusal(&run(&["serve", "--super-digest", "super:c2VjcmV0"]));
}

#[test]
fn a_bad_setting_is_named_as_it_was_given() {
    assert_eq!(
        refusal(&run(&["serve", "--tick-ms", "0"])),
        "quorate: --tick-ms: \"0\" is not a whole number from 1 to 86400000"
    );
    let quorate = Quorate::new();
    let variables = [("QUORATE_TICK_MS", "-1")];
    assert_eq!(
        refusal(&quorate.run(&["serve"], &variables)),
        "quorate: QUORATE_TICK_MS: \"-1\" is not a whole number from 1 to 86400000"
    );
    // The flag counts, so the variable does no harm.
    let output = quorate.run(
        &["serve", "--tick-ms", "5", "--session-timeout-max-ms", "-5"],
        &variables,
    );
    assert!(refusal(&output).starts_with("quorate: --session-timeout-max-ms: \"-5\""));
}

#[test]
fn a_bad_file_is_refused_with_its_line() {
    let quorate = Quorate::new();
    quorate.write("zoo.cfg", "dataDir=d\nclientPort=2181\ntickTime=x\n");
    assert_eq!(
        refusal(&quorate.run(&["serve", "zoo.cfg"], &[])),
        "quorate: zoo.cfg:3: tickTime: \"x\" is not a whole number from 1 to 86400000"
    );
    let missing = quorate.run(&["serve", "none.cfg"], &[]);
    assert!(refusal(&missing).starts_with("quorate: none.cfg: cannot be read"));
    assert!(refusal(&quorate.run(&["serve", "."], &[])).contains("is a directory"));
}

#[test]
fn a_log_level_nobody_knows_is_refused() {
    assert!(refusal(&run(&["serve", "--log-level", "foo=bar=baz"])).contains("log level"));
    let output = Quorate::new().run(&["serve"], &[("RUST_LOG", "foo=bar=baz")]);
    assert!(refusal(&output).contains("log level"));
}

#[test]
fn the_super_digest_comes_from_a_file_or_the_environment_and_shows_in_no_message() {
    let quorate = Quorate::new();
    quorate.write("digest", "c2VjcmV0\n");
    let bad_file = quorate.run(&["serve", "--super-digest-file", "digest"], &[]);
    let line = refusal(&bad_file);
    assert!(
        line.starts_with("quorate: --super-digest-file: expected user:base64"),
        "{line}"
    );
    assert!(!line.contains("c2VjcmV0"));

    let bad_variable = quorate.run(&["serve"], &[("QUORATE_SUPER_DIGEST", "c2VjcmV0")]);
    let line = refusal(&bad_variable);
    assert!(
        line.starts_with("quorate: QUORATE_SUPER_DIGEST: expected"),
        "{line}"
    );
    assert!(!line.contains("c2VjcmV0"));

    let missing = quorate.run(&["serve"], &[("QUORATE_SUPER_DIGEST_FILE", "none")]);
    let line = refusal(&missing);
    assert!(
        line.starts_with("quorate: QUORATE_SUPER_DIGEST_FILE: none: "),
        "{line}"
    );
}

/// Each flag's help and documentation name the same thing; a setting nobody can find is none.
#[test]
fn the_readme_lists_every_flag_and_variable() {
    let readme = include_str!("../../README.md");
    let output = run(&["serve", "--help"]);
    let help = text(&output.stdout);
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let mut count = 0;
    for word in words.filter(|word| word.starts_with("--") || word.starts_with("QUORATE_")) {
        if word != "--help" {
            assert!(
                readme.contains(&format!("`{word}`")),
                "{word} is not in README.md"
            );
            count += 1;
        }
    }
    assert!(count > 40, "{count} settings in {help}");
}

//! Golden scripts: commands, and what they must lead to.
//!
//! A script is a text file in `tests/scripts`. Lines that begin with `>` are commands; what follows
//! them is what they print. `#` begins a comment. The test runs the commands, writes the script anew,
//! and compares. With the environment variable `REWRITE_SCRIPTS` set it stores what it got instead:
//! read the difference before committing it.
//!
//! After every command the state is written as a snapshot and loaded again, and the copy has to be
//! the same.

mod parse;
mod print;
mod runner;

use std::path::Path;

use runner::Runner;

#[test]
#[expect(clippy::disallowed_methods, reason = "scripts are files")]
fn every_script_gives_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> = folder
        .read_dir()
        .expect("the folder of scripts is there")
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        let expected = std::fs::read_to_string(&script).expect("a script is a text file");
        let actual = run(&expected);
        if std::env::var("REWRITE_SCRIPTS").is_ok() {
            std::fs::write(&script, actual).expect("a script can be written");
        } else {
            compare(&script, &expected, &actual);
        }
    }
}

/// The script, with the results it leads to.
fn run(script: &str) -> String {
    let mut runner = Runner::new();
    let mut out = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix('>') {
            out.push_str(line);
            out.push('\n');
            for result in runner.run(command.trim()) {
                out.push_str("  ");
                out.push_str(&result);
                out.push('\n');
            }
        } else if line.is_empty() || line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

fn compare(script: &Path, expected: &str, actual: &str) {
    let mut lines = expected.lines().zip(actual.lines()).enumerate();
    if let Some((i, (expected, actual))) = lines.find(|(_, (expected, actual))| expected != actual)
    {
        panic!(
            "{}, line {}:\nexpected {expected}\nactual   {actual}",
            script.display(),
            i + 1
        );
    }
    assert_eq!(
        expected.lines().count(),
        actual.lines().count(),
        "{}: the end is missing",
        script.display()
    );
}

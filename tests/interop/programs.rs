//! Client programs we did not write the library of: each runs its script and prints a transcript.
//!
//! A program is told the server's address, that of a proxy to it, and the proxy's control port.

mod java;
mod python;
mod zkcli;

use std::process::Command;
use std::time::Duration;

use quorate_tests::process::{Finished, run};
use quorate_tests::proxy::Proxy;
use quorate_tests::server::Server;
use quorate_tests::transcript::normalise;

/// Far more than a script takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a script to its end against `server` and returns its normalised transcript.
fn transcript(server: &Server, mut command: Command) -> Vec<String> {
    let proxy = Proxy::start(server.address()).unwrap();
    for address in [server.address(), proxy.address(), proxy.control()] {
        command.arg(address.to_string());
    }
    normalise(&output(command, "").stdout)
}

/// Runs a script through proxies that record.
fn recorded(mut command: Command, direct: &Proxy, steered: &Proxy) {
    for address in [direct.address(), steered.address(), steered.control()] {
        command.arg(address.to_string());
    }
    output(command, "");
}

fn output(command: Command, input: &str) -> Finished {
    let shown = format!("{:?}", command.get_program());
    let done = run(command, input, LIMIT).unwrap_or_else(|error| panic!("{shown}: {error}"));
    assert!(
        done.success,
        "{shown} fails; it printed:\n{}\n--- and as errors:\n{}",
        done.stdout,
        tail(&done.stderr)
    );
    done
}

fn tail(text: &str) -> &str {
    const SHOWN: usize = 6_000;
    let mut from = text.len().saturating_sub(SHOWN);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

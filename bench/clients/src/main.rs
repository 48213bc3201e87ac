//! The client crate, `zookeeper-client`, `tokio-zookeeper` and kazoo, side by side on one server.
//!
//! `quorate-bench-clients 127.0.0.1:2181` drives the server with each in turn and prints a table in
//! Markdown: how many requests a second and how long each takes, with 1, 30 and 1,000 outstanding on
//! one session; how long after a write a watch tells of it; what a session costs in memory.
//!
//! `quorate-bench-clients recipes 127.0.0.1:2181` does it with locks and elections: see [`recipes`].
//!
//! All of one library's clients run on one runtime of one thread, so that figures are per thread. The
//! order of the libraries turns from round to round, and a figure is the median of the rounds.

mod kazoo;
mod library;
mod measure;
mod recipes;

use std::time::Duration;

use crate::library::{Library, OurClient, TokioZookeeper, ZookeeperClient};
use crate::measure::{Table, Workload};

/// How long each figure is measured for, each round.
const SPAN: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((first, rest)) = arguments.split_first() {
        match (first.as_str(), rest) {
            ("recipes", servers) => return recipes::compare(servers),
            // A process of its own for these, too.
            ("contend", [server]) => return recipes::contend(server),
            _ => {}
        }
    }
    let server = match &arguments[..] {
        [server] => server.clone(),
        // A process of its own for each, so that nothing is left over from another.
        [server, library] => {
            println!("{}", memory(server, library)?);
            return Ok(());
        }
        _ => {
            return Err("usage: quorate-bench-clients HOST:PORT, or recipes HOST:PORT...".into());
        }
    };
    let mut table = Table::default();
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        for turn in 0..4 {
            match (round + turn) % 4 {
                0 => drive::<OurClient>(&server, &mut table)?,
                1 => drive::<ZookeeperClient>(&server, &mut table)?,
                2 => drive::<TokioZookeeper>(&server, &mut table)?,
                _ => kazoo::drive(&server, SPAN, &mut table)?,
            }
        }
    }
    println!("{}", table.markdown());
    Ok(())
}

fn drive<L: Library>(server: &str, table: &mut Table) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = L::connect(server).await?;
        client.prepare().await?;
        for workload in [Workload::Get, Workload::Set] {
            for outstanding in [1, 30, 1000] {
                let figures = measure::closed_loop(&client, workload, outstanding, SPAN).await?;
                table.add(
                    L::NAME,
                    &format!("{} x {outstanding}", workload.name()),
                    figures,
                );
            }
        }
        let writer = L::connect(server).await?;
        let figures = measure::watches(&client, &writer, SPAN).await?;
        table.add(L::NAME, "watch", figures);
        Ok::<_, library::Failure>(())
    })?;
    let program = std::env::current_exe()?;
    let output = std::process::Command::new(program)
        .args([server, L::NAME])
        .output()?;
    let bytes = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    table.add_memory(L::NAME, bytes);
    Ok(())
}

fn memory(server: &str, library: &str) -> Result<f64, library::Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match library {
            OurClient::NAME => measure::memory_per_session::<OurClient>(server).await,
            ZookeeperClient::NAME => measure::memory_per_session::<ZookeeperClient>(server).await,
            TokioZookeeper::NAME => measure::memory_per_session::<TokioZookeeper>(server).await,
            _ => Err("there is no such library here".into()),
        }
    })
}

//! kazoo, for scale: the same closed loop in Python.

use std::process::Command;
use std::time::Duration;

use crate::library::{Failure, PATH};
use crate::measure::{Figures, Table};

const SCRIPT: &str = include_str!("kazoo.py");

/// Says so and does nothing where there is no Python with kazoo.
pub(crate) fn drive(server: &str, span: Duration, table: &mut Table) -> Result<(), Failure> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let seconds = span.as_secs_f64().to_string();
    let mut command = Command::new(python);
    let output = command
        .args(["-c", SCRIPT, server, PATH, &seconds])
        .output()?;
    if !output.status.success() {
        eprintln!(
            "kazoo is left out: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return Ok(());
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut fields = line.split('\t');
        let (Some(workload), Some(figures)) = (fields.next(), fields.next()) else {
            return Err(format!("kazoo's script prints {line:?}").into());
        };
        let figures: Vec<f64> = figures
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [per_second, p50_us, p99_us] = figures[..] else {
            return Err(format!("kazoo's script prints {line:?}").into());
        };
        let figures = Figures {
            per_second,
            p50_us,
            p99_us,
        };
        table.add("kazoo 2.11", workload, figures);
    }
    Ok(())
}

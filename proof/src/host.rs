//! Runs a proof on one thread, with virtual time, as a simulated server's tasks run.

use quorate_server::tasks::Host;
use tokio::runtime::{Builder, RngSeed};

/// Runs it to its end.
///
/// # Errors
///
/// There is no runtime, or the proof itself panicked.
pub fn run<T: Send + 'static>(
    seed: u64,
    proof: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let host = Host::new(seed);
    runtime
        .block_on(async move { host.spawn(proof).await })
        .map_err(|error| format!("the proof itself failed: {error}"))
}

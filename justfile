# What is done often. `just verify` changes nothing; .ci/run adds installing, interop and fuzzing.

# All checks that need nothing but Rust and cargo-deny
verify:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace
    cargo deny --all-features check licenses bans sources

# Rewrite what can be rewritten
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# Clients we did not write, against this server; a missing client is a failure
interop:
    QUORATE_INTEROP=required cargo test -p quorate-tests --test interop

# One fuzz target, for so many seconds
fuzz target seconds="60":
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# The load generator; arguments are handed on
bench *arguments:
    cargo run --release -p quorate-bench -- {{arguments}}

# What is done often. `just verify` changes nothing; .ci/run adds installing, clients from elsewhere and fuzzing.

# All checks that need nothing but Rust and cargo-deny
verify:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features --locked --keep-going -- -D warnings
    cargo test --workspace
    cargo deny --locked --all-features check licenses bans sources

# Rewrite what can be rewritten
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# Clients we did not write, against this server; a missing client is a failure
interop:
    QUORATE_INTEROP=required cargo test -p quorate-tests --test interop

# The same against three servers each, then while one of Quorate's is killed every five seconds.
interop-ensemble:
    QUORATE_INTEROP=required QUORATE_INTEROP_SERVERS=3 cargo test -p quorate-tests --test interop
    QUORATE_INTEROP=required QUORATE_INTEROP_SERVERS=3 QUORATE_INTEROP_KILLS=5 cargo test -p quorate-tests --test interop

# The server under kills, failing disks and jumping clocks; whatever a test needs and misses is a failure
integration:
    QUORATE_INTEGRATION=required cargo test -p quorate-tests --test integration

# Ensembles under kills, freezes and partitions; QUORATE_FAULTS=50 for a long run
ensemble *arguments:
    QUORATE_INTEGRATION=required cargo test -p quorate-tests --test ensemble -- {{arguments}}

# Real processes under many faults at once, drawn from seeds: `just faults --runs 100 --seed 1 --jobs 2`
faults *arguments:
    cargo build --release -p quorate-cli
    QUORATE_BIN="$PWD/target/release/quorate" QUORATE_INTEGRATION=required cargo test -p quorate-tests --test faults -- {{arguments}}

# One fuzz target, for so many seconds, from its seeds
fuzz target seconds="60":
    mkdir -p fuzz/corpus/{{target}} fuzz/seeds/{{target}}
    cargo run -p quorate-fuzz-targets --bin campaign -- --unpack {{target}}
    cargo +nightly fuzz run {{target}} fuzz/corpus/{{target}} fuzz/seeds/{{target}} -- -max_total_time={{seconds}} -timeout=10

# All fuzz targets, to so many executions each, over as many sittings as that takes: add --minutes 30, or names
fuzz-all *arguments:
    cargo run -p quorate-fuzz-targets --bin campaign -- --build {{arguments}}

# The load generator; arguments are handed on
bench *arguments:
    cargo run --release -p quorate-bench -- {{arguments}}

# The client crate against Apache ZooKeeper and Quorate: one server, three, three of which some are killed
client:
    QUORATE_INTEROP=required cargo test -p quorate-tests --test client
    QUORATE_INTEROP=required QUORATE_INTEROP_SERVERS=3 cargo test -p quorate-tests --test client
    QUORATE_INTEROP=required QUORATE_INTEROP_SERVERS=3 QUORATE_INTEROP_KILLS=2 cargo test -p quorate-tests --test client
    QUORATE_FAULTS=50 cargo test -p quorate-client --all-features --test faults kills

# The recipes against Apache ZooKeeper and Quorate: one server, three, three of which some are killed
recipes:
    QUORATE_INTEROP=required cargo test -p quorate-tests --test recipes
    QUORATE_INTEROP=required QUORATE_INTEROP_SERVERS=3 cargo test -p quorate-tests --test recipes
    QUORATE_INTEROP=required QUORATE_INTEROP_SERVERS=3 QUORATE_INTEROP_KILLS=2 cargo test -p quorate-tests --test recipes

# Whole ensembles in simulation: `just sim run --seeds 1..1000`, `just sim replay --seed 52`, `just sim canaries`
sim *arguments:
    cargo run --profile proof -p quorate-sim -- {{arguments}}

# The page of what was proven, from the figures recorded in docs/trust
trust:
    cargo run -p quorate-checker --bin trust

# The storage under power cuts, failing syncs and flipped bits: crash-points, bit-flips or canaries
proof *arguments:
    cargo run --profile proof -p quorate-proof -- {{arguments}}

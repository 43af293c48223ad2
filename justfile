# Short names for what is done often. `just` is a convenience: every line works by hand.

# Compile and lint.
check:
    cargo clippy --all-targets -- -D warnings

# Everything that must hold before a change lands.
test *arguments:
    ./test {{arguments}}

# The whole story on this machine.
demo:
    ./demo

# Format.
fmt:
    cargo fmt

# Ratios against nginx and a bare pingora proxy, and the guard's own cost.
bench:
    bench/run
    cargo bench

# Licences, sources and duplicate versions (needs cargo-deny; advisories need the network).
deny:
    cargo deny check

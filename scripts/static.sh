#!/usr/bin/env bash
# Builds the binary of the image, which needs no shared library, and prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc --version --verbose | sed -n 's/^host: //p')
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
cargo build --quiet --release --locked --bin doorward --target "$target" >&2
echo "${CARGO_TARGET_DIR:-target}/$target/release/doorward"

#!/usr/bin/env bash
# Prints the folder for what the tests install and run. It is the user's: in /tmp anybody could have
# made it. Without a home it is below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${XDG_CACHE_HOME:-}${HOME:-}" ]; then
    echo "${XDG_CACHE_HOME:-$HOME/.cache}/doorward"
else
    echo "$PWD/target/cache"
fi

#!/usr/bin/env bash
# Prints the folder of a Python environment with what tests/requirements.txt names, and makes it
# first if it is not there. Kept outside of the tree, one for each version of that file.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sha256sum tests/requirements.txt | cut -c1-12)
# Not in /tmp: what is in it is run, also as root, and anybody could have made it there.
if [ -n "${XDG_CACHE_HOME:-}${HOME:-}" ]; then
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/doorward"
else
    cache="$PWD/target/cache"
fi
place="$cache/python-$version"
mkdir -p "$place"
exec 9>"$place/lock"
flock 9
if [ ! -e "$place/complete" ]; then
    virtualenv --quiet "$place" >&2
    "$place/bin/pip" install --quiet --only-binary :all: --disable-pip-version-check -r tests/requirements.txt >&2
    touch "$place/complete"
fi
echo "$place"

#!/usr/bin/env bash
# Prints the folder of a Python environment with what tests/requirements.txt names, and makes it
# first if it is not there. Kept outside of the tree, one for each version of that file.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sha256sum tests/requirements.txt | cut -c1-12)
place="$(scripts/cache.sh)/python-$version"
mkdir -p "$place"
exec 9>"$place/lock"
flock 9
if [ ! -e "$place/complete" ]; then
    virtualenv --quiet "$place" >&2
    "$place/bin/pip" install --quiet --only-binary :all: --disable-pip-version-check -r tests/requirements.txt >&2
    touch "$place/complete"
fi
echo "$place"

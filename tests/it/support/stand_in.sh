#!/bin/sh
# Stands in for doorward in the self tests of support: says how it was called, waits for SIGTERM.
# It waits in its own process, on a pipe into which nobody writes, so that killing it leaves nothing behind.
mkfifo wait
exec 3<>wait
trap 'echo "stand-in: terminated"; exit 3' TERM
echo "stand-in: called with $*"
echo "stand-in: COLOUR=$COLOUR" >&2
for argument in "$@"; do
    test -f "$argument" && cat "$argument"
done
read -r _ <&3

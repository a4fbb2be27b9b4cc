#!/bin/sh
# Trains and publishes the examples that the store has no version of yet: all of them, or those named.
# The commands come from PATH and the store from MODEL_STORE; run it from the root of the project.
set -eu
[ $# -gt 0 ] || set -- xor penguins digits
# A terminal shows a bar that moves; a log is better off without a line for every epoch.
if [ -t 1 ]; then quiet=; else quiet=--quiet; fi
for name in "$@"; do
    if models show "$name" >/dev/null 2>&1; then
        echo "$name: already published"
    else
        train "examples/$name.toml" $quiet
    fi
done

#!/bin/sh
# Trains and publishes the examples (all, or those given as arguments) that are not in the store yet.
# Needs `train` and `models` on the PATH; MODEL_STORE selects the store. Run it from the root of the project.
set -eu
[ $# -gt 0 ] || set -- xor penguins digits
# Without a terminal, do not print a line for each epoch.
if [ -t 1 ]; then quiet=; else quiet=--quiet; fi
for name in "$@"; do
    if models show "$name" >/dev/null 2>&1; then
        echo "$name: already published"
    else
        train "examples/$name.toml" $quiet
    fi
done

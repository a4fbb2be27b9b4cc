#!/bin/sh
# Trains and publishes each example named, unless the store has a version of it already.
# The commands come from PATH and the store from MODEL_STORE; run from the root of the project.
set -eu
for name in "$@"; do
    if models show "$name" >/dev/null 2>&1; then
        echo "$name: already published"
    else
        train "examples/$name.toml"
    fi
done

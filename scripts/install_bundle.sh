#!/bin/sh
# Install Forward Pass from this folder, without a network, into a new virtual environment:
#   sh install.sh /opt/forward-pass
# PYTHON names the interpreter; it must have the version and platform that the name of this folder states.
set -eu
case "${1:-}" in -h | --help) echo "usage: sh install.sh TARGET    (installs into TARGET, a folder that does not exist yet)"; exit 0 ;; esac
[ $# = 1 ] || { echo "usage: sh install.sh TARGET" >&2; exit 2; }
mkdir -p "$(dirname "$1")"
target=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")"
[ ! -e "$target" ] || { echo "$target: expected a folder that does not exist yet, found one; remove it or choose another" >&2; exit 2; }
sha256sum --check --strict --quiet SHA256SUMS

built_for=$(basename "$(pwd)" | sed 's/.*-\(cp[0-9]*\)-.*/\1/')
python=${PYTHON:-$(echo "$built_for" | sed 's/cp3/python3./')}
found=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])') || exit 2
[ "$found" = "$built_for" ] ||
    { echo "$python: expected Python $built_for, found $found; set PYTHON to an interpreter of that version" >&2; exit 2; }

"$python" -m venv "$target"
# --isolated: no index and no constraint of the machine's pip settings applies.
install="$target/bin/python -m pip --isolated --disable-pip-version-check install --quiet --no-index"
$install --find-links wheels --require-hashes --requirement requirements.lock
$install --no-deps wheels/forward_pass-*.whl
"$target/bin/forward-pass" --version
echo "Installed in $target. The commands are in $target/bin; to uninstall, remove $target."
if [ -e images.tar.gz ]; then echo "Load the images: docker load --input $(pwd)/images.tar.gz"; fi

#!/bin/sh
# Print the path of a Python interpreter: sh scripts/find_python.sh [--fetch] 3.14
#
# Looks in .pythons/, PATH, pyenv and uv. With --fetch, a missing one is installed: by uv, otherwise from the packages of Debian's newest
# release, unpacked into .pythons/ beside the system (no root; needs apt and patchelf). Prints nothing and exits with 1 if there is none.
set -eu
fetch=
if [ "$1" = --fetch ]; then fetch=yes; shift; fi
version=$1
home=$(cd "$(dirname "$0")/.." && pwd)/.pythons

runs() { # a shim of pyenv exists for versions that it does not run
    "$1" -c "import sys, venv, ssl; raise SystemExit('%d.%d' % sys.version_info[:2] != '$version')" 2> /dev/null
}

find_installed() {
    for path in "$home/$version/usr/bin/python$version" "$(command -v "python$version" || true)" \
        "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python \
        "$(command -v uv > /dev/null && uv python find "$version" 2> /dev/null || true)"; do
        if [ -x "$path" ] && runs "$path"; then
            echo "$path"
            exit 0
        fi
    done
}

# The interpreter gets its own C library, since the system's may be older than the one it was built for.
unpack_debian() {
    folder=$home/$version
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
        awk '!/security/ { print $1; exit }')
    for suite in stable testing; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done > "$folder/apt/sources.list"
    set -- -qq -o Dir::Etc::sourcelist="$folder/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache" -o APT::Sandbox::User="$(id -un)"
    apt-get "$@" update
    (cd "$folder/apt" && apt-get "$@" download "python$version-minimal" "libpython$version-minimal" \
        "libpython$version-stdlib" libc6 libgcc-s1 libstdc++6 libexpat1 zlib1g libssl3t64 libffi8 libbz2-1.0 \
        liblzma5 libzstd1 libsqlite3-0 libuuid1)
    for package in "$folder"/apt/*.deb; do dpkg -x "$package" "$folder"; done
    rm -r "$folder/apt"
    libraries=$(dirname "$(ls "$folder"/usr/lib/*/libc.so.6)")
    loader=$(ls "$libraries"/ld-linux*.so.* | head -n 1)
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$folder/usr/bin/python$version"
}

find_installed
if [ -n "$fetch" ]; then
    echo "Installing Python $version" >&2
    if command -v uv > /dev/null && uv python install --quiet "$version" >&2; then
        find_installed
    fi
    if command -v apt-get > /dev/null && command -v patchelf > /dev/null && unpack_debian >&2; then
        find_installed
    fi
    rm -rf "${home:?}/$version"
    echo "Python $version could not be installed: needs uv with network access, or apt and patchelf" >&2
fi
exit 1

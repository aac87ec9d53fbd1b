#!/bin/sh
# Checks that the tools a build needs are here; prints one line for each that is not, saying what to install.
# Usage: tools/check_tools.sh [python]
set -u
cd "$(dirname "$0")/.." || exit 1

python=${1:-python3}
rust_wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
missing=0

miss() {
    echo "sealcast: $1" >&2
    missing=1
}

# at_least HAVE WANTED: both as major.minor[.patch]
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

if ! command -v "$python" >/dev/null 2>&1; then
    miss "'$python' is missing: install Python 3.11 or newer with venv (Debian: apt-get install python3 python3-venv)"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    miss "'$python' is $("$python" -V 2>&1): install Python 3.11 or newer, or name one by 'make PYTHON=python3.12'"
elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    miss "'$python' has no venv module: install it (Debian: apt-get install python3-venv)"
fi

for tool in cargo rustc; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        miss "'$tool' is missing: install Rust $rust_wanted or newer (rustup, see rust-lang.org/tools/install)"
    else
        have=$("$tool" --version 2>/dev/null | cut -d ' ' -f 2 | cut -d - -f 1)
        at_least "${have:-0}" "$rust_wanted" ||
            miss "'$tool' is ${have:-broken}: install Rust $rust_wanted or newer (rustup update stable)"
    fi
done

if [ -n "${CC:-}" ]; then
    command -v "${CC%% *}" >/dev/null 2>&1 || miss "CC names '$CC', which is missing: install it or unset CC"
elif ! command -v cc >/dev/null 2>&1 && ! command -v gcc >/dev/null 2>&1 && ! command -v clang >/dev/null 2>&1; then
    miss "a C compiler is missing: install gcc or clang (Debian: apt-get install gcc libc6-dev)"
fi

exit "$missing"

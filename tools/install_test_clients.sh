#!/bin/sh
# Installs the independent programs that some tests drive: strongSwan's `pki` (an EST client that is not ours),
# strace (shows that a receiver sends nothing), testssl (looks at what each listener offers), faketime (another clock),
# valgrind (memory of the C interface), SoftHSM and OpenSSL's engine for it (a device key in a token), Mono (the SDK for
# C#), a JDK and Maven (that for Java); and libcurl's headers.
# Without them those tests are skipped, or fail where CI=true.
# With the word `windows` it installs what builds the C peer for Windows, and runs it (sdk/windows).
set -u

packages=
[ -x /usr/bin/pki ] || packages="$packages strongswan-pki"
# Without it pki reads no certificates with elliptic curves.
[ -e /usr/lib/ipsec/plugins/libstrongswan-openssl.so ] || packages="$packages libstrongswan-standard-plugins"
command -v strace >/dev/null 2>&1 || packages="$packages strace"
command -v faketime >/dev/null 2>&1 || packages="$packages faketime"
command -v testssl >/dev/null 2>&1 || packages="$packages testssl.sh"
command -v valgrind >/dev/null 2>&1 || packages="$packages valgrind"
{ [ -e /usr/include/curl/curl.h ] || [ -e "/usr/include/$(cc -dumpmachine)/curl/curl.h" ]; } || packages="$packages libcurl4-openssl-dev"
[ -e /usr/include/openssl/ssl.h ] || packages="$packages libssl-dev"
command -v softhsm2-util >/dev/null 2>&1 || packages="$packages softhsm2"
[ -e "/usr/lib/$(cc -dumpmachine)/engines-3/pkcs11.so" ] || packages="$packages libengine-pkcs11-openssl"
command -v mcs >/dev/null 2>&1 || packages="$packages mono-mcs"
command -v mono >/dev/null 2>&1 || packages="$packages mono-runtime"
{ [ -e /usr/lib/mono/4.5/System.Net.Http.dll ] && [ -e /usr/lib/mono/4.5/System.Core.dll ]; } ||
    packages="$packages libmono-system-core4.0-cil libmono-system-net-http4.0-cil"
[ -e /usr/lib/mono/4.5/Mono.Posix.dll ] || packages="$packages libmono-posix4.0-cil"
[ -e /usr/lib/mono/4.5/WindowsBase.dll ] || packages="$packages libmono-windowsbase4.0-cil"
command -v javac >/dev/null 2>&1 || packages="$packages openjdk-17-jdk-headless"
command -v mvn >/dev/null 2>&1 || packages="$packages maven"
if [ "${1:-}" = windows ]; then
    packages=
    command -v x86_64-w64-mingw32-gcc >/dev/null 2>&1 || packages="$packages gcc-mingw-w64-x86-64-win32"
    [ -x /usr/bin/rustc ] || packages="$packages rustc-web"
    [ -x /usr/bin/cargo ] || packages="$packages cargo-web"
    [ -e /usr/lib/rustlib/src/rust/library/std/Cargo.toml ] || packages="$packages rust-web-src"
    [ -x /usr/lib/wine/wine64 ] || packages="$packages wine64"
fi
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "test clients: not installed (no apt-get here); the tests that need them say so:$packages"
elif [ "$(id -u)" -ne 0 ]; then
    echo "test clients: not installed (not root); to run every test: sudo apt-get install$packages"
else
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # The package lists may be absent (containers) or fresh: only fetch them when the first try fails.
    # shellcheck disable=SC2086  # the list is meant to split into words
    if apt-get install -y --no-install-recommends $packages >"$log" 2>&1 ||
        { apt-get update >>"$log" 2>&1 && apt-get install -y --no-install-recommends $packages >>"$log" 2>&1; }; then
        echo "test clients: installed$packages"
    else
        tail -n 3 "$log"
        echo "test clients: apt-get could not install$packages; the tests that need them say so"
    fi
    rm -f "$log"
fi
exit 0

#!/bin/sh
# Runs the class of its own name, such as the peer of the scenarios: JAVA chooses the JDK, SEALCAST_LIBRARY the library.
build=$(cd "$(dirname "$0")" && pwd)
java=${JAVA:-java}
access=
"$java" --help 2>&1 | grep -q enable-native-access && access=--enable-native-access=ALL-UNNAMED
export SEALCAST_LIBRARY="${SEALCAST_LIBRARY:-$build/../../../target/release/libsealcast.so}"
class=$(basename "$0" | sed 's/./\U&/')
exec "$java" $access -cp "$build/sealcast.jar:$(echo "$build"/lib/jna-*.jar):$build/peer-classes" "$class" "$@"

#!/bin/sh
# Runs the class of its own name, such as the peer of the scenarios: JAVA chooses the JDK, SEALCAST_LIBRARY the library.
build=$(cd "$(dirname "$0")" && pwd)
java=${JAVA:-java}
export SEALCAST_LIBRARY="${SEALCAST_LIBRARY:-$build/../../../target/release/libsealcast.so}"
class=$(basename "$0" | sed 's/./\U&/')
exec "$java" --enable-native-access=ALL-UNNAMED -cp "$build/sealcast.jar:$(echo "$build"/lib/jna-*.jar):$build/peer-classes" "$class" "$@"

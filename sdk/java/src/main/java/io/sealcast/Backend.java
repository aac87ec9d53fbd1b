package io.sealcast;

import java.net.http.HttpClient;
import java.nio.file.Path;

/** What a JDK before 22 offers: its place is taken by another class of this name on later ones. */
final class Backend {
    private Backend() {}

    /** Loads libsealcast from a file; null: by its name, from where the system's loader looks. */
    static Library load(Path file) {
        return new JnaLibrary(file == null ? "sealcast" : file.toString());
    }

    /**
     * Ends a client that has no request under way. Before JDK 21 there is no call for that: its one thread, which is a
     * daemon, and its idle connections end once the client has been garbage collected.
     */
    static void end(HttpClient client) {}
}

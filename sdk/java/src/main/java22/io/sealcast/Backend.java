package io.sealcast;

import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.net.http.HttpClient;
import java.nio.file.Path;
import java.time.Duration;

/** What JDK 22 and later offer: foreign functions, and clients that end when they are told. */
final class Backend {
    private static final Duration END = Duration.ofSeconds(2);

    /** Where the functions are. */
    static SymbolLookup lookup;

    private Backend() {}

    /** Loads libsealcast from a file; null: by its name, from where the system's loader looks. */
    static Library load(Path file) {
        if (ValueLayout.ADDRESS.byteSize() != Long.BYTES) {
            throw new UnsatisfiedLinkError("Sealcast needs a 64-bit JVM");
        }
        lookup = file == null
                ? SymbolLookup.libraryLookup(System.mapLibraryName("sealcast"), Arena.global())
                : SymbolLookup.libraryLookup(file, Arena.global());
        return new ForeignLibrary();
    }

    /** Ends a client, its requests and its thread. */
    static void end(HttpClient client) {
        client.shutdownNow();
        try {
            client.awaitTermination(END);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}

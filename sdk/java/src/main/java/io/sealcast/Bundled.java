package io.sealcast;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.Locale;

/** The library that lies in the jar, as a file of this process alone: a loader takes files only. */
final class Bundled {
    private static final String PREFIX = "sealcast-";
    private static final boolean IS_WINDOWS = system().equals("win32");
    /** Far longer than a process needs between these two: to write the file, and to load it. */
    private static final Duration LEFT_BEHIND = Duration.ofDays(1);

    private final Path file;

    private Bundled(Path file) {
        this.file = file;
    }

    /** Where in the jar the library for this platform is, if the jar has it. Platforms have the names that JNA gives them. */
    static String resource() {
        String processor = System.getProperty("os.arch");
        String named = processor.equals("amd64") ? "x86-64" : processor.equals("arm64") ? "aarch64" : processor;
        return "native/" + system() + "-" + named.replace('_', '-') + "/" + System.mapLibraryName("sealcast");
    }

    private static String system() {
        String name = System.getProperty("os.name").toLowerCase(Locale.ROOT);
        return name.startsWith("windows") ? "win32" : name.startsWith("mac") ? "darwin" : name;
    }

    /** Writes it to a new folder that only this user can enter; null if the jar has none for this platform. */
    static Bundled unpack() throws IOException {
        try (InputStream library = Bundled.class.getResourceAsStream(resource())) {
            if (library == null) {
                return null;
            }
            if (IS_WINDOWS) {
                deleteLeftBehind(Path.of(System.getProperty("java.io.tmpdir")));
            }
            Path file = Files.createTempDirectory(PREFIX).resolve(System.mapLibraryName("sealcast"));
            Files.copy(library, file);
            return new Bundled(file);
        }
    }

    Path file() {
        return file;
    }

    /** Deletes the file, which need not be there once it is loaded; Windows keeps it for as long as this process runs. */
    void delete() {
        delete(file.getParent());
    }

    private static void delete(Path folder) {
        try {
            Files.deleteIfExists(folder.resolve(System.mapLibraryName("sealcast")));
            Files.delete(folder);
        } catch (IOException inUse) {
            // On Windows: a later process deletes it.
        }
    }

    /** Only on Windows, where the folder for temporary files is the user's own: nobody else can have put a link there. */
    private static void deleteLeftBehind(Path temporary) throws IOException {
        FileTime before = FileTime.from(Instant.now().minus(LEFT_BEHIND));
        try (DirectoryStream<Path> folders = Files.newDirectoryStream(temporary, PREFIX + "*")) {
            for (Path folder : folders) {
                if (Files.getLastModifiedTime(folder).compareTo(before) < 0) {
                    delete(folder);
                }
            }
        }
    }
}

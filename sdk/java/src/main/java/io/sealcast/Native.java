package io.sealcast;

import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;

/** The library that this process has loaded, and what its statuses are in Java. */
final class Native {
    /** The interface that this package was written for. */
    private static final int ABI_VERSION = 1;

    /** A wait is cut into pieces of so many microseconds, between which a thread may be interrupted. */
    private static final long SLICE = 200_000;

    private static final String CURE =
            "set the system property sealcast.library, or SEALCAST_LIBRARY in the environment, to its path";

    private Native() {}

    /** Loads it on first use. */
    private static final class Holder {
        static final Library LIBRARY;
        static final LinkageError FAILURE;

        static {
            Library library = null;
            LinkageError failure = null;
            try {
                library = load();
            } catch (LinkageError error) {
                failure = error;
            }
            LIBRARY = library;
            FAILURE = failure;
        }
    }

    static Library library() {
        if (Holder.FAILURE != null) {
            throw linkError(Holder.FAILURE.getMessage(), Holder.FAILURE);
        }
        return Holder.LIBRARY;
    }

    private static Library load() {
        String named = System.getProperty("sealcast.library", System.getenv("SEALCAST_LIBRARY"));
        Library library;
        if (named != null && !named.isEmpty()) {
            library = load(Path.of(named).toAbsolutePath(), named + " cannot be loaded");
        } else {
            library = loadUnnamed();
        }
        int version = library.abiVersion();
        if (version != ABI_VERSION) {
            throw new UnsatisfiedLinkError("libsealcast has interface " + version + " and this package needs "
                    + ABI_VERSION + ": take both from one release");
        }
        return library;
    }

    private static Library loadUnnamed() {
        String resource = Bundled.resource();
        Bundled bundled;
        try {
            bundled = Bundled.unpack();
        } catch (IOException error) {
            throw linkError(
                    resource + " of the jar cannot be written to " + System.getProperty("java.io.tmpdir") + " (" + error
                            + "): " + CURE,
                    error);
        }
        if (bundled == null) {
            String name = System.mapLibraryName("sealcast");
            return load(null, name + " is neither in the jar (" + resource + ") nor where the system looks");
        }
        try {
            return load(bundled.file(), resource + " of the jar cannot be loaded from " + bundled.file());
        } finally {
            bundled.delete();
        }
    }

    private static Library load(Path file, String failure) {
        try {
            return Backend.load(file);
        } catch (NoClassDefFoundError error) {
            throw linkError(
                    "a JDK before 22 needs jna.jar on the class path (" + error.getMessage() + " is not there)", error);
        } catch (LinkageError | IllegalArgumentException error) {
            Throwable cause = error.getCause() == null ? error : error.getCause();
            String reason = String.valueOf(cause.getMessage()).lines().findFirst().orElse("");
            throw linkError(failure + ": " + CURE + " (" + reason + ")", error);
        }
    }

    private static UnsatisfiedLinkError linkError(String text, Throwable cause) {
        UnsatisfiedLinkError error = new UnsatisfiedLinkError(text);
        error.initCause(cause);
        return error;
    }

    // -- results ----------------------------------------------------------------------------------------------------

    /** Throws unless the status is 0. Call it on the thread, and right after the call, whose status it is. */
    static void check(int status) {
        if (status != Status.OK.code()) {
            throw failure(status);
        }
    }

    /** What the last failed call of this thread has to say. */
    static SealcastException failure(int status) {
        return new SealcastException(Status.of(status), category(status), lastError(status), null);
    }

    static SealcastException failure(Status status, String text) {
        return failure(status, text, null);
    }

    static SealcastException failure(Status status, String text, Throwable cause) {
        return new SealcastException(status, category(status.code()), text, cause);
    }

    static SealcastException usage(String text) {
        return failure(Status.INVALID_ARGUMENT, text);
    }

    /** The value; what is negative would be another number in C. */
    static int notNegative(String name, int value) {
        if (value < 0) {
            throw usage(name + " is " + value + ": it cannot be negative");
        }
        return value;
    }

    private static Category category(int status) {
        return Category.of(library().statusCategory(status));
    }

    private static String lastError(int status) {
        if (status == Status.TIMEOUT.code() || status == Status.CLOSED.code()) {
            return Status.of(status).label();
        }
        Memory text = new Memory(1024);
        library().lastError(text.address(), text.size());
        text.keep();
        return text.text(0);
    }

    // -- time -------------------------------------------------------------------------------------------------------

    /** A call that waits at most so many microseconds. */
    @FunctionalInterface
    interface Wait {
        int call(long microseconds);
    }

    /** Waits as long as is wanted, and ends when the thread is interrupted. */
    static int await(Duration timeout, Wait wait) throws InterruptedException {
        return await(timeout, Status.TIMEOUT, wait);
    }

    /**
     * The same for a call that also has another word for a wait that ended without what was waited for.
     *
     * @return the status; {@link Status#TIMEOUT} and {@code inVain} after the whole time alone
     */
    static int await(Duration timeout, Status inVain, Wait wait) throws InterruptedException {
        long begun = System.nanoTime();
        long whole = microseconds(timeout);
        while (true) {
            if (Thread.interrupted()) {
                throw new InterruptedException("interrupted while it waited for Sealcast");
            }
            long left = whole - (System.nanoTime() - begun) / 1000;
            int status = wait.call(Math.max(0, Math.min(left, SLICE)));
            boolean isInVain = status == Status.TIMEOUT.code() || status == inVain.code();
            if (!isInVain || left <= SLICE) {
                return status;
            }
        }
    }

    /** Nanoseconds of a duration, that may be added to System.nanoTime. */
    static long nanoseconds(Duration duration) {
        return Math.min(microseconds(duration), Long.MAX_VALUE / 4000) * 1000;
    }

    /** Microseconds of a duration; of one that no clock will see the end of, the most there are. */
    static long microseconds(Duration duration) {
        if (duration.isNegative()) {
            return 0;
        }
        long most = Long.MAX_VALUE / 2;
        return duration.getSeconds() >= most / 1_000_000
                ? most
                : duration.getSeconds() * 1_000_000 + duration.getNano() / 1000;
    }
}

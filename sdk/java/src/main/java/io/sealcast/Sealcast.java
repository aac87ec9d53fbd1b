package io.sealcast;

/** The library that this package stands on. */
public final class Sealcast {
    private Sealcast() {}

    /**
     * Version of libsealcast, which is loaded if it is not yet.
     *
     * @return such as {@code 0.1.0}
     * @throws UnsatisfiedLinkError if it cannot be loaded, or is not of this package's interface
     */
    public static String libraryVersion() {
        return Native.library().textAt(Native.library().version());
    }

    /**
     * The library's answer to a case of the known answers ({@code vectors/}), to be compared with what the file says: a
     * self-test of the library as it is installed.
     *
     * @param concept the name of a file without its ending, such as {@code varint}
     * @param question a CBOR map of the inputs of a case and of its group, with the file's names and values
     * @return a CBOR map of the results, in the same way
     * @throws SealcastException {@link Status#INVALID_ARGUMENT}: there is no such concept, or it is none of its cases
     */
    public static byte[] knownAnswer(String concept, byte[] question) {
        Memory name = Memory.ofText(concept);
        Memory asked = new Memory(question.length);
        asked.put(0, question);
        Memory length = new Memory(Long.BYTES);
        for (Memory answer = new Memory(4096); ; answer = new Memory(Math.toIntExact(length.getLong(0)))) {
            int status = Native.library()
                    .knownAnswer(
                            name.address(),
                            asked.address(),
                            question.length,
                            answer.address(),
                            answer.size(),
                            length.address());
            if (status == Status.BUFFER_TOO_SMALL.code()) {
                continue;
            }
            Native.check(status);
            name.keep();
            asked.keep();
            answer.keep();
            return answer.bytes(0, Math.toIntExact(length.getLong(0)));
        }
    }
}

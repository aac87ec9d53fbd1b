/** Loads the library, and prints its version. */
public final class Version {
    private Version() {}

    public static void main(String[] arguments) {
        System.out.println(io.sealcast.Sealcast.libraryVersion());
    }
}

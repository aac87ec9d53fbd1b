package io.sealcast;

import java.util.HexFormat;

/** How a site is named in options. */
final class SiteId {
    private static final int BYTES = 16;

    private SiteId() {}

    /** Reads 32 hexadecimal digits. */
    static byte[] parse(String text) {
        try {
            byte[] id = HexFormat.of().parseHex(text.replace("-", ""));
            if (id.length == BYTES) {
                return id;
            }
        } catch (IllegalArgumentException error) {
            // Told below.
        }
        throw Native.usage("site: \"" + text + "\" is no site id of 32 hexadecimal digits");
    }
}

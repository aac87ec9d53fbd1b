package io.sealcast;

import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** Has the library judge who answers at a peer's address, before a request leaves. */
final class PeerJudge implements PeerTls.Judge {
    private static final int BYTES_SIZE = 16;

    private final SessionCalls calls;
    /** Requests that are under way, all to one peer: any of them says who has to answer. */
    private final Set<Long> asked = ConcurrentHashMap.newKeySet();

    PeerJudge(SessionCalls calls) {
        this.calls = calls;
    }

    void begin(long id) {
        asked.add(id);
    }

    void end(long id) {
        asked.remove(id);
    }

    boolean isIdle() {
        return asked.isEmpty();
    }

    @Override
    public void judge(X509Certificate[] chain) throws CertificateException {
        Memory list = new Memory(BYTES_SIZE * chain.length);
        List<Memory> certificates = new ArrayList<>();
        for (X509Certificate certificate : chain) {
            byte[] encoded = certificate.getEncoded();
            Memory memory = new Memory(encoded.length);
            memory.put(0, encoded);
            int at = BYTES_SIZE * certificates.size();
            list.putLong(at, memory.address());
            list.putLong(at + Long.BYTES, encoded.length);
            certificates.add(memory);
        }
        for (long id : asked) {
            int status = calls.verifyServer(id, list.address(), chain.length);
            list.keep();
            certificates.forEach(Memory::keep);
            if (status == Status.OK.code()) {
                return;
            }
            // One that was answered meanwhile says nothing about this connection.
            if (status != Status.UNKNOWN_REQUEST.code()) {
                throw new CertificateException(Native.failure(status).getMessage());
            }
        }
        throw new CertificateException("no request to this peer is under way any more");
    }
}

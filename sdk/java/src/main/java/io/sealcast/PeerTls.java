package io.sealcast;

import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.KeyManagementException;
import java.security.SecureRandom;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLContextSpi;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocketFactory;
import javax.net.ssl.SSLSessionContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509ExtendedTrustManager;

/**
 * TLS 1.3 that shows the device and has each connection judged, the first as the hundredth.
 *
 * <p>Each connection begins with a context of its own: what has none of the sessions before it cannot resume one of
 * them, and a session that is resumed shows no certificates to judge.
 */
final class PeerTls extends SSLContextSpi {
    private static final String PROTOCOL = "TLSv1.3";

    /** Judges what the other side shows, by the library's rules. */
    @FunctionalInterface
    interface Judge {
        void judge(X509Certificate[] chain) throws CertificateException;
    }

    private final KeyManager[] keyManagers;
    private final TrustManager[] trustManagers;

    private PeerTls(DeviceCredentials credentials, Judge judge) {
        keyManagers = new KeyManager[] {credentials};
        trustManagers = new TrustManager[] {new Trust(judge)};
    }

    static SSLContext context(DeviceCredentials credentials, Judge judge) throws GeneralSecurityException {
        PeerTls spi = new PeerTls(credentials, judge);
        return new SSLContext(spi, spi.fresh().getProvider(), PROTOCOL) {};
    }

    static SSLParameters parameters() {
        SSLParameters parameters = new SSLParameters();
        parameters.setProtocols(new String[] {PROTOCOL});
        return parameters;
    }

    private SSLContext fresh() {
        try {
            SSLContext context = SSLContext.getInstance(PROTOCOL);
            context.init(keyManagers, trustManagers, null);
            return context;
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException("this JVM has no TLS 1.3", error);
        }
    }

    @Override
    protected SSLEngine engineCreateSSLEngine() {
        return fresh().createSSLEngine();
    }

    @Override
    protected SSLEngine engineCreateSSLEngine(String host, int port) {
        return fresh().createSSLEngine(host, port);
    }

    @Override
    protected SSLSocketFactory engineGetSocketFactory() {
        return fresh().getSocketFactory();
    }

    @Override
    protected SSLServerSocketFactory engineGetServerSocketFactory() {
        throw new UnsupportedOperationException("it is for clients");
    }

    @Override
    protected SSLSessionContext engineGetClientSessionContext() {
        return fresh().getClientSessionContext();
    }

    @Override
    protected SSLSessionContext engineGetServerSessionContext() {
        return fresh().getServerSessionContext();
    }

    @Override
    protected void engineInit(KeyManager[] keys, TrustManager[] trust, SecureRandom random)
            throws KeyManagementException {
        throw new KeyManagementException("it has been initialised");
    }

    /** An extended one, beside which the JDK checks neither names nor algorithms of its own. */
    private static final class Trust extends X509ExtendedTrustManager {
        private final Judge judge;

        Trust(Judge judge) {
            this.judge = judge;
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String type, SSLEngine engine)
                throws CertificateException {
            judge.judge(chain);
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String type, Socket socket)
                throws CertificateException {
            judge.judge(chain);
        }

        @Override
        public void checkServerTrusted(X509Certificate[] chain, String type) throws CertificateException {
            judge.judge(chain);
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String type, SSLEngine engine)
                throws CertificateException {
            throw new CertificateException("it is for clients");
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String type, Socket socket)
                throws CertificateException {
            throw new CertificateException("it is for clients");
        }

        @Override
        public void checkClientTrusted(X509Certificate[] chain, String type) throws CertificateException {
            throw new CertificateException("it is for clients");
        }

        @Override
        public X509Certificate[] getAcceptedIssuers() {
            return new X509Certificate[0];
        }
    }
}

using System;
using System.Runtime.InteropServices;
using System.Security.Cryptography.X509Certificates;

namespace Sealcast
{
    /// <summary>Makes the requests of subscribers and publishers, which are HTTPS by TLS 1.3.</summary>
    /// <remarks>
    /// There are two: the platform's HttpClient, and libcurl by the native libsealcast-curl. Mono's TLS ends at 1.2, and so
    /// does .NET's on macOS; there the second one is the default. A host may also make the requests itself.
    /// </remarks>
    public abstract class HttpsTransport
    {
        private static readonly Lazy<HttpsTransport> automatic = new Lazy<HttpsTransport>(Choose);

        internal HttpsTransport()
        {
        }

        /// <summary>What fits the platform.</summary>
        public static HttpsTransport Default => automatic.Value;

        /// <summary>HttpClient, with certificate and key of the device's folder.</summary>
        public static HttpsTransport HttpClient()
        {
            return new HttpClientTransport(null);
        }

        /// <summary>HttpClient, with a certificate whose key is elsewhere.</summary>
        /// <param name="certificate">
        /// Is called at the start and after each renewal; the certificate has its private key, as of a store or token.
        /// </param>
        public static HttpsTransport HttpClient(Func<IdentityInfo, X509Certificate2> certificate)
        {
            return new HttpClientTransport(certificate ?? throw new ArgumentNullException(nameof(certificate)));
        }

        /// <summary>libcurl on OpenSSL by libsealcast-curl, with certificate and key of the device's folder.</summary>
        public static HttpsTransport Curl()
        {
            return new CurlTransport(null);
        }

        /// <summary>The same with a key that is elsewhere.</summary>
        /// <param name="configure">
        /// Is called with each new SSL_CTX of OpenSSL, on any thread: loads certificate and key, and returns true.
        /// </param>
        public static HttpsTransport Curl(Func<IntPtr, bool> configure)
        {
            return new CurlTransport(configure ?? throw new ArgumentNullException(nameof(configure)));
        }

        /// <summary>Makes the requests of one end until what is returned is disposed of.</summary>
        internal abstract IDisposable Serve(Identity identity, ChannelEnd end);

        private static HttpsTransport Choose()
        {
            bool isMono = Type.GetType("Mono.Runtime") != null;
            return isMono || RuntimeInformation.IsOSPlatform(OSPlatform.OSX) ? Curl() : HttpClient();
        }
    }
}

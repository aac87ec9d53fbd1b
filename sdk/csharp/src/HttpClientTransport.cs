using System;
using System.Collections.Generic;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Threading;

namespace Sealcast
{
    /// <summary>The platform's HttpClient: a few threads, each with one connection.</summary>
    internal sealed unsafe class HttpClientTransport : HttpsTransport
    {
        // netstandard2.0 knows the value, but has no name for it.
        private const SslProtocols Tls13 = (SslProtocols)12288;
        private const int MaxAnswerBytes = 64 << 20;
        private static readonly TimeSpan Look = TimeSpan.FromMilliseconds(500);

        private readonly Func<IdentityInfo, X509Certificate2> certificate;

        internal HttpClientTransport(Func<IdentityInfo, X509Certificate2> certificate)
        {
            this.certificate = certificate;
        }

        internal override IDisposable Serve(Identity identity, ChannelEnd end)
        {
            if (identity.Handle.Signer != null && certificate == null)
            {
                throw new NotSupportedException("the device key is not in its folder: give TLS the key by " +
                    "HttpsTransport.HttpClient(certificate)");
            }
            return new Service(this, identity.Handle, end);
        }

        private sealed class Service : IDisposable
        {
            private readonly HttpClientTransport transport;
            private readonly IdentityHandle identity;
            private readonly ChannelEnd end;
            private readonly CancellationTokenSource stop = new CancellationTokenSource();
            private readonly List<Thread> threads = new List<Thread>();
            private readonly object loading = new object();
            private X509Certificate2 own;
            private ulong generation;

            internal Service(HttpClientTransport transport, IdentityHandle identity, ChannelEnd end)
            {
                this.transport = transport;
                this.identity = identity;
                this.end = end;
                // The identity may be closed meanwhile; what is served needs it for each renewal.
                bool isHeld = false;
                identity.DangerousAddRef(ref isHeld);
                for (int place = 0; place < end.Workers; place++)
                {
                    var thread = new Thread(Work) { IsBackground = true, Name = "sealcast https" };
                    threads.Add(thread);
                    thread.Start();
                }
            }

            public void Dispose()
            {
                lock (threads)
                {
                    if (threads.Count == 0)
                    {
                        return;
                    }
                    stop.Cancel();
                    foreach (Thread thread in threads)
                    {
                        thread.Join();
                    }
                    threads.Clear();
                    identity.DangerousRelease();
                }
            }

            private void Work()
            {
                Connection connection = null;
                try
                {
                    while (!stop.IsCancellationRequested)
                    {
                        Request request = end.NextRequest(Look);
                        if (request == null && end.RequestsEnded)
                        {
                            return;
                        }
                        if (request != null)
                        {
                            Answer(request, ref connection);
                        }
                    }
                }
                catch (Exception)
                {
                    // The end has been closed, or cannot be asked any more: its own calls say why. What nobody catches on a
                    // thread would end the process.
                }
                finally
                {
                    connection?.Dispose();
                }
            }

            private void Answer(Request request, ref Connection connection)
            {
                int status = 0;
                byte[] body = null;
                try
                {
                    if (connection == null || !connection.IsFor(request))
                    {
                        connection?.Dispose();
                        connection = null;
                        connection = new Connection(end, request, Own(request.IdentityGeneration));
                    }
                    body = connection.Perform(request, stop.Token, out status);
                    end.Nobody.Last = null;
                }
                catch (Exception error)
                {
                    // Whatever it is, of the network, TLS or a file that is just being replaced: nobody was reached. What is
                    // left of the connection must not be judged for another request.
                    string why = connection?.Refusal ?? error.GetBaseException().Message;
                    Uri url;
                    bool isUrl = Uri.TryCreate(request.Url, UriKind.Absolute, out url);
                    why = (isUrl ? url.Authority : request.Url) + ": " + why;
                    end.Nobody.Last = new HttpRequestException(why, error);
                    body = Encoding.UTF8.GetBytes(why);
                    connection?.Dispose();
                    connection = null;
                }
                try
                {
                    end.Respond(request.Id, status, body);
                }
                catch (SealcastException)
                {
                    // It has been answered meanwhile, and others are to be made.
                }
            }

            /// <summary>
            /// What all connections of a generation show. The one before is left to those that still do, and one that the
            /// host has made is the host's: none is disposed of here.
            /// </summary>
            private X509Certificate2 Own(ulong wanted)
            {
                lock (loading)
                {
                    if (own == null || generation != wanted)
                    {
                        IdentityInfo info = Identity.GetInfo(identity);
                        own = transport.certificate != null ? transport.certificate(info) : Read(info);
                        generation = wanted;
                    }
                    return own;
                }
            }

            private X509Certificate2 Read(IdentityInfo info)
            {
                List<byte[]> chain = Identity.GetAll(identity, Native.sealcast_identity_get_certificate);
                return Pkcs12.Load(chain, Pem.ReadPrivateKey(info.KeyFile));
            }
        }

        /// <summary>A client that leads to one peer, and shows one generation of the identity.</summary>
        private sealed class Connection : IDisposable
        {
            private readonly ChannelEnd end;
            private readonly string peer;
            private readonly ulong generation;
            private readonly HttpClient client;
            private ulong id;

            /// <summary>Why the other side was not believed.</summary>
            internal string Refusal { get; private set; }

            internal Connection(ChannelEnd end, Request request, X509Certificate2 own)
            {
                this.end = end;
                peer = request.Peer;
                generation = request.IdentityGeneration;
                var handler = new HttpClientHandler
                {
                    SslProtocols = Tls13,
                    ServerCertificateCustomValidationCallback = Judge,
                    CheckCertificateRevocationList = false,
                    ClientCertificateOptions = ClientCertificateOption.Manual,
                    AllowAutoRedirect = false,
                    UseCookies = false,
                    UseProxy = false,
                    MaxConnectionsPerServer = 1,
                };
                handler.ClientCertificates.Add(own);
                // The timeout is each request's own.
                client = new HttpClient(handler, true)
                {
                    Timeout = Timeout.InfiniteTimeSpan,
                    MaxResponseContentBufferSize = MaxAnswerBytes,
                };
            }

            internal bool IsFor(Request request)
            {
                return peer == request.Peer && generation == request.IdentityGeneration;
            }

            internal byte[] Perform(Request request, CancellationToken stop, out int status)
            {
                id = request.Id;
                using (var limit = CancellationTokenSource.CreateLinkedTokenSource(stop))
                using (var message = new HttpRequestMessage(new HttpMethod(request.Method), request.Url))
                {
                    limit.CancelAfter(request.Timeout);
                    message.Headers.ExpectContinue = false;
                    if (request.Body.Length > 0 || request.Method != "GET")
                    {
                        message.Content = new ByteArrayContent(request.Body);
                        if (request.ContentType.Length > 0)
                        {
                            message.Content.Headers.ContentType = new MediaTypeHeaderValue(request.ContentType);
                        }
                    }
                    using (HttpResponseMessage answer = client.SendAsync(message, limit.Token).GetAwaiter().GetResult())
                    {
                        byte[] body = answer.Content.ReadAsByteArrayAsync().GetAwaiter().GetResult();
                        status = (int)answer.StatusCode;
                        return body;
                    }
                }
            }

            public void Dispose()
            {
                client.Dispose();
            }

            /// <summary>
            /// The platform's own verdict counts for nothing: who the other side is, the library judges.
            /// </summary>
            private bool Judge(HttpRequestMessage message, X509Certificate2 shown, X509Chain chain, SslPolicyErrors errors)
            {
                if (shown == null)
                {
                    return false;
                }
                // What the other side has sent, as far as the platform tells; it also adds what it found itself, which is no
                // harm, as the library trusts the site's roots alone.
                var certificates = new List<byte[]> { shown.RawData };
                if (chain != null)
                {
                    foreach (X509Certificate2 one in chain.ChainPolicy.ExtraStore)
                    {
                        Add(certificates, one);
                    }
                    foreach (X509ChainElement one in chain.ChainElements)
                    {
                        Add(certificates, one.Certificate);
                    }
                }
                try
                {
                    end.VerifyServer(id, certificates);
                    return true;
                }
                catch (SealcastException error)
                {
                    Refusal = error.Message;
                    return false;
                }
                catch (ObjectDisposedException)
                {
                    return false;
                }
            }

            private static void Add(List<byte[]> certificates, X509Certificate2 one)
            {
                byte[] data = one.RawData;
                if (!certificates.Exists(known => known.SequenceEqual(data)))
                {
                    certificates.Add(data);
                }
            }
        }
    }
}

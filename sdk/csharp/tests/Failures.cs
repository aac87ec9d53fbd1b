// Fails in several ways, and prints what is said of each: failures FOLDER CHANNEL STRANGER
using System;
using System.IO;
using System.Net;
using System.Net.Sockets;
using System.Threading;
using System.Threading.Tasks;
using Sealcast;

internal static class Failures
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    private static int Main(string[] args)
    {
        // Each call below waits on a thread of the pool, and HttpClient needs others.
        ThreadPool.SetMinThreads(16, 16);
        string folder = args[0];
        string channel = args[1];
        using (Identity identity = Identity.Open(folder))
        using (Identity stranger = Identity.Open(args[2]))
        {
            var alone = new SubscriberOptions(channel)
            {
                KeysUrl = "https://127.0.0.1:1",
                Transport = HttpsTransport.HttpClient(),
            };
            // Mono's client, which this is run with, has no TLS 1.3.
            var old = new SubscriberOptions(channel) { Transport = HttpsTransport.HttpClient() };
            HttpsTransport curl = HttpsTransport.Curl(context => throw new IOException("the token is unplugged"));
            var unconfigured = new SubscriberOptions(channel) { Transport = curl };
            var aloneByCurl = new SubscriberOptions(channel)
            {
                KeysUrl = "https://127.0.0.1:1",
                Transport = HttpsTransport.Curl(),
            };
            var nowhere = new SubscriberOptions(channel)
            {
                KeysUrl = "https://127.0.0.1:99999",
                Transport = HttpsTransport.HttpClient(),
            };
            var unknown = new SubscriberOptions(channel) { Transport = HttpsTransport.Curl() };
            Parallel.Invoke(
                () => Tell("nobody listens to libcurl", () => Join(identity, aloneByCurl)),
                () => Tell("not admitted", () => Join(stranger, unknown)),
                () => Tell("nobody listens", () => Join(identity, alone)),
                () => Tell("no such port", () => Join(identity, nowhere)),
                () => Tell("answered before", () => AnswerFirst(identity, channel)),
                () => Tell("no TLS 1.3", () => Join(identity, old)),
                () => Tell("no SSL_CTX", () => Join(identity, unconfigured)));
            Tell("as many as there are", () => TakeAll(identity, new SubscriberOptions(channel) { Transport = null }));
        }
        bool isPlugged = false;
        Signer token = message => isPlugged ? new byte[64] : throw new IOException("the token is unplugged");
        using (Identity identity = Identity.Open(folder, token, Algorithm.EcdsaP256))
        {
            Tell("nobody signs", () => identity.Sign(new byte[1]));
            isPlugged = true;
            Tell("another key signs", () => identity.Sign(new byte[1]));
        }
        Tell("no identity", () => new Subscriber(null, channel).Dispose());
        Tell("no options", () => new Publisher(null, (PublisherOptions)null).Dispose());
        return 0;
    }

    private static void Join(Identity identity, SubscriberOptions options)
    {
        using (var subscriber = new Subscriber(identity, options))
        {
            subscriber.Join(Patience);
        }
    }

    private static void TakeAll(Identity identity, SubscriberOptions options)
    {
        using (var subscriber = new Subscriber(identity, options))
        {
            subscriber.RecvMany(TimeSpan.Zero, int.MaxValue);
        }
    }

    /// <summary>Each request is answered before its thread can do so: once more than there are threads.</summary>
    private static void AnswerFirst(Identity identity, string channel)
    {
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var options = new SubscriberOptions(channel)
        {
            KeysUrl = "https://" + listener.LocalEndpoint,
            Transport = HttpsTransport.HttpClient(),
        };
        using (var subscriber = new Subscriber(identity, options))
        {
            for (ulong id = 1; id <= 5; id++)
            {
                Task<TcpClient> asked = listener.AcceptTcpClientAsync();
                if (!asked.Wait(TimeSpan.FromSeconds(20)))
                {
                    throw new TimeoutException("request " + id + " is not made");
                }
                subscriber.Respond(id, 0, null);
                asked.Result.Dispose();
            }
        }
    }

    private static void Tell(string what, Action action)
    {
        try
        {
            action();
            Console.WriteLine(what + ": nothing fails");
        }
        catch (Exception error)
        {
            string status = error is SealcastException ? ((SealcastException)error).StatusName + ": " : "";
            for (; error != null; error = error.InnerException, status = "of ")
            {
                Console.WriteLine(what + ": " + status + error.GetType().Name + ": " + error.Message.Replace('\n', ' '));
            }
        }
    }
}

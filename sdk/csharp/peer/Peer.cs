// The peer of sdk/scenarios, in C# on the public interface alone.
using System;
using System.IO;
using System.Text;
using System.Threading;
using Sealcast;

internal static class Peer
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan Look = TimeSpan.FromMilliseconds(100);
    private static readonly UTF8Encoding Utf8 = new UTF8Encoding(false);
    private static readonly StreamWriter Output = new StreamWriter(Console.OpenStandardOutput(), Utf8);
    private static readonly StreamReader Input = new StreamReader(Console.OpenStandardInput(), Utf8);

    private static int Main(string[] args)
    {
        if (args.Length == 1 && args[0] == "vectors")
        {
            return AnswerVectors();
        }
        bool isPublish = args.Length >= 3 && args[0] == "publish";
        if (!isPublish && (args.Length < 3 || args[0] != "subscribe"))
        {
            Console.Error.WriteLine("usage: peer subscribe|publish FOLDER CHANNEL [--start WORD] [--listen ADDR:PORT] " +
                "[--send-to ADDR:PORT]\n       peer vectors");
            return 2;
        }
        try
        {
            using (Identity identity = Identity.Open(args[1]))
            {
                if (isPublish)
                {
                    Publish(identity, args);
                }
                else
                {
                    Subscribe(identity, args);
                }
            }
            return 0;
        }
        catch (SealcastException error)
        {
            Tell("error " + error.StatusName + " " + error.Message);
            return (int)error.Category;
        }
    }

    /// <summary>One line, whole and at once, whichever thread tells it.</summary>
    private static void Tell(string line)
    {
        lock (Output)
        {
            Output.Write(line + "\n");
            Output.Flush();
        }
    }

    private static void Tell(ChannelEvent told)
    {
        Tell("event " + Dashed(told.Kind.ToString()) + " " + told.First + " " + told.Last + " " + (told.Publisher ?? "-"));
    }

    /// <summary>StreamStarted is stream-started.</summary>
    private static string Dashed(string name)
    {
        var made = new StringBuilder();
        foreach (char letter in name)
        {
            if (char.IsUpper(letter) && made.Length > 0)
            {
                made.Append('-');
            }
            made.Append(char.ToLowerInvariant(letter));
        }
        return made.ToString();
    }

    private static string Option(string[] args, string name)
    {
        int place = Array.IndexOf(args, name, 3);
        return place < 0 || place + 1 == args.Length ? null : args[place + 1];
    }

    // -- subscribe ----------------------------------------------------------------------------------------------------

    private static void Subscribe(Identity identity, string[] args)
    {
        var options = new SubscriberOptions(args[2]) { Listen = Option(args, "--listen") };
        string start = Option(args, "--start");
        if (start != null)
        {
            options.Start = (StartFrom)Enum.Parse(typeof(StartFrom), start, true);
        }
        using (var subscriber = new Subscriber(identity, options))
        {
            subscriber.Join(Patience);
            Tell("joined");
            // It waits for a line that may never come, and must not keep the program.
            new Thread(() => WaitForLeave(subscriber)) { IsBackground = true }.Start();
            Receive(subscriber);
            Tell("rejected " + subscriber.Counters.RejectedSignature);
            Tell("left");
        }
    }

    private static void WaitForLeave(Subscriber subscriber)
    {
        string line;
        do
        {
            line = Input.ReadLine();
        }
        while (line != null && line != "leave");
        subscriber.Leave();
    }

    private static void Receive(Subscriber subscriber)
    {
        SealcastException refusal = null;
        while (!subscriber.IsEnded && refusal == null)
        {
            try
            {
                foreach (Message message in subscriber.RecvMany(Look))
                {
                    Tell("message " + message.Publisher + " " + (message.Topic ?? "-") + " " + message.Text);
                }
            }
            catch (SealcastException error)
            {
                // What happened before it is told first.
                refusal = error;
            }
            ChannelEvent told;
            while ((told = subscriber.NextEvent(TimeSpan.Zero)) != null)
            {
                Tell(told);
            }
        }
        if (refusal != null)
        {
            throw refusal;
        }
    }

    // -- vectors ------------------------------------------------------------------------------------------------------

    private static int AnswerVectors()
    {
        string line;
        while ((line = Input.ReadLine()) != null)
        {
            string[] words = line.Split(' ');
            var question = new byte[words[1].Length / 2];
            for (int place = 0; place < question.Length; place++)
            {
                question[place] = Convert.ToByte(words[1].Substring(2 * place, 2), 16);
            }
            try
            {
                byte[] answer = SelfTest.KnownAnswer(words[0], question);
                Tell("ok " + BitConverter.ToString(answer).Replace("-", "").ToLowerInvariant());
            }
            catch (SealcastException error)
            {
                Tell(error.StatusName + " " + error.Message);
            }
        }
        return 0;
    }

    // -- publish ------------------------------------------------------------------------------------------------------

    private static void Publish(Identity identity, string[] args)
    {
        var options = new PublisherOptions(args[2]) { SendTo = Option(args, "--send-to") };
        using (var publisher = new Publisher(identity, options))
        {
            publisher.Join(Patience);
            Tell("joined");
            var teller = new Thread(() => TellEvents(publisher));
            teller.Start();
            try
            {
                Obey(publisher);
            }
            finally
            {
                // Ends the teller's wait.
                publisher.Dispose();
                teller.Join();
            }
        }
    }

    private static void TellEvents(Publisher publisher)
    {
        try
        {
            ChannelEvent told;
            while ((told = publisher.NextEvent(Timeout.InfiniteTimeSpan)) != null)
            {
                Tell(told);
            }
        }
        catch (ObjectDisposedException)
        {
            // It was closed between two calls.
        }
    }

    private static void Obey(Publisher publisher)
    {
        int count = 0;
        string line;
        while ((line = Input.ReadLine()) != null && line != "exit")
        {
            if (line.StartsWith("send ", StringComparison.Ordinal))
            {
                string[] parts = line.Split(new[] { ' ' }, 3);
                if (parts.Length < 3)
                {
                    throw new SealcastException(Status.InvalidArgument, "write: send TOPIC TEXT");
                }
                publisher.Send(parts[2], parts[1] == "-" ? null : parts[1]);
                Tell("sent " + ++count);
            }
            else if (line == "finish")
            {
                publisher.Finish(Patience);
                Tell("finished");
            }
        }
    }
}

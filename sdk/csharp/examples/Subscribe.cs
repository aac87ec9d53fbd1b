// Receive from a channel: subscribe FOLDER CHANNEL [INTERFACE]
using System;
using Sealcast;

internal static class Subscribe
{
    private static int Main(string[] args)
    {
        if (args.Length < 2)
        {
            Console.Error.WriteLine("usage: subscribe FOLDER CHANNEL [INTERFACE]");
            return 2;
        }
        var options = new SubscriberOptions(args[1]) { Interface = args.Length > 2 ? args[2] : null };
        try
        {
            using (Identity identity = Identity.Open(args[0]))
            using (var subscriber = new Subscriber(identity, options))
            {
                subscriber.Join(TimeSpan.FromSeconds(10));
                // From now on Ctrl-C leaves, which alone ends the loop below.
                Interrupt.Call(subscriber.Leave);
                Console.Error.WriteLine("joined channel " + args[1]);
                while (!subscriber.IsEnded)
                {
                    foreach (Message message in subscriber.RecvMany(TimeSpan.FromMilliseconds(200)))
                    {
                        Console.WriteLine(message.Publisher + ": " + message.Text);
                    }
                    ChannelEvent told;
                    while ((told = subscriber.NextEvent(TimeSpan.Zero)) != null)
                    {
                        Console.Error.WriteLine(told.Text);
                    }
                }
            }
            return Interrupt.ExitCode;
        }
        catch (SealcastException error)
        {
            Console.Error.WriteLine(args[1] + ": " + error.StatusName + ": " + error.Message);
            return (int)error.Category;
        }
    }
}

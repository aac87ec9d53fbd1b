// Send each line of standard input to a channel: publish FOLDER CHANNEL [INTERFACE]
using System;
using System.Threading.Tasks;
using Sealcast;

internal static class Publish
{
    private static int Main(string[] args)
    {
        if (args.Length < 2)
        {
            Console.Error.WriteLine("usage: publish FOLDER CHANNEL [INTERFACE]");
            return 2;
        }
        var options = new PublisherOptions(args[1]) { Interface = args.Length > 2 ? args[2] : null };
        try
        {
            using (Identity identity = Identity.Open(args[0]))
            using (var publisher = new Publisher(identity, options))
            {
                publisher.Join(TimeSpan.FromSeconds(10));
                // Null ends the loop: the end of the input, or from now on Ctrl-C.
                var interrupted = new TaskCompletionSource<string>();
                Interrupt.Call(() => interrupted.TrySetResult(null));
                Console.Error.WriteLine("publishing on channel " + args[1]);
                string line;
                while ((line = Task.WhenAny(Task.Run(() => Console.ReadLine()), interrupted.Task).Result.Result) != null)
                {
                    publisher.Send(line);
                }
                publisher.Finish(TimeSpan.FromSeconds(10));
                return interrupted.Task.IsCompleted ? Interrupt.ExitCode : 0;
            }
        }
        catch (SealcastException error)
        {
            Console.Error.WriteLine(args[1] + ": " + error.StatusName + ": " + error.Message);
            return (int)error.Category;
        }
    }
}

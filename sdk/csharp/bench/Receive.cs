// The receiving end of `make bench`: receive FOLDER CHANNEL COUNT BYTES. Takes a first message, then COUNT of so many
// zero bytes each, checks them, and tells what it has seen as a line of JSON.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.Threading;
using Sealcast;

internal static class Receive
{
    private const int Batch = 512;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private static int Main(string[] args)
    {
        if (args.Length != 4)
        {
            Console.Error.WriteLine("usage: receive FOLDER CHANNEL COUNT BYTES");
            return 2;
        }
        using (Identity identity = Identity.Open(args[0]))
        using (var subscriber = new Subscriber(identity, args[1]))
        {
            subscriber.Join(Patience);
            Console.WriteLine("{\"ready\": true}");
            Take(subscriber, ulong.Parse(args[2]), int.Parse(args[3]));
            subscriber.Leave();
        }
        return 0;
    }

    private static void Take(Subscriber subscriber, ulong count, int bytes)
    {
        ulong next = subscriber.Recv(Timeout.InfiniteTimeSpan).MessageId + 1;
        Console.WriteLine("{\"heard\": true}");
        SubscriberCounters before = subscriber.Counters;
        TimeSpan cpu = Process.GetCurrentProcess().TotalProcessorTime;
        ulong received = 0, gone = 0, wrong = 0;
        long last = 0;
        while (received + gone < count)
        {
            IReadOnlyList<Message> messages = subscriber.RecvMany(Patience, Batch);
            if (messages.Count == 0)
            {
                throw new TimeoutException("nothing came for 10 s, " + received + " had come");
            }
            last = Stopwatch.GetTimestamp();
            foreach (Message message in messages)
            {
                wrong += message.MessageId != next || !AreZeros(message.Data, bytes) ? 1UL : 0;
                next = message.MessageId + 1;
            }
            received += (ulong)messages.Count;
            gone += Lost(subscriber);
        }
        cpu = Process.GetCurrentProcess().TotalProcessorTime - cpu;
        SubscriberCounters after = subscriber.Counters;
        Console.WriteLine(string.Format(
            CultureInfo.InvariantCulture,
            "{{\"last\": {0:F7}, \"received\": {1}, \"lost\": {2}, \"wrong\": {3}, \"cpu\": {4:F6}, " +
                "\"counters\": {{\"repaired\": {5}, \"dropped-by-kernel\": {6}}}}}",
            (double)last / Stopwatch.Frequency, received, gone, wrong, cpu.TotalSeconds,
            after.Repaired - before.Repaired, after.DroppedByKernel - before.DroppedByKernel));
    }

    private static bool AreZeros(byte[] data, int bytes)
    {
        if (data.Length != bytes)
        {
            return false;
        }
        foreach (byte value in data)
        {
            if (value != 0)
            {
                return false;
            }
        }
        return true;
    }

    private static ulong Lost(Subscriber subscriber)
    {
        ulong count = 0;
        ChannelEvent told;
        while ((told = subscriber.NextEvent(TimeSpan.Zero)) != null)
        {
            if (told.Kind == EventKind.Gap)
            {
                count += told.Last == ulong.MaxValue ? 1 : told.Last - told.First + 1;
            }
            else if (told.Kind == EventKind.MessageLost)
            {
                count++;
            }
        }
        return count;
    }
}

// What the examples do on Ctrl-C and kill, with a terminal and without one.
using System;
#if MONO
using System.Threading;
using Mono.Unix;
using Mono.Unix.Native;
#endif

internal static class Interrupt
{
    /// <summary>Of a program that ended so.</summary>
    internal const int ExitCode = 130;

    /// <summary>Has it called, once and on another thread, in place of the end of the process.</summary>
    internal static void Call(Action action)
    {
#if MONO
        // Mono's Console knows of Ctrl-C on a terminal alone.
        var signals = new[] { new UnixSignal(Signum.SIGINT), new UnixSignal(Signum.SIGTERM) };
        var thread = new Thread(() =>
        {
            UnixSignal.WaitAny(signals);
            action();
        });
        thread.IsBackground = true;
        thread.Start();
#else
        Console.CancelKeyPress += (sender, pressed) =>
        {
            pressed.Cancel = true;
            action();
        };
#endif
    }
}

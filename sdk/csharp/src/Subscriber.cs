using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Threading;

namespace Sealcast
{
    /// <summary>Receives from a channel.</summary>
    public sealed unsafe class Subscriber : ChannelEnd
    {
        private const int FirstBufferBytes = 1 << 20;
        private const int MaxMessages = 512;

        private ReceiveBuffer buffer = new ReceiveBuffer(FirstBufferBytes);
        private readonly Native.Message[] raw = new Native.Message[MaxMessages];
        private int isReceiving;

        /// <summary>Makes a subscriber with the defaults.</summary>
        public Subscriber(Identity identity, string channel) : this(identity, new SubscriberOptions(channel))
        {
        }

        /// <summary>Makes a subscriber; its requests are made from now on, by a few threads.</summary>
        public Subscriber(Identity identity, SubscriberOptions options) : this(identity, options, 0)
        {
        }

        /// <summary>As the other, where the host runs the clock: <paramref name="now"/> is its time.</summary>
        public Subscriber(Identity identity, SubscriberOptions options, ulong now)
            : base((options ?? throw new ArgumentNullException(nameof(options))).Make(identity, now), 65 << 10)
        {
            Serve(options.Transport, identity);
        }

        // One waits for news; joins, keys and repairs go beside it.
        internal override int Workers => 4;

        /// <summary>
        /// Waits for one message; null when none came in the time, or none will come: <see cref="ChannelEnd.IsEnded"/> tells.
        /// </summary>
        /// <exception cref="SealcastException">
        /// As <see cref="ChannelEnd.Join"/>, when the key server refuses the device from now on; whoever calls again waits for
        /// it to be admitted anew. With <see cref="Status.InUse"/> when another thread receives.
        /// </exception>
        public Message Recv(TimeSpan timeout)
        {
            IReadOnlyList<Message> messages = RecvMany(timeout, 1);
            return messages.Count == 0 ? null : messages[0];
        }

        /// <summary>
        /// Waits for messages, and returns those that are there, at most <paramref name="limit"/> and 512; as Recv.
        /// </summary>
        public IReadOnlyList<Message> RecvMany(TimeSpan timeout, int limit = 256)
        {
            if (limit < 1)
            {
                throw new ArgumentOutOfRangeException(nameof(limit), limit, "a limit is 1 or more");
            }
            ulong wait = Native.Microseconds(timeout);
            if (Interlocked.Exchange(ref isReceiving, 1) != 0)
            {
                throw new SealcastException(Status.InUse, "another thread is receiving: one at a time");
            }
            try
            {
                return Fill(wait, Math.Min(limit, MaxMessages));
            }
            finally
            {
                Volatile.Write(ref isReceiving, 0);
            }
        }

        /// <summary>All messages as they come, until the channel is left or the subscriber closed.</summary>
        public IEnumerable<Message> Messages()
        {
            while (!IsEnded)
            {
                foreach (Message message in RecvMany(Timeout.InfiniteTimeSpan))
                {
                    yield return message;
                }
            }
        }

        /// <summary>Leaves the channel; all waits end when the key server knows, or after two seconds.</summary>
        public void Leave()
        {
            SealcastException.Check(Native.sealcast_subscriber_leave(Handle));
        }

        /// <summary>What has been counted.</summary>
        public SubscriberCounters Counters
        {
            get
            {
                SubscriberCounters counters;
                SealcastException.Check(
                    Native.sealcast_subscriber_get_counters(Handle, &counters, (UIntPtr)sizeof(SubscriberCounters)));
                return counters;
            }
        }

        /// <summary>Gives datagrams that came from the group, where the host has the sockets.</summary>
        public void ReceiveDatagrams(IReadOnlyList<byte[]> datagrams, ulong now)
        {
            using (var pinned = new PinnedBytes(datagrams))
            {
                fixed (Native.Bytes* bytes = pinned.Bytes)
                {
                    SealcastException.Check(
                        Native.sealcast_subscriber_receive_datagrams(Handle, bytes, (UIntPtr)datagrams.Count, now));
                }
            }
        }

        private IReadOnlyList<Message> Fill(ulong wait, int limit)
        {
            UIntPtr count;
            Status status;
            fixed (Native.Message* messages = raw)
            {
                for (;;)
                {
                    status = Native.sealcast_subscriber_recv_many(Handle, wait, buffer.Place, (UIntPtr)buffer.Length,
                                                                  messages, (UIntPtr)sizeof(Native.Message),
                                                                  (UIntPtr)limit, &count);
                    if (status != Status.BufferTooSmall)
                    {
                        break;
                    }
                    // The message is there, and stays; its length was told.
                    var larger = new ReceiveBuffer(checked((int)messages->Length));
                    buffer.Dispose();
                    buffer = larger;
                    wait = 0;
                }
                if (!Came(status))
                {
                    return new Message[0];
                }
                var taken = new Message[(int)count];
                byte* named = null;
                string name = null;
                for (int place = 0; place < taken.Length; place++)
                {
                    // Messages of one stream that follow each other share the text.
                    if (messages[place].Publisher != named)
                    {
                        named = messages[place].Publisher;
                        name = Native.Text(named);
                    }
                    taken[place] = new Message(&messages[place], name);
                }
                // Until here the buffer is read, and nothing else tells the garbage collector so.
                GC.KeepAlive(this);
                return taken;
            }
        }

        internal override Status NativeJoin(ulong timeout)
        {
            return Native.sealcast_subscriber_join(Handle, timeout);
        }

        internal override Status NativeNextEvent(ulong timeout, Native.Event* found, UIntPtr size)
        {
            return Native.sealcast_subscriber_next_event(Handle, timeout, found, size);
        }

        internal override Status NativeNextRequest(ulong timeout, byte* place, UIntPtr capacity, Native.Request* request,
                                                   UIntPtr size)
        {
            return Native.sealcast_subscriber_next_request(Handle, timeout, place, capacity, request, size);
        }

        internal override Status NativeVerifyServer(ulong id, Native.Bytes* chain, UIntPtr count)
        {
            return Native.sealcast_subscriber_verify_server(Handle, id, chain, count);
        }

        internal override Status NativeRespond(ulong id, int status, Native.Bytes body)
        {
            return Native.sealcast_subscriber_respond(Handle, id, status, body);
        }

        internal override Status NativeHandleDeadline(ulong now, ulong* deadline)
        {
            return Native.sealcast_subscriber_handle_deadline(Handle, now, deadline);
        }

        /// <summary>
        /// Unmanaged, so that it need not be pinned while a call waits. Only whoever receives replaces it; it goes with the
        /// subscriber, not with Dispose(), which may come from another thread during a call.
        /// </summary>
        private sealed class ReceiveBuffer : IDisposable
        {
            private IntPtr memory;

            internal ReceiveBuffer(int length)
            {
                memory = Marshal.AllocHGlobal(length);
                Length = length;
            }

            ~ReceiveBuffer()
            {
                Dispose();
            }

            internal int Length { get; }

            internal byte* Place => (byte*)memory;

            public void Dispose()
            {
                Marshal.FreeHGlobal(memory);
                memory = IntPtr.Zero;
                GC.SuppressFinalize(this);
            }
        }
    }
}

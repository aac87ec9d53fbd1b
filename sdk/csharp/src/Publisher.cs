using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Text;
using System.Threading;

namespace Sealcast
{
    /// <summary>Sends to a channel.</summary>
    public sealed unsafe class Publisher : ChannelEnd
    {
        private const int MaxDatagram = 9000;

        private readonly byte[] datagram = new byte[MaxDatagram];

        /// <summary>Makes a publisher with the defaults.</summary>
        public Publisher(Identity identity, string channel) : this(identity, new PublisherOptions(channel))
        {
        }

        /// <summary>Makes a publisher; its requests are made from now on, by a few threads.</summary>
        public Publisher(Identity identity, PublisherOptions options) : this(identity, options, 0)
        {
        }

        /// <summary>As the other, where the host runs the clock: <paramref name="now"/> is its time.</summary>
        public Publisher(Identity identity, PublisherOptions options, ulong now)
            : base((options ?? throw new ArgumentNullException(nameof(options))).Make(identity, now), 1025 << 10)
        {
            Serve(options.Transport, identity);
        }

        // One waits at each of up to eight repair nodes as well.
        internal override int Workers => 12;

        /// <summary>Queues a message, and waits for room without end where the queue is full.</summary>
        /// <param name="message">Is copied.</param>
        /// <param name="topic">Up to 255 bytes; null for none.</param>
        /// <exception cref="SealcastException">
        /// With <see cref="Status.TooLong"/>, <see cref="Status.Closed"/>, <see cref="Status.Exhausted"/>, and as
        /// <see cref="ChannelEnd.Join"/> when the key server refuses the device.
        /// </exception>
        public void Send(byte[] message, string topic = null)
        {
            Send(message, topic, Timeout.InfiniteTimeSpan);
        }

        /// <summary>Queues a text in UTF-8.</summary>
        public void Send(string message, string topic = null)
        {
            Send(Encoding.UTF8.GetBytes(message), topic);
        }

        /// <summary>
        /// As the other; fails with <see cref="Status.QueueFull"/> where there was no room in the time.
        /// </summary>
        public void Send(byte[] message, string topic, TimeSpan timeout)
        {
            Native.Microseconds(timeout);
            Stopwatch watch = null;
            while (!TrySend(message, topic))
            {
                watch = watch ?? Stopwatch.StartNew();
                TimeSpan left = timeout;
                if (timeout != Timeout.InfiniteTimeSpan && timeout != TimeSpan.MaxValue)
                {
                    left = timeout - watch.Elapsed;
                    if (left <= TimeSpan.Zero)
                    {
                        throw new SealcastException(Status.QueueFull, "the queue was full for " + timeout);
                    }
                }
                WaitRoom(left);
            }
        }

        /// <summary>Queues a message; false where the queue is full.</summary>
        public bool TrySend(byte[] message, string topic = null)
        {
            if (message == null)
            {
                throw new ArgumentNullException(nameof(message));
            }
            Status status;
            fixed (byte* data = message, name = Native.Utf8(topic, nameof(topic)))
            {
                var bytes = new Native.Bytes { Data = data, Length = (UIntPtr)message.Length };
                status = Native.sealcast_publisher_send(Handle, bytes, name);
            }
            if (status == Status.QueueFull)
            {
                return false;
            }
            Check(status);
            return true;
        }

        /// <summary>Queues messages in order until the queue is full; returns how many were taken.</summary>
        public int SendMany(IReadOnlyList<byte[]> messages, string topic = null)
        {
            using (var pinned = new PinnedBytes(messages))
            {
                UIntPtr taken;
                fixed (Native.Bytes* bytes = pinned.Bytes)
                fixed (byte* name = Native.Utf8(topic, nameof(topic)))
                {
                    Check(Native.sealcast_publisher_send_many(Handle, bytes, (UIntPtr)messages.Count, name, &taken));
                }
                return (int)taken;
            }
        }

        /// <summary>Waits until half of the queue is free; false where it is not in the time.</summary>
        public bool WaitRoom(TimeSpan timeout)
        {
            Status status = Native.sealcast_publisher_wait_room(Handle, Native.Microseconds(timeout));
            if (status == Status.Timeout)
            {
                return false;
            }
            Check(status);
            return true;
        }

        /// <summary>
        /// Sends what is queued and says the end of the stream. Keep the publisher for as long as subscribers are to be
        /// mended, then close it.
        /// </summary>
        /// <exception cref="SealcastException">With <see cref="Status.Incomplete"/>: nobody could be told.</exception>
        public void Finish(TimeSpan timeout)
        {
            Check(Native.sealcast_publisher_finish(Handle, Native.Microseconds(timeout)));
        }

        /// <summary>The stream's id.</summary>
        public StreamId Stream
        {
            get
            {
                byte* bytes = stackalloc byte[16];
                SealcastException.Check(Native.sealcast_publisher_get_stream(Handle, bytes));
                return new StreamId(bytes);
            }
        }

        /// <summary>What has been counted.</summary>
        public PublisherCounters Counters
        {
            get
            {
                PublisherCounters counters;
                SealcastException.Check(
                    Native.sealcast_publisher_get_counters(Handle, &counters, (UIntPtr)sizeof(PublisherCounters)));
                return counters;
            }
        }

        /// <summary>One datagram for the group, where the host has the sockets; null: there is none now.</summary>
        public byte[] PollDatagram(ulong now)
        {
            lock (datagram)
            {
                fixed (byte* place = datagram)
                {
                    UIntPtr length;
                    Status status =
                        Native.sealcast_publisher_poll_datagram(Handle, now, place, (UIntPtr)datagram.Length, &length);
                    return Came(status) ? Native.Copy(place, length) : null;
                }
            }
        }

        internal override Status NativeJoin(ulong timeout)
        {
            return Native.sealcast_publisher_join(Handle, timeout);
        }

        internal override Status NativeNextEvent(ulong timeout, Native.Event* found, UIntPtr size)
        {
            return Native.sealcast_publisher_next_event(Handle, timeout, found, size);
        }

        internal override Status NativeNextRequest(ulong timeout, byte* place, UIntPtr capacity, Native.Request* request,
                                                   UIntPtr size)
        {
            return Native.sealcast_publisher_next_request(Handle, timeout, place, capacity, request, size);
        }

        internal override Status NativeVerifyServer(ulong id, Native.Bytes* chain, UIntPtr count)
        {
            return Native.sealcast_publisher_verify_server(Handle, id, chain, count);
        }

        internal override Status NativeRespond(ulong id, int status, Native.Bytes body)
        {
            return Native.sealcast_publisher_respond(Handle, id, status, body);
        }

        internal override Status NativeHandleDeadline(ulong now, ulong* deadline)
        {
            return Native.sealcast_publisher_handle_deadline(Handle, now, deadline);
        }
    }
}

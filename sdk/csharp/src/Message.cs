using System;
using System.Text;

namespace Sealcast
{
    /// <summary>16 bytes that name a stream or a site.</summary>
    public struct StreamId : IEquatable<StreamId>
    {
        private readonly ulong high;
        private readonly ulong low;

        internal unsafe StreamId(byte* bytes)
        {
            high = low = 0;
            for (int place = 0; place < 8; place++)
            {
                high = high << 8 | bytes[place];
                low = low << 8 | bytes[place + 8];
            }
        }

        /// <summary>From 16 bytes.</summary>
        public StreamId(byte[] bytes)
        {
            if (bytes == null || bytes.Length != 16)
            {
                throw new ArgumentException("an id has 16 bytes", nameof(bytes));
            }
            high = low = 0;
            for (int place = 0; place < 8; place++)
            {
                high = high << 8 | bytes[place];
                low = low << 8 | bytes[place + 8];
            }
        }

        /// <summary>The 16 bytes.</summary>
        public byte[] ToBytes()
        {
            var bytes = new byte[16];
            for (int place = 0; place < 8; place++)
            {
                bytes[place] = (byte)(high >> (56 - 8 * place));
                bytes[place + 8] = (byte)(low >> (56 - 8 * place));
            }
            return bytes;
        }

        /// <inheritdoc/>
        public bool Equals(StreamId other)
        {
            return high == other.high && low == other.low;
        }

        /// <inheritdoc/>
        public override bool Equals(object other)
        {
            return other is StreamId && Equals((StreamId)other);
        }

        /// <inheritdoc/>
        public override int GetHashCode()
        {
            return (high ^ low).GetHashCode();
        }

        /// <summary>32 hexadecimal digits.</summary>
        public override string ToString()
        {
            return high.ToString("x16") + low.ToString("x16");
        }
    }

    /// <summary>A verified message.</summary>
    public sealed class Message
    {
        /// <param name="raw">Of the library.</param>
        /// <param name="publisher">The text that it points to, which many messages share.</param>
        internal unsafe Message(Native.Message* raw, string publisher)
        {
            Data = Native.Copy(raw->Data, raw->Length);
            Topic = Native.Text(raw->Topic);
            Publisher = publisher;
            Stream = new StreamId(raw->Stream);
            Sequence = raw->Sequence;
            MessageId = raw->MessageId;
            Time = Native.Date(raw->Time);
        }

        /// <summary>What was sent.</summary>
        public byte[] Data { get; }
        /// <summary>The same, read as UTF-8.</summary>
        public string Text => Encoding.UTF8.GetString(Data);
        /// <summary>Null where there is none.</summary>
        public string Topic { get; }
        /// <summary>As the policy writes it: its name, or "&lt;site id&gt;:&lt;name&gt;" of another site.</summary>
        public string Publisher { get; }
        /// <summary>The publisher's stream.</summary>
        public StreamId Stream { get; }
        /// <summary>Of the packet that completed it.</summary>
        public ulong Sequence { get; }
        /// <summary>Its number in the stream.</summary>
        public ulong MessageId { get; }
        /// <summary>When it was sealed, UTC.</summary>
        public DateTime Time { get; }
    }

    /// <summary>What an event is about. Pass over those that you do not know.</summary>
    public enum EventKind
    {
        /// <summary>The key server took the device in.</summary>
        Joined = 1,
        /// <summary>
        /// The packets First to Last of a stream are lost, for good; Last is the largest number where its publisher
        /// is gone.
        /// </summary>
        Gap = 2,
        /// <summary>The message First will not be delivered, though its packets came or were told of.</summary>
        MessageLost = 3,
        /// <summary>A publisher began a stream.</summary>
        StreamStarted = 4,
        /// <summary>It ended as its publisher wished; First: the sequence behind its last packet.</summary>
        StreamEnded = 5,
        /// <summary>A running stream is not accepted any more.</summary>
        StreamClosed = 6,
        /// <summary>Two signed words for the packet First of a stream: an alarm.</summary>
        Equivocation = 7,
        /// <summary>A second successor of a stream: an alarm.</summary>
        SuccessionConflict = 8,
        /// <summary>Packets are sealed under other keys.</summary>
        EpochChanged = 9,
        /// <summary>A secret is not what the key server signed for: an alarm.</summary>
        CommitmentMismatch = 10,
        /// <summary>First: its version.</summary>
        PolicyChanged = 11,
        /// <summary>The key server refuses the device.</summary>
        Refused = 12,
        /// <summary>No word of the key server since First, in microseconds since 1970.</summary>
        OutOfContact = 13,
        /// <summary>A source of repair did not give what it should hold.</summary>
        SourcePassedOver = 14,
        /// <summary>A publisher cannot seal just now.</summary>
        Blocked = 15,
    }

    /// <summary>One fact besides messages.</summary>
    public sealed class ChannelEvent
    {
        internal unsafe ChannelEvent(Native.Event* raw)
        {
            Kind = (EventKind)raw->Kind;
            Stream = new StreamId(raw->Stream);
            First = raw->First;
            Last = raw->Last;
            string publisher = Native.Text(raw->Publisher);
            Publisher = publisher.Length == 0 ? null : publisher;
            Text = Native.Text(raw->Text);
        }

        /// <summary>What it is about.</summary>
        public EventKind Kind { get; }
        /// <summary>Whose stream it is; null where it is about none.</summary>
        public string Publisher { get; }
        /// <summary>The stream.</summary>
        public StreamId Stream { get; }
        /// <summary>What the number means depends on the kind.</summary>
        public ulong First { get; }
        /// <summary>What the number means depends on the kind.</summary>
        public ulong Last { get; }
        /// <summary>One line for a person.</summary>
        public string Text { get; }
    }
}

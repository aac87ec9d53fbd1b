using System.Runtime.InteropServices;

namespace Sealcast
{
    /// <summary>What a subscriber has counted since it was made.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct SubscriberCounters
    {
        /// <summary>Packets that were taken.</summary>
        public ulong Accepted;
        /// <summary>Of these, by repair.</summary>
        public ulong Repaired;
        /// <summary>Of these, made from parity.</summary>
        public ulong Rebuilt;
        /// <summary>Packets that are lost for good.</summary>
        public ulong Lost;
        /// <summary>Packets that were refused, whatever the reason.</summary>
        public ulong Rejected;
        /// <summary>Of these, whose signature is not their publisher's.</summary>
        public ulong RejectedSignature;
        /// <summary>Datagrams that the socket received.</summary>
        public ulong Datagrams;
        /// <summary>Datagrams that the system dropped because nobody took them.</summary>
        public ulong DroppedByKernel;
        /// <summary>Events that nobody took.</summary>
        public ulong DroppedEvents;
        /// <summary>Streams that run.</summary>
        public ulong Streams;
    }

    /// <summary>What a publisher has counted since it was made.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct PublisherCounters
    {
        /// <summary>Messages that were taken.</summary>
        public ulong Messages;
        /// <summary>Of these, dropped by a hasty end.</summary>
        public ulong Abandoned;
        /// <summary>Packets.</summary>
        public ulong Packets;
        /// <summary>Of these, parity.</summary>
        public ulong Parity;
        /// <summary>Signatures.</summary>
        public ulong Blocks;
        /// <summary>Bytes of all packets.</summary>
        public ulong Bytes;
        /// <summary>Repairs that were served.</summary>
        public ulong RepairsServed;
        /// <summary>Bytes of messages that wait.</summary>
        public ulong QueuedBytes;
        /// <summary>Thousandths of the policy's rate that are used now.</summary>
        public ulong Pace;
        /// <summary>Sends that the system refused; their packets come back by repair.</summary>
        public ulong SendErrors;
        /// <summary>Events that nobody took.</summary>
        public ulong DroppedEvents;
    }
}

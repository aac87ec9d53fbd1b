using System;

namespace Sealcast
{
    /// <summary>
    /// What became of a call: the numbers of sealcast.h. A later library may have others; go by the category then.
    /// </summary>
    public enum Status
    {
        /// <summary>Done.</summary>
        Ok = 0,
        /// <summary>Nothing came in the time that was given.</summary>
        Timeout = 1,
        /// <summary>It has ended: nothing will come any more.</summary>
        Closed = 2,
        /// <summary>Something that must be there is not.</summary>
        NullArgument = 10,
        /// <summary>It has been closed.</summary>
        InvalidHandle = 11,
        /// <summary>Library and assembly do not belong together.</summary>
        WrongSize = 12,
        /// <summary>A value is out of its range.</summary>
        InvalidArgument = 13,
        /// <summary>A string is no UTF-8.</summary>
        InvalidText = 14,
        /// <summary>A buffer is too small.</summary>
        BufferTooSmall = 15,
        /// <summary>Another thread is in a call that only one may be in.</summary>
        InUse = 16,
        /// <summary>A callback must not call the library.</summary>
        Reentrant = 17,
        /// <summary>The queue of messages is full.</summary>
        QueueFull = 19,
        /// <summary>The message or topic is too long.</summary>
        TooLong = 20,
        /// <summary>There is no such request.</summary>
        UnknownRequest = 21,
        /// <summary>The stream has used up its numbers.</summary>
        Exhausted = 22,
        /// <summary>The network interface or address cannot be used.</summary>
        Interface = 30,
        /// <summary>The folder holds no device.</summary>
        NoDevice = 40,
        /// <summary>The certificate is refused, of this device or of another side.</summary>
        Certificate = 50,
        /// <summary>The device has been removed from its site.</summary>
        Revoked = 51,
        /// <summary>The device key did not sign.</summary>
        Signing = 52,
        /// <summary>The policy does not let the device do this.</summary>
        NotAllowed = 60,
        /// <summary>The site has no such channel.</summary>
        UnknownChannel = 61,
        /// <summary>Nobody answers.</summary>
        Unreachable = 71,
        /// <summary>A file or folder cannot be read or written, or is damaged.</summary>
        Storage = 80,
        /// <summary>Not everything could be done, as an end that nobody could be told.</summary>
        Incomplete = 90,
        /// <summary>A fault of the library.</summary>
        Internal = 100,
    }

    /// <summary>What a caller can do about a failure; also the exit codes of Sealcast's command line.</summary>
    public enum Category
    {
        /// <summary>No error.</summary>
        None = 0,
        /// <summary>A fault of the library.</summary>
        Internal = 1,
        /// <summary>The caller's.</summary>
        Usage = 2,
        /// <summary>Configuration, interface.</summary>
        Configuration = 3,
        /// <summary>Enrolment.</summary>
        Enrolment = 4,
        /// <summary>Certificate, trust.</summary>
        Certificate = 5,
        /// <summary>The channel is unknown or not allowed.</summary>
        Channel = 6,
        /// <summary>Network, unreachable.</summary>
        Network = 7,
        /// <summary>Storage.</summary>
        Storage = 8,
        /// <summary>Incomplete.</summary>
        Incomplete = 9,
    }

    /// <summary>The algorithm of a device key.</summary>
    public enum Algorithm
    {
        /// <summary>ECDSA on P-256 with SHA-256; signatures in DER.</summary>
        EcdsaP256 = 1,
        /// <summary>Ed25519; signatures of 64 bytes.</summary>
        Ed25519 = 2,
        /// <summary>ECDSA on P-384 with SHA-384; signatures in DER.</summary>
        EcdsaP384 = 3,
    }

    /// <summary>In what order messages come, and whether they wait for what is lost.</summary>
    public enum Delivery
    {
        /// <summary>All of them, in order.</summary>
        Reliable = 0,
        /// <summary>In order; what is not there in time is passed over.</summary>
        Realtime = 1,
        /// <summary>All of them, as they come.</summary>
        Unordered = 2,
    }

    /// <summary>From where on streams that run already are delivered.</summary>
    public enum StartFrom
    {
        /// <summary>From now on.</summary>
        Now = 0,
        /// <summary>The last value of each topic first, where publishers retain them.</summary>
        Last = 1,
        /// <summary>From the beginning, as far as publishers retain it and this device was a member.</summary>
        Start = 2,
    }

    /// <summary>Which parity goes with the packets.</summary>
    public enum Fec
    {
        /// <summary>What the channel's policy says.</summary>
        Policy = 0,
        /// <summary>None.</summary>
        Off = 1,
        /// <summary>As much as subscribers' losses ask for.</summary>
        Adaptive = 2,
        /// <summary>So many packets after so many of data.</summary>
        Fixed = 3,
    }

    /// <summary>A call that failed. The message is one line with the value and the cure, without secrets.</summary>
    public sealed class SealcastException : Exception
    {
        /// <summary>Makes one with its own words.</summary>
        public SealcastException(Status status, string message) : this(status, message, null)
        {
        }

        /// <summary>The same with what it comes of.</summary>
        public SealcastException(Status status, string message, Exception cause) : base(message, cause)
        {
            Status = status;
        }

        /// <summary>What happened.</summary>
        public Status Status { get; }

        /// <summary>What a caller can do about it.</summary>
        public Category Category => Native.sealcast_status_category((int)Status);

        /// <summary>The status as the command line and other languages write it, such as "not-allowed".</summary>
        public string StatusName => Native.StatusName(Status);

        /// <summary>Of a call that this thread made just now: takes what the library says about it.</summary>
        internal static SealcastException Last(Status status)
        {
            return new SealcastException(status, Native.LastError(status));
        }

        internal static void Check(Status status)
        {
            if (status != Status.Ok)
            {
                throw Last(status);
            }
        }

        /// <summary>The same of a call that may have had a signer sign.</summary>
        internal static void Check(Status status, Handle handle)
        {
            Exception cause = handle.Signer?.Failure;
            if (status == Status.Signing && cause != null)
            {
                throw new SealcastException(status, "the device key did not sign: " + cause.Message, cause);
            }
            Check(status);
        }
    }
}

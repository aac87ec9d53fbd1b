using System;
using System.Collections.Concurrent;
using System.Collections.Generic;

namespace Sealcast
{
    /// <summary>A request that is to be made, for a host with an HTTPS client of its own.</summary>
    public sealed class Request
    {
        internal unsafe Request(Native.Request* raw)
        {
            Id = raw->Id;
            Method = Native.Text(raw->Method);
            Url = Native.Text(raw->Url);
            Peer = Native.Text(raw->Peer);
            ContentType = Native.Text(raw->ContentType);
            Body = Native.Copy(raw->Body, raw->BodyLength);
            Timeout = TimeSpan.FromTicks((long)raw->Timeout * 10);
            IdentityGeneration = raw->IdentityGeneration;
        }

        /// <summary>To be given back with the answer.</summary>
        public ulong Id { get; }
        /// <summary>"GET", "POST" or "PUT".</summary>
        public string Method { get; }
        /// <summary>"https://host:port/path".</summary>
        public string Url { get; }
        /// <summary>
        /// Who has to answer. A connection may be kept for requests with the same host, port and peer alone.
        /// </summary>
        public string Peer { get; }
        /// <summary>Of the body, or empty.</summary>
        public string ContentType { get; }
        /// <summary>The body, or empty.</summary>
        public byte[] Body { get; }
        /// <summary>After which the host gives up.</summary>
        public TimeSpan Timeout { get; }
        /// <summary>Another one than before means another certificate, and new connections.</summary>
        public ulong IdentityGeneration { get; }
    }

    /// <summary>What subscribers and publishers have in common. Any method may be called from any thread.</summary>
    public abstract unsafe class ChannelEnd : IDisposable
    {
        /// <summary>How many requests of this kind of end are under way at once.</summary>
        internal abstract int Workers { get; }

        private readonly ConcurrentBag<byte[]> requestBuffers = new ConcurrentBag<byte[]>();
        private readonly int requestBytes;
        private readonly EndHandle handle;
        private volatile bool isDisposed;
        private IDisposable service;

        internal ChannelEnd(EndHandle handle, int requestBytes)
        {
            this.handle = handle;
            this.requestBytes = requestBytes;
        }

        /// <summary>Why the last request got no answer, for who waits to join; none: it got one.</summary>
        internal Failure Nobody { get; } = new Failure();

        internal EndHandle Handle => isDisposed ? throw new ObjectDisposedException(GetType().Name) : handle;

        internal void Serve(HttpsTransport transport, Identity identity)
        {
            try
            {
                service = transport?.Serve(identity, this);
            }
            catch
            {
                Dispose();
                throw;
            }
        }

        /// <summary>
        /// True once it has been closed, or left and its last message taken: nothing will come any more.
        /// </summary>
        public bool IsEnded { get; private protected set; }

        /// <summary>True once there is nothing to ask any more, for a host with an HTTPS client of its own.</summary>
        public bool RequestsEnded { get; private set; }

        /// <summary>Waits until the key server has taken the device in.</summary>
        /// <exception cref="SealcastException">
        /// With <see cref="Status.Unreachable"/> and why nobody answered in time, as far as it is known; with
        /// <see cref="Status.NotAllowed"/>, <see cref="Status.UnknownChannel"/>, <see cref="Status.Revoked"/>,
        /// <see cref="Status.Certificate"/>, <see cref="Status.Signing"/> or <see cref="Status.Interface"/>.
        /// </exception>
        public void Join(TimeSpan timeout)
        {
            Status status = NativeJoin(Native.Microseconds(timeout));
            if (status == Status.Unreachable)
            {
                Exception why = Nobody.Last;
                string text = Native.LastError(status);
                if (why != null && !text.Contains(why.Message))
                {
                    text += ": " + why.Message;
                }
                throw new SealcastException(status, text, why);
            }
            Check(status);
        }

        /// <summary>
        /// Waits for the next event; null when none came in the time, or none will come. A subscriber's come in their order
        /// among messages, once the messages before were taken.
        /// </summary>
        public ChannelEvent NextEvent(TimeSpan timeout)
        {
            Native.Event raw;
            Status status = NativeNextEvent(Native.Microseconds(timeout), &raw, (UIntPtr)sizeof(Native.Event));
            // Messages may be left where events are not.
            return status != Status.Closed && Came(status) ? new ChannelEvent(&raw) : null;
        }

        /// <summary>
        /// Waits for the next request that the host is to make, where it has no <see cref="ChannelOptions.Transport"/>; null
        /// when none came in the time, or none will come: <see cref="RequestsEnded"/> tells. Keep several going at once: one
        /// of them waits for news.
        /// </summary>
        public Request NextRequest(TimeSpan timeout)
        {
            byte[] buffer;
            if (!requestBuffers.TryTake(out buffer))
            {
                buffer = new byte[requestBytes];
            }
            try
            {
                Native.Request raw;
                fixed (byte* place = buffer)
                {
                    Status status = NativeNextRequest(Native.Microseconds(timeout), place, (UIntPtr)buffer.Length, &raw,
                                                      (UIntPtr)sizeof(Native.Request));
                    RequestsEnded |= status == Status.Closed;
                    return status != Status.Closed && Came(status) ? new Request(&raw) : null;
                }
            }
            finally
            {
                requestBuffers.Add(buffer);
            }
        }

        /// <summary>Judges who has answered the connection for a request: before a byte of it is sent.</summary>
        /// <param name="id">Of the request.</param>
        /// <param name="chain">DER, as the other side has shown it, its own certificate first.</param>
        /// <exception cref="SealcastException">
        /// With <see cref="Status.Certificate"/>: end the connection, and answer the request with 0.
        /// </exception>
        public void VerifyServer(ulong id, IReadOnlyList<byte[]> chain)
        {
            using (var pinned = new PinnedBytes(chain))
            {
                fixed (Native.Bytes* bytes = pinned.Bytes)
                {
                    SealcastException.Check(NativeVerifyServer(id, bytes, (UIntPtr)chain.Count));
                }
            }
        }

        /// <summary>Gives the answer to a request.</summary>
        /// <param name="id">Of the request.</param>
        /// <param name="httpStatus">0 where nobody could be reached, or was believed.</param>
        /// <param name="body">Of the answer, or where nobody could be reached why, as text; null for none.</param>
        public void Respond(ulong id, int httpStatus, byte[] body)
        {
            fixed (byte* data = body)
            {
                var bytes = new Native.Bytes { Data = data, Length = (UIntPtr)(body == null ? 0 : body.Length) };
                SealcastException.Check(NativeRespond(id, httpStatus, bytes));
            }
        }

        /// <summary>Microseconds by a clock that is never set, for hosts that run the clock.</summary>
        public static ulong Now => Native.sealcast_now();

        /// <summary>Does what is due, where the host runs the clock; returns when the next thing is.</summary>
        public ulong HandleDeadline(ulong now)
        {
            ulong deadline;
            SealcastException.Check(NativeHandleDeadline(now, &deadline));
            return deadline;
        }

        /// <summary>Closes it: whoever waits in a call is woken, and requests end.</summary>
        public void Dispose()
        {
            IsEnded = true;
            RequestsEnded = true;
            isDisposed = true;
            handle.FreeNow();
            service?.Dispose();
        }

        /// <summary>Whether something came; a time that is over and an end are no errors.</summary>
        internal bool Came(Status status)
        {
            if (status == Status.Closed)
            {
                IsEnded = true;
            }
            if (status == Status.Timeout || status == Status.Closed)
            {
                return false;
            }
            if (status == Status.InvalidHandle && isDisposed)
            {
                throw new ObjectDisposedException(GetType().Name);
            }
            Check(status);
            return true;
        }

        /// <summary>Throws unless it is done; on the thread whose call it was.</summary>
        internal void Check(Status status)
        {
            SealcastException.Check(status, handle);
        }

        internal abstract Status NativeJoin(ulong timeout);
        internal abstract Status NativeNextEvent(ulong timeout, Native.Event* found, UIntPtr size);
        internal abstract Status NativeNextRequest(ulong timeout, byte* buffer, UIntPtr capacity, Native.Request* request,
                                                   UIntPtr size);
        internal abstract Status NativeVerifyServer(ulong id, Native.Bytes* chain, UIntPtr count);
        internal abstract Status NativeRespond(ulong id, int status, Native.Bytes body);
        internal abstract Status NativeHandleDeadline(ulong now, ulong* deadline);
    }
}

using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace Sealcast
{
    /// <summary>
    /// A handle of the library: a number that it looks up, so that one that was freed is told and does no harm.
    /// </summary>
    internal abstract class Handle : SafeHandle
    {
        private readonly SignerRoot signer;

        protected Handle(IntPtr value, SignerRoot signer) : base(IntPtr.Zero, true)
        {
            this.signer = signer;
            signer?.Hold();
            SetHandle(value);
        }

        public override bool IsInvalid => handle == IntPtr.Zero;

        internal SignerRoot Signer => signer;

        protected sealed override bool ReleaseHandle()
        {
            Free();
            signer?.Release();
            return true;
        }

        /// <summary>
        /// Has the library free it now, which wakes whoever waits in a call; without this the runtime would wait for the
        /// calls under way before it frees anything. What the runtime frees later is a number that the library has
        /// forgotten.
        /// </summary>
        internal void FreeNow()
        {
            Free();
            Dispose();
        }

        protected abstract void Free();
    }

    internal sealed class IdentityHandle : Handle
    {
        internal IdentityHandle(IntPtr value, SignerRoot signer) : base(value, signer)
        {
        }

        protected override void Free()
        {
            Native.sealcast_identity_free(handle);
        }
    }

    /// <summary>A subscriber or publisher.</summary>
    internal abstract class EndHandle : Handle
    {
        protected EndHandle(IntPtr value, SignerRoot signer) : base(value, signer)
        {
        }
    }

    internal sealed class SubscriberHandle : EndHandle
    {
        internal SubscriberHandle(IntPtr value, SignerRoot signer) : base(value, signer)
        {
        }

        protected override void Free()
        {
            Native.sealcast_subscriber_free(handle);
        }
    }

    internal sealed class PublisherHandle : EndHandle
    {
        internal PublisherHandle(IntPtr value, SignerRoot signer) : base(value, signer)
        {
        }

        protected override void Free()
        {
            Native.sealcast_publisher_free(handle);
        }
    }

    /// <summary>
    /// Keeps a callback from the garbage collector for as long as native code may call it. Handles hold it by count: when
    /// they are finalized, in no order, there is nothing else that they could rely on.
    /// </summary>
    internal sealed class SignerRoot
    {
        private readonly GCHandle root;
        private readonly Failure failure;
        private int holders;

        internal SignerRoot(Delegate callback, Failure failure)
        {
            root = GCHandle.Alloc(callback);
            this.failure = failure;
        }

        /// <summary>What the callback threw last; null: nothing.</summary>
        internal Exception Failure => failure.Last;

        internal void Hold()
        {
            Interlocked.Increment(ref holders);
        }

        internal void Release()
        {
            if (Interlocked.Decrement(ref holders) == 0)
            {
                root.Free();
            }
        }
    }

    /// <summary>What has gone wrong last where no exception may pass, for whoever waits for it.</summary>
    internal sealed class Failure
    {
        private volatile Exception last;

        internal Exception Last { get => last; set => last = value; }
    }
}

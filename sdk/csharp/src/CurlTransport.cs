using System;
using System.Runtime.InteropServices;

namespace Sealcast
{
    /// <summary>sealcast_curl.h: native threads, each with one connection.</summary>
    internal sealed unsafe class CurlTransport : HttpsTransport
    {
        private readonly Func<IntPtr, bool> configure;

        internal CurlTransport(Func<IntPtr, bool> configure)
        {
            this.configure = configure;
        }

        internal override IDisposable Serve(Identity identity, ChannelEnd end)
        {
            if (identity.Handle.Signer != null && configure == null)
            {
                throw new NotSupportedException("the device key is not in its folder: give TLS the key by " +
                    "HttpsTransport.Curl(configure)");
            }
            var options = new Native.CurlOptions
            {
                Size = (UIntPtr)sizeof(Native.CurlOptions),
                Threads = (uint)end.Workers,
            };
            SignerRoot root = null;
            if (configure != null)
            {
                // Not the end itself, which goes when nobody holds it any more.
                Failure nobody = end.Nobody;
                Native.ConfigureCallback callback = (context, sslContext) => Configure(sslContext, nobody);
                root = new SignerRoot(callback, nobody);
                root.Hold();
                options.Configure = Marshal.GetFunctionPointerForDelegate(callback);
            }
            var curl = new CurlHandle(root);
            try
            {
                IntPtr made;
                Status status = end is Publisher
                    ? Native.sealcast_curl_serve_publisher(identity.Handle, end.Handle, &options, &made)
                    : Native.sealcast_curl_serve_subscriber(identity.Handle, end.Handle, &options, &made);
                if (status != Status.Ok)
                {
                    var text = new byte[1024];
                    fixed (byte* place = text)
                    {
                        Native.sealcast_curl_last_error(place, (UIntPtr)text.Length);
                        throw new SealcastException(status, "HTTPS by libcurl does not start: " + Native.Text(place));
                    }
                }
                curl.Take(made, identity.Handle, end.Handle.Signer);
                return curl;
            }
            catch (DllNotFoundException error)
            {
                root?.Release();
                throw new DllNotFoundException("libsealcast-curl is not found: build it of sdk/c/src/sealcast_curl.c, " +
                    "and put it beside the program or on LD_LIBRARY_PATH", error);
            }
            catch
            {
                root?.Release();
                throw;
            }
        }

        private int Configure(IntPtr sslContext, Failure nobody)
        {
            // No exception may pass through native code.
            try
            {
                bool isDone = configure(sslContext);
                nobody.Last = isDone ? null : new InvalidOperationException("the SSL_CTX was not configured");
                return isDone ? 0 : 1;
            }
            catch (Exception error)
            {
                nobody.Last = error;
                return 1;
            }
        }

        /// <summary>
        /// The threads. They show the identity, and may be signing: it and the callbacks end after them.
        /// </summary>
        private sealed class CurlHandle : SafeHandle
        {
            private readonly SignerRoot configure;
            private IdentityHandle identity;
            private SignerRoot signer;

            internal CurlHandle(SignerRoot configure) : base(IntPtr.Zero, true)
            {
                this.configure = configure;
            }

            public override bool IsInvalid => handle == IntPtr.Zero;

            internal void Take(IntPtr made, IdentityHandle shown, SignerRoot signs)
            {
                bool isHeld = false;
                shown.DangerousAddRef(ref isHeld);
                identity = shown;
                signer = signs;
                signer?.Hold();
                SetHandle(made);
            }

            protected override bool ReleaseHandle()
            {
                if (Native.sealcast_curl_free(handle) == Status.Reentrant)
                {
                    // Its own callback asks: it goes on, with all that it calls.
                    return false;
                }
                identity.DangerousRelease();
                signer?.Release();
                configure?.Release();
                return true;
            }
        }
    }
}

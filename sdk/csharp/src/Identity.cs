using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Sealcast
{
    /// <summary>Signs with a device key that is in no file.</summary>
    /// <remarks>
    /// It is called on any thread, also of native code, and must not call Sealcast. What it throws fails the call that asked
    /// for the signature with <see cref="Status.Signing"/>, and is its <see cref="Exception.InnerException"/>. ECDSA
    /// signatures are in DER, not the 64 bytes of <c>ECDsa.SignData</c>. It is kept alive for as long as the identity or
    /// anything that was made from it is.
    /// </remarks>
    public delegate byte[] Signer(byte[] message);

    /// <summary>What a device is called, and what an HTTPS client of its own needs.</summary>
    public sealed class IdentityInfo
    {
        internal unsafe IdentityInfo(Native.IdentityInfo* raw)
        {
            Name = Native.Text(raw->Name);
            SiteId = new StreamId(raw->SiteId);
            KeysUrl = Native.Text(raw->KeysUrl);
            CertificateFile = Native.Text(raw->CertificateFile);
            KeyFile = Native.Text(raw->KeyFile);
            Generation = raw->Generation;
        }

        /// <summary>Name of the device.</summary>
        public string Name { get; }
        /// <summary>Its site.</summary>
        public StreamId SiteId { get; }
        /// <summary>The site's key server, "https://host:port".</summary>
        public string KeysUrl { get; }
        /// <summary>The device's certificate and its issuers, PEM.</summary>
        public string CertificateFile { get; }
        /// <summary>The device's key, PKCS#8 in PEM; it may be absent where a <see cref="Signer"/> signs.</summary>
        public string KeyFile { get; }
        /// <summary>Changes with every renewal: an HTTPS client begins anew with the files that are named then.</summary>
        public ulong Generation { get; }
    }

    /// <summary>
    /// A device: the folder that <c>sealcast device enroll</c> made. What is made from it goes on without it.
    /// </summary>
    public sealed unsafe class Identity : IDisposable
    {
        private readonly IdentityHandle handle;
        private volatile bool isDisposed;

        private Identity(IdentityHandle handle)
        {
            this.handle = handle;
        }

        internal IdentityHandle Handle => isDisposed ? throw new ObjectDisposedException(nameof(Identity)) : handle;

        /// <summary>Version of the library, such as "0.1.0".</summary>
        public static string LibraryVersion => Native.Text(Native.sealcast_version());

        /// <summary>Opens a folder; the key in it signs.</summary>
        /// <exception cref="SealcastException">
        /// With <see cref="Status.NoDevice"/> or <see cref="Status.Storage"/>; with <see cref="Status.Signing"/> where the
        /// folder has no key, or another one than its certificate's.
        /// </exception>
        public static Identity Open(string folder)
        {
            return Open(folder, null, 0);
        }

        /// <summary>
        /// Opens a folder whose key is elsewhere. HTTPS needs it too: see <see cref="HttpsTransport"/>.
        /// </summary>
        public static Identity Open(string folder, Signer signer, Algorithm algorithm)
        {
            if (folder == null)
            {
                throw new ArgumentNullException(nameof(folder));
            }
            if (Native.sealcast_abi_version() != Native.AbiVersion)
            {
                throw new SealcastException(Status.WrongSize, "libsealcast has interface " + Native.sealcast_abi_version() +
                    ", Sealcast.dll " + Native.AbiVersion + ": take both from one release");
            }
            var options = new Native.IdentityOptions { Size = (UIntPtr)sizeof(Native.IdentityOptions) };
            SignerRoot root = null;
            if (signer != null)
            {
                var failure = new Failure();
                Native.SignCallback callback = (context, message, length, signature, signatureLength) =>
                    CallSigner(signer, failure, message, length, signature, signatureLength);
                root = new SignerRoot(callback, failure);
                options.Sign = Marshal.GetFunctionPointerForDelegate(callback);
                options.Algorithm = (int)algorithm;
            }
            root?.Hold();
            try
            {
                IntPtr made;
                fixed (byte* path = Native.Utf8(folder, nameof(folder)))
                {
                    SealcastException.Check(Native.sealcast_identity_open(path, &options, &made));
                }
                return new Identity(new IdentityHandle(made, root));
            }
            finally
            {
                root?.Release();
            }
        }

        /// <summary>What the folder holds now.</summary>
        public IdentityInfo Info => GetInfo(Handle);

        internal static IdentityInfo GetInfo(IdentityHandle handle)
        {
            Native.IdentityInfo info;
            SealcastException.Check(Native.sealcast_identity_get_info(handle, &info, (UIntPtr)sizeof(Native.IdentityInfo)));
            return new IdentityInfo(&info);
        }

        /// <summary>The device's chain in DER, its own certificate first.</summary>
        public IReadOnlyList<byte[]> Certificates => GetAll(Handle, Native.sealcast_identity_get_certificate);

        /// <summary>The roots and site CAs in DER, for a TLS client that wants to build paths.</summary>
        public IReadOnlyList<byte[]> Authorities => GetAll(Handle, Native.sealcast_identity_get_authority);

        /// <summary>Signs with the device key.</summary>
        public byte[] Sign(byte[] message)
        {
            if (message == null)
            {
                throw new ArgumentNullException(nameof(message));
            }
            var buffer = new byte[256];
            UIntPtr length;
            fixed (byte* data = message, place = buffer)
            {
                var bytes = new Native.Bytes { Data = data, Length = (UIntPtr)message.Length };
                SealcastException.Check(
                    Native.sealcast_identity_sign(Handle, bytes, place, (UIntPtr)buffer.Length, &length), handle);
            }
            Array.Resize(ref buffer, (int)length);
            return buffer;
        }

        /// <summary>Closes it. Subscribers and publishers that were made from it go on.</summary>
        public void Dispose()
        {
            isDisposed = true;
            // Not FreeNow(): the HTTPS of those may hold it for longer.
            handle.Dispose();
        }

        internal delegate Status Getter(IdentityHandle identity, UIntPtr index, byte* buffer, UIntPtr capacity,
                                        UIntPtr* length);

        internal static List<byte[]> GetAll(IdentityHandle handle, Getter get)
        {
            var found = new List<byte[]>();
            var buffer = new byte[8192];
            for (;;)
            {
                UIntPtr length;
                Status status;
                fixed (byte* place = buffer)
                {
                    status = get(handle, (UIntPtr)found.Count, place, (UIntPtr)buffer.Length, &length);
                }
                if (status == Status.Closed)
                {
                    return found;
                }
                if (status == Status.BufferTooSmall && (int)length > buffer.Length)
                {
                    buffer = new byte[(int)length];
                    continue;
                }
                SealcastException.Check(status);
                var one = new byte[(int)length];
                Array.Copy(buffer, one, one.Length);
                found.Add(one);
            }
        }

        private static int CallSigner(Signer signer, Failure failure, byte* message, UIntPtr length, byte* signature,
                                      UIntPtr* signatureLength)
        {
            // No exception may pass through native code.
            try
            {
                byte[] made = signer(Native.Copy(message, length));
                if (made == null || (ulong)made.Length > (ulong)*signatureLength)
                {
                    throw new InvalidOperationException(made == null ? "the signer returned null"
                        : "a signature of " + made.Length + " bytes is too long");
                }
                Marshal.Copy(made, 0, (IntPtr)signature, made.Length);
                *signatureLength = (UIntPtr)made.Length;
                failure.Last = null;
                return 0;
            }
            catch (Exception error)
            {
                failure.Last = error;
                return 1;
            }
        }
    }
}

using System;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

namespace Sealcast
{
    /// <summary>sealcast.h and sealcast_curl.h, as they are. Structs have the layout that they have there.</summary>
    internal static unsafe class Native
    {
        internal const uint AbiVersion = 1;
        internal const ulong Forever = ulong.MaxValue;
        private const string Library = "sealcast";
        private const string CurlLibrary = "sealcast-curl";

        [StructLayout(LayoutKind.Sequential)]
        internal struct Bytes
        {
            internal byte* Data;
            internal UIntPtr Length;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct IdentityOptions
        {
            internal UIntPtr Size;
            internal IntPtr Sign;
            internal IntPtr SignContext;
            internal int Algorithm;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct IdentityInfo
        {
            internal fixed byte Name[64];
            internal fixed byte SiteId[16];
            internal fixed byte KeysUrl[512];
            internal fixed byte CertificateFile[4096];
            internal fixed byte KeyFile[4096];
            internal ulong Generation;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct PublisherOptions
        {
            internal UIntPtr Size;
            internal byte* Channel;
            internal fixed byte SiteId[16];
            internal byte* KeysUrl;
            internal byte* Interface;
            internal byte* SendTo;
            internal byte* Instance;
            internal uint Mtu;
            internal uint MaxBlock;
            internal uint Ttl;
            internal uint Dscp;
            internal int Fec;
            internal uint FecSources;
            internal uint FecParities;
            internal uint RetainTopics;
            internal ulong RetainBytes;
            internal ulong MaxMessageBytes;
            internal ulong QueueBytes;
            internal int AdaptiveRate;
            internal int HostSockets;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct SubscriberOptions
        {
            internal UIntPtr Size;
            internal byte* Channel;
            internal fixed byte SiteId[16];
            internal byte* KeysUrl;
            internal byte* Interface;
            internal byte* Listen;
            internal byte* Source;
            internal int Delivery;
            internal int Start;
            internal ulong Deadline;
            internal ulong MaxMessageBytes;
            internal ulong BufferBytes;
            internal ulong SocketBufferBytes;
            internal int SideChannel;
            internal int HostSockets;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Request
        {
            internal ulong Id;
            internal byte* Method;
            internal byte* Url;
            internal byte* Peer;
            internal byte* ContentType;
            internal byte* Body;
            internal UIntPtr BodyLength;
            internal ulong Timeout;
            internal ulong IdentityGeneration;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Event
        {
            internal int Kind;
            internal fixed byte Stream[16];
            internal ulong First;
            internal ulong Last;
            internal fixed byte Publisher[128];
            internal fixed byte Text[256];
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Message
        {
            internal byte* Data;
            internal UIntPtr Length;
            internal byte* Topic;
            internal byte* Publisher;
            internal fixed byte Stream[16];
            internal ulong Sequence;
            internal ulong MessageId;
            internal ulong Time;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct CurlOptions
        {
            internal UIntPtr Size;
            internal uint Threads;
            internal IntPtr Configure;
            internal IntPtr ConfigureContext;
        }

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int SignCallback(IntPtr context, byte* message, UIntPtr messageLength, byte* signature,
                                           UIntPtr* signatureLength);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int ConfigureCallback(IntPtr context, IntPtr sslContext);

        // -- the library ------------------------------------------------------------------------------------------------

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern uint sealcast_abi_version();
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern byte* sealcast_version();
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern ulong sealcast_now();
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern byte* sealcast_status_name(int status);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Category sealcast_status_category(int status);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        private static extern UIntPtr sealcast_last_error(byte* buffer, UIntPtr capacity);

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_known_answer(byte* concept, Bytes question, byte* buffer, UIntPtr capacity,
                                                            UIntPtr* length);

        // -- identities -------------------------------------------------------------------------------------------------

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_identity_open(byte* folder, IdentityOptions* options, IntPtr* identity);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_identity_free(IntPtr identity);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_identity_get_info(IdentityHandle identity, IdentityInfo* info, UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_identity_get_certificate(IdentityHandle identity, UIntPtr index, byte* buffer,
                                                                        UIntPtr capacity, UIntPtr* length);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_identity_get_authority(IdentityHandle identity, UIntPtr index, byte* buffer,
                                                                      UIntPtr capacity, UIntPtr* length);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_identity_sign(IdentityHandle identity, Bytes message, byte* buffer,
                                                             UIntPtr capacity, UIntPtr* length);

        // -- subscribers ------------------------------------------------------------------------------------------------

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_options_init(SubscriberOptions* options, UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_new(IdentityHandle identity, SubscriberOptions* options, ulong now,
                                                              IntPtr* subscriber);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_free(IntPtr subscriber);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_join(EndHandle subscriber, ulong timeout);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_next_request(EndHandle subscriber, ulong timeout, byte* buffer,
                                                                       UIntPtr capacity, Request* request, UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_verify_server(EndHandle subscriber, ulong id, Bytes* chain,
                                                                        UIntPtr count);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_respond(EndHandle subscriber, ulong id, int status, Bytes body);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_recv_many(EndHandle subscriber, ulong timeout, byte* buffer,
                                                                    UIntPtr capacity, Message* messages, UIntPtr size,
                                                                    UIntPtr limit, UIntPtr* count);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_next_event(EndHandle subscriber, ulong timeout, Event* found,
                                                                     UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_get_counters(EndHandle subscriber, SubscriberCounters* counters,
                                                                       UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_leave(EndHandle subscriber);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_receive_datagrams(EndHandle subscriber, Bytes* datagrams,
                                                                            UIntPtr count, ulong now);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_subscriber_handle_deadline(EndHandle subscriber, ulong now, ulong* deadline);

        // -- publishers -------------------------------------------------------------------------------------------------

        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_options_init(PublisherOptions* options, UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_new(IdentityHandle identity, PublisherOptions* options, ulong now,
                                                             IntPtr* publisher);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_free(IntPtr publisher);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_join(EndHandle publisher, ulong timeout);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_next_request(EndHandle publisher, ulong timeout, byte* buffer,
                                                                      UIntPtr capacity, Request* request, UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_verify_server(EndHandle publisher, ulong id, Bytes* chain,
                                                                       UIntPtr count);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_respond(EndHandle publisher, ulong id, int status, Bytes body);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_send(EndHandle publisher, Bytes message, byte* topic);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_send_many(EndHandle publisher, Bytes* messages, UIntPtr count,
                                                                   byte* topic, UIntPtr* taken);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_wait_room(EndHandle publisher, ulong timeout);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_finish(EndHandle publisher, ulong timeout);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_get_stream(EndHandle publisher, byte* stream);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_next_event(EndHandle publisher, ulong timeout, Event* found,
                                                                    UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_get_counters(EndHandle publisher, PublisherCounters* counters,
                                                                      UIntPtr size);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_poll_datagram(EndHandle publisher, ulong now, byte* buffer,
                                                                       UIntPtr capacity, UIntPtr* length);
        [DllImport(Library, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_publisher_handle_deadline(EndHandle publisher, ulong now, ulong* deadline);

        // -- HTTPS by libcurl -------------------------------------------------------------------------------------------

        [DllImport(CurlLibrary, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_curl_serve_subscriber(IdentityHandle identity, EndHandle subscriber,
                                                                     CurlOptions* options, IntPtr* curl);
        [DllImport(CurlLibrary, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_curl_serve_publisher(IdentityHandle identity, EndHandle publisher,
                                                                    CurlOptions* options, IntPtr* curl);
        [DllImport(CurlLibrary, CallingConvention = CallingConvention.Cdecl)]
        internal static extern Status sealcast_curl_free(IntPtr curl);
        [DllImport(CurlLibrary, CallingConvention = CallingConvention.Cdecl)]
        internal static extern UIntPtr sealcast_curl_last_error(byte* buffer, UIntPtr capacity);

        // -- what C and C# say differently ------------------------------------------------------------------------------

        /// <summary>NUL-terminated UTF-8; null stays null.</summary>
        internal static string Text(byte* text)
        {
            if (text == null)
            {
                return null;
            }
            int length = 0;
            while (text[length] != 0)
            {
                length++;
            }
            return Encoding.UTF8.GetString(text, length);
        }

        /// <summary>With its NUL; null stays null, which `fixed` makes NULL.</summary>
        internal static byte[] Utf8(string text, string name)
        {
            if (text == null)
            {
                return null;
            }
            if (text.IndexOf('\0') >= 0)
            {
                throw new ArgumentException(name + " has a NUL in it", name);
            }
            var bytes = new byte[Encoding.UTF8.GetByteCount(text) + 1];
            Encoding.UTF8.GetBytes(text, 0, text.Length, bytes, 0);
            return bytes;
        }

        internal static string StatusName(Status status)
        {
            return Text(sealcast_status_name((int)status)) ?? "unknown";
        }

        internal static string LastError(Status status)
        {
            // Of what is no error the library says nothing, and has still the words of the failure before.
            if (sealcast_status_category((int)status) == Category.None)
            {
                return status == Status.Timeout ? "nothing came in the time that was given"
                    : "it has ended, and takes and gives nothing more";
            }
            var buffer = new byte[1024];
            fixed (byte* place = buffer)
            {
                sealcast_last_error(place, (UIntPtr)buffer.Length);
                return Text(place);
            }
        }

        internal static ulong Microseconds(TimeSpan timeout)
        {
            if (timeout == Timeout.InfiniteTimeSpan || timeout == TimeSpan.MaxValue)
            {
                return Forever;
            }
            if (timeout < TimeSpan.Zero)
            {
                throw new ArgumentOutOfRangeException(nameof(timeout), timeout, "a timeout is not below zero");
            }
            return (ulong)timeout.Ticks / 10;
        }

        internal static DateTime Date(ulong microseconds)
        {
            return new DateTime(1970, 1, 1, 0, 0, 0, DateTimeKind.Utc).AddTicks((long)microseconds * 10);
        }

        internal static byte[] Copy(byte* data, UIntPtr length)
        {
            var bytes = new byte[checked((int)length)];
            if (bytes.Length > 0)
            {
                Marshal.Copy((IntPtr)data, bytes, 0, bytes.Length);
            }
            return bytes;
        }
    }
}

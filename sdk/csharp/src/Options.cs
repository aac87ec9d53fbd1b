using System;

namespace Sealcast
{
    /// <summary>
    /// What subscribers and publishers are told alike. Null leaves it to the policy, or to the device's site.
    /// </summary>
    public abstract class ChannelOptions
    {
        /// <param name="channel">Name of the channel.</param>
        protected ChannelOptions(string channel)
        {
            Channel = channel ?? throw new ArgumentNullException(nameof(channel));
        }

        /// <summary>Name of the channel.</summary>
        public string Channel { get; }
        /// <summary>The channel's site; null: the device's own.</summary>
        public StreamId? SiteId { get; set; }
        /// <summary>That site's key server, "https://host:port"; null: that of the device's own.</summary>
        public string KeysUrl { get; set; }
        /// <summary>Name or address of the network interface; null: the policy's.</summary>
        public string Interface { get; set; }
        /// <summary>Makes the requests; null: the host does, with NextRequest, VerifyServer and Respond.</summary>
        public HttpsTransport Transport { get; set; } = HttpsTransport.Default;
        /// <summary>The host has sockets and clock of its own; give the clock's first value to the constructor.</summary>
        public bool HostSockets { get; set; }
    }

    /// <summary>How a subscriber receives.</summary>
    public sealed unsafe class SubscriberOptions : ChannelOptions
    {
        /// <summary>The defaults for a channel.</summary>
        public SubscriberOptions(string channel) : base(channel)
        {
            Native.SubscriberOptions values;
            SealcastException.Check(
                Native.sealcast_subscriber_options_init(&values, (UIntPtr)sizeof(Native.SubscriberOptions)));
            Delivery = (Delivery)values.Delivery;
            Start = (StartFrom)values.Start;
            Deadline = TimeSpan.FromTicks((long)values.Deadline * 10);
            MaxMessageBytes = values.MaxMessageBytes;
            BufferBytes = values.BufferBytes;
            SocketBufferBytes = values.SocketBufferBytes;
            SideChannel = values.SideChannel != 0;
        }

        /// <summary>"ADDR:PORT" to receive on in place of the policy's group.</summary>
        public string Listen { get; set; }
        /// <summary>The only host that is listened to (source-specific multicast); null: any.</summary>
        public string Source { get; set; }
        /// <summary>In what order messages come.</summary>
        public Delivery Delivery { get; set; }
        /// <summary>
        /// With <see cref="Delivery.Realtime"/> alone: what is not there so long after it was sent is passed over.
        /// </summary>
        public TimeSpan Deadline { get; set; }
        /// <summary>From where on streams that run already are delivered.</summary>
        public StartFrom Start { get; set; }
        /// <summary>The longest message that is taken.</summary>
        public ulong MaxMessageBytes { get; set; }
        /// <summary>What may wait to be taken.</summary>
        public ulong BufferBytes { get; set; }
        /// <summary>Bytes of the socket's receive buffer.</summary>
        public ulong SocketBufferBytes { get; set; }
        /// <summary>No multicast; everything comes by requests.</summary>
        public bool SideChannel { get; set; }

        internal SubscriberHandle Make(Identity identity, ulong now)
        {
            if (identity == null)
            {
                throw new ArgumentNullException(nameof(identity));
            }
            var raw = new Native.SubscriberOptions
            {
                Size = (UIntPtr)sizeof(Native.SubscriberOptions),
                Delivery = (int)Delivery,
                Start = (int)Start,
                Deadline = Native.Microseconds(Deadline),
                MaxMessageBytes = MaxMessageBytes,
                BufferBytes = BufferBytes,
                SocketBufferBytes = SocketBufferBytes,
                SideChannel = SideChannel ? 1 : 0,
                HostSockets = HostSockets ? 1 : 0,
            };
            IntPtr made;
            fixed (byte* channel = Native.Utf8(Channel, nameof(Channel)), keys = Native.Utf8(KeysUrl, nameof(KeysUrl)),
                   network = Native.Utf8(Interface, nameof(Interface)), listen = Native.Utf8(Listen, nameof(Listen)),
                   source = Native.Utf8(Source, nameof(Source)))
            {
                raw.Channel = channel;
                raw.KeysUrl = keys;
                raw.Interface = network;
                raw.Listen = listen;
                raw.Source = source;
                byte[] site = (SiteId ?? default(StreamId)).ToBytes();
                for (int place = 0; place < site.Length; place++)
                {
                    raw.SiteId[place] = site[place];
                }
                SealcastException.Check(Native.sealcast_subscriber_new(identity.Handle, &raw, now, &made));
            }
            return new SubscriberHandle(made, identity.Handle.Signer);
        }
    }

    /// <summary>How a publisher sends.</summary>
    public sealed unsafe class PublisherOptions : ChannelOptions
    {
        private Native.PublisherOptions values;

        /// <summary>The defaults for a channel.</summary>
        public PublisherOptions(string channel) : base(channel)
        {
            Native.PublisherOptions defaults;
            SealcastException.Check(
                Native.sealcast_publisher_options_init(&defaults, (UIntPtr)sizeof(Native.PublisherOptions)));
            values = defaults;
        }

        /// <summary>"ADDR:PORT" to send to in place of the policy's group.</summary>
        public string SendTo { get; set; }
        /// <summary>One of several publishers of this device on the channel; null: the only one.</summary>
        public string Instance { get; set; }
        /// <summary>Bytes of the path's MTU, 576 to 9000.</summary>
        public uint Mtu { get => values.Mtu; set => values.Mtu = value; }
        /// <summary>Packets that one signature covers at most, 1 to 64.</summary>
        public uint MaxBlock { get => values.MaxBlock; set => values.MaxBlock = value; }
        /// <summary>Routers that packets may pass, plus 1; 1 to 255.</summary>
        public uint Ttl { get => values.Ttl; set => values.Ttl = value; }
        /// <summary>Differentiated services code point, 0 to 63.</summary>
        public uint Dscp { get => values.Dscp; set => values.Dscp = value; }
        /// <summary>Which parity goes with the packets.</summary>
        public Fec Fec { get => (Fec)values.Fec; set => values.Fec = (int)value; }
        /// <summary>With <see cref="Fec.Fixed"/>: packets of data in a group.</summary>
        public uint FecSources { get => values.FecSources; set => values.FecSources = value; }
        /// <summary>With <see cref="Fec.Fixed"/>: packets of parity after them.</summary>
        public uint FecParities { get => values.FecParities; set => values.FecParities = value; }
        /// <summary>Topics whose last value is kept for who joins later; 0: none.</summary>
        public uint RetainTopics { get => values.RetainTopics; set => values.RetainTopics = value; }
        /// <summary>What these values may hold.</summary>
        public ulong RetainBytes { get => values.RetainBytes; set => values.RetainBytes = value; }
        /// <summary>The longest message that is taken.</summary>
        public ulong MaxMessageBytes { get => values.MaxMessageBytes; set => values.MaxMessageBytes = value; }
        /// <summary>What may wait for the rate.</summary>
        public ulong QueueBytes { get => values.QueueBytes; set => values.QueueBytes = value; }
        /// <summary>False: the policy's rate is kept to, whatever subscribers lose.</summary>
        public bool AdaptiveRate { get => values.AdaptiveRate != 0; set => values.AdaptiveRate = value ? 1 : 0; }

        internal PublisherHandle Make(Identity identity, ulong now)
        {
            if (identity == null)
            {
                throw new ArgumentNullException(nameof(identity));
            }
            Native.PublisherOptions raw = values;
            raw.Size = (UIntPtr)sizeof(Native.PublisherOptions);
            raw.HostSockets = HostSockets ? 1 : 0;
            IntPtr made;
            fixed (byte* channel = Native.Utf8(Channel, nameof(Channel)), keys = Native.Utf8(KeysUrl, nameof(KeysUrl)),
                   network = Native.Utf8(Interface, nameof(Interface)), sendTo = Native.Utf8(SendTo, nameof(SendTo)),
                   instance = Native.Utf8(Instance, nameof(Instance)))
            {
                raw.Channel = channel;
                raw.KeysUrl = keys;
                raw.Interface = network;
                raw.SendTo = sendTo;
                raw.Instance = instance;
                byte[] site = (SiteId ?? default(StreamId)).ToBytes();
                for (int place = 0; place < site.Length; place++)
                {
                    raw.SiteId[place] = site[place];
                }
                SealcastException.Check(Native.sealcast_publisher_new(identity.Handle, &raw, now, &made));
            }
            return new PublisherHandle(made, identity.Handle.Signer);
        }
    }
}

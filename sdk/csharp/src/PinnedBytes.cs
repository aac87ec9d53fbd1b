using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Sealcast
{
    /// <summary>Arrays that stay where they are during a call, as the library takes them.</summary>
    internal sealed unsafe class PinnedBytes : IDisposable
    {
        private readonly GCHandle[] pins;

        internal PinnedBytes(IReadOnlyList<byte[]> arrays)
        {
            if (arrays == null)
            {
                throw new ArgumentNullException(nameof(arrays));
            }
            pins = new GCHandle[arrays.Count];
            Bytes = new Native.Bytes[arrays.Count];
            for (int place = 0; place < pins.Length; place++)
            {
                if (arrays[place] == null)
                {
                    Dispose();
                    throw new ArgumentException("item " + place + " is null", nameof(arrays));
                }
                pins[place] = GCHandle.Alloc(arrays[place], GCHandleType.Pinned);
                Bytes[place].Data = (byte*)pins[place].AddrOfPinnedObject();
                Bytes[place].Length = (UIntPtr)arrays[place].Length;
            }
        }

        internal Native.Bytes[] Bytes { get; }

        public void Dispose()
        {
            foreach (GCHandle pin in pins)
            {
                if (pin.IsAllocated)
                {
                    pin.Free();
                }
            }
        }
    }
}

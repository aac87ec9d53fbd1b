using System;

namespace Sealcast
{
    /// <summary>The library as it is installed, held to the known answers of the specification.</summary>
    public static unsafe class SelfTest
    {
        /// <summary>
        /// The library's answer to a case of the known answers (vectors/), to be compared with what the file says.
        /// </summary>
        /// <param name="concept">The name of a file without its ending, such as "varint".</param>
        /// <param name="question">
        /// A CBOR map of the inputs of a case and of its group, with the file's names and values.
        /// </param>
        /// <returns>A CBOR map of the results, in the same way.</returns>
        /// <exception cref="SealcastException">
        /// <see cref="Status.InvalidArgument"/>: there is no such concept, or it is none of its cases.
        /// </exception>
        public static byte[] KnownAnswer(string concept, byte[] question)
        {
            if (concept == null)
            {
                throw new ArgumentNullException(nameof(concept));
            }
            if (question == null)
            {
                throw new ArgumentNullException(nameof(question));
            }
            for (var answer = new byte[4096];;)
            {
                UIntPtr length;
                Status status;
                fixed (byte* name = Native.Utf8(concept, nameof(concept)), data = question, place = answer)
                {
                    var bytes = new Native.Bytes { Data = data, Length = (UIntPtr)question.Length };
                    status = Native.sealcast_known_answer(name, bytes, place, (UIntPtr)answer.Length, &length);
                }
                if (status == Status.BufferTooSmall)
                {
                    answer = new byte[(int)length];
                    continue;
                }
                SealcastException.Check(status);
                Array.Resize(ref answer, (int)length);
                return answer;
            }
        }
    }
}

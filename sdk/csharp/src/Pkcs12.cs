using System;
using System.Collections.Generic;
using System.IO;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Sealcast
{
    /// <summary>
    /// Joins a certificate to its key. netstandard2.0 reads a key from PKCS#12 alone, so one is written in memory (RFC 7292),
    /// under a password of one use, with what every platform reads: 3DES and SHA-1. They protect nothing here.
    /// </summary>
    internal static class Pkcs12
    {
        private const int Iterations = 1;
        private const int Sequence = 0x30;
        private const int Set = 0x31;
        private const int Octets = 0x04;
        private const int Explicit0 = 0xa0;

        private static readonly byte[] Data = Oid(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01);
        private static readonly byte[] ShroudedKeyBag =
            Oid(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02);
        private static readonly byte[] CertificateBag =
            Oid(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03);
        private static readonly byte[] X509 = Oid(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01);
        private static readonly byte[] LocalKeyId = Oid(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x15);
        private static readonly byte[] Sha1And3Des = Oid(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03);
        private static readonly byte[] Sha1 = Oid(0x2b, 0x0e, 0x03, 0x02, 0x1a);

        /// <param name="chain">DER, the certificate of the key first.</param>
        /// <param name="privateKey">PKCS#8, DER; it is zeroed.</param>
        internal static X509Certificate2 Load(IReadOnlyList<byte[]> chain, byte[] privateKey)
        {
            string password = Convert.ToBase64String(Random(24));
            byte[] file = Write(chain, privateKey, password);
            Array.Clear(privateKey, 0, privateKey.Length);
            return new X509Certificate2(file, password);
        }

        internal static byte[] Write(IReadOnlyList<byte[]> chain, byte[] privateKey, string password)
        {
            byte[] keyId = Der(Set, Der(Octets, new byte[] { 1 }));
            byte[] marked = Der(Set, Der(Sequence, LocalKeyId, keyId));
            byte[] salt = Random(8);
            byte[] sealedKey;
            using (TripleDES cipher = TripleDES.Create())
            {
                cipher.Mode = CipherMode.CBC;
                cipher.Padding = PaddingMode.PKCS7;
                using (ICryptoTransform encryptor = cipher.CreateEncryptor(Derive(password, salt, 1, 24),
                                                                           Derive(password, salt, 2, 8)))
                {
                    sealedKey = encryptor.TransformFinalBlock(privateKey, 0, privateKey.Length);
                }
            }
            byte[] algorithm = Der(Sequence, Sha1And3Des, Der(Sequence, Der(Octets, salt), Integer(Iterations)));
            byte[] keyBag = Der(Sequence, ShroudedKeyBag,
                                Der(Explicit0, Der(Sequence, algorithm, Der(Octets, sealedKey))), marked);
            var bags = new List<byte[]>();
            foreach (byte[] certificate in chain)
            {
                byte[] value = Der(Sequence, X509, Der(Explicit0, Der(Octets, certificate)));
                byte[] bag = Der(Explicit0, value);
                bags.Add(bags.Count == 0 ? Der(Sequence, CertificateBag, bag, marked) : Der(Sequence, CertificateBag, bag));
            }
            byte[] safe = Der(Sequence, Content(Der(Sequence, keyBag)), Content(Der(Sequence, bags.ToArray())));
            byte[] macSalt = Random(8);
            byte[] digest;
            using (var mac = new HMACSHA1(Derive(password, macSalt, 3, 20)))
            {
                digest = mac.ComputeHash(safe);
            }
            byte[] digestInfo = Der(Sequence, Der(Sequence, Sha1, new byte[] { 5, 0 }), Der(Octets, digest));
            // The iterations are 1, which DER leaves out here.
            byte[] macData = Der(Sequence, digestInfo, Der(Octets, macSalt));
            return Der(Sequence, Integer(3), Content(safe), macData);
        }

        /// <summary>RFC 7292, appendix B.2, with SHA-1. <paramref name="purpose"/>: 1 key, 2 IV, 3 MAC.</summary>
        private static byte[] Derive(string password, byte[] salt, byte purpose, int length)
        {
            const int block = 64;
            byte[] text = Encoding.BigEndianUnicode.GetBytes(password + "\0");
            var input = new List<byte>(Repeated(salt, block));
            input.AddRange(Repeated(text, block));
            byte[] i = input.ToArray();
            byte[] d = Repeated(new[] { purpose }, block);
            var made = new List<byte>();
            using (SHA1 hash = SHA1.Create())
            {
                while (made.Count < length)
                {
                    var first = new byte[d.Length + i.Length];
                    d.CopyTo(first, 0);
                    i.CopyTo(first, d.Length);
                    // Iterations is 1: what the first hash gives is the result.
                    byte[] a = hash.ComputeHash(first);
                    made.AddRange(a);
                    byte[] b = Repeated(a, block);
                    for (int start = 0; start < i.Length; start += block)
                    {
                        int carry = 1;
                        for (int place = block - 1; place >= 0; place--)
                        {
                            carry += i[start + place] + b[place];
                            i[start + place] = (byte)carry;
                            carry >>= 8;
                        }
                    }
                }
            }
            return made.GetRange(0, length).ToArray();
        }

        /// <summary>The bytes over and over, up to a whole number of blocks.</summary>
        private static byte[] Repeated(byte[] b, int block)
        {
            var bytes = new byte[(b.Length + block - 1) / block * block];
            for (int place = 0; place < bytes.Length; place++)
            {
                bytes[place] = b[place % b.Length];
            }
            return bytes;
        }

        private static byte[] Random(int length)
        {
            var bytes = new byte[length];
            using (RandomNumberGenerator source = RandomNumberGenerator.Create())
            {
                source.GetBytes(bytes);
            }
            return bytes;
        }

        // -- DER --------------------------------------------------------------------------------------------------------

        private static byte[] Content(byte[] data)
        {
            return Der(Sequence, Data, Der(Explicit0, Der(Octets, data)));
        }

        private static byte[] Oid(params byte[] encoded)
        {
            return Der(0x06, encoded);
        }

        private static byte[] Integer(byte value)
        {
            return new byte[] { 2, 1, value };
        }

        private static byte[] Der(int tag, params byte[][] parts)
        {
            int length = 0;
            foreach (byte[] part in parts)
            {
                length += part.Length;
            }
            using (var made = new MemoryStream())
            {
                made.WriteByte((byte)tag);
                if (length < 0x80)
                {
                    made.WriteByte((byte)length);
                }
                else
                {
                    int bytes = length < 0x100 ? 1 : length < 0x10000 ? 2 : 3;
                    made.WriteByte((byte)(0x80 | bytes));
                    for (int place = bytes - 1; place >= 0; place--)
                    {
                        made.WriteByte((byte)(length >> (8 * place)));
                    }
                }
                foreach (byte[] part in parts)
                {
                    made.Write(part, 0, part.Length);
                }
                return made.ToArray();
            }
        }
    }

    /// <summary>PEM, which netstandard2.0 does not read.</summary>
    internal static class Pem
    {
        private const string Begin = "-----BEGIN PRIVATE KEY-----";
        private const string End = "-----END PRIVATE KEY-----";

        /// <summary>The PKCS#8 of a file, DER.</summary>
        internal static byte[] ReadPrivateKey(string path)
        {
            string text = File.ReadAllText(path);
            int start = text.IndexOf(Begin, StringComparison.Ordinal);
            int end = text.IndexOf(End, StringComparison.Ordinal);
            if (start < 0 || end < start)
            {
                throw new SealcastException(Status.Storage, path + ": holds no key in PKCS#8");
            }
            return Convert.FromBase64String(text.Substring(start + Begin.Length, end - start - Begin.Length));
        }
    }
}

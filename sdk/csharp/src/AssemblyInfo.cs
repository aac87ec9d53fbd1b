using System.Reflection;

[assembly: AssemblyTitle("Sealcast")]
[assembly: AssemblyDescription("Secure, reliable multicast")]

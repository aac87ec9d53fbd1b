using System;

/// <summary>Loads the library, and prints its version.</summary>
internal static class Version
{
    private static void Main()
    {
        Console.WriteLine(Sealcast.Identity.LibraryVersion);
    }
}

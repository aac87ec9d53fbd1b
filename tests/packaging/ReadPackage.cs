using System;
using System.IO;
using System.IO.Packaging;
using System.Text.RegularExpressions;

/// <summary>Prints a package's id, found by its relationship, and every part of it.</summary>
internal static class ReadPackage
{
    private const string Manifest = "http://schemas.microsoft.com/packaging/2010/07/manifest";

    private static void Main(string[] args)
    {
        using (Package package = Package.Open(args[0], FileMode.Open, FileAccess.Read))
        {
            foreach (PackageRelationship relationship in package.GetRelationshipsByType(Manifest))
            {
                using (var reader = new StreamReader(package.GetPart(relationship.TargetUri).GetStream()))
                {
                    Console.WriteLine(Regex.Match(reader.ReadToEnd(), "<id>(.*)</id>").Groups[1].Value);
                }
            }
            foreach (PackagePart part in package.GetParts())
            {
                Console.WriteLine(part.Uri);
            }
        }
    }
}

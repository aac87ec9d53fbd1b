"""One scenario, one file; each over several seeds, since each has other packets hit."""

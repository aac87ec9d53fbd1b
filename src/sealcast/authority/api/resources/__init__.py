"""The resources of the management API, one a file; `..table` lists them."""

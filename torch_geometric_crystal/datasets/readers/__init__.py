"""One reader per kind of file; each gives `Entry` objects through the `Source` interface."""

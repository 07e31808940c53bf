"""Building, caching and loading of the compiled operations."""


def why_unavailable() -> str | None:
    """Why the compiled operations cannot run, or None if they can."""
    return "not built: run `tgcrystal build` (needs a C++ compiler and ninja)"

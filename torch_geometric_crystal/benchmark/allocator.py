"""How the C library hands out memory while models train on the CPU."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's ``mallopt`` (malloc.h)."""

LARGEST = 2**31 - 1
TOP_PAD = 2**26


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, instead of giving it back to the system at once.

    glibc maps blocks above 32 MiB anew each time they are asked for, and the system fills each of their pages with
    zeros first. In ALIGNN, whose tensors over angles are as large as that, this takes about half of a training step.
    The setting holds for the whole process until it ends: memory that training freed stays with it, for its own next
    use.

    Returns:
        Whether the C library took the setting. Where it is not glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not (hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST, M_TOP_PAD: TOP_PAD}
    taken = [library.mallopt(name, value) == 1 for name, value in settings.items()]
    return all(taken)

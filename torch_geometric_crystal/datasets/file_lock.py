"""Locks against other processes, on file systems that have them."""

import contextlib
import errno
import warnings
from collections.abc import Iterator
from pathlib import Path

import filelock

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
_UNLOCKABLE = (OSError, NotImplementedError)
"""What filelock raises where files cannot be locked, or the folder cannot be written."""


class LockWarning(UserWarning):
    """Files cannot be locked; the work is done all the same, by several processes at once if they start at once."""


def acquire_lock(path: Path, timeout: float = -1.0) -> filelock.BaseFileLock | None:
    """The lock of a lock file, held until the process ends at the latest; None where none can be had.

    Without it all is right still where files appear whole, by renaming: only work is done twice.

    Args:
        path: The lock file; its folder is made.
        timeout: Seconds to wait for another process that holds it; forever if negative.

    Raises:
        filelock.Timeout: if another process holds it longer.

    Warns:
        LockWarning: if the file system does not lock files. (Of a folder that cannot be written, the writing tells.)
    """
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        raise
    except _UNLOCKABLE as error:
        if getattr(error, "errno", None) not in _NOT_WRITABLE:
            warnings.warn(
                f"files in {path.parent} cannot be locked ({error}): processes that start at once each do the same "
                "work. Start one at a time, or choose a folder on a local disk",
                LockWarning,
                stacklevel=5,
            )
        return None
    return lock


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock file that is there; False where files cannot be locked."""
    try:
        with filelock.FileLock(path).acquire(timeout=0.0):
            return False
    except filelock.Timeout:
        return True
    except _UNLOCKABLE:
        return False


@contextlib.contextmanager
def holding_lock(path: Path, timeout: float = -1.0, busy: str = "") -> Iterator[bool]:
    """Hold a lock file while the block runs, as :func:`acquire_lock`; whether it could be had is what the block gets.

    Raises:
        ValueError: saying `busy`, if another process holds it longer than `timeout`.
    """
    try:
        lock = acquire_lock(path, timeout)
    except filelock.Timeout as error:
        raise ValueError(busy) from error
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()

"""Files that are either the old one or the new one, never half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"


class _RememberingFile:
    """A binary file that keeps the first `OSError` of a write, for writers that replace it by one of their own."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the block ends without an error.

    The content goes to a temporary file in the same folder, is flushed to the disk and then renamed: whoever opens
    `path`, also after a full disk or a kill in the middle, finds the whole old file or the whole new one.

    Args:
        path: The file to write. Missing parent folders are made.

    Raises:
        OSError: if the content could not be written; `path` is unchanged and the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX)
    file = _RememberingFile(os.fdopen(descriptor, "wb"))
    try:
        try:
            yield file  # type: ignore[misc]
            file.file.flush()
            os.fsync(file.file.fileno())
        finally:
            file.file.close()
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if file.error is not None and not isinstance(error, OSError):
            raise file.error from error
        raise


def remove_leftovers(path: str | os.PathLike) -> None:
    """Remove the temporary files that killed writers of `path` left. No writer of `path` may be at work."""
    path = Path(path)
    if not path.parent.is_dir():
        return
    for leftover in path.parent.iterdir():
        if leftover.name.startswith(f".{path.name}.") and leftover.name.endswith(TEMPORARY_SUFFIX):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

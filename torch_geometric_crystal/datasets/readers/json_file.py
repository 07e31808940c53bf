"""JSON files, plain, gzipped or zipped, by their content rather than their name."""

import contextlib
import gzip
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"


@contextlib.contextmanager
def open_json(path: Path) -> Iterator[IO[bytes]]:
    """Open a JSON file for reading bytes, decompressed.

    Raises:
        ValueError: if `path` is a zip archive that does not hold exactly one JSON file.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(_GZIP_MAGIC):
            with gzip.open(file) as content:
                yield content  # type: ignore[misc]
        elif magic.startswith(_ZIP_MAGIC):
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith(".json")]
                if len(names) != 1:
                    raise ValueError(f"{path}: expected a zip archive with one JSON file, found {len(names)}")
                with archive.open(names[0]) as content:
                    yield content
        else:
            yield file


def load_json(path: Path) -> Any:
    """The content of a JSON file, plain, gzipped or zipped.

    Raises:
        ValueError: if the file is truncated, corrupt or not JSON.
    """
    try:
        with open_json(path) as file:
            return json.loads(file.read())
    except (json.JSONDecodeError, UnicodeDecodeError, EOFError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable JSON file ({error}). Get it again from its source") from error
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error}") from error


def peek_json(path: Path, size: int = 4096) -> str:
    """The first `size` characters of a JSON file, to tell its layout without reading all of it."""
    try:
        with open_json(path) as file:
            return file.read(size).decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable JSON file ({error}). Get it again from its source") from error

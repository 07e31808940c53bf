"""Building, keeping and loading the C++ kernels. Nothing is ever built unasked: ``tgcrystal build`` does it.

The library lies in a folder of the user's own, under a name that holds the key of what it was built from and the
digest of its content, so that a file that is damaged, foreign or for another machine is never loaded.
"""

import functools
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from torch_geometric_crystal.ops.cpp.recorded import register_recorded_form
from torch_geometric_crystal.ops.cpp.toolchain import build_key, compile_command, find_compiler

NAMESPACE = "torch_geometric_crystal_cpp"
"""Where the operators are registered in ``torch.ops``."""

ABANDONED_SECONDS = 3600.0
"""Age at which the folder of another build is taken to be left over from one that was killed."""


class ExtensionError(ImportError):
    """The C++ kernels cannot be built or loaded. The message says why."""


class ExtensionWarning(UserWarning):
    """The C++ kernels are built but cannot be used; a slower backend runs."""


def library_folder() -> Path:
    """``$XDG_CACHE_HOME/torch_geometric_crystal/cpp``, or the same in ``~/.cache``; relative where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "torch_geometric_crystal" / "cpp"


def is_built() -> bool:
    """Whether there is a library for these sources, this torch and this processor. Starts and loads nothing."""
    return _find_library() is not None


def why_unavailable() -> str | None:
    """Why the kernels cannot be used, or None if they can. The first call that finds a library loads it.

    The answer is kept: what is built elsewhere meanwhile does not change the backend of a running program.

    Warns:
        ExtensionWarning: once, if they are built but cannot be loaded.
    """
    return _why_unavailable(os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME"))


def load() -> Any:
    """The namespace of ``torch.ops`` that holds the kernels.

    Raises:
        ExtensionError: if they are not built, or cannot be loaded.
    """
    if not _is_registered():
        path = _find_library()
        if path is None:
            raise ExtensionError(_why_not_built())
        _load_file(path)
    return getattr(torch.ops, NAMESPACE)


def build(force: bool = False) -> Path:
    """Compile the kernels, unless they are built already or `force` is set. Safe to run in several processes at once.

    Returns:
        Path of the library.

    Raises:
        ExtensionError: if there is no compiler, the platform is not supported, or the compiler fails.
        OSError: if the folder cannot be written.
    """
    existing = _find_library()
    if existing is not None and not force:
        return existing
    compiler = find_compiler()
    if sys.platform != "linux" or compiler is None:
        raise ExtensionError(_why_not_built())
    folder = library_folder()
    if not folder.is_absolute():
        raise ExtensionError("there is no home folder to keep it in: set XDG_CACHE_HOME")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    _check_owner(folder)
    _remove_abandoned(folder)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=folder))
    try:
        compiled = scratch / "library.so"
        result = subprocess.run(compile_command(compiler, compiled), capture_output=True, text=True, cwd=scratch)
        if result.returncode:
            raise ExtensionError(f"{compiler[0]} failed: {_first_error(result.stderr)}")
        compiled.chmod(0o600)
        path = folder / f"{build_key()}-{_digest(compiled)}.so"
        os.replace(compiled, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for older in folder.glob(f"{build_key()}-*.so"):
        if older != path:
            older.unlink(missing_ok=True)
    _why_unavailable.cache_clear()
    return path


def _find_library() -> Path | None:
    return next(iter(sorted(library_folder().glob(f"{build_key()}-*.so"))), None)


@functools.cache
def _why_unavailable(*places: str | None) -> str | None:
    """`places` is what :func:`library_folder` depends on: asked for at every call, the folder itself takes longer."""
    path = _find_library()
    if path is None:
        return _why_not_built()
    try:
        _load_file(path)
    except ExtensionError as error:
        warnings.warn(f"the C++ kernels in {path.parent} are not used: {error}", ExtensionWarning, stacklevel=3)
        return str(error)
    return None


def _load_file(path: Path) -> None:
    try:
        _check_trust(path)
        if not _is_registered():
            torch.ops.load_library(str(path))
            register_recorded_form(NAMESPACE)
    except OSError as error:
        raise ExtensionError(f"failed to load: {error}; build it again with `tgcrystal build --force`") from error


def _is_registered() -> bool:
    return hasattr(getattr(torch.ops, NAMESPACE), "infinite_attention")


def _why_not_built() -> str:
    if sys.platform != "linux":
        return f"its build supports Linux, not {sys.platform}"
    if find_compiler() is None:
        return "not built, and there is no C++ compiler: install g++ or clang++, then run `tgcrystal build`"
    return "not built: run `tgcrystal build`"


def _check_trust(path: Path) -> None:
    """Refuse what another user could have written, and content that is not what was built."""
    _check_owner(path.parent)
    _check_owner(path)
    if _digest(path) != path.stem.rpartition("-")[2]:
        raise ExtensionError(f"{path} is damaged; build it again with `tgcrystal build --force`")


def _check_owner(path: Path) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ExtensionError(f"{path} is refused: it must belong to this user, with no one else able to write it")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


def _remove_abandoned(folder: Path) -> None:
    for scratch in folder.glob(".build-*"):
        if time.time() - scratch.lstat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(scratch, ignore_errors=True)


def _first_error(output: str) -> str:
    """The first line of a compiler's output that tells of an error, or its last line."""
    lines = [line for line in output.splitlines() if line.strip()] or ["no message"]
    return next((line for line in lines if "error" in line.lower()), lines[-1]).strip()[:500]

"""Fingerprints of files and of transforms, from which the cache's key is made."""

import enum
import functools
import hashlib
import inspect
import os
import re
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DEEPEST = 32
_READING_SOURCE = threading.Lock()
"""inspect parses it, and up to CPython 3.11.7 that fails now and then where two threads do so at once (gh-106905)."""


class FingerprintError(ValueError):
    """An object has state that no fingerprint can be made of."""


def hash_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_if_file(path: str | os.PathLike) -> str:
    """As :func:`hash_file`; empty where there is no such file, or the text cannot be the name of one."""
    try:
        return hash_file(path) if Path(path).is_file() else ""
    except OSError:
        return ""


def hash_text(*parts: str) -> str:
    """SHA-256 of strings; where one ends and the next begins matters."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def describe(value: Any) -> str:
    """A text that differs whenever two transforms (or filters) can act differently.

    An object is described by its class (module, name and source text), its ``repr`` and all its attributes,
    recursively; a function by its source, defaults and the variables it encloses; a tensor or array by its content.
    So neither a class without a telling ``repr`` nor an edited class reads another one's cache.

    Raises:
        FingerprintError: if the state cannot be seen (an object with slots or a C type unknown here), or refers to
            itself.
    """
    return _describe(value, 0)


def _describe(value: Any, depth: int) -> str:
    if depth > _DEEPEST:
        raise FingerprintError(f"{type(value).__name__} is nested too deeply or refers to itself")
    below = functools.partial(_describe, depth=depth + 1)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return f"{type(value).__name__}:{value!r}"
    if isinstance(value, enum.Enum):
        return f"{_name(type(value))}.{value.name}"
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype.hasobject:
            raise FingerprintError("an array of Python objects has no fingerprint")
        content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return f"{type(value).__name__}:{array.dtype}:{array.shape}:{content}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[" + ",".join(below(item) for item in value) + "]"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{{" + ",".join(sorted(below(item) for item in value)) + "}"
    if isinstance(value, dict):
        items = sorted(f"{below(key)}={below(item)}" for key, item in value.items())
        return f"{type(value).__name__}{{" + ",".join(items) + "}"
    if isinstance(value, functools.partial):
        return f"partial({below(value.func)},{below(value.args)},{below(value.keywords)})"
    if isinstance(value, types.MethodType):
        return f"method({below(value.__func__)},{below(value.__self__)})"
    if isinstance(value, types.FunctionType):
        enclosed = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = (value.__defaults__, value.__kwdefaults__, enclosed)
        return f"function({_name(value)},{_source(value)},{below(parts)})"
    if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        return f"{type(value).__name__}:{_name(value)}:{_source(value)}"
    return _describe_object(value, depth)


def _describe_object(value: Any, depth: int) -> str:
    if not hasattr(value, "__dict__"):
        raise FingerprintError(f"{type(value).__name__} keeps its state where it cannot be seen")
    state = _describe(vars(value), depth + 1)
    own_repr = _ADDRESS.sub("", repr(value))
    return f"object({_name(type(value))},{_source(type(value))},{own_repr},{state})"


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _source(value: Any) -> str:
    """Hash of a class's or function's source text; of a function's byte code where there is no text."""
    try:
        with _READING_SOURCE:
            return hash_text(inspect.getsource(value))
    except (OSError, TypeError):
        code = getattr(value, "__code__", None)
        return "" if code is None else hash_text(code.co_code.hex(), repr(code.co_names), str(code.co_consts))

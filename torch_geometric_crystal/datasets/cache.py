"""The cache of processed data sets: plain tensors and texts, read without unpickling objects."""

import importlib
import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data, InMemoryDataset

from torch_geometric_crystal.datasets.atomic_write import atomic_write
from torch_geometric_crystal.datasets.processing import Fault

CACHE_FORMAT = 2
"""Raised whenever the layout of the cache file, or the meaning of what is in it, changes."""

_TRUSTED_PACKAGES = ("torch_geometric", "torch_geometric_crystal")


class CacheWarning(UserWarning):
    """A cache could not be read or written; the data are used all the same."""


@dataclass(frozen=True)
class CachedDataset:
    """What a cache file holds."""

    data: Data
    slices: dict[str, Any] | None
    target_names: tuple[str, ...]
    faults: tuple[Fault, ...]


def default_cache_folder() -> Path:
    """``$XDG_CACHE_HOME/torch_geometric_crystal``, or ``~/.cache/torch_geometric_crystal``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "torch_geometric_crystal"


def cache_path(folder: Path, name: str, key: str) -> Path:
    """The file for a source called `name` under `key`."""
    readable = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:60].strip(".") or "crystals"
    return folder / f"{readable}-{key[:24]}.pt"


def write_cache(path: Path, key: str, crystals: list[Data], target_names: tuple[str, ...], faults: list[Fault]) -> None:
    """Collate and write processed crystals, atomically.

    Raises:
        OSError: if the file cannot be written; an older one is left whole.
        TypeError: if crystals are of a class that is not PyG's or this package's.
    """
    data, slices = InMemoryDataset.collate(crystals)
    write_collated(path, key, CachedDataset(data, slices, target_names, tuple(faults)))


def write_collated(path: Path, key: str, cached: CachedDataset) -> None:
    """As `write_cache`, for crystals that are collated already."""
    content = {
        "format": CACHE_FORMAT,
        "key": key,
        "class": class_name(type(cached.data)),
        "data": cached.data.to_dict(),
        "slices": None if cached.slices is None else dict(cached.slices),
        "target_names": list(cached.target_names),
        "faults": [list(fault) for fault in cached.faults],
    }
    with atomic_write(path) as file:
        torch.save(content, file)


def read_cache(path: Path, key: str) -> CachedDataset | None:
    """The data set in `path`, or None if there is none, or none that can be used.

    Warns:
        CacheWarning: if the file is there but damaged, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True, mmap=zipfile.is_zipfile(path))
        if content["format"] != CACHE_FORMAT or content["key"] != key:
            raise ValueError("it was written for other data or settings")
        data = resolve_class(content["class"]).from_dict(content["data"])
        faults = tuple(Fault(*fault) for fault in content["faults"])
        return CachedDataset(data, content["slices"], tuple(content["target_names"]), faults)
    except Exception as error:
        # Whatever is wrong with a cache file, making it anew is the remedy; torch.load has no common error type.
        reason = str(error).split("\n")[0][:200]
        warnings.warn(
            f"the cache {path} cannot be used and is made anew ({type(error).__name__}: {reason})",
            CacheWarning,
            stacklevel=3,
        )
        return None


def class_name(cls: type) -> str:
    """Module and name of a class of PyG or this package.

    Raises:
        TypeError: if it is of another package.
    """
    if cls.__module__.split(".")[0] not in _TRUSTED_PACKAGES:
        raise TypeError(
            f"{cls.__module__}.{cls.__qualname__} cannot be cached: only PyG's Data and this package's own classes can"
        )
    return f"{cls.__module__}:{cls.__qualname__}"


def resolve_class(name: str) -> type[Data]:
    """The class called `name`, if it is a `Data` of PyG or this package.

    Raises:
        ValueError: if it is another.
    """
    module, _, qualname = name.partition(":")
    if module.split(".")[0] not in _TRUSTED_PACKAGES:
        raise ValueError(f"refused class {name!r}")
    cls = getattr(importlib.import_module(module), qualname)
    if not (isinstance(cls, type) and issubclass(cls, Data)):
        raise ValueError(f"refused class {name!r}")
    return cls

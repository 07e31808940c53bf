"""Crystals from any source as a PyG in-memory data set, processed once."""

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import InMemoryDataset

from torch_geometric_crystal import __version__
from torch_geometric_crystal.checks import InvalidStructureError, check_argument, check_choice
from torch_geometric_crystal.datasets.atomic_write import remove_leftovers
from torch_geometric_crystal.datasets.cache import (
    CACHE_FORMAT,
    CachedDataset,
    CacheWarning,
    cache_path,
    default_cache_folder,
    read_cache,
    write_collated,
)
from torch_geometric_crystal.datasets.file_lock import holding_lock
from torch_geometric_crystal.datasets.fingerprint import FingerprintError, describe, hash_text
from torch_geometric_crystal.datasets.open_source import open_source
from torch_geometric_crystal.datasets.processing import Processed, Recipe, StructureWarning, process
from torch_geometric_crystal.datasets.readers.structure_file import pymatgen_version
from torch_geometric_crystal.datasets.source import Source, refuse_repeated_ids

_SHOWN = 3  # structures named in a summary


class CrystalDataset(InMemoryDataset):
    """Crystals with their targets: parsed, checked and pre-transformed once, then read from a cache.

    The cache's name holds a hash of the source's content and of how it is read, of `pre_transform` and `pre_filter`
    (class, source text, every attribute), of `dtype` and of the library's version: a change of any of them makes a new
    cache and never reads an old one. Processes that start at once wait for the one that processes; the file appears by
    renaming, so it is whole or not there. It holds tensors and texts, and nothing in it is unpickled.

    Args:
        source: A path (see `open_source` for the kinds), a list of pymatgen structures, ASE atoms or `Data`, a pandas
            DataFrame, or a `Source`.
        root: Folder of the cache. Default: ``~/.cache/torch_geometric_crystal``.
        target: Name, or names, of the targets. Default: those that the kind of source implies.
        transform: Applied at each access.
        pre_transform: Applied once, before caching; for a model, ``model.neighborhood()``.
        pre_filter: Crystals for which it is false are left out, before `pre_transform`.
        num_workers: Processes used to make the cache; 0 for none. Default: none if it takes less than about 20 s, else
            one per core, 8 at most. Scripts then need ``if __name__ == "__main__":``.
        on_error: ``"raise"`` at the first invalid structure, or ``"skip"`` them and list them in `errors`.
        dtype: Type of positions, cells and targets.
        cache: Whether to read and write a cache.
        force_reload: Process again even if there is a cache.
        log: Whether to show a progress bar (on a terminal only).

    Shapes:
        Items are `Data` with z (N,), pos (N, 3), cell (1, 3, 3), pbc (1, 3), `structure_id`, and y (1, T) if the source
        has T targets, NaN where a value is missing.

    Raises:
        InvalidStructureError: if a structure cannot be used, or an id occurs twice, and `on_error` is ``"raise"``.
        ValueError: if no structure is left.
        FileNotFoundError: if the source is not there.

    Warns:
        StructureWarning: a summary of what was skipped or noted.
        CacheWarning: if the cache cannot be read or written; the data set works all the same.
        LockWarning: if files in the cache's folder cannot be locked; likewise.
    """

    def __init__(
        self,
        source: Any,
        root: str | Path | None = None,
        target: str | Sequence[str] | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        num_workers: int | None = None,
        on_error: str = "raise",
        dtype: torch.dtype = torch.float32,
        cache: bool = True,
        force_reload: bool = False,
        log: bool = True,
    ):
        check_choice("on_error", on_error, ("raise", "skip"))
        check_argument(num_workers is None or num_workers >= 0, "num_workers", "None or at least 0", num_workers)
        if isinstance(source, Source):
            check_argument(target is None, "target", "None for an opened Source, which has its own", target)
        opened = open_source(source, target)
        folder = default_cache_folder() if root is None else Path(root).expanduser()
        super().__init__(str(folder), transform, pre_transform, pre_filter, log, force_reload)
        self.num_workers = num_workers
        self.on_error = on_error
        self.dtype = dtype
        key = self._key(opened) if cache else None
        cached = self._make(opened) if key is None else self._read_or_make(opened, folder, key)
        if cached.faults and on_error == "raise":
            raise InvalidStructureError(*cached.faults[0])
        self._data, self.slices = cached.data, cached.slices
        self.target_names: tuple[str, ...] = cached.target_names
        self.errors: list[tuple[str, str]] = [(f.structure_id, f"{f.fault}. {f.remedy}") for f in cached.faults]

    @property
    def processed_dir(self) -> str:
        """Folder of the cache."""
        return self.root

    @property
    def structure_ids(self) -> list[str]:
        """Names of the crystals, in order."""
        names = self._data.structure_id
        names = [names] if isinstance(names, str) else names
        return [names[i] for i in self.indices()]

    def _key(self, source: Source) -> str | None:
        """What the cache depends on, as a hash; None if a transform's settings cannot be seen."""
        try:
            settings = (describe(self.pre_transform), describe(self.pre_filter))
        except FingerprintError as error:
            warnings.warn(f"not cached: pre_transform or pre_filter: {error}", CacheWarning, stacklevel=3)
            return None
        versions = (__version__, pymatgen_version(), str(CACHE_FORMAT))
        return hash_text(source.fingerprint(), *settings, str(self.dtype), *versions)

    def _read_or_make(self, source: Source, folder: Path, key: str) -> CachedDataset:
        path = cache_path(folder, source.name, key)
        cached = None if self.force_reload else read_cache(path, key)
        if cached is not None:
            return cached
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker that imports its parent's script runs this line again while the parent waits for the worker.
            raise RuntimeError("put the script's work under if __name__ == '__main__':, or pass num_workers=0")
        with holding_lock(path.with_name(f"{path.name}.lock")) as is_locked:
            if is_locked:
                remove_leftovers(path)
                cached = None if self.force_reload else read_cache(path, key)
            if cached is None:
                cached = self._make(source)
                self._write(path, key, cached)
        return cached

    def _make(self, source: Source) -> CachedDataset:
        entries = refuse_repeated_ids(list(source))
        recipe = Recipe(self.pre_transform, self.pre_filter, self.dtype)
        skip = self.on_error == "skip"
        processed = process(entries, recipe, self.num_workers, skip, self.log, source.name)
        _report(processed, source)
        if not processed.crystals:
            raise ValueError(f"no structures in {source!r}: {_summary(processed, len(entries))}")
        data, slices = self.collate(processed.crystals)
        return CachedDataset(data, slices, source.target_names, tuple(processed.faults))

    def _write(self, path: Path, key: str, cached: CachedDataset) -> None:
        try:
            write_collated(path, key, cached)
        except (OSError, TypeError) as error:
            warnings.warn(f"the cache {path} was not written ({error})", CacheWarning, stacklevel=5)


def _report(processed: Processed, source: Source) -> None:
    if processed.faults:
        shown = "; ".join(f"{f.structure_id}: {f.fault}" for f in processed.faults[:_SHOWN])
        warnings.warn(
            f"{source!r}: {len(processed.faults)} structures skipped, listed in dataset.errors ({shown}"
            + (", ...)" if len(processed.faults) > _SHOWN else ")"),
            StructureWarning,
            stacklevel=6,
        )
    if processed.notes:
        shown = "; ".join(processed.notes[:_SHOWN])
        more = len(processed.notes) - _SHOWN
        warnings.warn(shown + (f"; and {more} more such notes" if more > 0 else ""), StructureWarning, stacklevel=6)


def _summary(processed: Processed, num_entries: int) -> str:
    if num_entries == 0:
        return "it is empty"
    if not processed.faults:
        return f"pre_filter left none of {num_entries}"
    first = processed.faults[0]
    return f"none of {num_entries} can be used; the first, {first.structure_id!r}: {first.fault}. {first.remedy}"

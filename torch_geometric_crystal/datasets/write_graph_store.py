"""Any source to a graph store, in parallel, continued after an interruption."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from torch_geometric_crystal import __version__
from torch_geometric_crystal.checks import InvalidStructureError, check_argument, check_choice
from torch_geometric_crystal.datasets.atomic_write import atomic_write, remove_leftovers
from torch_geometric_crystal.datasets.cache import class_name
from torch_geometric_crystal.datasets.convert import Conversion
from torch_geometric_crystal.datasets.file_lock import holding_lock
from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.graph_store import INDEX_NAME, STORE_FORMAT, transform_key
from torch_geometric_crystal.datasets.open_source import open_source
from torch_geometric_crystal.datasets.processing import Outcome, Recipe, outcomes
from torch_geometric_crystal.datasets.source import Entry, Source, refuse_repeated_ids

SHARD_SIZE = 1000
"""Crystals in a shard: some ten to hundred MB with their graphs."""


def write_graph_store(
    source: Any,
    path: str | os.PathLike,
    transform: Callable[[Data], Data] | None = None,
    target: str | Sequence[str] | None = None,
    on_error: str = "raise",
    num_workers: int | None = None,
    dtype: torch.dtype = torch.float32,
    shard_size: int = SHARD_SIZE,
    progress: bool = True,
) -> Conversion:
    """Write any source that `open_source` reads as a graph store, for `OnDiskCrystals`.

    Shards appear whole, one after the other, and ``store.json`` last. After a kill the same call continues: shards that
    are there, made from the same source with the same settings and with the right SHA-256, are kept.

    Args:
        source: What `open_source` takes.
        path: Folder to write, new, empty, or that of the same store, unfinished.
        transform: Makes the graphs; for a model, ``model.neighborhood()``.
        target: Name, or names, of the targets. Default: as `open_source`.
        on_error: ``"raise"`` at the first invalid structure, or ``"skip"`` them and report them.
        num_workers: Processes that parse and make graphs; as in `CrystalDataset`.
        dtype: Type of positions, cells and targets.
        shard_size: Crystals of the source in a shard.
        progress: Whether to show a progress bar (on a terminal only).

    Raises:
        InvalidStructureError: at the first invalid structure, if `on_error` is ``"raise"``.
        ValueError: if no structure is left, the folder holds something else, or another process is writing it.
        TypeError: if a field of a crystal is neither a tensor nor a text.
        OSError: if a file cannot be written; run the same call again to continue.

    Warns:
        LockWarning: if files in the folder cannot be locked.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    check_argument(shard_size >= 1, "shard_size", "at least 1", shard_size)
    opened = open_source(source, target)
    key = graph_store_key(opened, transform, dtype, shard_size)
    folder = Path(path).expanduser()
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder} is being written by another process: wait for it, or give another folder"
    with holding_lock(folder / ".lock", 0.0, busy) as is_locked:
        entries = refuse_repeated_ids(list(opened))
        recipe = Recipe(transform, None, dtype)
        work = _Work(folder, key, shard_size, on_error == "skip", is_locked)
        shards = work.write(entries, recipe, num_workers, progress, opened.name)
        number = sum(shard["count"] for shard in shards)
        if number == 0:
            raise ValueError(f"no structures in {opened!r} can be used" + _first_fault(shards))
        index = {
            "format": STORE_FORMAT,
            "version": __version__,
            "key": key,
            "transform_key": transform_key(transform),
            "graph": repr(transform),
            "class": next(shard["class"] for shard in shards if shard["count"]),
            "target_names": list(opened.target_names),
            "shards": shards,
        }
        _write_json(folder / INDEX_NAME, index)
        for sidecar in folder.glob("shard-*.json"):
            sidecar.unlink(missing_ok=True)
    errors = [(name, f"{fault}. {remedy}") for shard in shards for name, fault, remedy in shard["faults"]]
    return Conversion(number, opened.target_names, errors, [note for shard in shards for note in shard["notes"]])


def graph_store_key(
    source: Source, transform: Callable | None, dtype: torch.dtype = torch.float32, shard_size: int = SHARD_SIZE
) -> str:
    """Hash of all that a store's content depends on."""
    settings = (transform_key(transform), str(dtype), str(shard_size), __version__, STORE_FORMAT)
    return hash_text(source.fingerprint(), repr(source.target_names), *settings)


class _Work:
    """The writing of one store's shards."""

    def __init__(self, folder: Path, key: str, shard_size: int, skip_faults: bool, is_alone: bool):
        self.folder, self.key, self.shard_size = folder, key, shard_size
        self.skip_faults, self.is_alone = skip_faults, is_alone

    def write(
        self, entries: Sequence[Entry], recipe: Recipe, num_workers: int | None, progress: bool, description: str
    ) -> list[dict[str, Any]]:
        """Write the shards that are not there; what ``store.json`` says of each."""
        starts = range(0, len(entries), self.shard_size)
        done = self._finished()
        absent = [number for number in range(len(starts)) if number not in done]
        left = [e for number in absent for e in entries[starts[number] : starts[number] + self.shard_size]]
        with contextlib.closing(outcomes(left, recipe, num_workers, progress, description)) as results:
            for number in absent:
                size = len(entries[starts[number] : starts[number] + self.shard_size])
                done[number] = self._write_shard(number, results, size)
        return [done[number] for number in range(len(starts))]

    def _finished(self) -> dict[int, dict[str, Any]]:
        """Shards of this very store that are there and whole."""
        index = _read_json(self.folder / INDEX_NAME)
        listed = [*index.get("shards", []), *filter(None, map(_read_json, sorted(self.folder.glob("shard-*.json"))))]
        if any(shard["key"] != self.key for shard in listed):
            raise ValueError(
                f"{self.folder} holds a graph store of other data, settings or version. Remove it, or give another one"
            )
        good = {}
        for shard in listed:
            path = self.folder / shard["file"]
            whole = shard["count"] == 0 or (path.is_file() and hash_file(path) == shard["sha256"])
            if whole and (self.skip_faults or not shard["faults"]):
                good[shard["number"]] = shard
        return good

    def _write_shard(self, number: int, results: Iterator[Outcome], size: int) -> dict[str, Any]:
        crystals, faults, notes = [], [], []
        for _ in range(size):
            outcome = next(results)
            notes += outcome.notes
            if outcome.fault is not None:
                if not self.skip_faults:
                    raise InvalidStructureError(*outcome.fault)
                faults.append(list(outcome.fault))
            elif outcome.data is not None:
                crystals.append(outcome.data)
        path = self.folder / f"shard-{number:05d}.safetensors"
        shard: dict[str, Any] = {"key": self.key, "number": number, "file": path.name, "count": len(crystals)}
        shard |= {"faults": faults, "notes": notes}
        if crystals:
            content, about = _joined(crystals)
            if self.is_alone:
                remove_leftovers(path)
            with atomic_write(path) as file:
                file.write(content)
            shard |= about | {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        _write_json(path.with_suffix(".json"), shard)
        return shard


def _joined(crystals: Sequence[Data]) -> tuple[bytes, dict[str, Any]]:
    """Content of a shard's file, and the class, fields and texts of its crystals."""
    from safetensors.torch import save

    first = crystals[0]
    keys = list(first.to_dict())
    for data in crystals:
        if type(data) is not type(first) or set(data.to_dict()) != set(keys):
            raise TypeError(f"crystal {data.get('structure_id')!r} has other fields than the first, {keys}")
    tensors: dict[str, torch.Tensor] = {}
    fields: dict[str, int | None] = {}
    texts: dict[str, list[str]] = {}
    for name in keys:
        values = [data[name] for data in crystals]
        if all(isinstance(value, str) for value in values):
            texts[name] = values
            continue
        if not all(isinstance(value, torch.Tensor) for value in values):
            raise TypeError(
                f"field {name!r} is a {type(values[0]).__name__}: a graph store keeps tensors and texts alone"
            )
        dim = None if values[0].dim() == 0 else first.__cat_dim__(name, values[0])
        dim = dim if dim is None or dim >= 0 else dim + values[0].dim()
        fields[name] = dim
        joined = torch.stack(values) if dim is None else torch.cat(values, dim=dim)
        tensors[f"field:{name}"] = joined.contiguous()
        if dim is not None:
            lengths = torch.tensor([0, *(value.size(dim) for value in values)])
            tensors[f"first:{name}"] = lengths.cumsum(0)
    return save(tensors), {"class": class_name(type(first)), "fields": fields, "texts": texts}


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise ValueError(f"{folder} is a file: a graph store is a folder. Give another name")
    foreign = [p.name for p in folder.glob("*") if not p.name.startswith(("shard-", ".", INDEX_NAME))]
    if foreign:
        raise ValueError(f"{folder} holds other files ({foreign[0]}): a graph store needs a folder of its own")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(content).encode())


def _read_json(path: Path) -> dict[str, Any]:
    """The dictionary in a file, empty where there is none or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _first_fault(shards: Sequence[dict[str, Any]]) -> str:
    faults = [fault for shard in shards for fault in shard["faults"]]
    return f"; the first, {faults[0][0]!r}: {faults[0][1]}. {faults[0][2]}" if faults else ""

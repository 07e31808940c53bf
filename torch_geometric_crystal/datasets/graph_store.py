"""A folder of crystals with their graphs, larger than memory: flat tensors, mapped into memory, read one by one.

Layout (format 1): ``store.json`` and shards ``shard-00000.safetensors``, ... of `shard_size` crystals of the source.
A shard holds each field of its crystals joined along the dimension in which PyG joins it (`field:NAME`), and where each
crystal begins in it (`first:NAME`, one number more than crystals). ``store.json`` says how the graphs were made, names
the targets, and lists for each shard its fields, texts, faults, size and SHA-256. Nothing in it is pickled.

PyG's ``OnDiskDataset`` keeps a row of a database for each crystal instead, pickled unless all fields are declared.
benchmarks/data_store.py compares the two.
"""

import bisect
import copy
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset

from torch_geometric_crystal.checks import check_choice
from torch_geometric_crystal.datasets.cache import resolve_class
from torch_geometric_crystal.datasets.fingerprint import describe, hash_file, hash_text
from torch_geometric_crystal.datasets.source import as_names, check_names

STORE_FORMAT = "torch_geometric_crystal graph store 1"
INDEX_NAME = "store.json"


class _Shard(NamedTuple):
    """An open shard: for each field the joined tensor, the dimension (None: stacked) and the crystals' beginnings."""

    fields: dict[str, tuple[Tensor, int | None, list[int]]]
    texts: dict[str, list[str]]


def is_graph_store(path: str | Path) -> bool:
    """Whether `path` is the folder of a graph store that is complete."""
    return (Path(path).expanduser() / INDEX_NAME).is_file()


def transform_key(transform: Callable | None) -> str:
    """Hash of a transform's class, source text and settings."""
    return hash_text(describe(transform))


class OnDiskCrystals(Dataset):
    """Crystals with their graphs from a graph store (`write_graph_store`), read from the disk when asked for.

    Items are the same, to the bit, as those of a `CrystalDataset` with the same source and `pre_transform`. Any number
    of loader workers may read at once. A shard's SHA-256 is checked when a process first reads from it.

    Args:
        path: Folder of the store.
        target: Targets to use. Default: all.
        transform: Applied at each access.

    Attributes:
        target_names: Names of the columns of `y`.
        errors: (id, message) of each structure left out when the store was made.
        graph: The transform that made the graphs, as text.

    Raises:
        FileNotFoundError: if there is no complete store.
        ValueError: if it is damaged or of another format, or a target is not there.
    """

    def __init__(self, path: str | Path, target: str | Sequence[str] | None = None, transform: Callable | None = None):
        super().__init__(None, transform)
        self.path = Path(path).expanduser().absolute()
        index = _read_index(self.path)
        self._shards: list[dict[str, Any]] = [shard for shard in index["shards"] if shard["count"]]
        self._ends: list[int] = []
        for shard in self._shards:
            self._ends.append(shard["count"] + (self._ends[-1] if self._ends else 0))
        available = tuple(index["target_names"])
        asked = as_names(target)
        self.target_names = available if asked is None else asked
        check_names(self.target_names, available, str(self.path))
        every = self.target_names == available
        self._columns = None if every else torch.tensor([available.index(name) for name in self.target_names])
        self.errors: list[tuple[str, str]] = [
            (name, f"{f}. {r}") for s in index["shards"] for name, f, r in s["faults"]
        ]
        self.graph: str = index["graph"]
        self._transform_key: str = index["transform_key"]
        self._class = resolve_class(index["class"])
        self._only: frozenset[str] | None = None
        self._opened: dict[int, _Shard] = {}
        self._verified: set[int] = set()  # shards whose SHA-256 was right, shared by all views of this store

    def len(self) -> int:
        """Number of crystals in the store."""
        return self._ends[-1] if self._ends else 0

    def get(self, idx: int) -> Data:
        """Crystal number `idx` of the store."""
        data = self._view(idx)
        (fields,) = data.stores
        for name in self._opened[bisect.bisect_right(self._ends, idx)].fields:
            fields[name] = fields[name].clone(memory_format=torch.contiguous_format)
        return data

    def __getitems__(self, indices: Sequence[int]) -> list[Data]:
        """Crystals that a loader joins to a batch at once: without a transform they need no copies of their own."""
        if self.transform is not None:
            return [self[index] for index in indices]
        numbers = self.indices()
        return [self._view(numbers[index]) for index in indices]

    def _view(self, idx: int) -> Data:
        """Crystal number `idx` of the store, in the shard's own memory."""
        number = bisect.bisect_right(self._ends, idx)
        shard = self._opened.get(number) or self._open(number)
        local = idx - (self._ends[number - 1] if number else 0)
        data = self._class()
        (fields,) = data.stores
        for name, (joined, dim, first) in shard.fields.items():
            if dim is None:
                fields[name] = joined[local]
            else:
                begin = first[local]
                fields[name] = joined.narrow(dim, begin, first[local + 1] - begin)
        for name, texts in shard.texts.items():
            fields[name] = texts[local]
        if self._columns is not None and "y" in fields:
            fields["y"] = fields["y"][:, self._columns]
        return data

    @property
    def structure_ids(self) -> list[str]:
        """Names of the crystals, in order."""
        names = [name for shard in self._shards for name in shard["texts"]["structure_id"]]
        return [names[i] for i in self.indices()]

    def with_fields(self, *names: str) -> "OnDiskCrystals":
        """The same crystals with these fields alone: what is left out is not read."""
        view = copy.copy(self)
        view._only, view._opened = frozenset(names), {}
        return view

    def sizes(self, kind: str) -> list[int]:
        """Number of ``"atoms"`` or ``"edges"`` of each crystal, without reading them.

        Raises:
            ValueError: if edges are asked for and there are none.
        """
        check_choice("kind", kind, ("atoms", "edges"))
        name = {"atoms": "z", "edges": "edge_index"}[kind]
        view, sizes = self.with_fields(name), []
        for number in range(len(self._shards)):
            fields = view._open(number).fields
            if name not in fields:
                raise ValueError(f"{self.path}: its crystals have no {kind}; make it with a model's graphs")
            first = fields[name][2]
            sizes += [end - begin for begin, end in itertools.pairwise(first)]
        return [sizes[i] for i in self.indices()]

    def check_transform(self, transform: Callable | None) -> None:
        """Raise unless the store's graphs are those that `transform` makes.

        Raises:
            ValueError: naming both.
        """
        if transform_key(transform) != self._transform_key:
            raise ValueError(
                f"{self.path}: its graphs were made by {self.graph}, in version {_made_by(self.path)} of the library; "
                f"asked for are those of {transform!r}. Make a store of them: "
                "tgcrystal convert SOURCE FOLDER --graphs MODEL"
            )

    def _open(self, number: int) -> _Shard:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        about = self._shards[number]
        path = self.path / about["file"]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: put the store back, or make it anew")
        whole = path.stat().st_size == about["bytes"]
        if not whole or (number not in self._verified and hash_file(path) != about["sha256"]):
            raise ValueError(
                f"{path} is damaged: its size or SHA-256 is not the one in {INDEX_NAME}. Make the store anew"
            )
        self._verified.add(number)
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}). Make the store anew") from error
        chosen = {name: dim for name, dim in about["fields"].items() if self._only is None or name in self._only}
        fields = {
            name: (tensors[f"field:{name}"], dim, [] if dim is None else tensors[f"first:{name}"].tolist())
            for name, dim in chosen.items()
        }
        texts = {name: t for name, t in about["texts"].items() if self._only is None or name in self._only}
        self._opened[number] = _Shard(fields, texts)
        return self._opened[number]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path.name!r}, {len(self)} crystals, {self.graph})"


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX_NAME
    if not path.is_file():
        begun = any(folder.glob("shard-*.json"))
        remedy = "it was not finished: run the same command again, it continues" if begun else "there is no such store"
        raise FileNotFoundError(f"{path} is missing: {remedy}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        found = index["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}). Make the store anew") from error
    if found != STORE_FORMAT:
        raise ValueError(f"{path} has format {found!r}; this version reads {STORE_FORMAT!r}. Make the store anew")
    return index


def _made_by(folder: Path) -> str:
    return str(_read_index(folder)["version"])

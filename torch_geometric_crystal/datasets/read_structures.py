"""Structure files for prediction: in order, one result per file, never a crash."""

import contextlib
import dataclasses
import os
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.datasets.labels import UnlabelledSource
from torch_geometric_crystal.datasets.open_source import open_source
from torch_geometric_crystal.datasets.processing import Recipe, StructureWarning, outcomes
from torch_geometric_crystal.datasets.readers.ase_file import ExtendedXyzSource
from torch_geometric_crystal.datasets.readers.folder import TARGET_FILE
from torch_geometric_crystal.datasets.readers.structure_file import crystal_from_file, is_structure_file, structure_stem
from torch_geometric_crystal.datasets.readers.structure_files import StructureFilesSource
from torch_geometric_crystal.datasets.source import Entry, faulty_entry

_SETS = (".csv", ".db", ".npz", ".json", ".json.gz", ".zip", ".xyz", ".extxyz")
"""How the names of files end that can hold many structures."""
_OFTEN_ONE = (".json", ".xyz", ".extxyz")
"""Those of them that are read as a file of one structure where no set can be made out."""


class FileResult(NamedTuple):
    """What came of one file, or of one structure in it: `data`, or `error` in words."""

    structure_id: str
    path: Path
    data: Data | None
    error: str | None


def read_structures(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    dtype: torch.dtype = torch.float32,
    transform: Callable[[Data], Data] | None = None,
    num_workers: int | None = 0,
    progress: bool = False,
) -> list[FileResult]:
    """Read CIF, POSCAR, xyz and pymatgen JSON files, folders of the first three, and files that hold many structures.

    Args:
        paths: Files and folders. A folder stands for the structure files in it, sorted by name; an ASE database, a
            table, extended XYZ, JSON records or a compact store for its structures, under their own names.
        dtype: Type of `pos` and `cell`.
        transform: Applied to each crystal; where it refuses one, that is the file's error.
        num_workers: Processes beside this one; None for as many as pay.
        progress: Whether to show a bar (on a terminal only).

    Returns:
        One result per structure, in the order given. The id of one that has a file of its own is the file's name
        without suffix, or the whole path as given where several files would have the same. A path that is not there, a
        folder without structure files, and a file that cannot be read each give a result with an error.
    """
    return list(stream_structures(paths, dtype, transform, num_workers, progress))


def stream_structures(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    dtype: torch.dtype = torch.float32,
    transform: Callable[[Data], Data] | None = None,
    num_workers: int | None = 0,
    progress: bool = False,
) -> Generator[FileResult, None, None]:
    """The results of `read_structures` one by one, as they come."""
    files: list[tuple[Path, str | list[Entry] | None]] = []
    for path in [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(p) for p in paths]:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if is_structure_file(p) and p.is_file())
            files += [(p, None) for p in found] or [(path, "a folder without CIF, POSCAR or xyz files")]
        else:
            files.append((path, _structures_in(path) if path.is_file() else "no such file"))
    counts = Counter(_stem(path) for path, _ in files)
    entries, of_file = [], []
    for path, content in files:
        name = str(path) if counts[_stem(path)] > 1 else _stem(path)
        own = content if isinstance(content, list) else [_file_entry(name, path, content)]
        entries += own
        of_file += [path] * len(own)
    entries = _told_apart(entries, of_file)
    recipe = Recipe(None if transform is None else _Refusing(transform), None, dtype)
    results = outcomes(entries, recipe, num_workers, progress, "reading")
    with contextlib.closing(results):
        for path, entry, outcome in zip(of_file, entries, results, strict=True):
            for note in outcome.notes:
                warnings.warn(note, StructureWarning, stacklevel=2)
            fault = outcome.fault
            error = None if fault is None else f"{fault.fault}. {fault.remedy}" if fault.remedy else fault.fault
            yield FileResult(entry.structure_id, path, outcome.data, error)


class _Refusing:
    """A transform whose complaints about a crystal's values are faults of that crystal."""

    def __init__(self, transform: Callable[[Data], Data]):
        self.transform = transform

    def __call__(self, data: Data) -> Data:
        try:
            return self.transform(data)
        except InvalidStructureError:
            raise
        except ValueError as error:
            raise InvalidStructureError(data.structure_id, str(error), "") from error
        except MemoryError as error:
            fault = f"its {data.num_nodes} atoms have more neighbours than fit into the memory"
            raise InvalidStructureError(data.structure_id, fault, "Check its cell and atoms") from error


def _told_apart(entries: list[Entry], of_file: list[Path]) -> list[Entry]:
    """Entries whose names differ: those of sets that would not are preceded by their file's."""
    names, files = Counter(entry.structure_id for entry in entries), Counter(of_file)
    return [
        dataclasses.replace(entry, structure_id=f"{path}:{entry.structure_id}")
        if names[entry.structure_id] > 1 and files[path] > 1 and entry.structure_id != str(path)
        else entry
        for path, entry in zip(of_file, entries, strict=True)
    ]


def _file_entry(name: str, path: Path, error: str | None) -> Entry:
    return faulty_entry(name, error, "") if error else Entry(name, None, _read, path)


def _structures_in(path: Path) -> list[Entry] | str | None:
    """The structures of a file that holds several, or why they cannot be read; None for a file of one structure."""
    name = path.name.lower()
    if path.name == TARGET_FILE:
        return "a table of targets. Give its folder"
    if not name.endswith(_SETS):
        return None
    try:
        source = open_source(path)
        entries = None if isinstance(source, StructureFilesSource) else list(UnlabelledSource(source))
    except (ValueError, OSError, ImportError, RecursionError) as error:
        return None if name.endswith(_OFTEN_ONE) else str(error)
    is_one_frame = isinstance(source, ExtendedXyzSource) and entries is not None and len(entries) == 1
    return None if is_one_frame else entries


def _read(path: Path, structure_id: str, dtype: torch.dtype) -> Data:
    try:
        return crystal_from_file(path, structure_id, dtype)
    except MissingDependencyError as error:
        raise InvalidStructureError(structure_id, str(error), "") from error


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() == ".json" else structure_stem(path.name)

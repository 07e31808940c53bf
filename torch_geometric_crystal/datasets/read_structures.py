"""Structure files for prediction: in order, one result per file, never a crash."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError
from torch_geometric_crystal.datasets.readers.structure_file import crystal_from_file, is_structure_file, structure_stem


class FileResult(NamedTuple):
    """What came of one file: `data`, or `error` in words."""

    structure_id: str
    path: Path
    data: Data | None
    error: str | None


def read_structures(
    paths: str | os.PathLike | Iterable[str | os.PathLike], dtype: torch.dtype = torch.float32
) -> list[FileResult]:
    """Read CIF, POSCAR, xyz and pymatgen JSON files, and folders of the first three.

    Args:
        paths: Files and folders. A folder stands for the structure files in it, sorted by name.
        dtype: Type of `pos` and `cell`.

    Returns:
        One result per file, in the order given. The id is the file's name without suffix, or the whole path as given
        where several files would have the same. A path that is not there, a folder without structure files, and a file
        that cannot be read each give a result with an error.
    """
    files: list[tuple[Path, str | None]] = []
    for path in [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(p) for p in paths]:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if is_structure_file(p) and p.is_file())
            files += [(p, None) for p in found] or [(path, "a folder without CIF, POSCAR or xyz files")]
        else:
            files.append((path, None if path.is_file() else "no such file"))
    stems = [_stem(path) for path, _ in files]
    counts = Counter(stems)
    results = []
    for (path, error), stem in zip(files, stems, strict=True):
        structure_id = str(path) if counts[stem] > 1 else stem
        results.append(FileResult(structure_id, path, None, error) if error else _read(path, structure_id, dtype))
    return results


def _read(path: Path, structure_id: str, dtype: torch.dtype) -> FileResult:
    try:
        data = crystal_from_file(path, structure_id, dtype)
    except InvalidStructureError as error:
        return FileResult(structure_id, path, None, f"{error.fault}. {error.remedy}")
    except MissingDependencyError as error:
        return FileResult(structure_id, path, None, str(error))
    data.structure_id = structure_id
    return FileResult(structure_id, path, data, None)


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() == ".json" else structure_stem(path.name)

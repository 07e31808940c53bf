"""A compact file of crystals: numpy arrays in an ``.npz``, read in seconds however many there are.

Layout (format 1), n crystals with `num_atoms` atoms each, A atoms in all, crystals one after the other:

=============== ==================== ==================================================================
array           shape, type          meaning
=============== ==================== ==================================================================
`format`        () text              ``torch_geometric_crystal compact store 1``
`num_atoms`     (n,) int32           atoms of each crystal
`z`             (A,) uint8           atomic numbers
`frac_coords`   (A, 3) float32 or 64 coordinates in units of the lattice vectors, not wrapped
`cells`         (n, 3, 3) float64    lattice vectors in A, as rows: orientation and handedness are kept
`pbc`           (n, 3) bool          periodic directions
`structure_ids` (n,) text            names
`targets`       (n, T) float64       targets, NaN where missing
`target_names`  (T,) text            their names
=============== ==================== ==================================================================

Also read: files without `format` that give `cell_parameters` (n, 6; a, b, c in A, alpha, beta, gamma in degrees)
instead of `cells`. There every other floating point array of length n is a target, and names are the file's name and a
number.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.atomic_write import atomic_write
from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.readers.structure_dict import lattice_from_parameters
from torch_geometric_crystal.datasets.readers.structure_list import crystal_from_arrays
from torch_geometric_crystal.datasets.source import Entry, Source, as_names, check_names, existing_file, labelled_entry

FORMAT = "torch_geometric_crystal compact store 1"


class CompactStore(Source):
    """Reader of a compact store: the arrays are in memory, crystals are made when asked for.

    Args:
        path: The ``.npz`` file. Nothing in it is unpickled.
        target: Targets to use. Default: all.

    Attributes:
        num_atoms: Atoms of each crystal, (n,) int64.
        structure_ids: Names, list of n.
        targets: (n, T) float64, NaN where missing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or of another layout, or a target is not there.
    """

    def __init__(self, path: str | os.PathLike, target: str | Sequence[str] | None = None):
        self.path = existing_file(Path(path))
        super().__init__(self.path.name)
        arrays = _read_arrays(self.path)
        self.num_atoms = arrays["num_atoms"].astype(np.int64)
        self.structure_ids: list[str] = arrays["structure_ids"].tolist()
        self._first = np.concatenate(([0], np.cumsum(self.num_atoms)))
        self._z, self._frac_coords = arrays["z"], arrays["frac_coords"]
        self._cells, self._pbc = arrays["cells"], arrays["pbc"]
        _check_consistency(self.path, arrays, int(self._first[-1]))
        available = tuple(str(name) for name in arrays["target_names"])
        self._asked = as_names(target)
        self._target_names = available if self._asked is None else self._asked
        check_names(self._target_names, available, str(self.path))
        self.targets = arrays["targets"][:, [available.index(name) for name in self._target_names]]

    @property
    def target_names(self) -> tuple[str, ...]:
        """The targets chosen."""
        return self._target_names

    def __len__(self) -> int:
        return len(self.num_atoms)

    def __getitem__(self, index: int) -> Data:
        """Crystal number `index`, checked, with `y` and `structure_id`."""
        return self.entry(range(len(self))[index]).load()

    def __iter__(self) -> Iterator[Entry]:
        return (self.entry(index) for index in range(len(self)))

    def entry(self, index: int) -> Entry:
        """Crystal number `index` as an `Entry`, whose ``load(dtype)`` makes the `Data`."""
        atoms = slice(self._first[index], self._first[index + 1])
        cell = self._cells[index]
        pos = self._frac_coords[atoms].astype(np.float64) @ cell
        raw = (self._z[atoms], pos, cell, self._pbc[index])
        values = self.targets[index].tolist()
        return labelled_entry(self.structure_ids[index], values, self.target_names, crystal_from_arrays, raw)

    def fingerprint(self) -> str:
        """Hash of the file and of the options."""
        return hash_text("compact", hash_file(self.path), repr(self._asked))


def write_compact_store(
    path: str | os.PathLike,
    crystals: Iterable[Data],
    target_names: str | Sequence[str] = (),
    structure_ids: Sequence[str] | None = None,
    dtype: type = np.float32,
) -> int:
    """Write crystals as a compact store, atomically.

    Args:
        path: File to write; its name must end in ``.npz``.
        crystals: `Data` with z, pos, cell, and optionally pbc, y (1, T) and structure_id.
        target_names: Names of the T columns of `y`.
        structure_ids: Names. Default: ``data.structure_id``, or the position.
        dtype: Type of the coordinates: float32 (relative rounding 6e-8) or float64.

    Returns:
        The number of crystals written.

    Raises:
        ValueError: if the name ends otherwise, there are no crystals, or `y` and the names do not match.
        OSError: if it cannot be written; an older file is left whole.
    """
    check_argument(str(path).endswith(".npz"), "path", "a name that ends in .npz", str(path))
    names = as_names(target_names) or ()
    columns: dict[str, list[Any]] = {key: [] for key in ("z", "frac_coords", "cells", "pbc", "ids", "targets")}
    for index, data in enumerate(crystals):
        cell = data.cell[0].detach().cpu().double().numpy()
        pos = data.pos.detach().cpu().double().numpy()
        columns["z"].append(data.z.cpu().numpy().astype(np.uint8))
        columns["frac_coords"].append(np.linalg.solve(cell.T, pos.T).T.astype(dtype))
        columns["cells"].append(cell)
        columns["pbc"].append(np.ones(3, dtype=bool) if data.get("pbc") is None else data.pbc.cpu().numpy()[0])
        columns["ids"].append(str(data.get("structure_id", index)))
        y = torch.zeros(1, 0) if data.get("y") is None else data.y
        check_argument(y.numel() == len(names), "target_names", f"{y.numel()} names, as columns of y", names)
        columns["targets"].append(y.detach().cpu().double().numpy().reshape(-1))
    number = len(columns["z"])
    check_argument(number > 0, "crystals", "at least one", number)
    ids = columns["ids"] if structure_ids is None else list(structure_ids)
    check_argument(len(ids) == number, "structure_ids", f"{number} names", len(ids))
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            format=np.array(FORMAT),
            num_atoms=np.array([len(z) for z in columns["z"]], dtype=np.int32),
            z=np.concatenate(columns["z"]),
            frac_coords=np.concatenate(columns["frac_coords"]),
            cells=np.stack(columns["cells"]),
            pbc=np.stack(columns["pbc"]),
            structure_ids=np.array(ids, dtype=np.str_),
            targets=np.stack(columns["targets"]),
            target_names=np.array(names, dtype=np.str_),
        )
    return number


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of format 1, whichever of the two layouts the file has."""
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:
        # numpy and zipfile raise many types for a damaged file.
        raise ValueError(f"{path} is not a readable compact store ({type(error).__name__}: {error})") from error
    if "format" in arrays and str(arrays["format"]) != FORMAT:
        raise ValueError(f"{path} has format {str(arrays['format'])!r}; this version reads {FORMAT!r}")
    needed: tuple[str, ...] = ("num_atoms", "z", "frac_coords")
    if "format" in arrays:
        needed += ("pbc", "structure_ids", "targets", "target_names")
    absent = [key for key in needed if key not in arrays]
    if absent or not ("cells" in arrays or "cell_parameters" in arrays):
        raise ValueError(f"{path} is not a compact store: it lacks {', '.join(absent or ['cells'])}")
    if "format" not in arrays:
        _complete_foreign(arrays, path.stem)
    return arrays


def _complete_foreign(arrays: dict[str, np.ndarray], name: str) -> None:
    """Give a file without `format` what format 1 has."""
    number = len(arrays["num_atoms"])
    reserved = {"num_atoms", "z", "frac_coords", "cells", "cell_parameters", "pbc"}
    targets = [key for key, a in arrays.items() if key not in reserved and a.dtype.kind == "f" and a.shape == (number,)]
    if "cells" not in arrays:
        arrays["cells"] = lattice_from_parameters(arrays["cell_parameters"])
    arrays.setdefault("pbc", np.ones((number, 3), dtype=bool))
    arrays["structure_ids"] = np.array([f"{name}-{k:06d}" for k in range(1, number + 1)], dtype=np.str_)
    arrays["targets"] = np.array([arrays[key] for key in targets], dtype=np.float64).reshape(len(targets), number).T
    arrays["target_names"] = np.array(targets, dtype=np.str_)


def _check_consistency(path: Path, arrays: dict[str, np.ndarray], num_atoms: int) -> None:
    number = len(arrays["num_atoms"])
    shapes = {
        "z": (num_atoms,),
        "frac_coords": (num_atoms, 3),
        "cells": (number, 3, 3),
        "pbc": (number, 3),
        "structure_ids": (number,),
        "targets": (number, len(arrays["target_names"])),
    }
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise ValueError(f"{path} is damaged: {key} has shape {arrays[key].shape}, not {shape}")
    if (arrays["num_atoms"] < 0).any():
        raise ValueError(f"{path} is damaged: a crystal has fewer than 0 atoms")

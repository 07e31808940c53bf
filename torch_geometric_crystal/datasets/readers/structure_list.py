"""A list of structures in memory."""

import dataclasses
import hashlib
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError, check_argument
from torch_geometric_crystal.data import (
    OverlappingAtomsWarning,
    from_ase_atoms,
    from_structure,
    make_crystal,
    validate_crystal,
)
from torch_geometric_crystal.datasets.fingerprint import hash_text
from torch_geometric_crystal.datasets.source import Entry, Source, as_names, faulty_entry, labelled_entry


class StructureListSource(Source):
    """pymatgen structures or molecules, ASE atoms, or `Data`, in a list.

    Of `Data` the fields z, pos, cell, pbc, and, unless given here, `y` and `structure_id` are used: `y` (1, T), or
    (N, T) for targets of atoms, which :class:`~torch_geometric_crystal.datasets.LabelSource` reads (``level="atom"``).
    Without `y`, targets that are named are looked up: in the ``site_properties`` and ``properties`` of pymatgen's
    structures, the ``arrays`` and ``info`` of ASE's atoms, and the fields of `Data`.

    Args:
        structures: The list.
        targets: Targets, (n,) or (n, T), NaN where missing. Default: `y` of the `Data`, or none.
        structure_ids: Names. Default: `structure_id` of the `Data`, or the position in the list.
        target_names: Names of the targets. Default: ``target``, or ``target_1``, ``target_2``, ...
        name: Name of the source in messages and in the cache.

    Raises:
        ValueError: if numbers of structures, targets, ids or names do not match.
    """

    def __init__(
        self,
        structures: Sequence[Any],
        targets: Sequence[Any] | np.ndarray | torch.Tensor | None = None,
        structure_ids: Sequence[str] | None = None,
        target_names: str | Sequence[str] | None = None,
        name: str = "structures",
    ):
        super().__init__(name)
        self.structures = list(structures)
        number = len(self.structures)
        if structure_ids is None:
            structure_ids = [_own(s, "structure_id", str(k)) for k, s in enumerate(self.structures)]
        check_argument(len(structure_ids) == number, "structure_ids", f"{number} names", len(structure_ids))
        self.structure_ids = [str(structure_id) for structure_id in structure_ids]
        if targets is None:
            self._values = _own_targets(self.structures) or _properties(self.structures, as_names(target_names) or ())
        else:
            self._values = np.array(targets, dtype=np.float64).reshape(len(targets), -1).tolist()
            check_argument(len(self._values) == number, "targets", f"{number} rows", len(self._values))
        width = len(self._values[0]) if self._values else 0
        if width == 0 and self.structures:
            check_argument(not target_names, "target_names", "names of what the structures hold", target_names)
        default = ("target",) if width == 1 else tuple(f"target_{k}" for k in range(1, width + 1))
        self._target_names = as_names(target_names) or default
        check_argument(len(self._target_names) == width, "target_names", f"{width} names", self._target_names)
        self._entries: list[Entry] | None = None

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self._target_names

    def fingerprint(self) -> str:
        """Hash of the crystals, their names and targets."""
        digest = hashlib.sha256()
        for entry in self:
            for part in entry.raw:
                digest.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode())
        texts = (repr(self.structure_ids), repr(self.target_names), repr(self._values))
        return hash_text("list", digest.hexdigest(), *texts)

    def __iter__(self) -> Iterator[Entry]:
        if self._entries is None:
            self._entries = [self._entry(k) for k in range(len(self.structures))]
        return iter(self._entries)

    def _entry(self, index: int) -> Entry:
        structure_id = self.structure_ids[index]
        try:
            with warnings.catch_warnings():
                # Overlaps are reported when the entry is loaded.
                warnings.simplefilter("ignore", OverlappingAtomsWarning)
                raw = structure_arrays(self.structures[index], structure_id)
        except InvalidStructureError as error:
            return faulty_entry(structure_id, error.fault, error.remedy)
        values = self._values[index] if self._values else ()
        single = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
        entry = labelled_entry(structure_id, single, self.target_names, crystal_from_arrays, raw)
        return dataclasses.replace(entry, labels=tuple(values))


def crystal_from_arrays(
    raw: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], structure_id: str, dtype: torch.dtype = torch.float32
) -> Data:
    """A checked crystal from z (N,), pos (N, 3), cell (3, 3) and pbc (3,).

    Raises:
        InvalidStructureError: if it is not a valid crystal.
    """
    data = make_crystal(*raw, structure_id=structure_id, dtype=dtype)
    validate_crystal(data, structure_id)
    return data


def structure_arrays(structure: Any, structure_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """z (N,), pos (N, 3), cell (3, 3) and pbc (3,) of a pymatgen structure or molecule, ASE atoms, or `Data`.

    Raises:
        InvalidStructureError: if it is something else, or cannot be a crystal.
    """
    if isinstance(structure, Data):
        validate_crystal(structure, structure_id, check_overlap=False)
        data = structure
    elif "ase" in sys.modules and isinstance(structure, sys.modules["ase"].Atoms):
        data = from_ase_atoms(structure, structure_id=structure_id, dtype=torch.float64)
    else:
        data = from_structure(structure, structure_id=structure_id, dtype=torch.float64)
    pbc = np.ones(3, dtype=bool) if data.get("pbc") is None else data.pbc.cpu().numpy()[0]
    pos, cell = data.pos.detach().cpu().double().numpy(), data.cell.detach().cpu().double().numpy()[0]
    return data.z.cpu().numpy(), pos, cell, pbc


def _own(structure: Any, key: str, default: Any) -> Any:
    value = structure.get(key) if isinstance(structure, Data) else None
    return default if value is None else value


def _own_targets(structures: Sequence[Any]) -> list[list[Any]]:
    """`y` of the structures that have it, T numbers or T lists of a number for each atom; NaN for the others."""
    own = [_own(structure, "y", None) for structure in structures]
    tables = [None if y is None else torch.as_tensor(y).detach().cpu().double() for y in own]
    of_atoms = any(y is not None and y.dim() == 2 and y.size(0) > 1 for y in tables)
    rows = [None if y is None else (y.T if of_atoms and y.dim() == 2 else y.reshape(-1)).tolist() for y in tables]
    widths = {len(row) for row in rows if row is not None}
    if not widths:
        return []
    check_argument(len(widths) == 1, "structures", "y of equal length", sorted(widths))
    missing = [None if of_atoms else math.nan] * widths.pop()
    return [missing if row is None else row for row in rows]


def _properties(structures: Sequence[Any], names: Sequence[str]) -> list[list[Any]]:
    """What the structures hold under these names, None where one does not; nothing where none does."""
    rows = [[_property(structure, name) for name in names] for structure in structures]
    return rows if any(value is not None for row in rows for value in row) else []


def _property(structure: Any, name: str) -> Any:
    if isinstance(structure, Data):
        value = structure.get(name)
    else:
        holders = ("site_properties", "properties", "arrays", "info")
        found = (getattr(structure, holder, {}) for holder in holders)
        value = next((held[name] for held in found if isinstance(held, dict) and name in held), None)
    if isinstance(value, np.ndarray | torch.Tensor):
        value = np.asarray(value)
        return value.reshape(-1).tolist() if value.size == 1 else value.tolist()
    return value

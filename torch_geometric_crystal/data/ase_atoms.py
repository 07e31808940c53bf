"""ASE atoms to `Data` and back."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import MissingDependencyError
from torch_geometric_crystal.data.structures import Targets, make_crystal, periodic_directions
from torch_geometric_crystal.data.validation import OCCUPANCY_TOLERANCE, disordered_site, validate_crystal

if TYPE_CHECKING:
    from ase import Atoms


def from_ase_atoms(
    atoms: "Atoms",
    y: Targets | None = None,
    structure_id: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Data:
    """ASE `Atoms` as `Data`, checked.

    Lattice vectors that ASE leaves at zero (the open directions of a slab, wire or molecule) are completed by unit
    vectors orthogonal to the others, as `ase.geometry.complete_cell` does; they carry no periodicity.

    Args:
        atoms: ASE atoms; their `pbc` is kept. Constraints, calculators, tags and masses do not enter.
        y: Target, or targets; NaN where missing. The field is left out if None.
        structure_id: Name used in errors and prediction files. The field is left out if None.
        dtype: Type of `pos`, `cell` and `y`.

    Shapes:
        As `from_structure`.

    Raises:
        TypeError: if `atoms` is not an ASE `Atoms`.
        InvalidStructureError: if it is not a valid crystal, a periodic direction has no lattice vector, or
            ``atoms.info["occupancy"]`` (where ASE keeps a CIF's partial occupancies) shows disorder.

    Warns:
        OverlappingAtomsWarning: if two atoms are closer than 0.1 A.
    """
    try:
        from ase import Atoms
    except ImportError as error:
        raise MissingDependencyError("ase", "ase") from error

    if not isinstance(atoms, Atoms):
        raise TypeError(f"atoms: expected an ase.Atoms, received {type(atoms).__name__}")
    name = structure_id or atoms.get_chemical_formula() or "unnamed"
    _refuse_disorder(atoms, name)
    cell = atoms.cell.array
    open_and_absent = ~atoms.pbc & ~cell.any(axis=1)
    if open_and_absent.any() and np.linalg.matrix_rank(cell) == 3 - open_and_absent.sum():
        cell = atoms.cell.complete().array
    data = make_crystal(atoms.numbers, atoms.positions, cell, atoms.pbc, y, structure_id, dtype)
    validate_crystal(data, name)
    return data


def to_ase_atoms(data: Data) -> "Atoms":
    """`Data` as ASE `Atoms`, with `structure_id`, if there is one, in ``atoms.info``.

    Positions are not wrapped. Inverse of `from_ase_atoms` up to the precision of ``data.pos.dtype``.

    Args:
        data: Crystal with `z`, `pos`, `cell` and optionally `pbc` (absent: periodic in all directions).

    Raises:
        InvalidStructureError: if `data` is not a valid crystal.
    """
    try:
        from ase import Atoms
    except ImportError as error:
        raise MissingDependencyError("ase", "ase") from error

    validate_crystal(data, check_overlap=False)
    info = {"structure_id": data.structure_id} if data.get("structure_id") is not None else {}
    return Atoms(
        numbers=data.z.cpu().numpy(),
        positions=data.pos.detach().cpu().double().numpy(),
        cell=data.cell[0].detach().cpu().double().numpy(),
        pbc=periodic_directions(data),
        info=info,
    )


def _refuse_disorder(atoms: "Atoms", name: str) -> None:
    for index, species in enumerate((atoms.info.get("occupancy") or {}).values()):
        numbers = all(isinstance(occupancy, int | float) for occupancy in species.values())
        if not numbers or len(species) != 1 or abs(sum(species.values()) - 1.0) > OCCUPANCY_TOLERANCE:
            raise disordered_site(name, index, ", ".join(f"{s} {share}" for s, share in species.items()))

"""pymatgen structures to `Data` and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_crystal.checks import MissingDependencyError, check_argument
from torch_geometric_crystal.data.elements import ATOMIC_NUMBERS, SYMBOLS
from torch_geometric_crystal.data.validation import composition, validate_crystal, validate_structure

if TYPE_CHECKING:
    from pymatgen.core import IMolecule, IStructure, Molecule, Structure

Targets = float | Sequence[float] | np.ndarray | Tensor
"""One target, or several as a sequence; NaN where a value is missing."""


def make_crystal(
    z: Sequence[int] | np.ndarray,
    pos: np.ndarray,
    cell: np.ndarray,
    pbc: Sequence[bool] | np.ndarray,
    y: Targets | None = None,
    structure_id: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Data:
    """Put arrays into the library's data model, without checks.

    Args:
        z: Atomic numbers, (N,).
        pos: Cartesian positions in A, (N, 3).
        cell: Lattice vectors in A as rows, (3, 3).
        pbc: Periodic directions, (3,).
        y: Targets; the field is left out if None.
        structure_id: Name; the field is left out if None.
        dtype: Type of `pos`, `cell` and `y`.

    Shapes:
        z (N,) int64, pos (N, 3), cell (1, 3, 3), pbc (1, 3) bool, y (1, T).
    """
    check_argument(isinstance(dtype, torch.dtype) and dtype.is_floating_point, "dtype", "a floating point type", dtype)
    data = Data(
        z=torch.from_numpy(np.array(z, dtype=np.int64)),
        pos=torch.from_numpy(np.array(pos, dtype=np.float64).reshape(-1, 3)).to(dtype),
        cell=torch.from_numpy(np.array(cell, dtype=np.float64).reshape(1, 3, 3)).to(dtype),
        pbc=torch.from_numpy(np.array(pbc, dtype=bool).reshape(1, 3)),
    )
    if y is not None:
        data.y = torch.as_tensor(y, dtype=dtype).reshape(1, -1)
    if structure_id is not None:
        data.structure_id = str(structure_id)
    return data


def from_structure(
    structure: Union["Structure", "IStructure", "Molecule", "IMolecule"],
    y: Targets | None = None,
    structure_id: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Data:
    """A pymatgen structure or molecule as `Data`, checked.

    Only atomic numbers and positions enter: oxidation states, spins, charges and site properties do not. Deuterium and
    tritium are hydrogen. Atoms stay where they are, inside the cell or not, and a left-handed basis stays left-handed.

    Args:
        structure: An ordered pymatgen structure (its `lattice.pbc` is kept), or a molecule (identity cell, no
            periodicity).
        y: Target, or targets, of the crystal; NaN where missing. The field is left out if None.
        structure_id: Name used in errors and prediction files. The field is left out if None.
        dtype: Type of `pos`, `cell` and `y`.

    Shapes:
        z (N,) int64, pos (N, 3) in A, cell (1, 3, 3) in A with lattice vectors as rows, pbc (1, 3) bool, y (1, T).

    Raises:
        TypeError: if `structure` is not a pymatgen structure or molecule.
        InvalidStructureError: if it is disordered or otherwise invalid (see `validate_structure`, `validate_crystal`).

    Warns:
        OverlappingAtomsWarning: if two atoms are closer than 0.1 A.
    """
    try:
        from pymatgen.core import SiteCollection
        from pymatgen.core.structure import IStructure
    except ImportError as error:
        raise MissingDependencyError("pymatgen", "all") from error

    if not isinstance(structure, SiteCollection):
        raise TypeError(
            "structure: expected a pymatgen Structure or Molecule, received "
            f"{type(structure).__name__} (for ASE atoms use from_ase_atoms)"
        )
    validate_structure(structure, structure_id)
    z = [ATOMIC_NUMBERS[site.specie.symbol] for site in structure]
    if isinstance(structure, IStructure):
        cell, pbc = structure.lattice.matrix, structure.lattice.pbc
    else:
        cell, pbc = np.eye(3), (False, False, False)
    data = make_crystal(z, structure.cart_coords, cell, pbc, y, structure_id, dtype)
    validate_crystal(data, structure_id or composition(structure))
    return data


def to_structure(data: Data) -> Union["Structure", "Molecule"]:
    """`Data` as a pymatgen `Structure`, or as a `Molecule` if no direction is periodic.

    Positions are not wrapped into the cell. Inverse of `from_structure` up to the precision of ``data.pos.dtype``.

    Args:
        data: Crystal with `z`, `pos`, `cell` and optionally `pbc` (absent: periodic in all directions).

    Raises:
        InvalidStructureError: if `data` is not a valid crystal.
    """
    try:
        from pymatgen.core import Lattice, Molecule, Structure
    except ImportError as error:
        raise MissingDependencyError("pymatgen", "all") from error

    validate_crystal(data, check_overlap=False)
    symbols = [SYMBOLS[z - 1] for z in data.z.tolist()]
    pos = data.pos.detach().cpu().double().numpy()
    pbc = periodic_directions(data)
    if not any(pbc):
        return Molecule(symbols, pos)
    lattice = Lattice(data.cell[0].detach().cpu().double().numpy(), pbc=pbc)
    return Structure(lattice, symbols, pos, coords_are_cartesian=True, to_unit_cell=False)


def periodic_directions(data: Data) -> tuple[bool, bool, bool]:
    """The periodic directions of `data`: all three where `pbc` is absent."""
    if data.get("pbc") is None:
        return True, True, True
    a, b, c = data.pbc.view(3).tolist()
    return a, b, c

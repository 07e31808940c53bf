"""Other descriptions of the same crystal: each function returns a new crystal without a graph and changes nothing."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.transforms import RandomRotate, Supercell
from torch_geometric_crystal.transforms.graph_fields import crystal_arrays, remove_fields


def rotate(data: Data, seed: int = 0) -> Data:
    """Turn positions and cell together by a random proper rotation."""
    return remove_fields(RandomRotate(seed)(data))


def translate(data: Data, seed: int = 0, distance: float = 3.0) -> Data:
    """Move all atoms by the same random vector of the length `distance`, in A. The cell stays where it is."""
    direction = np.random.default_rng(seed).normal(size=3)
    pos, cell, _ = crystal_arrays(data)
    return _replaced(data, pos + distance * direction / np.linalg.norm(direction), cell)


def permute_atoms(data: Data, seed: int = 0) -> Data:
    """Put the atoms (`z` and `pos`) in a random order, another than the given one if there are two atoms or more."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(data.num_nodes)
    if (order == np.arange(data.num_nodes)).all():
        order = np.roll(order, 1)
    pos, cell, _ = crystal_arrays(data)
    changed = _replaced(data, pos[order], cell)
    changed.z = data.z[torch.from_numpy(order)]
    return changed


def change_basis(data: Data, seed: int = 0) -> Data:
    """Take other lattice vectors of the same lattice, by a random unimodular matrix. Positions stay.

    Each periodic vector in turn gets a whole multiple, -1, 1 or 2, of each of the others. Then the first is reversed:
    the basis changes its hand.
    """
    generator = np.random.default_rng(seed)
    pos, old_cell, pbc = crystal_arrays(data)
    cell = old_cell.copy()
    periodic = np.flatnonzero(pbc)
    for changed in periodic:
        for other in periodic[periodic != changed]:
            cell[changed] += generator.choice([-1, 1, 2]) * cell[other]
    cell[periodic[:1]] *= -1.0
    return _replaced(data, pos, cell)


def supercell(data: Data, matrix: Sequence[int] | Sequence[Sequence[int]] = (2, 1, 2)) -> Data:
    """Take a cell of several old ones, see :class:`~torch_geometric_crystal.transforms.Supercell`.

    With three multiples, those along directions that are not periodic become 1.
    """
    given = np.asarray(matrix)
    if given.ndim == 1:
        given = np.where(crystal_arrays(data)[2], given, 1)
    return Supercell(given)(data)


def wrap(data: Data) -> Data:
    """Put each atom into the cell, along the periodic directions."""
    pos, cell, pbc = crystal_arrays(data)
    images = np.floor(pos @ np.linalg.inv(cell)) * pbc
    return _replaced(data, pos - images @ cell, cell)


def unwrap(data: Data, seed: int = 0) -> Data:
    """Move each atom by a random lattice vector, with -2 to 2 times each periodic vector."""
    pos, cell, pbc = crystal_arrays(data)
    images = np.random.default_rng(seed).integers(-2, 3, size=(len(pos), 3)) * pbc
    return _replaced(data, pos + images @ cell, cell)


def _replaced(data: Data, pos: np.ndarray, cell: np.ndarray) -> Data:
    """A copy of `data` with other positions and another cell, without a graph."""
    changed = remove_fields(copy.copy(data))
    changed.pos = torch.from_numpy(pos).to(data.pos)
    changed.cell = torch.from_numpy(cell[None]).to(data.cell)
    return changed

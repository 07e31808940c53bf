"""The same crystal in its Niggli-reduced cell."""

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError, check_argument
from torch_geometric_crystal.ops.lattice import FloatArray, reduce_basis
from torch_geometric_crystal.transforms.graph_fields import crystal_arrays, remove_fields, structure_name


class NiggliReduce(BaseTransform):
    r"""Describe a crystal by its Niggli-reduced cell, without turning it.

    The new lattice vectors are integer combinations :math:`\mathbf{L}' = \mathbf{M} \mathbf{L}`, :math:`|\det
    \mathbf{M}| = 1`, of the old ones: the lattice, and where its atoms are in space, stay. Atoms are wrapped into the
    new cell along its periodic directions. The reduction is pymatgen's (Grosse-Kunstleve, Sauter and Adams, Acta
    Cryst. A60, 1, 2004).

    * Three periodic directions: Niggli's cell, with a positive determinant, from a left-handed basis too.
    * Two: the two vectors are reduced as Lagrange and Gauss do, the shortest first; the third stays, and so does the
      sign of the determinant. One or none: the cell stays.

    Removes the graph, whose images counted the old lattice vectors.

    Args:
        tol (float, optional): Tolerance for equal lengths and angles, relative to the cube root of the volume.
            (default: :obj:`1e-5`)

    Raises:
        InvalidStructureError: on a crystal that :func:`~torch_geometric_crystal.data.validate_crystal` refuses, or
            where the reduction does not settle within the tolerance.
        MissingDependencyError: if pymatgen is not installed.
    """

    def __init__(self, tol: float = 1e-5):
        check_argument(tol > 0.0, "tol", "a positive number", tol)
        self.tol = tol

    def forward(self, data: Data) -> Data:
        """Return `data` with the reduced cell, without a graph."""
        pos, cell, pbc = crystal_arrays(data)
        new_cell = cell.copy()
        if pbc.all():
            new_cell = self._niggli(cell, data)
        elif pbc.sum() == 2:
            reduced = reduce_basis(cell[pbc])[0]
            new_cell[pbc] = reduced
            if np.linalg.det(new_cell) * np.linalg.det(cell) < 0.0:
                new_cell[pbc] = reduced * np.array([[1.0], [-1.0]])
        wrap = np.floor(pos @ np.linalg.inv(new_cell)) * pbc
        remove_fields(data)
        data.pos = torch.from_numpy(pos - wrap @ new_cell).to(data.pos)
        data.cell = torch.from_numpy(new_cell[None]).to(data.cell)
        return data

    def _niggli(self, cell: FloatArray, data: Data) -> FloatArray:
        try:
            from pymatgen.core import Lattice
        except ImportError as error:
            raise MissingDependencyError("pymatgen", "all") from error

        short = reduce_basis(cell)[0]
        try:
            niggli = Lattice(short).get_niggli_reduced_lattice(tol=self.tol).matrix
        except ValueError as error:
            raise InvalidStructureError(
                structure_name(data), f"its cell has no Niggli reduction within {self.tol:g}", "Raise tol"
            ) from error
        combination = np.rint(niggli @ np.linalg.inv(short))
        return combination @ short

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(tol={self.tol:g})"

"""The same crystal in a larger cell."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import InvalidStructureError, check_argument
from torch_geometric_crystal.ops.lattice import IntArray
from torch_geometric_crystal.transforms.graph_fields import crystal_arrays, remove_fields, structure_name


class Supercell(BaseTransform):
    r"""Describe a crystal by a cell that holds :math:`|\det \mathbf{S}|` of the old ones.

    The new lattice vectors are :math:`\mathbf{L}' = \mathbf{S} \mathbf{L}`. The atoms are those of the old cell,
    moved by each lattice vector :math:`\mathbf{n} \mathbf{L}` inside the new cell in turn: copy c of atom i is atom
    :math:`c N + i`, and copy 0 is where the atoms were. Positions are not wrapped.

    `z`, `pos` and the fields named by `node_fields` are repeated, other fields stay: `y` should be a quantity per
    atom, or one that does not depend on the cell. Removes the graph.

    Args:
        matrix (sequence): Three positive integers, for a multiple of each lattice vector, or S, 3 x 3 integers with a
            determinant other than 0. Along a direction that is not periodic only the multiple 1 is possible.
        node_fields (sequence of str, optional): Further fields with one row per atom. (default: :obj:`()`)

    Raises:
        ValueError: if `matrix` is not as described.
        InvalidStructureError: on a crystal that :func:`~torch_geometric_crystal.data.validate_crystal` refuses, or one
            that would be multiplied along a direction that is not periodic.
    """

    def __init__(self, matrix: Sequence[int] | Sequence[Sequence[int]] | np.ndarray, node_fields: Sequence[str] = ()):
        given = np.asarray(matrix)
        integers = given.dtype.kind in "iu" and given.shape in ((3,), (3, 3))
        check_argument(integers, "matrix", "3 integers or 3 x 3 integers", matrix)
        if given.ndim == 1:
            check_argument(bool((given > 0).all()), "matrix", "three positive integers", matrix)
            given = np.diag(given)
        self.matrix = given.astype(np.int64)
        self.node_fields = tuple(node_fields)
        self.copies = _lattice_points_inside(self.matrix)
        check_argument(len(self.copies) > 0, "matrix", "a determinant other than 0", matrix)

    def forward(self, data: Data) -> Data:
        """Return `data` with the larger cell and its atoms, without a graph."""
        pos, cell, pbc = crystal_arrays(data)
        mixes = self.matrix != np.eye(3, dtype=np.int64)
        if mixes[~pbc].any() or mixes[:, ~pbc].any():
            raise InvalidStructureError(
                structure_name(data),
                f"pbc is {pbc.tolist()}, and matrix {self.matrix.tolist()} multiplies a direction that is not periodic",
                "Use 1 for such a direction and no mixing with it",
            )
        copies = len(self.copies)
        moved = pos[None] + (self.copies @ cell)[:, None]
        remove_fields(data)
        data.z = data.z.repeat(copies)
        data.pos = torch.from_numpy(moved.reshape(-1, 3)).to(data.pos)
        data.cell = torch.from_numpy((self.matrix @ cell)[None]).to(data.cell)
        for name in self.node_fields:
            data[name] = data[name].repeat(copies, *[1] * (data[name].dim() - 1))
        return data

    def __repr__(self) -> str:
        fields = f", node_fields={self.node_fields}" if self.node_fields else ""
        return f"{self.__class__.__name__}({self.matrix.tolist()}{fields})"


def _lattice_points_inside(matrix: IntArray) -> IntArray:
    """The integer points n = f S with 0 <= f < 1 in each component, (|det S|, 3), the origin first; none if det S is 0.

    All in integers: f = n adj(S) / det(S).
    """
    rows = [[int(entry) for entry in row] for row in matrix]
    adjugate = np.array(
        [
            [
                rows[(j + 1) % 3][(i + 1) % 3] * rows[(j + 2) % 3][(i + 2) % 3]
                - rows[(j + 1) % 3][(i + 2) % 3] * rows[(j + 2) % 3][(i + 1) % 3]
                for j in range(3)
            ]
            for i in range(3)
        ]
    )
    determinant = int((matrix @ adjugate)[0, 0])
    corners = np.array(list(product((0, 1), repeat=3))) @ matrix
    ranges = [np.arange(low, high + 1) for low, high in zip(corners.min(axis=0), corners.max(axis=0), strict=True)]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*ranges, indexing="ij")], axis=1)
    scaled = (points @ adjugate) * np.sign(determinant)
    inside = points[((scaled >= 0) & (scaled < abs(determinant))).all(axis=1)]
    return inside[np.argsort(np.abs(inside).sum(axis=1), kind="stable")]

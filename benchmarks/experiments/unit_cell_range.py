"""The graph of a sum over a fixed number of unit cells, however small or skewed the cell is."""

import itertools

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.ops.lattice import edge_vectors
from torch_geometric_crystal.transforms.graph_fields import REAL_FIELDS, RECIPROCAL_FIELDS, remove_fields


class UnitCellRange(BaseTransform):
    r"""Edges to the images :math:`\mathbf{n} \in \{-R, \dots, R\}^3` of each atom, atoms wrapped into the cell first.

    This is how the authors' code cuts its sums (omron-sinicx/crystalformer, ``lattice_range``, 2 by default): its path
    in plain PyTorch stops there, its CUDA path takes it for the least range and goes on to 3.5 sigma. Nothing is said
    of what is dropped, so `truncation_bound` and `log_tail` are not written.

    Args:
        unit_cells: R.
    """

    def __init__(self, unit_cells: int = 2):
        self.unit_cells = unit_cells

    def forward(self, data: Data) -> Data:
        """Return `data` with edges sorted by target, source and distance."""
        remove_fields(data, REAL_FIELDS + RECIPROCAL_FIELDS)
        n = data.num_nodes
        cell = data.cell[0].double()
        wrap = torch.linalg.solve(cell.T, data.pos.double().T).T.floor().long()
        span = range(-self.unit_cells, self.unit_cells + 1)
        images = torch.tensor(list(itertools.product(span, repeat=3)))
        target, source = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T.repeat_interleave(len(images), dim=1)
        shift = images.repeat(n * n, 1) + wrap[target] - wrap[source]
        index = torch.stack([source, target])
        distance = edge_vectors(data.pos.double(), cell[None], index, shift).norm(dim=-1)
        near_to_far = distance.argsort(stable=True)
        order = near_to_far[(target * n + source)[near_to_far].argsort(stable=True)]
        data.edge_index = index[:, order]
        data.edge_shift = shift[order].int()
        data.edge_dist = distance[order].to(data.pos.dtype)
        return data

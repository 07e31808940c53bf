"""One atom in place of all that attention over distances cannot tell apart, with all the edges that end at it."""

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.transforms.color_refinement import different_rows, keep_one_of_each, levels, refine_colors
from torch_geometric_crystal.transforms.merge_equivalent import ATOM_MULTIPLICITY

_CRYSTAL_FIELDS = ("cell", "pbc", "y", "edge_cutoff", "truncation_bound")
_GRAPH_FIELDS = ("edge_index", "edge_shift", "edge_dist")
_FROM_POSITIONS = ("pos", "log_tail")
_NO_PAIRS = np.zeros((2, 0), dtype=np.int64)


class MergeEquivalentAtoms(BaseTransform):
    r"""Keep one of all atoms whose rows of attention are alike, with all edges that end at it.

    In a symmetric crystal many atoms see the same surroundings and have the same state in every layer. This keeps one
    of each kind. The edges that end at it stay, each from the kept atom :math:`\kappa(j)` of its source's kind:

    .. math::
        \mathbf{x}_i^{\prime} = \sum_{j, \mathbf{n}} a_{i j \mathbf{n}} \, \mathbf{v}_j
        = \sum_{j, \mathbf{n}} a_{i j \mathbf{n}} \, \mathbf{v}_{\kappa(j)}

    so that nothing in the attention changes. Pooling counts each atom as often as it stands for others.
    :class:`~torch_geometric_crystal.nn.Crystalformer` then has the same outputs, gradients and statistics as on the
    whole graph, for a half to a quarter of the work in usual crystals. Kinds are found by colour refinement, as in
    :class:`~torch_geometric_crystal.transforms.MergeEquivalent`, which merges edges and angles too.

    Sets `atom_multiplicity` (n,): atoms of the crystal that each kept one stands for. All fields of atoms and edges are
    those of the kept ones; edges stay sorted by target, source and distance. `edge_shift`, which led to atoms that are
    not there any more, is removed: forces and stress need the whole graph.

    Args:
        merge_tolerance (float, optional): Largest difference of lengths, in A, that are taken for the same.
            (default: :obj:`1e-4`)

    Raises:
        ValueError: on a crystal that is merged already, without edges, or with targets for its atoms.
    """

    def __init__(self, merge_tolerance: float = 1e-4):
        is_number = isinstance(merge_tolerance, int | float)
        check_argument(
            is_number and merge_tolerance >= 0.0, "merge_tolerance", "a number of at least 0", merge_tolerance
        )
        self.merge_tolerance = float(merge_tolerance)

    def forward(self, data: Data) -> Data:
        """Return `data` with one atom of each kind."""
        if "edge_index" not in data or "edge_dist" not in data:
            raise ValueError(
                "data: expected a crystal with edges (edge_index, edge_dist). Apply InfiniteNeighborhood first"
            )
        if "y" in data and data.y.size(0) != 1:
            raise ValueError("data: expected targets of the crystal, y (1, T): atoms with targets cannot be merged")
        if ATOM_MULTIPLICITY in data:
            raise ValueError("data: expected a crystal with all its atoms, received one whose atoms are merged already")
        device = data.pos.device
        data = data.to("cpu")
        atom_fields = [name for name in data.node_attrs() if name not in (*_CRYSTAL_FIELDS, *_GRAPH_FIELDS)]
        edge_fields = [name for name in data.edge_attrs() if name not in (*_CRYSTAL_FIELDS, *_GRAPH_FIELDS)]
        source, target = edge_index = data.edge_index.numpy()
        lengths = torch.from_numpy(levels(data.edge_dist.double().numpy(), self.merge_tolerance))
        colors = refine_colors(
            different_rows([data[name] for name in atom_fields if name not in _FROM_POSITIONS]),
            different_rows([lengths, *(data[name] for name in edge_fields)]),
            _NO_PAIRS[0],
            edge_index,
            _NO_PAIRS,
        )
        atoms = keep_one_of_each(colors.atoms)
        edges = np.flatnonzero(np.isin(target, atoms.kept))
        order = (data.edge_dist.numpy()[edges], atoms.place[source[edges]], atoms.place[target[edges]])
        edges = edges[np.lexsort(order)]
        for names, kept in ((atom_fields, atoms.kept), ([*edge_fields, "edge_dist"], edges)):
            for name in names:
                data[name] = data[name][torch.from_numpy(kept)]
        data.edge_index = torch.from_numpy(atoms.place[edge_index[:, edges]])
        data[ATOM_MULTIPLICITY] = torch.from_numpy(atoms.stands_for)
        if "edge_shift" in data:
            del data.edge_shift
        return data.to(device)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(merge_tolerance={self.merge_tolerance})"

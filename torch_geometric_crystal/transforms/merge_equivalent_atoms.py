"""One atom in place of all that attention over distances cannot tell apart, with all the edges that end at it."""

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.transforms.color_refinement import keep_one_of_each, refine_colors
from torch_geometric_crystal.transforms.merging import ATOM_MULTIPLICITY, Merging

_NO_PAIRS = np.zeros((2, 0), dtype=np.int64)


class MergeEquivalentAtoms(Merging):
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

    def forward(self, data: Data) -> Data:
        """Return `data` with one atom of each kind."""
        if "edge_index" not in data or "edge_dist" not in data:
            raise ValueError(
                "data: expected a crystal with edges (edge_index, edge_dist). Apply InfiniteNeighborhood first"
            )
        self.check_unmerged(data)
        device = data.pos.device
        data = data.to("cpu")
        source, target = edge_index = data.edge_index.numpy()
        atoms = keep_one_of_each(refine_colors(*self.first_colors(data), _NO_PAIRS[0], edge_index, _NO_PAIRS).atoms)
        edges = np.flatnonzero(np.isin(target, atoms.kept))
        order = (data.edge_dist.numpy()[edges], atoms.place[source[edges]], atoms.place[target[edges]])
        edges = edges[np.lexsort(order)]
        self.keep_fields(data, atoms.kept, edges)
        data.edge_index = torch.from_numpy(atoms.place[edge_index[:, edges]])
        data[ATOM_MULTIPLICITY] = torch.from_numpy(atoms.stands_for)
        return data.to(device)

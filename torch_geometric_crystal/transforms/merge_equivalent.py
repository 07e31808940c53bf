"""One atom, edge and angle in place of all that an invariant model cannot tell apart."""

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.ops.lattice import IntArray
from torch_geometric_crystal.transforms.color_refinement import different_rows, keep_one_of_each, levels, refine_colors
from torch_geometric_crystal.transforms.line_graph import LINE_GRAPH_INDEX, LineGraph

ATOM_MULTIPLICITY = "atom_multiplicity"
EDGE_MULTIPLICITY = "edge_multiplicity"
LINE_GRAPH_MULTIPLICITY = "line_graph_multiplicity"
MULTIPLICITIES = (ATOM_MULTIPLICITY, EDGE_MULTIPLICITY, LINE_GRAPH_MULTIPLICITY)

_CRYSTAL_FIELDS = ("cell", "pbc", "y", "edge_cutoff")
_GRAPH_FIELDS = ("edge_index", "edge_shift", "edge_dist", LINE_GRAPH_INDEX, "line_graph_cosine")


class MergeEquivalent(BaseTransform):
    r"""Keep one of all atoms, edges and angles that message passing over distances and angles cannot tell apart.

    In a symmetric crystal many atoms see the same surroundings, and whatever a model computes for one of them it
    computes for all. This keeps one of each kind and counts the others: an atom stands for :math:`n_i` atoms, an edge
    for :math:`n_{ji}` edges that end at the same atom, a pair of edges for :math:`n_{kji}` pairs that end at the same
    edge. Sums over neighbours become weighted sums,

    .. math::
        \sum_{j} f(\mathbf{x}_j, \mathbf{e}_{ji}) = \sum_{j \, \text{kept}} n_{ji} \, f(\mathbf{x}_j, \mathbf{e}_{ji})

    and means over a crystal or a batch (pooling, batch norm) are weighted by how many atoms, edges or pairs a row
    stands for in all. A model that does so, as :class:`~torch_geometric_crystal.nn.ALIGNN` does, has the same outputs,
    the same gradients and the same running statistics as on the whole graph, for a part of the work.

    Kinds are found by colour refinement (Weisfeiler and Leman, 1968) of the graph and its line graph. That merges the
    orbits of the space group, and more where the graph does not show the difference. No message passing tells apart
    what it merges: Lemma 2 of `"How Powerful are Graph Neural Networks?" <https://arxiv.org/abs/1810.00826>`_ (Xu et
    al., 2019). Atoms start from their element and each field of atoms but `pos`, edges from their length and each field
    of edges but `edge_shift`, pairs from their cosine.

    The line graph is that of the crystal, else one is made. Sets, on a
    :class:`~torch_geometric_crystal.transforms.LineGraphData`,

    * `atom_multiplicity` (n,): atoms of the crystal that each kept one stands for
    * `edge_multiplicity` (E,): edges to the same target that each kept one stands for
    * `line_graph_index` (2, P), `line_graph_cosine` (P,): the kept pairs of edges
    * `line_graph_multiplicity` (P,): pairs with the same second edge that each kept one stands for

    All fields of atoms and edges are those of the kept ones. `edge_shift`, which led to atoms that are not there any
    more, is removed: forces and stress need the whole graph.

    Args:
        merge_tolerance (float, optional): Largest difference of lengths (in A) and cosines that are taken for the same.
            (default: :obj:`1e-4`)

    Raises:
        ValueError: on a crystal that is merged already, without a graph, or with targets for its atoms.
        InvalidStructureError: as :class:`~torch_geometric_crystal.transforms.LineGraph`.
    """

    def __init__(self, merge_tolerance: float = 1e-4):
        is_number = isinstance(merge_tolerance, int | float)
        check_argument(
            is_number and merge_tolerance >= 0.0, "merge_tolerance", "a number of at least 0", merge_tolerance
        )
        self.merge_tolerance = float(merge_tolerance)

    def forward(self, data: Data) -> Data:
        """Return `data` with what is kept of its graph."""
        if "y" in data and data.y.size(0) != 1:
            raise ValueError("data: expected targets of the crystal, y (1, T): atoms with targets cannot be merged")
        if ATOM_MULTIPLICITY in data:
            raise ValueError("data: expected a crystal with all its atoms, received one whose atoms are merged already")
        device = data.pos.device
        data = (data if LINE_GRAPH_INDEX in data else LineGraph()(data)).to("cpu")
        atom_fields = [name for name in data.node_attrs() if name not in (*_CRYSTAL_FIELDS, *_GRAPH_FIELDS)]
        edge_fields = [name for name in data.edge_attrs() if name not in (*_CRYSTAL_FIELDS, *_GRAPH_FIELDS)]
        edge_index, pairs = data.edge_index.numpy(), data[LINE_GRAPH_INDEX].numpy()
        colors = refine_colors(
            different_rows([data[name] for name in atom_fields if name != "pos"]),
            different_rows([torch.from_numpy(self._levels(data.edge_dist)), *(data[name] for name in edge_fields)]),
            self._levels(data.line_graph_cosine),
            edge_index,
            pairs,
        )
        # One atom of each colour; of the edges into these atoms one of each colour; of the pairs into these edges, too.
        atoms = keep_one_of_each(colors.atoms)
        edges = keep_one_of_each(colors.edges, np.isin(edge_index[1], atoms.kept))
        angles = keep_one_of_each(colors.pairs, np.isin(pairs[1], edges.kept))
        for names, kept in ((atom_fields, atoms.kept), ([*edge_fields, "edge_dist"], edges.kept)):
            for name in names:
                data[name] = data[name][torch.from_numpy(kept)]
        data.edge_index = torch.from_numpy(atoms.place[edge_index[:, edges.kept]])
        data[LINE_GRAPH_INDEX] = torch.from_numpy(edges.place[pairs[:, angles.kept]])
        data.line_graph_cosine = data.line_graph_cosine[torch.from_numpy(angles.kept)]
        data[ATOM_MULTIPLICITY] = torch.from_numpy(atoms.stands_for)
        data[EDGE_MULTIPLICITY] = torch.from_numpy(edges.stands_for)
        data[LINE_GRAPH_MULTIPLICITY] = torch.from_numpy(angles.stands_for)
        del data.edge_shift
        return data.to(device)

    def _levels(self, values: Tensor) -> IntArray:
        return levels(values.double().numpy(), self.merge_tolerance)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(merge_tolerance={self.merge_tolerance})"

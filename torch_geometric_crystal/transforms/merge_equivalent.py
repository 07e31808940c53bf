"""One atom, edge and angle in place of all that an invariant model cannot tell apart."""

import numpy as np
import torch
from torch_geometric.data import Data

from torch_geometric_crystal.transforms.color_refinement import keep_one_of_each, refine_colors
from torch_geometric_crystal.transforms.line_graph import LINE_GRAPH_INDEX, LineGraph
from torch_geometric_crystal.transforms.merging import ATOM_MULTIPLICITY, Merging

EDGE_MULTIPLICITY = "edge_multiplicity"
LINE_GRAPH_MULTIPLICITY = "line_graph_multiplicity"
MULTIPLICITIES = (ATOM_MULTIPLICITY, EDGE_MULTIPLICITY, LINE_GRAPH_MULTIPLICITY)


class MergeEquivalent(Merging):
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

    def forward(self, data: Data) -> Data:
        """Return `data` with what is kept of its graph."""
        self.check_unmerged(data)
        device = data.pos.device
        data = (data if LINE_GRAPH_INDEX in data else LineGraph()(data)).to("cpu")
        edge_index, pairs = data.edge_index.numpy(), data[LINE_GRAPH_INDEX].numpy()
        colors = refine_colors(*self.first_colors(data), self.levels(data.line_graph_cosine), edge_index, pairs)
        # One atom of each colour; of the edges into these atoms one of each colour; of the pairs into these edges, too.
        atoms = keep_one_of_each(colors.atoms)
        edges = keep_one_of_each(colors.edges, np.isin(edge_index[1], atoms.kept))
        angles = keep_one_of_each(colors.pairs, np.isin(pairs[1], edges.kept))
        self.keep_fields(data, atoms.kept, edges.kept)
        data.edge_index = torch.from_numpy(atoms.place[edge_index[:, edges.kept]])
        data[LINE_GRAPH_INDEX] = torch.from_numpy(edges.place[pairs[:, angles.kept]])
        data.line_graph_cosine = data.line_graph_cosine[torch.from_numpy(angles.kept)]
        data[ATOM_MULTIPLICITY] = torch.from_numpy(atoms.stands_for)
        data[EDGE_MULTIPLICITY] = torch.from_numpy(edges.stands_for)
        data[LINE_GRAPH_MULTIPLICITY] = torch.from_numpy(angles.stands_for)
        return data.to(device)

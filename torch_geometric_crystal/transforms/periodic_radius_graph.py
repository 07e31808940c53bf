"""Edges to all periodic images within a radius."""

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.data.neighbors import neighbor_list
from torch_geometric_crystal.transforms.graph_fields import crystal_arrays, store_graph, structure_name


class PeriodicRadiusGraph(BaseTransform):
    r"""Connect each atom to every periodic image of every atom within a radius.

    .. math::
        \mathcal{N}(i) = \{ (j, \mathbf{n}) : \Vert \mathbf{p}_j + \mathbf{n} \mathbf{L} - \mathbf{p}_i \Vert \leq R,
        \ (j, \mathbf{n}) \neq (i, \mathbf{0}) \}

    An atom has edges to its own images where the cell is smaller than the radius, and there is no cap on their
    number. The atom itself is no neighbour of its own; for attention, which needs it, use
    :class:`~torch_geometric_crystal.transforms.InfiniteNeighborhood`.

    Sets `edge_index` (2, E), `edge_shift` (E, 3), `edge_dist` (E,) and `edge_cutoff` (1,), sorted by target, then by
    distance; removes an earlier graph.

    Args:
        cutoff (float): Radius R, in A.

    Raises:
        InvalidStructureError: on a crystal that :func:`~torch_geometric_crystal.data.validate_crystal` refuses.
    """

    def __init__(self, cutoff: float):
        check_argument(cutoff > 0.0, "cutoff", "a positive distance in A", cutoff)
        self.cutoff = float(cutoff)

    def forward(self, data: Data) -> Data:
        """Return `data` with the graph."""
        pos, cell, pbc = crystal_arrays(data)
        edges = neighbor_list(pos, cell, pbc, self.cutoff, structure_name(data))
        return store_graph(data, *edges, cutoff=self.cutoff)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(cutoff={self.cutoff})"

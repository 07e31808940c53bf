"""Edges of crystals too large to keep them: searched anew, some atoms at a time, whenever a layer needs them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.ops.lattice import edge_vectors, vector_lengths
from torch_geometric_crystal.ops.neighbor_search import NeighborEdges, neighbor_pieces
from torch_geometric_crystal.ops.neighborhood import Neighborhood, group_edges
from torch_geometric_crystal.ops.prepared_search import prepare_search

EDGES_AT_ONCE = {"cpu": 2**20, "gpu": 2**23}
"""Edges in memory together: about 100 MB, or 1 GB on a GPU, with all that is made of them."""


def most_edges(device: torch.device) -> int:
    """Edges in memory together on a device."""
    return EDGES_AT_ONCE["cpu" if device.type == "cpu" else "gpu"]


class StreamedEdges(NamedTuple):
    """All edges that lead to some atoms of the batch, numbered among these and the sources that they have.

    Attributes:
        atoms: the A atoms that the edges join, targets and sources, shape (A,).
        rows: which of the A atoms the targets are.
        edges: edges between the A atoms; the others have no edges that lead to them.
    """

    atoms: Tensor
    rows: slice
    edges: NeighborEdges

    def neighborhood(self, dist: Tensor) -> Neighborhood:
        """The edges grouped for the attention, with the lengths `dist` (E,)."""
        return group_edges(self.edges.edge_index, dist, self.atoms.numel())


class EdgeStream:
    """The graph of :func:`~torch_geometric_crystal.ops.neighbor_search.neighbor_search`, never in memory as a whole.

    Takes the place of a :class:`~torch_geometric_crystal.ops.Neighborhood` where the edges would not fit: memory is
    O(atoms) and that of `edges_at_once` edges. Each pass searches anew, with atoms that are put into bins once.

    Args:
        pos: cartesian positions (N, 3), A; gradients flow to them.
        cell: lattice vectors as rows (B, 3, 3), A; gradients flow to them.
        batch: crystal of each atom (N,), in ascending order.
        pbc: periodic directions (B, 3), bool.
        cutoff: of each crystal (B,), A.
        edges_at_once: edges in memory together. (default: a million, on a GPU eight)

    Raises:
        ValueError: as :func:`~torch_geometric_crystal.ops.neighbor_search.neighbor_search`.
    """

    def __init__(
        self, pos: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor, cutoff: Tensor, edges_at_once: int | None = None
    ):
        self.pos, self.cell, self.batch = pos, cell, batch
        self._at_once = edges_at_once or most_edges(pos.device)
        if len(pos):
            # Neighbours in space become neighbours in number, so that the atoms of a piece have few sources.
            self._order = prepare_search(pos, cell, batch, pbc, cutoff).bins.order.to(pos.device)
            self._search = prepare_search(pos.detach()[self._order], cell, batch[self._order], pbc, cutoff)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_rows} atoms)"

    @property
    def num_rows(self) -> int:
        """Number of target atoms N."""
        return self.pos.size(0)

    def pieces(self) -> Iterator[StreamedEdges]:
        """All edges, those that lead to one atom together."""
        if not self.num_rows:
            return
        device = self.pos.device
        position = torch.empty_like(self._order)
        for first, last, edges in neighbor_pieces(self._search, self._at_once, self.pos.dtype):
            source, target = edges.edge_index.to(device)
            joined = torch.zeros_like(self._order, dtype=torch.bool)
            joined[first:last] = True
            joined[source] = True
            atoms = joined.nonzero().squeeze(1)
            position[atoms] = torch.arange(len(atoms), device=device)
            start = int(position[first])
            local = NeighborEdges(
                torch.stack([position[source], position[target]]),
                edges.edge_shift.to(device),
                edges.edge_dist.to(device),
            )
            yield StreamedEdges(self._order[atoms], slice(start, start + last - first), local)

    def distances(self, piece: StreamedEdges, pos: Tensor, cell: Tensor) -> Tensor:
        """Lengths of a piece's edges, differentiable in the positions of its atoms (A, 3) and the cells, A."""
        index, shift = piece.edges.edge_index, piece.edges.edge_shift
        return vector_lengths(edge_vectors(pos, cell, index, shift, self.batch[piece.atoms]))

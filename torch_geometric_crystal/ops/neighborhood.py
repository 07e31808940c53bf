"""The edges of the periodic multigraph, grouped once by target and by (target, source) pair for every layer to use."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.checks import check_argument, check_shape
from torch_geometric_crystal.ops.segment import segment_index


class Neighborhood(NamedTuple):
    """Edges in rows: edge e of row i is an image of atom ``source[e]`` at ``dist[e]`` from atom i.

    Rows are contiguous. A pair is the set of edges of one row that share a source atom: its logit ``q.k`` and its value
    ``v`` are one, however many images it has. Build it with :func:`group_edges`.

    Attributes:
        dist: distances, A, shape (E,).
        source: source atom of each edge, shape (E,).
        row_ptr: row i holds edges ``row_ptr[i]`` to ``row_ptr[i + 1]``, shape (N + 1,).
        pair_order: edges sorted by row, then by source, shape (E,).
        pair_ptr: pair p holds ``pair_order[pair_ptr[p]:pair_ptr[p + 1]]``, shape (P + 1,).
        pair_source: source atom of each pair, shape (P,).
        row_pair_ptr: row i holds pairs ``row_pair_ptr[i]`` to ``row_pair_ptr[i + 1]``, shape (N + 1,).
        edge_pair: pair of each edge, shape (E,).
    """

    dist: Tensor
    source: Tensor
    row_ptr: Tensor
    pair_order: Tensor
    pair_ptr: Tensor
    pair_source: Tensor
    row_pair_ptr: Tensor
    edge_pair: Tensor

    @property
    def num_rows(self) -> int:
        """Number of target atoms N."""
        return self.row_ptr.numel() - 1

    def target(self) -> Tensor:
        """Target atom of each edge, shape (E,)."""
        return segment_index(self.row_ptr.diff(), self.source.numel())


def group_edges(edge_index: Tensor, edge_dist: Tensor, num_nodes: int) -> Neighborhood:
    """Group the edges of a periodic multigraph by target and by pair. Edges in any order are accepted.

    Args:
        edge_index: sources (row 0) and targets (row 1), shape (2, E), PyG's source_to_target convention.
        edge_dist: distances, A, shape (E,); may require a gradient.
        num_nodes: number of atoms N.

    Raises:
        ValueError: if shapes disagree or an index lies outside 0 .. N - 1.
    """
    check_shape("edge_index", edge_index, (2, None))
    check_shape("edge_dist", edge_dist, (edge_index.size(1),))
    source, target = edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index
    if source.numel() and not torch.compiler.is_compiling():
        lowest, highest = (int(bound) for bound in torch.aminmax(edge_index))
        check_argument(
            lowest >= 0 and highest < num_nodes, "edge_index", f"atoms 0 .. {num_nodes - 1}", (lowest, highest)
        )

    if bool((target[1:] < target[:-1]).any()):
        by_target = torch.argsort(target, stable=True)
        source, target, edge_dist = source[by_target], target[by_target], edge_dist[by_target]
    pair_order = torch.argsort(target * num_nodes + source, stable=True)

    sorted_source, sorted_target = source[pair_order], target[pair_order]
    starts_pair = torch.ones_like(sorted_source, dtype=torch.bool)
    starts_pair[1:] = (sorted_source[1:] != sorted_source[:-1]) | (sorted_target[1:] != sorted_target[:-1])
    first_edge = starts_pair.nonzero().squeeze(1)
    edge_pair = torch.empty_like(pair_order)
    edge_pair[pair_order] = starts_pair.cumsum(0) - 1
    return Neighborhood(
        dist=edge_dist,
        source=source,
        row_ptr=_row_pointers(target, num_nodes),
        pair_order=pair_order,
        pair_ptr=torch.cat([first_edge, first_edge.new_tensor([source.numel()])]),
        pair_source=sorted_source[first_edge],
        row_pair_ptr=_row_pointers(sorted_target[first_edge], num_nodes),
        edge_pair=edge_pair,
    )


def _row_pointers(sorted_rows: Tensor, num_rows: int) -> Tensor:
    boundaries = torch.arange(num_rows + 1, device=sorted_rows.device)
    return torch.searchsorted(sorted_rows.contiguous(), boundaries)

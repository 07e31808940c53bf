"""The edges of the periodic multigraph, grouped once by target and by (target, source) pair for every layer to use."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.checks import check_argument, check_shape
from torch_geometric_crystal.ops.cpp import extension
from torch_geometric_crystal.ops.segment import segment_index
from torch_geometric_crystal.ops.tracing import is_recorded


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
        pair_target: target atom of each pair, shape (P,).
        column_ptr: atom j is the source of the pairs ``column_pair[column_ptr[j]:column_ptr[j + 1]]``, shape (N + 1,).
        column_pair: pairs sorted by source, then by target, shape (P,).
    """

    dist: Tensor
    source: Tensor
    row_ptr: Tensor
    pair_order: Tensor
    pair_ptr: Tensor
    pair_source: Tensor
    row_pair_ptr: Tensor
    edge_pair: Tensor
    pair_target: Tensor
    column_ptr: Tensor
    column_pair: Tensor

    @property
    def num_rows(self) -> int:
        """Number of target atoms N."""
        return self.row_ptr.numel() - 1

    def kernel_indices(self) -> list[Tensor]:
        """The index arrays that the C++ kernels read, in their order."""
        fields = (
            self.pair_order, self.pair_ptr, self.pair_source, self.row_pair_ptr,
            self.pair_target, self.column_ptr, self.column_pair,
        )  # fmt: skip
        return [field.contiguous() for field in fields]

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
    edge_index = edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index
    by_row, *groups = (group_edges_op if is_recorded(edge_index) else group)(edge_index, num_nodes)
    return Neighborhood(edge_dist.index_select(0, by_row), *groups)


def group(
    edge_index: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The order that makes rows contiguous, then all of :class:`Neighborhood` but `dist`.

    Reads the device twice: whether the edges are in range and in order, and the number of pairs. On the CPU the C++
    kernels do it in two passes, where they are built.
    """
    if edge_index.is_cpu and edge_index.dtype == torch.int64 and extension.why_unavailable() is None:
        groups = extension.load().group_edges(edge_index.contiguous(), num_nodes)
        if groups:
            return tuple(groups)
    source, target = edge_index.unbind()
    rows_sorted, pairs_sorted = _check_and_inspect(source, target, num_nodes)
    by_row = torch.arange(target.numel(), device=target.device)
    if not rows_sorted:
        by_row = torch.argsort(target, stable=True)
    source, target = source[by_row], target[by_row]
    pair_order = torch.arange(target.numel(), device=target.device)
    if not pairs_sorted:
        pair_order = torch.argsort(target * num_nodes + source, stable=True)

    sorted_source, sorted_target = source[pair_order], target[pair_order]
    starts_pair = torch.ones_like(sorted_source, dtype=torch.bool)
    starts_pair[1:] = (sorted_source[1:] != sorted_source[:-1]) | (sorted_target[1:] != sorted_target[:-1])
    first_edge = starts_pair.nonzero().squeeze(1)
    edge_pair = torch.empty_like(pair_order)
    edge_pair[pair_order] = starts_pair.cumsum(0) - 1
    pair_source, pair_target = sorted_source[first_edge], sorted_target[first_edge]
    column_pair = torch.argsort(pair_source, stable=True)
    return (
        by_row,
        source,
        _pointers(target, num_nodes),
        pair_order,
        torch.cat([first_edge, first_edge.new_tensor([source.numel()])]),
        pair_source,
        _pointers(pair_target, num_nodes),
        edge_pair,
        pair_target,
        _pointers(pair_source[column_pair], num_nodes),
        column_pair,
    )


group_edges_op = torch.library.custom_op("torch_geometric_crystal::group_edges", group, mutates_args=())
"""The same as one node for torch.compile."""


@group_edges_op.register_fake
def _group_edges_fake(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, ...]:
    per_edge, num_pairs = edge_index[0], torch.library.get_ctx().new_dynamic_size()
    sizes = (None, None, num_nodes + 1, None, num_pairs + 1, num_pairs, num_nodes + 1, None, num_pairs, num_nodes + 1)
    return tuple(
        torch.empty_like(per_edge, memory_format=torch.contiguous_format) if size is None else per_edge.new_empty(size)
        for size in (*sizes, num_pairs)
    )


def _check_and_inspect(source: Tensor, target: Tensor, num_nodes: int) -> tuple[bool, bool]:
    """Whether the edges are sorted by row, and whether by pair.

    Raises:
        ValueError: if an index lies outside 0 .. N - 1.
    """
    if source.numel() == 0:
        return True, True
    key = target * num_nodes + source
    facts = torch.stack(
        [
            torch.minimum(source.min(), target.min()),
            torch.maximum(source.max(), target.max()),
            (target[1:] >= target[:-1]).all().long(),
            (key[1:] >= key[:-1]).all().long(),
        ]
    )
    lowest, highest, rows_sorted, pairs_sorted = facts.tolist()
    check_argument(lowest >= 0 and highest < num_nodes, "edge_index", f"atoms 0 .. {num_nodes - 1}", (lowest, highest))
    return bool(rows_sorted), bool(pairs_sorted)


def _pointers(sorted_index: Tensor, num_nodes: int) -> Tensor:
    """Where each of the atoms 0 .. N begins in a sorted index, shape (N + 1,)."""
    boundaries = torch.arange(num_nodes + 1, device=sorted_index.device)
    return torch.searchsorted(sorted_index.contiguous(), boundaries)

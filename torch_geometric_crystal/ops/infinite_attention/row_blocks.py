"""Blocks of rows small enough for the cache: the unit in which the blocked backend streams over the edges."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import GaussianBasis
from torch_geometric_crystal.ops.segment import segment_index

SLOTS_PER_BLOCK = 16_384
"""Padded edges in a block. 16,384 slots of 8 heads are 0.5 MB in float32, which a core's second-level cache holds."""

PADDING = 1.25
"""Most padded slots per edge: a block ends before a row whose length would waste more than this."""

DENSE_SOURCES = 4_096
"""Where a block's sources span more atoms than this, they are compacted and the block is kept to `SPARSE_ROWS` rows."""

SPARSE_ROWS = 32

PREPARED_BYTES = 256 * 2**20
"""Most memory for basis values kept between layers; beyond it each layer computes them block by block."""

_FAR = 1e6
"""Distance of a padding slot, A: its weight is the smallest there is, below 1e-34, and so is all that it adds."""


class RowBlock(NamedTuple):
    """Rows `first` to `last` with their edges padded to equal length W and their sources to a dense table of S atoms.

    Attributes:
        first, last: the rows, B of them.
        edges: edge of each slot, shape (B, W); slots past a row's end repeat some edge and are `padding`.
        padding: True where a slot holds no edge, shape (B, W), or None where every slot holds one.
        sources: the S source atoms, distinct.
        slot_cell: cell ``row * S + position of the source`` of each slot, shape (B * W,).
        pair_cell: the same for each of the block's P pairs, shape (P,).
        pair_slots: slots in order of pairs, shape (edges of the block,).
        pair_offsets: where each pair starts in `pair_slots`, and the end, shape (P + 1,).
        basis_values: basis at the distances of the slots, shape (B, W, K), or None where it is computed when needed.
    """

    first: int
    last: int
    edges: Tensor
    padding: Tensor | None
    sources: Tensor
    slot_cell: Tensor
    pair_cell: Tensor
    pair_slots: Tensor
    pair_offsets: Tensor
    basis_values: Tensor | None = None

    def slot_dist(self, dist: Tensor) -> Tensor:
        """Distances of the slots, (B, W); padding is far away."""
        slots = dist[self.edges]
        return slots if self.padding is None else slots.masked_fill_(self.padding, _FAR)

    def cells_to_slots(self, cells: Tensor) -> Tensor:
        """Give every slot the entry of its pair: (H, B, S) to (B, W, H)."""
        table = cells.permute(1, 2, 0).reshape(-1, cells.size(0)).contiguous()
        return table.index_select(0, self.slot_cell).view(*self.edges.shape, -1)

    def slots_to_cells(self, slots: Tensor) -> Tensor:
        """Sum the slots of every pair: (B, W, H) to (H, B, S)."""
        num_heads = slots.size(-1)
        sums = functional.embedding_bag(
            self.pair_slots, slots.reshape(-1, num_heads), self.pair_offsets, mode="sum", include_last_offset=True
        )
        num_rows, num_sources = self.edges.size(0), self.sources.numel()
        cells = slots.new_zeros(num_rows * num_sources, num_heads).index_copy(0, self.pair_cell, sums)
        return cells.view(num_rows, num_sources, num_heads).permute(2, 0, 1)


def prepare_row_blocks(neighborhood: Neighborhood, basis: GaussianBasis | None) -> list[RowBlock]:
    """The blocks of all rows, for several layers on the same edges, with basis values up to `PREPARED_BYTES`."""
    blocks, left = [], PREPARED_BYTES
    dist = neighborhood.dist.detach()
    for block in row_blocks(neighborhood):
        size = block.edges.numel() * basis.num * dist.element_size() if basis is not None else 0
        if basis is not None and size <= left:
            block = block._replace(basis_values=basis(block.slot_dist(dist)))
            left -= size
        blocks.append(block)
    return blocks


def flatten_blocks(blocks: Iterable[RowBlock]) -> list[Tensor]:
    """Blocks as a flat list of tensors, the only form in which an operator of torch.library takes them."""
    flat = []
    for block in blocks:
        bounds = torch.tensor([block.first, block.last])
        flat += [bounds, *(block.edges.new_empty(0) if field is None else field for field in block[2:])]
    return flat


def unflatten_blocks(flat: Sequence[Tensor]) -> list[RowBlock]:
    """The inverse of :func:`flatten_blocks`."""
    blocks, width = [], len(RowBlock._fields) - 1
    for start in range(0, len(flat), width):
        bounds, edges, padding, *indices, basis_values = flat[start : start + width]
        first, last = bounds.tolist()
        sources, slot_cell, pair_cell, pair_slots, pair_offsets = indices
        block = RowBlock(first, last, edges, None, sources, slot_cell, pair_cell, pair_slots, pair_offsets)
        blocks.append(
            block._replace(
                padding=padding if padding.numel() else None,
                basis_values=basis_values if basis_values.numel() else None,
            )
        )
    return blocks


def without_basis_values(flat: Sequence[Tensor]) -> list[Tensor]:
    """Flattened blocks whose basis values are computed anew from the distances, so that gradients flow to these."""
    width = len(RowBlock._fields) - 1
    return [field.new_empty(0) if position % width == width - 1 else field for position, field in enumerate(flat)]


def row_blocks(neighborhood: Neighborhood) -> Iterator[RowBlock]:
    """Cut the rows into blocks, in order. Rows without edges belong to none."""
    lengths = neighborhood.row_ptr.diff().tolist()
    most_rows = SPARSE_ROWS if neighborhood.num_rows > DENSE_SOURCES else len(lengths)
    first = 0
    while first < len(lengths):
        if lengths[first] == 0:
            first += 1
            continue
        last = _end_of_block(lengths, first, most_rows)
        yield _row_block(neighborhood, first, last, max(lengths[first:last]))
        first = last


def _end_of_block(lengths: list[int], first: int, most_rows: int) -> int:
    longest, total, row = lengths[first], lengths[first], first + 1
    while row < len(lengths) and row - first < most_rows and lengths[row] > 0:
        longest, total = max(longest, lengths[row]), total + lengths[row]
        slots = longest * (row + 1 - first)
        if slots > SLOTS_PER_BLOCK or (slots > PADDING * total and slots > SLOTS_PER_BLOCK // 8):
            break
        row += 1
    return row


def _row_block(neighborhood: Neighborhood, first: int, last: int, length: int) -> RowBlock:
    device = neighborhood.source.device
    start = neighborhood.row_ptr[first:last]
    slot = torch.arange(length, device=device)
    edges = start.unsqueeze(1) + slot
    padding: Tensor | None = edges >= neighborhood.row_ptr[first + 1 : last + 1].unsqueeze(1)
    if padding is not None and bool(padding.any()):
        edges = edges.clamp(max=neighborhood.source.numel() - 1)
    else:
        padding = None

    pairs = slice(int(neighborhood.row_pair_ptr[first]), int(neighborhood.row_pair_ptr[last]))
    pair_source = neighborhood.pair_source[pairs]
    sources, position = _distinct(pair_source)
    pair_row = segment_index(neighborhood.row_pair_ptr[first : last + 1].diff(), pair_source.numel())
    pair_cell = pair_row * sources.numel() + position

    pair_ptr = neighborhood.pair_ptr[pairs.start : pairs.stop + 1]
    offsets = pair_ptr - pair_ptr[0]
    ordered = neighborhood.pair_order[int(pair_ptr[0]) : int(pair_ptr[-1])]
    ordered_row = pair_row.repeat_interleave(offsets.diff(), output_size=ordered.numel())
    pair_slots = ordered - start[ordered_row] + ordered_row * length

    slot_pair = neighborhood.edge_pair[edges.flatten()] - pairs.start
    if padding is not None:
        slot_pair = slot_pair.clamp(0, pair_cell.numel() - 1)
    return RowBlock(first, last, edges, padding, sources, pair_cell[slot_pair], pair_cell, pair_slots, offsets)


def _distinct(source: Tensor) -> tuple[Tensor, Tensor]:
    """The atoms from the lowest to the highest of `source`, or only those that occur, and each one's position."""
    lowest, highest = (int(bound) for bound in torch.aminmax(source))
    if highest - lowest < DENSE_SOURCES:
        return torch.arange(lowest, highest + 1, device=source.device), source - lowest
    return torch.unique(source, return_inverse=True)

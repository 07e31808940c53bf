"""All periodic images within a cutoff of every atom, for a batch of crystals, slabs, rods and molecules, on any device.

For graphs that change at every step, as in relaxation: one call for the batch, in pure torch, without a Python loop
over crystals or atoms, or by the C++ kernels where these are built. Cells are reduced and cut into bins
(``prepared_search``); bins near an atom propose candidates, in their right image where they lie outside the cell or in
it many times over; distances decide. Atoms and candidates are taken in pieces, so memory stays O(atoms + edges).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torch_geometric_crystal.ops.atom_bins import Bins, combine, stencils
from torch_geometric_crystal.ops.cpp import extension
from torch_geometric_crystal.ops.prepared_search import PreparedSearch, check_shapes, for_kernels, prepare_search
from torch_geometric_crystal.ops.segment import segment_index

PIECE = {"cpu": 2**17, "cpp": 2**21, "gpu": 2**23}
"""Bins near atoms, and candidates, looked at together: few enough for a cache on the CPU, for little memory on a GPU
(some 100 bytes each). The C++ kernels keep neither."""

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class NeighborEdges(NamedTuple):
    """Edges sorted by target, source and distance.

    Attributes:
        edge_index: sources j (row 0) and targets i (row 1), shape (2, E), int64.
        edge_shift: image **n** of the source, in the cell's own vectors, shape (E, 3), int32.
        edge_dist: :math:`|\\mathbf{p}_j + \\mathbf{n} L - \\mathbf{p}_i|`, A, shape (E,).
    """

    edge_index: Tensor
    edge_shift: Tensor
    edge_dist: Tensor


def neighbor_search(
    pos: Tensor, cell: Tensor, batch: Tensor, pbc: Tensor, cutoff: float | Tensor, self_images: bool = True
) -> NeighborEdges:
    r"""Find every image :math:`(j, \mathbf{n})` within `cutoff` of every atom i of the same crystal.

    Right for any basis (skewed, left-handed), for cells smaller than the cutoff (one atom has many images), for atoms
    outside the cell, and for 0 to 3 periodic directions; the lattice vectors of the other directions are ignored. The
    time is O(atoms + edges) where atoms do not all gather in few places of their cell.

    Distances are computed in float64 from the positions and cells as given, and rounded once. An edge and its reverse
    have the same distance to the last bit, and both are there or neither is. The result does not depend on the device,
    but for rounding of the distances, nor on how many crystals are searched together; the same call gives the same
    bits. Where there is no float64 (MPS) the search runs on the CPU. Nothing is differentiable: see
    :func:`.lattice.edge_vectors`.

    A GPU is waited for once, once more if a direction does not repeat, and three times per piece of `PIECE` bins or
    candidates: a batch of a few hundred small crystals is one piece.

    Args:
        pos: cartesian positions (N, 3), A.
        cell: lattice vectors as rows (B, 3, 3), A.
        batch: crystal of each atom (N,), in ascending order.
        pbc: periodic directions (B, 3), bool.
        cutoff: A, inclusive; a number, or one for each crystal (B,).
        self_images: whether each atom is its own neighbour at distance 0, as infinite attention needs it.

    Returns:
        Edges sorted by target, source and distance, on the device of `pos`, distances in its dtype.

    Raises:
        ValueError: if shapes disagree, a number is not finite, `cutoff` is negative, `batch` is not in order or has a
            crystal that is not there, or the periodic vectors of a cell lie in a plane.
    """
    if pos.size(0) == 0:
        check_shapes(pos, cell, batch, pbc, cutoff)
        return NeighborEdges(batch.new_zeros(2, 0), batch.new_zeros(0, 3, dtype=torch.int32), pos.new_zeros(0))
    search = prepare_search(pos, cell, batch, pbc, cutoff)
    rows = [_rows_between(search, *span, self_images, pos.dtype) for span in _spans(search)]
    source, target, shift, dist = (torch.cat(part).to(pos.device) for part in zip(*rows, strict=True))
    return NeighborEdges(torch.stack([source, target]), shift, dist)


def neighbor_pieces(
    search: PreparedSearch, max_edges: int, dtype: torch.dtype, self_images: bool = True
) -> Iterator[tuple[int, int, NeighborEdges]]:
    """The edges of :func:`neighbor_search` for some atoms at a time, where all of them would not fit into memory.

    Args:
        search: the atoms in their bins.
        max_edges: a piece ends with the first atoms that bring it to so many edges.
        dtype: of the distances.
        self_images: whether each atom is its own neighbour at distance 0.

    Yields:
        The atoms `first` to `last` (exclusive) and the edges that lead to them, sorted, on the device of the search.
    """
    start, found = 0, []
    for first, last, total in _spans(search):
        found.append(_rows_between(search, first, last, total, self_images, dtype))
        if last == search.crystal.numel() or sum(len(part[0]) for part in found) >= max_edges:
            source, target, shift, dist = (torch.cat(part) for part in zip(*found, strict=True))
            yield start, last, NeighborEdges(torch.stack([source, target]), shift, dist)
            start, found = last, []


def _spans(search: PreparedSearch) -> Iterator[tuple[int, int, int]]:
    """Atoms to look at together, `first` to `last`, and the sum of the sizes of their stencils."""
    ends = search.bins.plan.stencil_size().repeat(search.counts).cumsum()
    piece = _piece(search)
    first = 0
    while first < len(ends):
        done = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, done + piece, side="right")), first + 1)
        yield first, last, int(ends[last - 1]) - done
        first = last


def _rows_between(
    search: PreparedSearch, first: int, last: int, total: int, self_images: bool, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Sorted edges (source, target, shift, distance) of the atoms of a span."""
    if _has_kernels(search):
        like = torch.empty(0, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        source, target, shift, dist = extension.load().neighbors(
            *for_kernels(search), first, last, self_images, like
        )  # fmt: skip
        return source, target, shift, dist.to(dtype)
    last_of_crystals = search.counts.cumsum()
    crystals = np.searchsorted(last_of_crystals, [first, last - 1], side="right")
    in_span = (int(crystals[0]), int(crystals[1]) + 1)
    near = _bins_near(search.bins, search.crystal[first:last], first, in_span, total)
    return _rows(search, *near, _piece(search), self_images, dtype)


def _piece(search: PreparedSearch) -> int:
    return PIECE["gpu" if search.pos.device.type != "cpu" else "cpp" if _has_kernels(search) else "cpu"]


def _has_kernels(search: PreparedSearch) -> bool:
    return search.pos.is_cpu and extension.why_unavailable() is None


def _bins_near(
    bins: Bins, owner: Tensor, first: int, crystals: tuple[int, int], total: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bins that may hold neighbours of some atoms: the atom, the image (3, K), the bin's first atom and its number.

    The atoms are those from `first` on; `owner` is their crystal, of the given range; `total` the sum of the sizes of
    their stencils.
    """
    steps, vectors = stencils(bins, *crystals)
    sizes = bins.stencil_size[owner]
    atom = segment_index(sizes, total)
    in_range = bins.stencil_size[slice(*crystals)]
    skip = (in_range.cumsum(0) - in_range)[owner - crystals[0]] - (sizes.cumsum(0) - sizes)
    entry = torch.arange(total, device=atom.device) + skip[atom]
    owner = owner.index_select(0, atom)
    atom = atom + first
    member = torch.zeros_like(atom)
    squared = torch.zeros_like(atom, dtype=torch.float64)
    near = torch.ones_like(atom, dtype=torch.bool)
    image = torch.empty_like(atom.expand(3, total))
    for axis in range(3):
        number = bins.number[axis].index_select(0, owner)
        place = bins.place[axis].index_select(0, atom) + steps[axis].index_select(0, entry)
        image[axis] = place.div(number, rounding_mode="floor")
        member = member * number + (place - image[axis] * number)
        near &= bins.periodic[axis].index_select(0, owner) | (image[axis] == 0)
        vector = bins.to_centre[axis].index_select(0, atom) + vectors[axis].index_select(0, entry)
        squared += vector * vector
    near &= squared <= bins.reach.index_select(0, owner)
    member += bins.first_bin.index_select(0, owner)
    start = bins.start.index_select(0, member)
    count = torch.where(near, bins.start.index_select(0, member + 1) - start, 0)
    kept = count.nonzero().squeeze(1)
    return atom[kept], image[:, kept], start[kept], count[kept]


def _rows(
    search: PreparedSearch,
    target: Tensor,
    image: Tensor,
    start: Tensor,
    count: Tensor,
    piece: int,
    self_images: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, ...]:
    """Sorted edges from bins near atoms."""
    crystal = search.crystal[target]
    offset, centre = combine(image.double(), search.basis, crystal), search.pos[:, target]
    cutoff = search.cutoff[crystal]
    found = []
    for chosen, number in _pieces(count, piece):
        entry = segment_index(count[chosen], number)
        skip = start[chosen] - (count[chosen].cumsum(0) - count[chosen])
        candidate = torch.arange(number, device=entry.device) + skip.index_select(0, entry)
        entry = entry + chosen.start
        squared = torch.zeros_like(entry, dtype=torch.float64)
        for axis in range(3):
            vector = search.pos_in_bins[axis].index_select(0, candidate) - centre[axis].index_select(0, entry)
            vector += offset[axis].index_select(0, entry)
            squared += vector.square_()
        dist = squared.sqrt_()
        near = (dist <= cutoff.index_select(0, entry)).nonzero().squeeze(1)
        found.append((candidate[near], entry[near], dist[near].to(dtype)))
    candidate, entry, dist = (torch.cat(part) for part in zip(*found, strict=True))
    source, row = search.bins.order[candidate], target[entry]
    if not self_images:
        others = ((source != row) | (dist > 0)).nonzero().squeeze(1)
        source, row, entry, dist = source[others], row[others], entry[others], dist[others]
    order = sort_by_pair(dist, row * search.crystal.numel() + source)
    source, row, entry, dist = (part.index_select(0, order) for part in (source, row, entry, dist))
    steps = image[:, entry] + search.wrap[:, row] - search.wrap[:, source]
    shift = combine(steps, search.transform, search.crystal[row])
    return source, row, shift.T.to(torch.int32), dist


def sort_by_pair(dist: Tensor, pair: Tensor) -> Tensor:
    """Order by pair, then by distance. A length's bits, read as an integer, order as it does, and sort much faster."""
    by_dist = dist.view(_INTEGER[dist.element_size()]).argsort(stable=True)
    return by_dist[pair.index_select(0, by_dist).argsort(stable=True)]


def _pieces(count: Tensor, piece: int) -> Iterator[tuple[slice, int]]:
    """Cut entries into slices of about `piece` candidates, with the number that each has."""
    ends = count.cumsum(0)
    total = int(ends[-1])
    if total <= piece:
        yield slice(0, len(ends)), total
        return
    cuts = torch.searchsorted(ends, torch.arange(piece, total, piece, device=ends.device)).unique() + 1
    cuts = torch.cat([cuts.new_zeros(1), cuts[cuts < len(ends)], cuts.new_tensor([len(ends)])])
    bounds, totals = torch.stack([cuts, torch.cat([ends.new_zeros(1), ends])[cuts]]).tolist()
    for index in range(len(bounds) - 1):
        yield slice(bounds[index], bounds[index + 1]), totals[index + 1] - totals[index]

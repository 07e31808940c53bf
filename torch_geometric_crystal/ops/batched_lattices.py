"""Reduced bases of the lattices of a whole batch, with the directions that do not repeat completed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torch_geometric_crystal.ops.lattice import CORNERS, STRICT_DECREASE, FloatArray, IntArray

_FLAT = 1e-9  # |V| / (|a| |b| |c|) at which no reduction can be trusted; rounding of float32 alone makes 1e-7


class BatchedLattices(NamedTuple):
    """Short bases of B lattices. Made by :func:`reduce_lattices`.

    Attributes:
        basis: rows are the reduced periodic vectors by length, then unit vectors orthogonal to them and to each other,
            one for each direction that does not repeat, (B, 3, 3), A.
        periodic: which rows repeat (B, 3), the first ones.
        transform: integers (B, 3, 3); an image n in the basis is ``n @ transform`` in the cell's own vectors, where n
            is 0 in the directions that do not repeat.
    """

    basis: FloatArray
    periodic: NDArray[np.bool_]
    transform: IntArray


def reduce_lattices(cell: FloatArray, pbc: NDArray[np.bool_]) -> BatchedLattices:
    """What :func:`.lattice.reduce_lattice` does, for all crystals of a batch at once.

    Args:
        cell: lattice vectors as rows (B, 3, 3), A; those of directions that do not repeat do not matter.
        pbc: periodic directions (B, 3).

    Raises:
        ValueError: if the periodic vectors of a cell do not span a volume, an area or a length.
    """
    order = np.argsort(~pbc, axis=1, kind="stable")
    periodic = np.take_along_axis(pbc, order, axis=1)
    rows = np.take_along_axis(np.asarray(cell, dtype=np.float64), order[..., None], axis=1)
    if not pbc.all():
        orthogonal = np.linalg.svd(np.where(periodic[..., None], rows, 0.0))[2]
        rows = np.where(periodic[..., None], rows, orthogonal)
    flat = ~(np.abs(np.linalg.det(rows)) > _FLAT * np.linalg.norm(rows, axis=2).prod(axis=1))
    if flat.any():
        index = int(flat.argmax())
        raise ValueError(
            f"cell: expected linearly independent vectors in the periodic directions, received {cell[index].tolist()} "
            f"(crystal {index} of the batch)"
        )
    steps = _reduce(rows, periodic.sum(axis=1))
    transform = np.zeros_like(steps)
    np.put_along_axis(transform, np.broadcast_to(order[:, None], steps.shape), steps, axis=2)
    return BatchedLattices(steps @ rows, periodic, transform)


def _reduce(rows: FloatArray, rank: IntArray) -> IntArray:
    """Unimodular integers (B, 3, 3) that reduce the first `rank` rows of each basis and leave the others."""
    transform = np.tile(np.eye(3, dtype=np.int64), (len(rows), 1, 1))
    left = np.flatnonzero(rank)
    while len(left):
        steps = transform[left]
        reduced = steps @ rows[left]
        length = np.where(np.arange(3) < rank[left, None], (reduced**2).sum(axis=2), np.inf)
        order = length.argsort(axis=1, kind="stable")[..., None]
        steps, reduced = np.take_along_axis(steps, order, axis=1), np.take_along_axis(reduced, order, axis=1)
        gram = reduced @ reduced.transpose(0, 2, 1)
        shortened = np.zeros(len(left), dtype=bool)
        for last in (1, 2):
            nearest, shorter = _nearest_below(gram, last)
            shorter &= ~shortened & (rank[left] > last)
            steps[shorter, last] -= (nearest[shorter, :, None] * steps[shorter, :last]).sum(axis=1)
            shortened |= shorter
        transform[left] = steps
        left = left[shortened]
    return transform


def _nearest_below(gram: FloatArray, last: int) -> tuple[IntArray, NDArray[np.bool_]]:
    """Coordinates (B, last) of the nearest point to row `last` in the lattice of the rows before, and whether it helps.

    The rows before `last` have to be Gauss-reduced: then that point is a corner of the cell around the projection, or
    next to one.
    """
    aa, ab = gram[:, 0, 0], gram[:, 0, 1]
    if last == 1:
        real = (ab / aa)[:, None]
    else:
        bb, ac, bc = gram[:, 1, 1], gram[:, 0, 2], gram[:, 1, 2]
        real = np.stack([ac * bb - bc * ab, bc * aa - ac * ab], axis=1) / (aa * bb - ab * ab)[:, None]
    points = np.floor(real)[:, None, :] + CORNERS[last]
    gain = ((points @ gram[:, :last, :last] - 2.0 * gram[:, last, None, :last]) * points).sum(axis=2)
    best = gain.argmin(axis=1)
    which = np.arange(len(gram))
    nearest: IntArray = points[which, best].astype(np.int64)
    return nearest, gain[which, best] < -STRICT_DECREASE * gram[:, last, last]

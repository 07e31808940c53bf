"""Lattice mathematics: edge vectors, reciprocal cell, reduced bases, lattice points in a ball, bounds on their number.

The functions on tensors (:func:`edge_vectors`, :func:`reciprocal_cell`) are differentiable. The functions on arrays
serve the neighbour search and the truncation bounds; they work in float64 on a *basis*, the (k, 3) array of the
k = 0..3 periodic lattice vectors of a crystal, a slab, a rod or a molecule.
"""

import math
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_geometric_crystal.checks import check_shape

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_UNIT_BALL_VOLUME = (1.0, 2.0, math.pi, 4.0 * math.pi / 3.0)
STRICT_DECREASE = 1e-10
"""Part of a squared length that a step of a reduction has to take off: more than rounding could."""
CORNERS = {last: np.array(list(product((-1.0, 0.0, 1.0, 2.0), repeat=last))) for last in (1, 2)}
"""Corners of the unit cell around a point of a chain or a plane, and the corners next to them."""


def edge_vectors(
    pos: Tensor, cell: Tensor, edge_index: Tensor, edge_shift: Tensor, batch: Tensor | None = None
) -> Tensor:
    r"""Vector of each edge, :math:`\mathbf{p}_j + \mathbf{n} L - \mathbf{p}_i`, differentiable in `pos` and `cell`.

    Args:
        pos: cartesian positions (N, 3), A.
        cell: lattice vectors as rows (B, 3, 3), A, one cell per crystal of the batch.
        edge_index: sources j and targets i (2, E).
        edge_shift: integer image **n** of the source (E, 3), in units of the lattice vectors.
        batch: crystal of each atom (N,); may be left out for one crystal.

    Returns:
        (E, 3), A, dtype of `pos`.

    Raises:
        ValueError: if a shape is wrong, or `batch` is missing although there is more than one cell.
    """
    check_shape("pos", pos, (None, 3))
    check_shape("cell", cell, (None, 3, 3))
    check_shape("edge_index", edge_index, (2, None))
    check_shape("edge_shift", edge_shift, (edge_index.size(1), 3))
    if batch is None and cell.size(0) != 1:
        raise ValueError(f"batch: expected the crystal of each atom, received None with {cell.size(0)} cells")
    source, target = edge_index[0], edge_index[1]
    shift = edge_shift.to(pos.dtype)
    if batch is None:
        translation = shift @ cell[0].to(pos.dtype)
    else:
        translation = torch.einsum("ea,eab->eb", shift, cell.to(pos.dtype)[batch[target]])
    return pos[source] - pos[target] + translation


def vector_lengths(vectors: Tensor) -> Tensor:
    """Lengths (E,) of vectors (E, 3), with a derivative of zero where a vector is zero: a self image stays in place."""
    squared = vectors.square().sum(-1)
    apart = squared > 0
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def reciprocal_cell(cell: Tensor) -> Tensor:
    r"""Reciprocal lattice vectors as rows, :math:`2 \pi (L^{-1})^T`, so that :math:`a_i \cdot b_j = 2 \pi \delta_{ij}`.

    Args:
        cell: lattice vectors as rows (..., 3, 3), A.

    Returns:
        (..., 3, 3), 1/A.
    """
    return 2.0 * math.pi * torch.linalg.inv(cell).transpose(-1, -2)


class ReducedLattice(NamedTuple):
    """The periodic directions of a crystal in a short basis. Made by :func:`reduce_lattice`.

    Attributes:
        basis: reduced lattice vectors (k, 3), k = 0..3, A.
        transform: unimodular integers (k, k); ``basis = transform @ cell[pbc]``.
        pbc: periodic directions of the cell (3,), k of them True.
    """

    basis: FloatArray
    transform: IntArray
    pbc: NDArray[np.bool_]


def reduce_lattice(cell: FloatArray, pbc: NDArray[np.bool_]) -> ReducedLattice:
    """Reduce the lattice vectors of the periodic directions; the other rows of `cell` (3, 3) do not matter."""
    pbc = np.asarray(pbc, dtype=bool)
    return ReducedLattice(*reduce_basis(np.asarray(cell, dtype=np.float64)[pbc]), pbc)


def gram_schmidt_lengths(basis: FloatArray) -> FloatArray:
    r"""Lengths :math:`|b^*_1| .. |b^*_k|` of the Gram-Schmidt vectors of a (k, 3) basis, in the order of its rows."""
    if len(basis) == 0:
        return np.ones(0)
    return np.abs(np.diagonal(np.linalg.qr(basis.T, mode="r")))


def reduce_basis(basis: FloatArray) -> tuple[FloatArray, IntArray]:
    """Short, nearly orthogonal basis of the same lattice (Minkowski-reduced up to rounding).

    Greedy reduction (Nguyen and Stehle, "Low-dimensional lattice basis reduction revisited", 2009): order by length,
    reduce the first two vectors by Gauss' algorithm, take from the third the nearest point of their plane lattice,
    repeat until nothing gets shorter.

    Args:
        basis: (k, 3), k = 0..3, A.

    Returns:
        The reduced basis (k, 3), sorted by length, and the unimodular integer matrix (k, k) that makes it:
        ``reduced = transform @ basis``.
    """
    basis = np.asarray(basis, dtype=np.float64)
    k = len(basis)
    transform = np.eye(k, dtype=np.int64)
    while True:
        reduced = transform @ basis
        gram = reduced @ reduced.T
        order = gram.diagonal().argsort(kind="stable")
        transform, reduced, gram = transform[order], reduced[order], gram[np.ix_(order, order)]
        for last in range(1, k):
            nearest = _nearest_below(gram, last)
            if nearest is not None:
                transform[last] -= nearest @ transform[:last]
                break
        else:
            return reduced, transform


def _nearest_below(gram: FloatArray, last: int) -> IntArray | None:
    """Coordinates of the nearest point to row `last` in the lattice of the rows before; None if it makes it no shorter.

    The rows before `last` are Gauss-reduced, so the nearest point is a corner of the cell around the projection, or
    next to one.
    """
    if last == 1:
        real = gram[0, 1:2] / gram[0, 0]
    else:
        (aa, ab, ac), (_, bb, bc) = gram[:2].tolist()
        real = np.array([ac * bb - bc * ab, bc * aa - ac * ab]) / (aa * bb - ab * ab)
    points = np.floor(real) + CORNERS[last]
    gain = ((points @ gram[:last, :last] - 2.0 * gram[last, :last]) * points).sum(axis=1)
    best = int(gain.argmin())
    return points[best].astype(np.int64) if gain[best] < -STRICT_DECREASE * gram[last, last] else None


def count_polynomials(lengths: FloatArray) -> FloatArray:
    r"""Polynomials C(r), each at least the number of lattice points within r of any point of space, for every r >= 0.

    With the Gram-Schmidt lengths :math:`b^*_1 .. b^*_k` of a basis the boxes of these sides, centred at the lattice
    points, tile the space that the lattice spans. For each m <= k let
    :math:`\mu_m = \frac12 \sqrt{b^{*2}_1 + .. + b^{*2}_m}` be the half diagonal of the box of the first m sides. Then

    .. math::
        C_m(r) = \omega_m (r + \mu_m)^m / (b^*_1 \cdots b^*_m), \qquad
        C_m(r) = (2 r / b^*_m + 1) \, C_{m-1}(r), \qquad C_0 = 1

    (:math:`\omega_m`: volume of the unit ball) are bounds for the sublattice of the first m vectors: the boxes of the
    points counted lie in a ball of radius r + mu; and that sublattice is a stack of layers spaced by b*_m, at most
    2 r / b*_m + 1 of which meet the ball. The proof is in ``docs/truncation.rst``.

    Args:
        lengths: Gram-Schmidt lengths (k,), k = 0..3, of any basis of the lattice, A. The bounds are sharp for a reduced
            one.

    Returns:
        Coefficients (P, k + 1), lowest power first, one polynomial a row. All coefficients are >= 0.
    """
    bounds = [np.ones(1)]
    for m, length in enumerate(lengths, start=1):
        layers = np.array([1.0, 2.0 / length])
        bounds = [np.convolve(layers, bound) for bound in bounds]
        if m > 1:
            half_diagonal = 0.5 * math.sqrt(float((lengths[:m] ** 2).sum()))
            power = [math.comb(m, n) * half_diagonal ** (m - n) for n in range(m + 1)]
            bounds.append(np.array(power) * _UNIT_BALL_VOLUME[m] / lengths[:m].prod())
    return np.stack(bounds)


def lattice_points(basis: FloatArray, radius: float) -> tuple[IntArray, FloatArray]:
    """All lattice points within `radius` of the origin, which is one of them.

    Args:
        basis: (k, 3), any basis of the lattice.
        radius: in the unit of `basis`.

    Returns:
        Integer coordinates (M, k) in the given basis and lengths (M,), in no particular order.
    """
    reduced, transform = reduce_basis(basis)
    if len(reduced) == 0:
        return np.zeros((1, 0), dtype=np.int64), np.zeros(1)
    limits = np.floor(radius * np.linalg.norm(np.linalg.pinv(reduced), axis=0) * (1.0 + 1e-9)).astype(np.int64)
    axes = np.meshgrid(*(np.arange(-limit, limit + 1) for limit in limits), indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=1)
    lengths = np.linalg.norm(points @ reduced, axis=1)
    keep = lengths <= radius
    return points[keep] @ transform, lengths[keep]

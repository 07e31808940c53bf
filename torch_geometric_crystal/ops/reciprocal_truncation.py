r"""Certified truncation of the reciprocal sum: which waves an attention over all periodic images needs.

By Poisson summation the sum over all images of atom j seen from atom i is, up to a factor that is the same in a row,
:math:`S_{ij} = \sum_g e^{-\sigma^2 g^2 / 2} \cos g \cdot (p_j - p_i)` over the reciprocal lattice, with
:math:`\sigma \ge \sigma_{min}`. The tail beyond G is a Gaussian lattice sum of width :math:`1 / \sigma_{min}` around a
lattice point, bounded as in real space. Statements and proofs: ``docs/truncation.rst``.

`reciprocal_basis` (3, 3) are the reciprocal lattice vectors as rows, with the factor 2 pi, in 1/A.
"""

import math

import numpy as np

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.ops.lattice import (
    FloatArray,
    IntArray,
    count_polynomials,
    gram_schmidt_lengths,
    lattice_points,
    reduce_basis,
)
from torch_geometric_crystal.ops.lattice_tail import (
    REMAINDER,
    SAFETY,
    gaussian_sums,
    radius_for_tail,
    smallest_cutoff,
    unlisted_sums,
)
from torch_geometric_crystal.ops.truncation import check_tolerance, search_radius_for_cutoff


def wave_cutoff(reciprocal_basis: FloatArray, num_atoms: int, sigma_min: float, tol: float, spread: float) -> float:
    r"""Smallest radius in reciprocal space, moved outwards into the next gap, whose dropped waves cost at most `tol`.

    Args:
        reciprocal_basis: reciprocal lattice vectors as rows (3, 3), with 2 pi, 1/A.
        num_atoms: atoms in the cell.
        sigma_min: lower bound of sigma, A.
        tol: tolerated value of :func:`wave_truncation_bound`.
        spread: allowance for the spread of the logits within a row.

    Returns:
        1/A.
    """
    check_tolerance(tol, spread)
    width = 1.0 / sigma_min
    odds = tol / _row_factor(num_atoms, spread)
    lengths = gram_schmidt_lengths(reduce_basis(reciprocal_basis)[0])
    count = count_polynomials(lengths)
    kept = max(1.0, (2.0 * math.pi * width**2) ** 1.5 / lengths.prod())
    radius = radius_for_tail(count, 1, width, math.log(0.5 * REMAINDER * kept * odds))
    while True:
        lengths = lattice_points(reciprocal_basis, radius)[1]
        cutoff = smallest_cutoff(np.zeros(len(lengths), dtype=np.int64), lengths, 1, radius, count, width, odds)
        if cutoff is not None:
            return cutoff
        radius += width


def wave_truncation_bound(
    reciprocal_basis: FloatArray, num_atoms: int, sigma_min: float, cutoff: float, spread: float
) -> float:
    r"""Certified effect on a row of dropping the waves longer than `cutoff` from the reciprocal sum.

    With :math:`S_{ij} = \sum_g e^{-\sigma^2 g^2 / 2} \cos g \cdot (p_j - p_i)` and :math:`S_{ij}^G` the part
    :math:`|g| \le G`, kept non-negative by the clamp,

    .. math::
        \frac{\sum_j e^{z_{ij}} |S_{ij} - S^G_{ij}|}{\sum_j e^{z_{ij}} S^G_{ij}}
        \le \big( 1 + (n - 1) e^\Delta \big) \frac{T_G}{S^G_{ii}}, \qquad T_G = \sum_{|g| > G} e^{-\sigma^2 g^2 / 2}

    at sigma = `sigma_min`, and the right-hand side falls as sigma grows.

    Args:
        reciprocal_basis: reciprocal lattice vectors as rows (3, 3), with 2 pi, 1/A.
        num_atoms: n, atoms in the cell.
        sigma_min: lower bound of sigma, A.
        cutoff: G, 1/A.
        spread: allowance for the spread of the logits within a row.
    """
    check_argument(cutoff >= 0.0, "cutoff", "a number >= 0", cutoff)
    width = 1.0 / sigma_min
    lengths = gram_schmidt_lengths(reduce_basis(reciprocal_basis)[0])
    count = count_polynomials(lengths)
    radius = search_radius_for_cutoff(count, 1, float(lengths.prod()), width, cutoff)
    while True:
        lengths = lattice_points(reciprocal_basis, radius)[1]
        row = np.zeros(len(lengths), dtype=np.int64)
        tail = gaussian_sums(row[lengths > cutoff], lengths[lengths > cutoff], 1, width, cutoff)[0] * (1.0 + SAFETY)
        unlisted = unlisted_sums(row, 1, radius, count, width, cutoff)[0]
        if unlisted <= REMAINDER * tail:
            break
        radius += width
    kept = gaussian_sums(row[lengths <= cutoff], lengths[lengths <= cutoff], 1, width, 0.0)[0]
    scale = math.exp(-(cutoff**2) / (2.0 * width**2))
    return float(_row_factor(num_atoms, spread) * (tail + unlisted) * scale / kept * (1.0 + SAFETY))


def wave_vectors(reciprocal_basis: FloatArray, cutoff: float) -> IntArray:
    r"""Miller indices of one half of the waves with :math:`|g| \le` `cutoff`: g or -g, and g = 0.

    A sum over all g is the term of the first row plus twice those of the others.

    Args:
        reciprocal_basis: reciprocal lattice vectors as rows (3, 3), with 2 pi, 1/A.
        cutoff: 1/A.

    Returns:
        (M, 3), (0, 0, 0) first, sorted by length, equal lengths (to 1e-9) by index. The first index that is not 0 is
        positive.
    """
    points, lengths = lattice_points(reciprocal_basis, cutoff)
    leading = points[np.arange(len(points)), (points != 0).argmax(axis=1)]
    half = leading >= 0
    points, lengths = points[half], np.round(lengths[half], 9)
    return points[np.lexsort((*points.T[::-1], lengths))]


def _row_factor(num_atoms: int, spread: float) -> float:
    return 1.0 + (num_atoms - 1) * math.exp(spread)

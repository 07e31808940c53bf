"""Certified cutoffs of any decay, and the exact rest of the inverse power, for crystals periodic in three directions.

Proofs: docs/experiments/decays.rst.
"""

import math
from typing import NamedTuple

import numpy as np
from decays_profiles import Decay, FloatArray
from numpy.typing import NDArray
from scipy import special

from torch_geometric_crystal.data.neighbors import periodic_images
from torch_geometric_crystal.ops.lattice import count_polynomials, gram_schmidt_lengths, reduce_lattice

SAFETY = 1e-9
"""Relative allowance for rounding."""
REMAINDER = 0.1
"""Part of the tolerated tail that lattice points beyond the list may take."""
CLEAR = 1e-4
"""A cutoff lies so far outside the last image that it keeps, A."""


class Images(NamedTuple):
    """Images within a cutoff of each atom, itself included, and the certified share of the others.

    Attributes:
        target, source, dist: one entry for each image; A.
        cutoff: A.
        bound: largest share over the rows.
    """

    target: NDArray[np.int64]
    source: NDArray[np.int64]
    dist: FloatArray
    cutoff: float
    bound: float


def counted_tail(decay: Decay, length: float, count: FloatArray, radius: float, sublattices: int) -> float:
    r"""Bound on the decay's sum over the points beyond a radius, if none were listed.

    .. math::
        \sum_{r > R} f(r) \le n \Big( f(R) C(R) + \sum_k k c_k \int_R^\infty r^{k-1} f(r) dr \Big) - N f(R)

    N, the number of listed points, is for the caller to subtract.
    """
    degree = count.shape[1]
    edge = float(decay.value(np.array(radius / length)))
    terms = edge * radius ** np.arange(degree)
    terms[1:] += np.arange(1, degree) * length ** np.arange(1, degree) * decay.moments(radius / length)[: degree - 1]
    return sublattices * float((count @ terms).min()) * (1 + SAFETY)


def certified_images(
    pos: FloatArray, cell: FloatArray, decay: Decay, length: float, tol: float, spread: float
) -> Images:
    """The images that drop at most `tol` of any row, at every length up to `length` and logits within `spread`.

    Args:
        pos: positions (N, 3), A.
        cell: lattice vectors as rows, A.
        decay: its certifier decides.
        length: the longest, A.
        tol: tolerated share.
        spread: of the logits in a row.
    """
    decay, n = decay.certifier(), len(pos)
    lattice = reduce_lattice(cell, np.ones(3, dtype=bool))
    count = count_polynomials(gram_schmidt_lengths(lattice.basis))
    density = n / abs(float(np.linalg.det(cell)))
    odds = math.exp(-spread) * tol / (1 - tol)
    share = odds / (1 + odds)
    radius = _first_radius(decay, length, density, REMAINDER * share)
    while True:
        images = periodic_images(pos, lattice, radius)
        weight = decay.value(images.dist / length)
        whole = np.bincount(images.target, weight, minlength=n)
        listed = np.bincount(images.target, minlength=n)
        edge = float(decay.value(np.array(radius / length)))
        beyond = np.maximum(counted_tail(decay, length, count, radius, n) - listed * edge, 0.0)
        if (beyond <= REMAINDER * share * whole).all():
            break
        radius *= 1.05
    allowed = (share * whole - beyond) * (1 - SAFETY)
    cutoff = _smallest_radius(images.target, images.dist, weight, allowed) + CLEAR
    keep = images.dist <= cutoff
    outside = np.bincount(images.target[~keep], weight[~keep], minlength=n) + beyond
    inside = np.bincount(images.target[keep], weight[keep], minlength=n)
    ratio = math.exp(spread) * outside / inside * (1 + SAFETY)
    bound = float((ratio / (1 + ratio)).max())
    return Images(images.target[keep], images.source[keep], images.dist[keep], cutoff, bound)


def images_within(pos: FloatArray, cell: FloatArray, cutoff: float) -> Images:
    """All images within a cutoff; nothing is certified."""
    images = periodic_images(pos, reduce_lattice(cell, np.ones(3, dtype=bool)), cutoff)
    return Images(images.target, images.source, images.dist, cutoff, math.nan)


def inverse_power_tails(pos: FloatArray, cell: FloatArray, cutoff: float, terms: int) -> FloatArray:
    r"""Exact sums :math:`R^{2q} \sum_{r > R} r^{-2q}` over the images of each pair of atoms, q = 3, 4, .. .

    By Ewald's splitting. With P and Q the lower and upper regularised incomplete gamma functions,

    .. math::
        \sum_{r > R} r^{-2q} = \sum_{r > R} \frac{Q(q, \eta^2 r^2)}{r^{2q}} - \sum_{r \le R} \frac{P(q, \eta^2 r^2)}
        {r^{2q}} + \frac{\pi^{3/2}}{V \Gamma(q)} \sum_g \cos(g \cdot x) \int_0^{\eta^2} t^{q - 5/2} e^{-g^2 / 4 t} dt,

    where P / r^2q is eta^2q / q! at r = 0.

    Returns:
        (N, N, terms), row i and atom j.
    """
    n, volume = len(pos), abs(float(np.linalg.det(cell)))
    eta = math.sqrt(math.pi) / volume ** (1 / 3)
    lattice = reduce_lattice(cell, np.ones(3, dtype=bool))
    images = periodic_images(pos, lattice, max(cutoff, 6.0 / eta))
    pair, dist = images.target * n + images.source, images.dist
    waves = _waves(lattice.basis, 12.0 * eta)
    phase = pos @ waves.T
    cosines = np.cos(phase[None] - phase[:, None])  # (N, N, G)
    near, found = dist <= cutoff, np.empty((n, n, terms))
    square = (waves**2).sum(1)
    for term in range(terms):
        q = term + 3
        x = (eta * dist) ** 2
        apart = np.maximum(dist, 1e-3)
        smooth = np.where(dist > 1e-3, special.gammainc(q, x) / apart ** (2 * q), eta ** (2 * q) / math.factorial(q))
        part = np.where(near, -smooth, special.gammaincc(q, x) / apart ** (2 * q))
        real = np.bincount(pair, part, minlength=n * n).reshape(n, n)
        wave = np.array(eta ** (2 * q - 3) / (q - 1.5)) + 2 * cosines @ _wave_weight(q, square, eta)
        found[..., term] = (real + math.pi**1.5 / (volume * math.gamma(q)) * wave) * cutoff ** (2 * q)
    return found


def inverse_power_series(ratio: FloatArray, tails: FloatArray) -> FloatArray:
    r"""Sum of :math:`(1 + r^2 / \ell^2)^{-3}` beyond R by the binomial series in ratio = (l / R)^2, from the tails.

    The terms alternate and fall for ratio < 1 / 3, so the error is at most the first term that is left out.
    """
    return sum(series_factor(term) * ratio ** (term + 3) * tails[..., term] for term in range(tails.shape[-1]))


def series_factor(term: int) -> float:
    """Coefficient of x^term in (1 + x)^-3."""
    return (-1) ** term * (term + 1) * (term + 2) / 2


def _wave_weight(q: int, square: FloatArray, eta: float) -> FloatArray:
    r""":math:`\int_0^{\eta^2} t^{q - 5/2} e^{-g^2 / 4 t} dt`, an incomplete gamma function of negative order.

    By its recurrence upwards from the complementary error function: all terms of the recurrence are integrals of
    positive functions, :math:`J_{q+1} = (\eta^{2q-1} e^{-x} - (g^2 / 4) J_q) / (q - 1/2)`, x = g^2 / 4 eta^2.
    """
    quarter = square / 4
    x = quarter / eta**2
    edge = np.exp(-x)
    # J_1 = int t^{-3/2} e^{-c / t} dt = sqrt(pi / c) erfc(sqrt x)
    value = np.sqrt(math.pi / quarter) * special.erfc(np.sqrt(x))
    for order in range(1, q):
        value = (eta ** (2 * order - 1) * edge - quarter * value) / (order - 0.5)
    return value


def _waves(basis: FloatArray, largest: float) -> FloatArray:
    """One of each pair g, -g of waves up to a length, zero left out."""
    reciprocal = 2 * math.pi * np.linalg.inv(basis).T
    limits = np.floor(largest * np.linalg.norm(basis, axis=1) / (2 * math.pi)).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in limits), indexing="ij"), -1).reshape(-1, 3)
    grid = grid[len(grid) // 2 + 1 :]
    waves = grid @ reciprocal
    return waves[(waves**2).sum(1) <= largest**2]


def _first_radius(decay: Decay, length: float, density: float, share: float) -> float:
    """Where the tail of a continuum of points is the share of a row: a guess from which the search starts."""
    factor = 4 * math.pi * density * length**3
    whole = max(1.0, factor * float(decay.moments(0.0)[2]))
    s = 0.5
    while factor * float(decay.moments(s)[2]) > share * whole:
        s *= 1.05
    return s * length


def _smallest_radius(target: NDArray[np.int64], dist: FloatArray, weight: FloatArray, allowed: FloatArray) -> float:
    """The least distance such that in every row what lies further out weighs no more than allowed."""
    order = np.lexsort((-dist, target))
    target, dist, weight = target[order], dist[order], weight[order]
    summed = np.cumsum(weight)
    first = np.searchsorted(target, np.arange(len(allowed)))
    before = np.concatenate([[0.0], summed])[first]
    too_much = summed - before[target] > allowed[target]
    return float(dist[too_much].max())

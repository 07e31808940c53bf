r"""Tails of Gaussian lattice sums, bounded by counting lattice points, and the smallest cutoff that a tail allows.

The sums here are those of :math:`f(r) = e^{-r^2 / 2 \sigma^2}` over the points listed as `row` (E,), `dist` (E,): the
points within `radius` of each of `num_rows` centres, the centre itself included. `count` (P, k + 1) are the
polynomials of :func:`.lattice.count_polynomials` for one sublattice. Real and reciprocal space use the same functions.
Proofs are in ``docs/truncation.rst``.
"""

import math

import numpy as np

from torch_geometric_crystal.ops.lattice import FloatArray, IntArray

SAFETY = 1e-9
"""Relative allowance for rounding in upper bounds. Sums of 1e6 terms, of distances right to 1e-12 A, stay inside."""
REMAINDER = 5e-3
"""Part of the tolerated tail set aside for the counting bound beyond the explicit radius, whatever that bound really
is: so the cutoff does not depend on the choice of cell, to which that bound is sensitive."""
MIN_GAP = 5e-4
"""A cutoff stays clear of shells by half of this, where there is such a gap. In units of sigma, as all lengths here."""
GAP_WINDOW = 0.025
"""How far outwards such a gap is looked for; where there is none, the widest one is taken."""
MAX_GAP = 0.5
"""A gap counts as no wider than this, so that a cutoff does not depend on how far the shells were listed."""
BIN_WIDTH = 0.125
"""Width of the bins in which the smallest cutoff is first located. Speed alone depends on it."""


def scaled_moments(radius: FloatArray | float, sigma: float, order: int) -> FloatArray:
    r"""Bounds on the Gaussian moments beyond a radius, in units of the Gaussian there, so that nothing underflows.

    .. math::
        m_k(R) = e^{R^2 / 2 \sigma^2} \int_R^\infty r^k e^{-r^2 / 2 \sigma^2} dr, \qquad
        m_0 \le \min(\sigma \sqrt{\pi / 2}, \sigma^2 / R), \quad m_1 = \sigma^2, \quad
        m_k = \sigma^2 (R^{k-1} + (k - 1) m_{k-2})

    The odd ones are exact. The second exceeds the truth by 0.4 % at R = 4 sigma: too little to call for the exact
    :math:`m_0 = \sigma \sqrt{\pi/2} \, \mathrm{erfcx}(R / \sqrt2 \sigma)`.

    Args:
        radius: R >= 0, of any shape.
        sigma: in the unit of `radius`.
        order: highest k, at least 1.

    Returns:
        The shape of `radius` and one more axis, (..., order + 1).
    """
    radius = np.asarray(radius, dtype=np.float64)
    moments = [sigma**2 / np.maximum(radius, sigma * math.sqrt(2.0 / math.pi)), np.full_like(radius, sigma**2)]
    for k in range(2, order + 1):
        moments.append(sigma**2 * (radius ** (k - 1) + (k - 1) * moments[k - 2]))
    return np.stack(moments, axis=-1)


def gaussian_tail_factor(count: FloatArray, radius: FloatArray | float, sigma: float) -> FloatArray:
    r"""Bound on the Gaussian sum over the points of a sublattice beyond a radius, in units of the Gaussian there.

    .. math::
        \sum_{r > R} f(r) \le f(R) \, (t(R) - N(R)), \qquad
        t(R) = \frac{1}{f(R)} \int_R^\infty \frac{r}{\sigma^2} f(r) \, C(r) \, dr
             = \frac{1}{\sigma^2} \sum_k c_k m_{k+1}(R)

    where at most :math:`C(r) = \sum_k c_k r^k` points lie within r of the centre, and N(R) within R. The sum over n
    sublattices is at most f(R) (n t(R) - N(R)), with their points together in N.

    Args:
        count: coefficients (P, k + 1), one polynomial C a row; the least t counts.
        radius: R, of any shape.
        sigma: in the unit of `radius`.

    Returns:
        t, shape of `radius`.
    """
    moments = scaled_moments(radius, sigma, count.shape[1])[..., 1:] / sigma**2
    rounding = SAFETY if count.shape[1] > 1 else 0.0  # a sublattice of one point is counted exactly
    factor: FloatArray = (moments @ count.T).min(axis=-1) * (1.0 + rounding)
    return factor


def force_tail_factor(count: FloatArray, radius: float, sigma: float) -> float:
    r"""The same for :math:`h(r) = (r / \sigma^2) f(r)`, the size of the derivative of f, still in units of f(R).

    .. math::
        \sum_{r > R} h(r) \le f(R) \Big( t_h(R) - \frac{R}{\sigma^2} N(R) \Big), \qquad
        t_h(R) = \frac{1}{f(R)} \int_R^\infty -h'(r) \, C(r) \, dr
               = \frac{1}{\sigma^2} \sum_k c_k \big( R^{k+1} + k \, m_k(R) \big)

    for R >= sigma, from where on h falls.
    """
    powers = np.arange(count.shape[1])
    terms = radius ** (powers + 1) + powers * scaled_moments(radius, sigma, count.shape[1])[:-1]
    return float((count @ terms).min()) * (1.0 + SAFETY) / sigma**2


def radius_for_tail(count: FloatArray, num_sublattices: int, sigma: float, log_target: float) -> float:
    """A radius, in steps of sigma / 16, beyond which the Gaussian sum of all sublattices is at most exp(log_target)."""
    steps = np.arange(64, dtype=np.float64) * (sigma / 16.0)
    first = sigma * math.sqrt(max(0.0, -2.0 * log_target))
    while True:
        radius = first + steps
        log_tail = np.log(num_sublattices * gaussian_tail_factor(count, radius, sigma)) - radius**2 / (2.0 * sigma**2)
        reached = np.flatnonzero(log_tail <= log_target)
        if len(reached):
            return float(radius[reached[0]])
        first = float(radius[-1])


def gaussian_sums(row: IntArray, dist: FloatArray, num_rows: int, sigma: float, scale_radius: float) -> FloatArray:
    """Per row, the sum of exp(-(dist^2 - scale_radius^2) / (2 sigma^2)) over the points listed."""
    weights: FloatArray = np.exp((scale_radius**2 - dist**2) / (2.0 * sigma**2))
    return np.asarray(np.bincount(row, weights, minlength=num_rows), dtype=np.float64)


def unlisted_sums(
    row: IntArray,
    num_rows: int,
    radius: float,
    count: FloatArray,
    sigma: float,
    scale_radius: float,
    num_sublattices: int | None = None,
) -> FloatArray:
    """Per row, a bound on the Gaussian sum beyond `radius`, in units of the Gaussian at `scale_radius`.

    Each row is one of the atoms of the cell; there are as many sublattices as rows, unless these are some of the atoms.
    """
    listed = np.bincount(row, minlength=num_rows)
    factor = (num_sublattices or num_rows) * gaussian_tail_factor(count, radius, sigma)
    return np.maximum(factor - listed, 0.0) * math.exp((scale_radius**2 - radius**2) / (2.0 * sigma**2))


def smallest_cutoff(
    row: IntArray,
    dist: FloatArray,
    num_rows: int,
    radius: float,
    count: FloatArray,
    sigma: float,
    odds: float,
    num_sublattices: int | None = None,
) -> float | None:
    """Smallest radius with tail <= `odds` * sum within, certified in every row, moved into the next gap between shells.

    Returns None where the list is too short to tell: the bound beyond `radius` exceeds what is set aside for it, or a
    gap could reach beyond `radius`.
    """
    step = BIN_WIDTH * sigma
    bins = (dist * (1.0 / step)).astype(np.int64)
    num_bins = int(radius / step) + 2
    weights = np.exp(-(dist**2) / (2.0 * sigma**2))
    binned = np.bincount(row * num_bins + bins, weights, minlength=num_rows * num_bins).reshape(num_rows, num_bins)
    tails = binned[:, ::-1].cumsum(axis=1)[:, ::-1]
    allowed = odds / (1.0 + odds) * tails[:, 0] * (1.0 - SAFETY)
    unlisted = unlisted_sums(row, num_rows, radius, count, sigma, 0.0, num_sublattices)
    if (unlisted > REMAINDER * allowed).any():
        return None
    allowed *= 1.0 - REMAINDER
    first = int(np.flatnonzero((tails > allowed[:, None]).any(axis=0))[-1])
    inside = np.flatnonzero(bins == first)
    inside = inside[dist[inside].argsort()]
    row, weights, shells = row[inside], weights[inside], dist[inside]
    low, high = -1, len(shells) - 1
    while high - low > 1:
        middle = (low + high) // 2
        tail = np.bincount(row[middle + 1 :], weights[middle + 1 :], minlength=num_rows) + tails[:, first + 1]
        low, high = (low, middle) if (tail <= allowed).all() else (middle, high)
    smallest = float(shells[high])
    return gap_outside(dist, smallest, sigma) if smallest + (GAP_WINDOW + MAX_GAP) * sigma <= radius else None


def gap_outside(dist: FloatArray, start: float, sigma: float) -> float:
    """Middle of the first gap between shells of MIN_GAP outside `start`, or of the widest one within GAP_WINDOW.

    `dist` has to hold all shells up to start + (GAP_WINDOW + MAX_GAP) sigma.
    """
    window = start + GAP_WINDOW * sigma
    near = np.sort(dist[(dist > start) & (dist <= window + MAX_GAP * sigma)])
    edges = np.concatenate([[start], near, [window + MAX_GAP * sigma]])
    gaps = np.diff(edges)[edges[:-1] <= window]
    wide = np.flatnonzero(gaps > MIN_GAP * sigma)
    chosen = int(wide[0]) if len(wide) else int(gaps.argmax())
    return float(edges[chosen] + 0.5 * min(gaps[chosen], MAX_GAP * sigma))

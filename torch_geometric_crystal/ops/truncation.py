r"""Certified truncation of infinitely connected attention: a cutoff from a tolerance, and a bound from a cutoff.

Row i, head h gives the image (j, n) of atom j the weight :math:`e^{z_{ij}} f_\sigma(r)`, with
:math:`f_\sigma(r) = e^{-r^2 / 2 \sigma^2}`, :math:`\sigma \le \sigma_{max}`, and logits z that differ by at most a
*spread* :math:`\Delta` within the row. Of its softmax, the images beyond a cutoff R have the share

.. math::
    \delta_i \le \frac{e^\Delta O_i}{e^\Delta O_i + I_i}, \qquad
    I_i = \sum_{r \le R} f_{\sigma_{max}}(r), \quad O_i = \sum_{r > R} f_{\sigma_{max}}(r)

whatever :math:`\sigma` is learned. :math:`O_i` is bounded rigorously: images up to an explicit radius :math:`R_2 > R`
are summed, the rest is bounded by counting lattice points. Statements and proofs: ``docs/truncation.rst``.

The real-space functions take plain arrays: `row` (E,) and `dist` (E,) list every image within `radius` of each of
`num_rows` atoms, **the self image at distance 0 included**, in any order; `count` (P, k + 1) is what
:func:`.lattice.count_polynomials` gives for the periodic lattice vectors.
"""

import math

import numpy as np
from torch import Tensor

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.ops.lattice import FloatArray, IntArray
from torch_geometric_crystal.ops.lattice_tail import (
    GAP_WINDOW,
    MAX_GAP,
    MIN_GAP,
    REMAINDER,
    SAFETY,
    force_tail_factor,
    gap_outside,
    gaussian_sums,
    radius_for_tail,
    smallest_cutoff,
    unlisted_sums,
)


def search_radius(
    count: FloatArray, num_atoms: int, volume: float, sigma_max: float, tol: float, spread: float
) -> float:
    r"""Explicit radius :math:`R_2` with which :func:`certified_cutoff` nearly always succeeds. A guess: proves nothing.

    Args:
        count: (P, k + 1).
        num_atoms: atoms in the cell.
        volume: volume of the cell, A^3; infinity if it has fewer than three periodic directions.
        sigma_max: upper bound of sigma, A.
        tol: tolerated share of a row.
        spread: allowance for the spread of the logits within a row.

    Returns:
        A.
    """
    kept = max(1.0, (2.0 * math.pi * sigma_max**2) ** 1.5 * num_atoms / volume)
    log_target = math.log(0.5 * REMAINDER * kept * tol / (1.0 - tol)) - spread
    return radius_for_tail(count, num_atoms, sigma_max, log_target)


def search_radius_for_cutoff(
    count: FloatArray, num_atoms: int, volume: float, sigma_max: float, cutoff: float
) -> float:
    r"""Explicit radius :math:`R_2` with which :func:`truncation_bound` at `cutoff` is sharp. A guess: proves nothing.

    Args:
        count: (P, k + 1).
        num_atoms: atoms in the cell.
        volume: volume of the cell, A^3; infinity if it has fewer than three periodic directions.
        sigma_max: upper bound of sigma, A.
        cutoff: A.

    Returns:
        A.
    """
    shell = max(1.0, 4.0 * math.pi * sigma_max**2 * cutoff * num_atoms / volume)
    log_target = math.log(REMAINDER * shell) - cutoff**2 / (2.0 * sigma_max**2)
    radius = radius_for_tail(count, num_atoms, sigma_max, log_target)
    return max(radius, cutoff) + (MIN_GAP + GAP_WINDOW + MAX_GAP) * sigma_max


def certified_cutoff(
    row: IntArray,
    dist: FloatArray,
    num_rows: int,
    radius: float,
    count: FloatArray,
    sigma_max: float,
    tol: float,
    spread: float,
    num_atoms: int | None = None,
) -> float | None:
    r"""Smallest cutoff, moved outwards into the next gap between shells, that drops at most `tol` of any row.

    It is certified for every :math:`\sigma \le \sigma_{max}` and all logits whose spread is at most `spread`, by
    :math:`O_i \le e^{-\Delta} I_i \, tol / (1 - tol)` in every row.

    Args:
        row: centre of each image (E,), 0..num_rows-1.
        dist: its distance (E,), A, 0 for the self images, which must be there.
        num_rows: atoms whose images are listed.
        radius: explicit radius: all images within it are listed, A.
        count: (P, k + 1).
        sigma_max: upper bound of sigma, A.
        tol: tolerated share of a row.
        spread: allowance for the spread of the logits within a row.
        num_atoms: atoms in the cell. (default: `num_rows`)

    Returns:
        The cutoff in A, or None if the list does not reach far enough to certify one.

    Raises:
        ValueError: if `tol` is not in [1e-100, 1) or `spread` is negative.
    """
    check_tolerance(tol, spread)
    odds = math.exp(-spread) * tol / (1.0 - tol)
    return smallest_cutoff(row, dist, num_rows, radius, count, sigma_max, odds, num_atoms)


def truncation_bound(
    row: IntArray,
    dist: FloatArray,
    num_rows: int,
    radius: float,
    count: FloatArray,
    sigma_max: float,
    cutoff: float,
    spread: float,
    num_atoms: int | None = None,
) -> tuple[FloatArray, FloatArray]:
    r"""Certified share of each row that the images beyond `cutoff` would have had, and the tail that bounds it.

    Args:
        row: centre of each image (E,).
        dist: its distance (E,), A, self images included.
        num_rows: atoms whose images are listed.
        radius: explicit radius, at least `cutoff`, A.
        count: (P, k + 1).
        sigma_max: upper bound of sigma, A.
        cutoff: A.
        spread: allowance for the spread of the logits within a row.
        num_atoms: atoms in the cell. (default: `num_rows`)

    Returns:
        Bound on :math:`\delta_i` (num_rows,), for every sigma up to `sigma_max`, and the natural logarithm of a bound
        on :math:`O_i` (num_rows,), minus infinity where nothing is left out.

    Raises:
        ValueError: if `cutoff` is negative or exceeds `radius`, or `spread` is negative.
    """
    check_argument(0.0 <= cutoff <= radius, "cutoff", f"0 <= cutoff <= radius = {radius}", cutoff)
    check_argument(spread >= 0.0, "spread", "a number >= 0", spread)
    outer = dist > cutoff
    beyond = unlisted_sums(row, num_rows, radius, count, sigma_max, cutoff, num_atoms)
    tail = (1.0 + SAFETY) * gaussian_sums(row[outer], dist[outer], num_rows, sigma_max, cutoff) + beyond
    with np.errstate(divide="ignore"):
        log_tail = np.log(tail) - cutoff**2 / (2.0 * sigma_max**2)
    kept = gaussian_sums(row[~outer], dist[~outer], num_rows, sigma_max, 0.0)
    odds = np.exp(spread + log_tail - np.log(kept)) * (1.0 + SAFETY)
    return np.where(np.isinf(odds), 1.0, odds / (1.0 + odds)), log_tail


def log_force_tail(
    row: IntArray,
    dist: FloatArray,
    num_rows: int,
    radius: float,
    count: FloatArray,
    sigma_max: float,
    cutoff: float,
) -> FloatArray:
    r"""Logarithm of a bound on :math:`\sum_{r > R} (r / \sigma^2) f_\sigma(r)`, the tail of the weights' derivative.

    It holds for every :math:`\sigma \le \sigma_{max}`, and bounds what truncation changes in the derivative of the
    layer's output with respect to positions: see ``docs/truncation.rst``.

    Args:
        row: centre of each image (E,).
        dist: its distance (E,), A, self images included.
        num_rows: atoms in the cell.
        radius: explicit radius, at least `cutoff`, A.
        count: (P, k + 1).
        sigma_max: upper bound of sigma, A.
        cutoff: R, at least sqrt(2) sigma_max, A.

    Returns:
        (num_rows,), of a number in 1/A.

    Raises:
        ValueError: if `cutoff` is less than sqrt(2) sigma_max or exceeds `radius`.
    """
    lowest = math.sqrt(2.0) * sigma_max
    check_argument(lowest <= cutoff <= radius, "cutoff", f"{lowest:g} <= cutoff <= radius = {radius:g}", cutoff)
    outer = dist > cutoff
    weights = dist[outer] * np.exp((cutoff**2 - dist[outer] ** 2) / (2.0 * sigma_max**2))
    explicit = np.bincount(row[outer], weights, minlength=num_rows) * ((1.0 + SAFETY) / sigma_max**2)
    listed = np.bincount(row, minlength=num_rows) * (radius / sigma_max**2)
    beyond = np.maximum(num_rows * force_tail_factor(count, radius, sigma_max) - listed, 0.0)
    with np.errstate(divide="ignore"):
        scaled = np.log(explicit + beyond * math.exp((cutoff**2 - radius**2) / (2.0 * sigma_max**2)))
    return scaled - cutoff**2 / (2.0 * sigma_max**2)


def clear_cutoff(dist: FloatArray, cutoff: float, sigma_max: float) -> float:
    """`cutoff` itself, or, where it would touch a shell, the middle of the next gap outside that shell.

    Two descriptions of one crystal, equal up to rounding, so get the same edges.

    Args:
        dist: distances (E,), all up to cutoff + sigma_max (MIN_GAP + GAP_WINDOW + MAX_GAP) at least, A.
        cutoff: A.
        sigma_max: A.
    """
    touched = dist[np.abs(dist - cutoff) < 0.5 * MIN_GAP * sigma_max]
    return max(cutoff, gap_outside(dist, float(touched.max()), sigma_max)) if len(touched) else cutoff


def posterior_truncation_bound(
    log_tail: Tensor,
    cutoff: Tensor,
    rho: Tensor,
    r0: float,
    rho_min: float,
    max_logit: Tensor,
    lse: Tensor,
) -> Tensor:
    r"""Certified dropped share of each row and head, from the widths and logits that a model really has.

    .. math::
        \delta_{ih} \le \frac{x_{ih}}{1 + x_{ih}}, \qquad
        x_{ih} = \exp\Big( z^{max}_{ih} + \ln O_i - \frac{R^2 (\rho_{ih} - \rho_{min})}{2 r_0^2} - \ell_{ih} \Big)

    because beyond R, :math:`e^{-r^2 \rho / 2 r_0^2} \le e^{-R^2 (\rho - \rho_{min}) / 2 r_0^2} f_{\sigma_{max}}(r)`.
    No allowance for the spread enters. The cost is that of a few operations on (N, H) numbers.

    Args:
        log_tail: :math:`\ln O_i` (N,), at :math:`\sigma_{max} = r_0 / \sqrt{\rho_{min}}`.
        cutoff: R of the crystal of each atom, (N,) or one number (), A.
        rho: :math:`r_0^2 / \sigma^2` (N, H).
        r0: A.
        rho_min: lower bound of rho that `log_tail` was made for.
        max_logit: upper bound of the logits :math:`q_i \cdot k_j` of the row over all atoms j of the crystal (N, H).
        lse: logarithm of the row's kept sum, :math:`\ell = \ln \sum_{r \le R} e^{z} f_\sigma(r)` (N, H).

    Returns:
        (N, H), between 0 and 1.
    """
    decay = (rho - rho_min) * (cutoff**2 / (2.0 * r0**2)).reshape(-1, 1)
    return (max_logit + log_tail.unsqueeze(-1) - decay - lse).sigmoid()


def check_tolerance(tol: float, spread: float) -> None:
    """Raise ``ValueError`` unless `tol` and `spread` can be met."""
    check_argument(1e-100 <= tol < 1.0, "tol", "a share in [1e-100, 1)", tol)
    check_argument(0.0 <= spread < 100.0, "spread", "a number in [0, 100)", spread)

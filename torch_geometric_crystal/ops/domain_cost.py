r"""Which domain is cheaper for a crystal: images in real space, or waves in reciprocal space.

The numbers of edges and waves are estimated before either is made. A Gaussian of width w, summed over points of density
d, keeps the ball of the smallest radius R with

.. math::
    d \int_R^\infty 4 \pi r^2 e^{-r^2 / 2 w^2} \, \mathrm{d} r
    \le \mathrm{odds} \cdot \max \big( 1, (2 \pi w^2)^{3/2} d \big) :

what :mod:`~torch_geometric_crystal.ops.truncation` and :mod:`~torch_geometric_crystal.ops.reciprocal_truncation`
certify, with sums over points replaced by integrals.
"""

import math

EDGE_COST, EDGE_PAIR_COST = 7.6, 21.5
WAVE_COST, WAVE_PAIR_COST = 18.8, 0.30
"""Nanoseconds per head: for each edge (an exponential) and pair of atoms in real space; for each row and wave (a
Gaussian and the phases) and each pair and wave (multiply-adds) in reciprocal space. Fitted to forward and backward of
the blocked path at head_dim 16 on 19 crystals of 2 to 135 atoms, one thread of a cloud CPU that others used too: within
a factor of two. Only their ratios matter. On other devices they differ, and with them only the speed of the choice."""


def real_space_cost(num_atoms: int, num_edges: float) -> float:
    """Nanoseconds per head that a crystal with so many edges costs in real space."""
    return EDGE_COST * num_edges + EDGE_PAIR_COST * num_atoms**2


def reciprocal_space_cost(num_atoms: int, num_waves: float) -> float:
    """Nanoseconds per head that a crystal with so many waves costs in reciprocal space."""
    return WAVE_COST * num_atoms * num_waves + WAVE_PAIR_COST * num_atoms**2 * num_waves


def estimated_edges(
    num_atoms: int, volume: float, sigma_max: float, tol: float, spread: float, cutoff: float | None = None
) -> float:
    """Number of edges that a tolerance asks for, or a given cutoff.

    Args:
        num_atoms: atoms in the cell.
        volume: of the cell, A^3.
        sigma_max: upper bound of sigma, A.
        tol: tolerated share of a row.
        spread: allowance for the spread of the logits within a row.
        cutoff: A; by default what `tol` asks for.
    """
    density = num_atoms / volume
    radius = _radius(density, sigma_max, math.exp(-spread) * tol / (1.0 - tol)) if cutoff is None else cutoff
    return num_atoms * max(1.0, 4.0 / 3.0 * math.pi * radius**3 * density)


def estimated_waves(num_atoms: int, volume: float, sigma_min: float, tol: float, spread: float) -> float:
    """Number of waves, of each pair g, -g one, that a tolerance asks for.

    Args:
        num_atoms: atoms in the cell.
        volume: of the cell, A^3.
        sigma_min: lower bound of sigma, A.
        tol: tolerated share of a row.
        spread: allowance for the spread of the logits within a row.
    """
    density = volume / (2.0 * math.pi) ** 3
    radius = _radius(density, 1.0 / sigma_min, tol / (1.0 + (num_atoms - 1) * math.exp(spread)))
    return 0.5 + 0.5 * max(1.0, 4.0 / 3.0 * math.pi * radius**3 * density)


def cheaper_domain(
    num_atoms: int,
    volume: float,
    sigma_max: float,
    sigma_min: float,
    tol: float,
    spread: float,
    cutoff: float | None = None,
) -> str:
    """``"real"`` or ``"reciprocal"``, whichever is estimated to cost less; arguments as above."""
    edges = estimated_edges(num_atoms, volume, sigma_max, tol, spread, cutoff)
    waves = estimated_waves(num_atoms, volume, sigma_min, tol, spread)
    reciprocal = reciprocal_space_cost(num_atoms, waves) < real_space_cost(num_atoms, edges)
    return "reciprocal" if reciprocal else "real"


def _radius(density: float, width: float, odds: float) -> float:
    """The radius R of the module's formula, by bisection."""
    mass = (2.0 * math.pi * width**2) ** 1.5 * density
    target = odds * max(1.0, mass) / mass
    low, high = 0.0, 40.0  # beyond 40 widths a Gaussian is zero in float64
    for _ in range(50):
        middle = 0.5 * (low + high)
        tail = math.erfc(middle / math.sqrt(2.0)) + math.sqrt(2.0 / math.pi) * middle * math.exp(-0.5 * middle**2)
        low, high = (middle, high) if tail > target else (low, middle)
    return high * width

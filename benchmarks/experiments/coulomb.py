r"""Energies of periodic point charges with plain and screened Coulomb interaction, summed exactly.

.. math::
    E = \frac{1}{2} \sum_{i j \mathbf{n}}' q_i q_j \frac{e^{-\kappa r_{ij\mathbf{n}}}}{r_{ij\mathbf{n}}}

by Ewald's splitting, as Salin and Caillol have it for the screened interaction (J. Chem. Phys. 113, 10459 (2000)): with
any :math:`\alpha > 0`,

.. math::
    \frac{e^{-\kappa r}}{r} = \frac{1}{2 r} \Big[ e^{\kappa r} \mathrm{erfc}\big(\alpha r + \tfrac{\kappa}{2\alpha}\big)
    + e^{-\kappa r} \mathrm{erfc}\big(\alpha r - \tfrac{\kappa}{2\alpha}\big) \Big]
    + \int \frac{d^3 k}{(2\pi)^3} \frac{4 \pi\, e^{-(k^2 + \kappa^2) / 4 \alpha^2}}{k^2 + \kappa^2} e^{i k \cdot r} .

The first part is summed over images, the second over the reciprocal lattice (k = 0 adds nothing: the cells are
neutral), less its value at r = 0 for each charge with itself.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import constants
from scipy.special import erfc, erfcx

from torch_geometric_crystal.data.neighbors import periodic_images
from torch_geometric_crystal.ops.lattice import reduce_lattice

Floats = NDArray[np.float64]

COULOMB = constants.e / (4 * math.pi * constants.epsilon_0) * 1e10
"""Energy of two unit charges 1 A apart, eV A."""
REACH = 5.5
"""Where both sums end, in units of the Gaussian's width: exp(-5.5^2) is 7e-14."""


def coulomb_energy(pos: Floats, cell: Floats, charges: Floats, screening_length: float = math.inf) -> float:
    """Energy of a cell in eV.

    Args:
        pos: positions (N, 3), A.
        cell: lattice vectors as rows (3, 3), A.
        charges: (N,), in units of e.
        screening_length: 1 / kappa, A; infinite for the plain interaction.

    Raises:
        ValueError: if the cell is not neutral.
    """
    if abs(charges.sum()) > 1e-9:
        raise ValueError(f"charges: expected a neutral cell, received a sum of {charges.sum():g}")
    kappa = 1 / screening_length
    alpha = math.sqrt(math.pi) / abs(np.linalg.det(cell)) ** (1 / 3)
    near = near_energy(pos, cell, charges, kappa, alpha)
    return COULOMB * (near + far_energy(pos, cell, charges, kappa, alpha) - own_energy(charges, kappa, alpha))


def near_energy(pos: Floats, cell: Floats, charges: Floats, kappa: float, alpha: float) -> float:
    """The sum over images, which falls as exp(-(alpha r)^2)."""
    lattice = reduce_lattice(cell, np.ones(3, dtype=bool))
    images = periodic_images(pos, lattice, REACH / alpha)
    apart = images.dist > 1e-8
    r, source, target = images.dist[apart], images.source[apart], images.target[apart]
    shift = kappa / (2 * alpha)
    gaussian = np.exp(-((alpha * r) ** 2) - shift**2)  # erfcx keeps exp(kappa r) times a tiny erfc finite
    rising = gaussian * erfcx(alpha * r + shift)
    falling = np.exp(-kappa * r) * erfc(alpha * r - shift)
    return float(np.sum(charges[source] * charges[target] * (rising + falling) / (4 * r)))


def far_energy(pos: Floats, cell: Floats, charges: Floats, kappa: float, alpha: float) -> float:
    """The sum over the reciprocal lattice, which falls as exp(-(k / 2 alpha)^2)."""
    farthest = 2 * alpha * REACH
    reciprocal = 2 * math.pi * np.linalg.inv(cell).T
    bounds = np.floor(farthest * np.linalg.norm(cell, axis=1) / (2 * math.pi)).astype(int)
    axes = [np.arange(-bound, bound + 1) for bound in bounds]
    k = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3) @ reciprocal
    squared = np.square(k).sum(axis=1)
    inside = (squared > 1e-12) & (squared <= farthest**2)
    k, squared = k[inside], squared[inside]
    structure_factor = np.exp(1j * k @ pos.T) @ charges
    weight = np.exp(-(squared + kappa**2) / (4 * alpha**2)) / (squared + kappa**2)
    return float(2 * math.pi / abs(np.linalg.det(cell)) * np.sum(weight * np.abs(structure_factor) ** 2))


def own_energy(charges: Floats, kappa: float, alpha: float) -> float:
    """What the sum over the reciprocal lattice holds of each charge with itself."""
    shift = kappa / (2 * alpha)
    at_zero = 2 * alpha / math.sqrt(math.pi) * math.exp(-(shift**2)) - kappa * erfc(shift)
    return float(np.square(charges).sum() * at_zero / 2)

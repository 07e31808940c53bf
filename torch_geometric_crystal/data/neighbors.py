"""All pairs of atoms within a cutoff and their periodic images: one function in front of pymatgen's compiled search."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError, check_argument
from torch_geometric_crystal.ops.lattice import FloatArray, IntArray, ReducedLattice, reduce_lattice

MAX_IMAGES = 50_000_000
"""Images that a search may be expected to find in one crystal: about 5 GB."""

MAX_IMAGES_PER_ATOM = 1_000_000
"""Images that a search may be expected to find for one atom. Within 10 A diamond has 740."""

MAX_BINS = 1_000_000
"""Bins of the search: about 250 MB. Where a cell is so empty that it has more of them, they are made larger."""


class PeriodicImages(NamedTuple):
    r"""Every image :math:`(j, \mathbf{n})` within a radius of every atom i, the atom itself (distance 0) included.

    Attributes:
        target: atom i (E,).
        source: atom j (E,).
        dist: :math:`|\mathbf{p}_j + \mathbf{n} L - \mathbf{p}_i|` (E,), A.
        image: image of the wrapped source, in the reduced basis (E, k).
        wrap: cell of the reduced basis that each atom lies in (N, k).
        lattice: the reduced basis.
    """

    target: IntArray
    source: IntArray
    dist: FloatArray
    image: IntArray
    wrap: IntArray
    lattice: ReducedLattice

    def select(self, keep: NDArray[np.bool_]) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
        """Target, source, integer image **n** (., 3) in the crystal's own basis, and distance of the images `keep`."""
        target, source = self.target[keep], self.source[keep]
        shift = np.zeros((len(target), 3), dtype=np.int64)
        shift[:, self.lattice.pbc] = (self.image[keep] - self.wrap[source] + self.wrap[target]) @ self.lattice.transform
        return target, source, shift, self.dist[keep]


def neighbor_list(
    pos: FloatArray, cell: FloatArray, pbc: NDArray[np.bool_], cutoff: float, structure_id: object = "unnamed"
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    r"""Every image :math:`(j, \mathbf{n})` within `cutoff` of every atom i, but not i itself (j = i, **n** = 0).

    Right for any basis (skewed, left-handed), for cells smaller than the cutoff (one atom has many images), for atoms
    outside the cell, and for 0 to 3 periodic directions; the lattice vectors of the other directions are ignored.
    Two different atoms at the same place are neighbours at distance 0.

    Args:
        pos: cartesian positions (N, 3), A.
        cell: lattice vectors as rows (3, 3), A.
        pbc: periodic directions (3,).
        cutoff: A, inclusive.
        structure_id: Name used in messages.

    Returns:
        Target i (E,), source j (E,), integer image **n** (E, 3), and distance
        :math:`|\mathbf{p}_j + \mathbf{n} L - \mathbf{p}_i|` (E,) in A, float64. In no particular order.

    Raises:
        ValueError: if `cutoff` is negative or not finite.
        InvalidStructureError: if the crystal is so dense or so large that the search would exhaust the memory.
        MissingDependencyError: if pymatgen is not installed.
    """
    check_argument(bool(np.isfinite(cutoff)) and cutoff >= 0, "cutoff", "a finite length >= 0 in A", cutoff)
    images = periodic_images(pos, reduce_lattice(cell, pbc), cutoff, structure_id)
    return images.select((images.source != images.target) | images.image.any(axis=1))


def periodic_images(
    pos: FloatArray, lattice: ReducedLattice, radius: float, structure_id: object = "unnamed"
) -> PeriodicImages:
    """Search within `radius` (A, inclusive) of all atoms at `pos` (N, 3), self images included.

    The search works on wrapped atoms in the reduced basis. It costs O(atoms) where the cell is large.

    Raises:
        InvalidStructureError: if more than `MAX_IMAGES`, or `MAX_IMAGES_PER_ATOM`, are to be expected.
        MissingDependencyError: if pymatgen is not installed.
    """
    check_number_of_images(len(pos), lattice.basis, radius, structure_id)
    try:
        from pymatgen.optimization.neighbors import find_points_in_spheres
    except ImportError as error:
        raise MissingDependencyError("pymatgen", "all") from error

    pos = np.ascontiguousarray(pos, dtype=np.float64)
    k = len(lattice.basis)
    box = _complete(lattice.basis)
    wrap = np.floor(pos @ np.linalg.inv(box))[:, :k].astype(np.int64)
    wrapped = np.ascontiguousarray(pos - wrap @ lattice.basis)
    if k < 3:
        wrapped += _close_gaps(wrapped @ box[k:].T, radius) @ box[k:]
    periodic = np.array([axis < k for axis in range(3)], dtype=np.int64)
    reach = _reach(wrapped, box, radius, structure_id)
    target, source, images, dist = find_points_in_spheres(wrapped, wrapped, r=reach, pbc=periodic, lattice=box)
    image = images[:, :k].astype(np.int64)
    inside = dist <= radius
    if not inside.all():
        target, source, image, dist = target[inside], source[inside], image[inside], dist[inside]
    return PeriodicImages(target, source, dist, image, wrap, lattice)


def expected_images_per_atom(num_atoms: int, basis: FloatArray, radius: float) -> float:
    """About how many images within `radius` (A) an atom has, of a cell with the k periodic vectors `basis` (k, 3).

    A ball of radius R in k dimensions holds about as many lattice points as cells of the lattice fit into it.
    """
    k = len(basis)
    ball = math.pi ** (k / 2) / math.gamma(k / 2 + 1) * radius**k
    cell = math.sqrt(float(np.linalg.det(basis @ basis.T))) if k else 1.0
    per_atom = num_atoms * ball / cell if cell > 0.0 else math.inf
    return per_atom if k == 3 else per_atom / num_atoms  # atoms of a slab, rod or molecule may lie far from each other


def check_number_of_images(
    num_atoms: int, basis: FloatArray, radius: float, structure_id: object, most: float | None = None
) -> None:
    """Refuse a crystal with too many images within `radius` (A): for one atom, or for all (default: `MAX_IMAGES`)."""
    per_atom = expected_images_per_atom(num_atoms, basis, radius)
    most = MAX_IMAGES if most is None else most
    if per_atom > MAX_IMAGES_PER_ATOM or per_atom * num_atoms > most:
        raise InvalidStructureError(
            structure_id,
            f"within {radius:.3g} A it has about {per_atom * num_atoms:.1e} pairs of {num_atoms} atoms and their "
            f"images, more than {min(most, MAX_IMAGES_PER_ATOM * num_atoms):.0e}",
            "Check the lengths of the cell, which are in A, and the number of atoms; or lower the cutoff, or let "
            "Crystalformer stream the edges (InfiniteNeighborhood(edges='streamed'))",
        )


def _reach(wrapped: FloatArray, box: FloatArray, radius: float, structure_id: object) -> float:
    """Radius to search within, at least `radius`: larger where the atoms' surroundings have more than `MAX_BINS` bins.

    What is found beyond `radius` is left out afterwards; in cells as empty as that it is little.
    """
    span = np.ptp(wrapped, axis=0)
    reach = max(float(radius), 0.1)
    while np.prod(np.ceil((span + 2.0 * reach) / reach)) > MAX_BINS:
        reach *= 1.25
    if reach > radius and reach > 0.1 and len(wrapped) ** 2 > MAX_IMAGES:
        raise InvalidStructureError(
            structure_id,
            f"{len(wrapped)} atoms spread over {', '.join(f'{length:.3g}' for length in span)} A are too far apart",
            "Check the lengths of the cell, which are in A, and the positions",
        )
    return float(radius) if reach <= max(radius, 0.1) else reach


def _close_gaps(coordinates: FloatArray, radius: float) -> FloatArray:
    """Displacements (N, m) that narrow every empty slab wider than `radius`, which no pair of neighbours spans.

    The search bins all space between the atoms, so without this its memory would grow with their greatest distance.
    """
    order = coordinates.argsort(axis=0)
    ordered = np.take_along_axis(coordinates, order, axis=0)
    gaps = np.diff(ordered, axis=0)
    excess = np.maximum(gaps - (radius + 1.0), 0.0).cumsum(axis=0)
    moves = np.zeros_like(coordinates)
    np.put_along_axis(moves, order[1:], -excess, axis=0)
    return moves


def _complete(basis: FloatArray) -> FloatArray:
    """A (3, 3) cell whose first k rows are `basis`, and the others unit vectors orthogonal to them and each other."""
    k = len(basis)
    if k == 3:
        return np.ascontiguousarray(basis)
    orthogonal = np.linalg.svd(basis)[2][k:] if k else np.eye(3)
    return np.ascontiguousarray(np.concatenate([basis, orthogonal]))

"""Checks of a crystal at the door: errors that name the structure, the fault and the remedy."""

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.data.elements import ATOMIC_NUMBERS, MAX_ATOMIC_NUMBER
from torch_geometric_crystal.data.neighbors import neighbor_list

if TYPE_CHECKING:
    from pymatgen.core import SiteCollection

MIN_RELATIVE_VOLUME = 1e-6
"""Smallest accepted |V| / (|a| |b| |c|).

Three vectors in a plane, stored in float32 (relative rounding 6e-8 an entry), can show up to a few 1e-7."""

OVERLAP_DISTANCE = 0.1
"""Atoms closer than this, in A, are reported as overlapping."""

OCCUPANCY_TOLERANCE = 1e-6
"""An occupancy this close to 1 is 1."""

DISORDER_REMEDY = (
    "Give an ordered structure: make one with pymatgen's OrderDisorderedStructureTransformation "
    "or EnumerateStructureTransformation"
)

MAX_LENGTH = 1e5
"""Largest coordinate and lattice vector, in A. At this length a float32 resolves 0.008 A."""

MIN_VOLUME_PER_ATOM = 0.1
"""Smallest volume of the cell over its atoms, in A^3. Diamond has 5.7, hydrogen at 500 GPa about 1."""

_LARGEST_ALL_PAIRS = 64  # atoms; above this a neighbour search is faster than all pairs


class OverlappingAtomsWarning(UserWarning):
    """Two atoms of a structure are closer than `OVERLAP_DISTANCE`."""


def validate_crystal(data: Data, structure_id: str | None = None, check_overlap: bool = True) -> None:
    r"""Check that `data` is a crystal that every part of the library can use.

    A left-handed basis (negative determinant) is a valid description of a crystal and passes: its volume is
    :math:`|\det L|`. A volume is refused as zero where :math:`|\det L| \le 10^{-6}\,|a|\,|b|\,|c|`.

    Args:
        data: Crystal with `z` (N,) int, `pos` (N, 3) in A, `cell` (1, 3, 3) in A, and optionally `pbc` (1, 3) bool
            (absent: periodic in all directions).
        structure_id: Name used in messages. Default: ``data.structure_id``, if there is one.
        check_overlap: Whether to look for atoms closer than 0.1 A.

    Raises:
        InvalidStructureError: if a field is absent or of the wrong shape or type, atoms were merged, there are none, an
            atomic number is outside 1..118, a number is NaN or infinite, the volume is zero or less than 0.1 A^3 an
            atom, a lattice vector is shorter than 0.1 A, or a length is beyond 1e5 A.

    Warns:
        OverlappingAtomsWarning: if two atoms are closer than 0.1 A.
    """
    name = str(data.get("structure_id", "unnamed")) if structure_id is None else structure_id
    if "atom_multiplicity" in data:
        raise InvalidStructureError(
            name, "it has one atom in place of several (atom_multiplicity)", "Take the crystal as it was before merging"
        )
    z = _field(data, "z", name)
    pos = _field(data, "pos", name)
    cell = _field(data, "cell", name)
    pbc = _field(data, "pbc", name) if data.get("pbc") is not None else np.ones((1, 3), dtype=bool)
    _check_numbers(z, name)
    _check_array(pos, "pos", (len(z), 3), "one row per entry of z", name)
    if cell.ndim == 3 and len(cell) > 1:
        fault = f"it has {len(cell)} cells, as a batch of crystals"
        raise InvalidStructureError(name, fault, "Apply transforms to each crystal, then batch them")
    _check_array(cell, "cell", (1, 3, 3), "use data.cell.view(1, 3, 3) with lattice vectors as rows", name)
    if pbc.shape != (1, 3) or pbc.dtype != np.bool_:
        raise InvalidStructureError(
            name, f"pbc has shape {pbc.shape} and type {pbc.dtype}", "Give a bool tensor of shape (1, 3)"
        )
    _check_volume(cell[0], name)
    _check_lengths(pos, cell[0][pbc[0]], name)
    _check_density(cell[0], pbc[0], len(z), name)
    if check_overlap:
        _warn_if_overlapping(pos.astype(np.float64), cell[0].astype(np.float64), pbc[0], name)


def validate_structure(structure: "SiteCollection", structure_id: str | None = None) -> None:
    """Check what only a pymatgen object can show: disordered sites, dummy species, no sites.

    Args:
        structure: pymatgen ``Structure``, ``IStructure``, ``Molecule`` or ``IMolecule``.
        structure_id: Name used in messages. Default: its composition, such as ``Cl4 Na4``.

    Raises:
        InvalidStructureError: if it has no sites, a site is shared by species or partly occupied, or a species is not
            a chemical element.
    """
    if len(structure) == 0:
        raise no_atoms(structure_id or "unnamed")
    name = structure_id or composition(structure)
    for index, site in enumerate(structure):
        species = site.species
        if len(species) != 1 or abs(species.num_atoms - 1.0) > OCCUPANCY_TOLERANCE:
            raise disordered_site(name, index, ", ".join(f"{s} {occupancy:g}" for s, occupancy in species.items()))
        symbol = next(iter(species)).symbol
        if symbol not in ATOMIC_NUMBERS:
            raise unknown_element(name, index, symbol)


def composition(structure: "SiteCollection") -> str:
    """Symbols in alphabetical order with their numbers, as in ``Cl4 Na4``: a name for a structure that has none."""
    counts = Counter(species.symbol for site in structure for species in site.species)
    return " ".join(f"{symbol}{number}" for symbol, number in sorted(counts.items()))


def no_atoms(structure_id: str) -> InvalidStructureError:
    """The error for a structure without atoms."""
    return InvalidStructureError(structure_id, "it has no atoms", "Remove it from the data, or check how it was read")


def disordered_site(structure_id: str, index: int, species: str) -> InvalidStructureError:
    """The error for site `index`, whose occupation by `species` is not one whole atom."""
    return InvalidStructureError(structure_id, f"site {index} is disordered ({species})", DISORDER_REMEDY)


def unknown_element(structure_id: str, index: int, symbol: object) -> InvalidStructureError:
    """The error for site `index`, whose `symbol` is not that of a chemical element."""
    return InvalidStructureError(
        structure_id,
        f"site {index} has the unknown element {symbol!r}",
        "Use symbols from H to Og; replace dummy species by elements or remove them",
    )


def _field(data: Data, key: str, name: str) -> np.ndarray[Any, Any]:
    value = data.get(key)
    if not isinstance(value, Tensor):
        received = "is missing" if value is None else f"is a {type(value).__name__}, not a torch.Tensor"
        raise InvalidStructureError(
            name, f"{key} {received}", "Make the crystal with torch_geometric_crystal.data.from_structure"
        )
    return value.detach().cpu().numpy()


def _check_numbers(z: np.ndarray, name: str) -> None:
    if z.ndim != 1 or z.dtype.kind not in "iu":
        raise InvalidStructureError(
            name, f"z has shape {z.shape} and type {z.dtype}", "Give atomic numbers as an int64 tensor of shape (N,)"
        )
    if len(z) == 0:
        raise no_atoms(name)
    if z.min() < 1 or z.max() > MAX_ATOMIC_NUMBER:
        index = int(np.flatnonzero((z < 1) | (z > MAX_ATOMIC_NUMBER))[0])
        raise InvalidStructureError(
            name,
            f"atom {index} has atomic number {z[index]}, outside 1..{MAX_ATOMIC_NUMBER}",
            "Give the atomic number of a chemical element; remove dummy atoms",
        )


def _check_array(array: np.ndarray, key: str, shape: tuple[int, ...], remedy: str, name: str) -> None:
    if array.shape != shape or array.dtype.kind != "f":
        raise InvalidStructureError(
            name,
            f"{key} has shape {array.shape} and type {array.dtype}",
            f"Give a floating point tensor of shape {shape}: {remedy}",
        )
    if not np.isfinite(array).all():
        row = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InvalidStructureError(
            name, f"{key}{list(row)} is {array[row]}", "Check the source file for NaN, infinite or missing numbers"
        )


def _check_volume(cell: np.ndarray, name: str) -> None:
    rows = cell.astype(np.float64)
    lengths = np.sqrt((rows * rows).sum(axis=1))
    scale = lengths.prod()
    a, b, c = rows.tolist()
    volume = abs(
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
    )
    if not volume > MIN_RELATIVE_VOLUME * scale:
        raise InvalidStructureError(
            name,
            f"the cell has zero volume ({volume:.3g} A^3 for vectors of length "
            + ", ".join(f"{length:.3g}" for length in lengths)
            + " A)",
            "Give three independent lattice vectors as rows (the identity for a molecule)",
        )


def _check_lengths(pos: np.ndarray, vectors: np.ndarray, name: str) -> None:
    for key, array in (("position", pos), ("lattice vector", vectors)):
        largest = float(np.abs(array).max(initial=0.0))
        if largest > MAX_LENGTH:
            raise InvalidStructureError(
                name,
                f"a {key} has a component of {largest:.3g} A, beyond {MAX_LENGTH:g} A",
                "Give lengths in A; check the source file for misprinted numbers",
            )


def _check_density(cell: np.ndarray, pbc: np.ndarray, num_atoms: int, name: str) -> None:
    rows = cell.astype(np.float64)
    shortest = float(np.sqrt((rows[pbc] ** 2).sum(axis=1)).min(initial=np.inf))
    volume = abs(float(np.linalg.det(rows))) / num_atoms if pbc.all() else np.inf
    if shortest < OVERLAP_DISTANCE or volume < MIN_VOLUME_PER_ATOM:
        found = f"a lattice vector of {shortest:.3g} A" if shortest < OVERLAP_DISTANCE else f"{volume:.3g} A^3 an atom"
        raise InvalidStructureError(
            name,
            f"the cell has {found}, less than {OVERLAP_DISTANCE:g} A and {MIN_VOLUME_PER_ATOM:g} A^3, which no "
            "crystal has",
            "Give lengths in A (not in nm, nor scaled), and remove atoms that are there many times",
        )


def _warn_if_overlapping(pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray, name: str) -> None:
    closest = _closest_pair(pos, cell, pbc, name)
    if closest is not None:
        i, j, distance = closest
        warnings.warn(
            f"structure {name!r}: atoms {i} and {j} are {distance:.3g} A apart, closer than {OVERLAP_DISTANCE} A. "
            "Check it for duplicated sites",
            OverlappingAtomsWarning,
            stacklevel=4,
        )


def _closest_pair(pos: np.ndarray, cell: np.ndarray, pbc: np.ndarray, name: str) -> tuple[int, int, float] | None:
    """The closest two atoms within `OVERLAP_DISTANCE`, or None. An atom may be near its own image."""
    inverse = np.linalg.inv(cell)
    # |difference of fractional coordinate k| <= distance * (length of column k of the inverse): below one half, the
    # image that rounding selects is the only one that can be so near, and no lattice vector is that short.
    reach = OVERLAP_DISTANCE * np.sqrt((inverse * inverse).sum(axis=0))
    if len(pos) > _LARGEST_ALL_PAIRS or bool((reach[pbc] >= 0.5).any()):
        # The search takes a bin for each cube of its radius: one of 0.1 A would take very many.
        spacing = float(np.cbrt(abs(np.linalg.det(cell)) / len(pos))) if pbc.all() else 1.0
        radius = max(OVERLAP_DISTANCE, 0.5 * spacing)
        target, source, _, distance = neighbor_list(pos, cell, pbc, radius, name)
        k = int(np.argmin(distance)) if len(distance) else -1
        if k < 0 or distance[k] > OVERLAP_DISTANCE:
            return None
        return int(target[k]), int(source[k]), float(distance[k])
    vectors = pos[:, None] - pos[None]
    images = np.rint(vectors @ inverse) * pbc
    squares = ((vectors - images @ cell) ** 2).sum(axis=-1)
    np.fill_diagonal(squares, np.inf)
    k = int(np.argmin(squares))
    if squares.flat[k] >= OVERLAP_DISTANCE**2:
        return None
    return k // len(pos), k % len(pos), float(np.sqrt(squares.flat[k]))

"""Where the weight between two elements peaks, beside the length of their bonds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.data.elements import SYMBOLS
from torch_geometric_crystal.explain.attention_map import AttentionMap, FloatArray, IntArray, check_image_weights
from torch_geometric_crystal.explain.bonds import Bonds

SMEARING = 0.1
"""Standard deviation (A) of the Gaussian that smears weights over distance, so that a split shell is one peak."""


@dataclass(frozen=True)
class BondPeaks:
    """Bonds and peaks of the weight for P ordered pairs of elements, means over the atoms that have such bonds.

    Args:
        pairs: symbols of atom and neighbour.
        bond_length: mean length of the bonds (P,), A.
        peak: distance at which the weight on images of that element is largest (L, H, P), A.
        decay_peak: the same if all q.k were equal (L, H, P), A.
        num_atoms: number of atoms (P,).
    """

    pairs: tuple[tuple[str, str], ...]
    bond_length: FloatArray
    peak: FloatArray
    decay_peak: FloatArray
    num_atoms: IntArray


def bond_peaks(maps: Sequence[AttentionMap], bonds: Sequence[Bonds]) -> BondPeaks:
    """Find, for each atom and each element that it is bonded to, the bond length and the peak of the weight.

    The peak is the distance of that image of the element, the atom's own place apart, around which the weight, smeared
    by a Gaussian of 0.1 A, is largest.

    Args:
        maps: of one model.
        bonds: of each map.

    Raises:
        ReciprocalHeadsError: if all heads are in reciprocal space.
        ValueError: if the numbers of maps and bonds differ, or there is no bond.
    """
    check_image_weights(maps)
    check_argument(len(maps) == len(bonds), "bonds", f"one for each of {len(maps)} maps", len(bonds))
    found: dict[tuple[int, int], list[tuple[float, FloatArray, FloatArray]]] = {}
    for each, bond in zip(maps, bonds, strict=True):
        for atom in range(each.num_atoms):
            mine = np.flatnonzero((each.target == atom) & ~each.is_self)
            kinds = each.z[each.source[mine]]
            for number in np.unique(kinds[bond.is_bond[mine]]).tolist():
                edges = mine[kinds == number]
                length = float(each.dist[edges[bond.is_bond[edges]]].mean())
                peak = _peak(each.dist[edges], each.weights[..., edges])
                decay_peak = _peak(each.dist[edges], each.decay_weights[..., edges])
                found.setdefault((int(each.z[atom]), number), []).append((length, peak, decay_peak))
    check_argument(len(found) > 0, "bonds", "at least one bond within the maps' range", "none")
    pairs = sorted(found)
    blank = np.where(maps[0].has_image_weights, 1.0, np.nan)[..., None]
    return BondPeaks(
        tuple((SYMBOLS[first - 1], SYMBOLS[second - 1]) for first, second in pairs),
        np.array([np.mean([length for length, _, _ in found[pair]]) for pair in pairs]),
        np.stack([np.mean([peak for _, peak, _ in found[pair]], axis=0) for pair in pairs], axis=-1) * blank,
        np.stack([np.mean([peak for _, _, peak in found[pair]], axis=0) for pair in pairs], axis=-1) * blank,
        np.array([len(found[pair]) for pair in pairs], dtype=np.int64),
    )


def peak_correlation(peaks: BondPeaks, min_atoms: int = 5, decay_only: bool = False) -> FloatArray:
    """Pearson's correlation of peak and bond length over pairs of elements (L, H); NaN where a row does not vary.

    Args:
        peaks: of :func:`bond_peaks`.
        min_atoms: pairs with fewer atoms are left out.
        decay_only: take the peaks that equal q.k would give.

    Raises:
        ValueError: if fewer than three pairs are left.
    """
    kept = peaks.num_atoms >= min_atoms
    check_argument(int(kept.sum()) >= 3, "min_atoms", "a number that leaves three pairs of elements", min_atoms)
    lengths = peaks.bond_length[kept] - peaks.bond_length[kept].mean()
    places = (peaks.decay_peak if decay_only else peaks.peak)[..., kept]
    places = places - places.mean(-1, keepdims=True)
    norm = np.sqrt((lengths**2).sum() * (places**2).sum(-1))
    return (places * lengths).sum(-1) / np.where(norm > 0, norm, np.nan)


def _peak(dist: FloatArray, weights: FloatArray) -> FloatArray:
    """Distance at which the smeared weight (L, H, E) is largest, (L, H)."""
    kernel = np.exp(-0.5 * ((dist[:, None] - dist) / SMEARING) ** 2)
    return dist[(weights @ kernel).argmax(-1)]

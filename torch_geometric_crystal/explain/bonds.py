"""Attention weight on the neighbours that pymatgen's CrystalNN finds."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_geometric_crystal.checks import InvalidStructureError, MissingDependencyError, check_argument
from torch_geometric_crystal.explain.attention_map import AttentionMap, FloatArray, IntArray, check_image_weights
from torch_geometric_crystal.explain.distances import per_atom

TIE = 1e-6
"""Weights that differ by less than this, relatively, are equal: images of one shell, but for rounding."""


@dataclass(frozen=True)
class Bonds:
    """Which edges of an attention map are bonds.

    Args:
        is_bond: (E,).
        num_bonds: of each atom (N,), with those beyond the range of the map.
    """

    is_bond: NDArray[np.bool_]
    num_bonds: IntArray


@dataclass(frozen=True)
class BondShares:
    """Weight on bonds, mean over atoms; NaN in heads of reciprocal space.

    Args:
        of_all: share of the whole weight (L, H).
        in_range: share of the weight on other images within the range (L, H).
        in_range_decay: the same if all q.k were equal (L, H).
        in_range_uniform: the same if all images within the range had equal weights.
        within: the range, A.
        num_atoms: atoms that have a bond; the others do not count.
    """

    of_all: FloatArray
    in_range: FloatArray
    in_range_decay: FloatArray
    in_range_uniform: float
    within: float
    num_atoms: int


def crystal_nn_bonds(attention: AttentionMap) -> Bonds:
    """The neighbours of each atom by pymatgen's CrystalNN, as edges of the map.

    Oxidation states are not given to CrystalNN, so that it judges by covalent or atomic radii. It takes about 20 ms
    an atom.

    Raises:
        InvalidStructureError: for a crystal that is not periodic in three directions, or that CrystalNN refuses.
        MissingDependencyError: without pymatgen.
    """
    try:
        from pymatgen.analysis.local_env import CrystalNN
        from pymatgen.core import Structure
    except ImportError as error:
        raise MissingDependencyError("pymatgen", "all") from error

    if not attention.pbc.all():
        fault = f"CrystalNN needs three periodic directions, pbc is {attention.pbc.tolist()}"
        raise InvalidStructureError(attention.structure_id, fault, "Leave the comparison with bonds out")
    structure = Structure(attention.cell, attention.elements, attention.pos, coords_are_cartesian=True)
    finder = CrystalNN()
    num_bonds = np.zeros(attention.num_atoms, dtype=np.int64)
    found = set()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(No oxidation states|CrystalNN: cannot locate)")
        for atom in range(attention.num_atoms):
            try:
                neighbors = finder.get_nn_info(structure, atom)
            except (ValueError, RuntimeError, IndexError) as error:
                fault = f"CrystalNN finds no neighbours of atom {atom} ({error})"
                raise InvalidStructureError(attention.structure_id, fault, "Leave the comparison out") from error
            num_bonds[atom] = len(neighbors)
            for neighbor in neighbors:
                source = int(neighbor["site_index"])
                steps = np.linalg.solve(attention.cell.T, neighbor["site"].coords - attention.pos[source])
                found.add((atom, source, *np.rint(steps).astype(int).tolist()))
    edges = zip(attention.target.tolist(), attention.source.tolist(), *attention.shift.T.tolist(), strict=True)
    return Bonds(np.array([edge in found for edge in edges], dtype=bool), num_bonds)


def bond_shares(maps: Sequence[AttentionMap], bonds: Sequence[Bonds], within: float = 5.0) -> BondShares:
    """How much of the weight falls on bonds, beside what equal weights within the same range would put there.

    Args:
        maps: of one model.
        bonds: of each map.
        within: images up to this distance (A) are the range.

    Raises:
        ReciprocalHeadsError: if all heads are in reciprocal space.
        ValueError: if the numbers of maps and bonds differ, or no atom has a bond.
    """
    _check(maps, bonds)
    check_argument(within > 0, "within", "a positive length in A", within)
    of_all: list[FloatArray] = []
    in_range: list[FloatArray] = []
    in_range_decay: list[FloatArray] = []
    uniform: list[FloatArray] = []
    for each, bond in zip(maps, bonds, strict=True):
        has_bond = each.sum_by_target(bond.is_bond.astype(float)) > 0
        near = ~each.is_self & (each.dist <= within)
        inside = near & bond.is_bond
        of_all.append(each.sum_by_target(each.weights * bond.is_bond)[..., has_bond])
        for shares, weights in ((in_range, each.weights), (in_range_decay, each.decay_weights)):
            of_range = _ratio(each.sum_by_target(weights * inside), each.sum_by_target(weights * near))
            shares.append(of_range[..., has_bond])
        images, bonded = each.sum_by_target(near.astype(float)), each.sum_by_target(inside.astype(float))
        uniform.append(_ratio(bonded, images)[has_bond])
    number = sum(len(values) for values in uniform)
    check_argument(number > 0, "bonds", "at least one atom with a bond in the maps' range", "none")
    means = [per_atom(values).mean(-1) for values in (of_all, in_range, in_range_decay)]
    return BondShares(means[0], means[1], means[2], float(np.concatenate(uniform).mean()), within, number)


def bond_recall(maps: Sequence[AttentionMap], bonds: Sequence[Bonds]) -> tuple[FloatArray, float]:
    """Share of an atom's n bonds among the n other images of largest weight, mean over atoms that have a bond.

    Where equal weights meet at the n-th place, each of them counts with the probability of being drawn.

    Args:
        maps: of one model.
        bonds: of each map.

    Returns:
        (L, H), NaN in heads of reciprocal space; and the same for the n nearest images in place of the heaviest.
    """
    _check(maps, bonds)
    by_weight, by_distance = [], []
    for each, bond in zip(maps, bonds, strict=True):
        for atom in np.flatnonzero(bond.num_bonds):
            edges = np.flatnonzero((each.target == atom) & ~each.is_self)
            number, hits = int(bond.num_bonds[atom]), bond.is_bond[edges]
            by_weight.append(_recall(each.weights[..., edges], hits, number))
            by_distance.append(_recall(1 / each.dist[edges], hits, number))
    check_argument(len(by_distance) > 0, "bonds", "at least one atom with a bond", "none")
    recall = np.where(maps[0].has_image_weights, np.mean(by_weight, axis=0), np.nan)
    return recall, float(np.mean(by_distance))


def _recall(weights: FloatArray, hits: NDArray[np.bool_], number: int) -> FloatArray:
    """Expected share of `number` bonds among as many largest weights (..., E), ties drawn at random; (...,)."""
    weights = np.nan_to_num(weights)
    taken = min(number, weights.shape[-1])
    if taken == 0:
        return np.zeros(weights.shape[:-1])
    last = -np.partition(-weights, taken - 1, axis=-1)[..., taken - 1 : taken]
    above, tied = weights > last * (1 + TIE), np.abs(weights - last) <= last * TIE
    places = (taken - above.sum(-1)) / tied.sum(-1)
    return ((above & hits).sum(-1) + places * (tied & hits).sum(-1)) / number


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """part / whole; zero where the whole is zero, NaN stays NaN."""
    return np.where(whole == 0, 0.0, part / np.where(whole == 0, 1.0, whole))


def _check(maps: Sequence[AttentionMap], bonds: Sequence[Bonds]) -> None:
    check_image_weights(maps)
    check_argument(len(maps) == len(bonds), "bonds", f"one for each of {len(maps)} maps", len(bonds))

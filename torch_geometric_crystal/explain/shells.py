"""The shells of equal neighbours around one atom, with the weight that each gets."""

from dataclasses import dataclass

import numpy as np

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.explain.attention_map import AttentionMap, FloatArray
from torch_geometric_crystal.explain.bonds import Bonds

GAP = 0.01
"""Images of one element are of two shells where their distances differ by more than this (A)."""


@dataclass(frozen=True)
class Shell:
    """Images of one element at one distance from an atom.

    Args:
        element: their symbol.
        dist: mean distance, A.
        number: how many there are.
        num_bonded: how many of them are bonds; 0 where bonds are not known.
        share: weight on all of them together (L, H); NaN in heads of reciprocal space.
        is_self: whether it is the atom itself.
    """

    element: str
    dist: float
    number: int
    num_bonded: int
    share: FloatArray
    is_self: bool


def attention_shells(attention: AttentionMap, atom: int, bonds: Bonds | None = None) -> list[Shell]:
    """The shells around an atom, the nearest first, itself included.

    Args:
        attention: the map.
        atom: its number, from 0.
        bonds: of the map.

    Raises:
        ValueError: if there is no such atom.
    """
    last = attention.num_atoms - 1
    check_argument(0 <= atom <= last, "atom", f"a number from 0 to {last}", atom)
    mine = np.flatnonzero(attention.target == atom)
    symbols, own = attention.elements, attention.is_self
    shells = []
    for number in np.unique(attention.z[attention.source[mine]]).tolist():
        edges = mine[attention.z[attention.source[mine]] == number]
        edges = edges[np.argsort(attention.dist[edges], kind="stable")]
        starts = np.flatnonzero(np.diff(attention.dist[edges]) > GAP) + 1
        for group in np.split(edges, starts):
            shells.append(
                Shell(
                    element=symbols[int(attention.source[group[0]])],
                    dist=float(attention.dist[group].mean()),
                    number=len(group),
                    num_bonded=0 if bonds is None else int(bonds.is_bond[group].sum()),
                    share=attention.weights[..., group].sum(-1),
                    is_self=bool(own[group].any()),
                )
            )
    return sorted(shells, key=lambda shell: (shell.dist, shell.element))

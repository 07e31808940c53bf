"""Which atoms, edges and angles of a crystal no invariant message passing can tell apart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch_geometric_crystal.ops.lattice import FloatArray, IntArray

_HASH_SEED = 0
_LARGEST_CODE = 2**62


class Colors(NamedTuple):
    """The colour of each atom (N,), edge (E,) and pair of edges (P,), numbered from 0."""

    atoms: IntArray
    edges: IntArray
    pairs: IntArray


class Kept(NamedTuple):
    """Which things are kept, in order, how many each of them stands for, and for every thing the place of its own."""

    kept: IntArray
    stands_for: IntArray
    place: IntArray


def refine_colors(
    atoms: IntArray, edges: IntArray, pairs: IntArray, edge_index: IntArray, line_graph_index: IntArray
) -> Colors:
    """Split given colours until atoms (edges, pairs) of one colour have alike neighbours: colour refinement.

    A pair's colour is then made of its own first one and those of its edges, an edge's of its own, those of its two
    atoms and those of all pairs that end in it, an atom's of its own and those of all edges that end in it. This is the
    coarsest such partition. Atoms that a symmetry of the crystal maps to each other have one colour, and so may others.

    Args:
        atoms: first colour of each atom.
        edges: first colour of each edge.
        pairs: first colour of each pair.
        edge_index: source and target of each edge, (2, E).
        line_graph_index: first and second edge of each pair, (2, P).
    """
    (source, target), (first, second) = edge_index, line_graph_index
    atoms, edges, own = _number(atoms), _number(edges), _number(pairs)
    colors, number = Colors(atoms, edges, own), 0
    while sum(_count(each) for each in colors) > number:
        number = sum(_count(each) for each in colors)
        pairs = _number(own, edges[first], edges[second])
        edges = _number(edges, atoms[source], atoms[target], _bag(pairs, second, len(edges)))
        atoms = _number(atoms, _bag(edges, target, len(atoms)))
        colors = Colors(atoms, edges, pairs)
    return colors


def levels(values: FloatArray, tolerance: float) -> IntArray:
    """Number values by size so that those of one number differ by `tolerance` at most, and equal ones never.

    Values are cut into runs where neighbouring ones differ by more than the tolerance; a run that is wider as a whole,
    where they differ by more than a half of it, a quarter, and so on: at its widest gaps first.
    """
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    gaps = np.diff(ordered, prepend=-np.inf)
    smallest, starts = tolerance, gaps > tolerance
    while True:
        begins = np.flatnonzero(starts)
        ends = np.append(begins[1:], len(ordered))
        wide = ordered[ends - 1] - ordered[begins] > tolerance
        if not wide.any():
            break
        smallest /= 2.0
        starts |= np.repeat(wide, ends - begins) & (gaps > smallest)
    numbers = np.empty(len(values), dtype=np.int64)
    numbers[order] = np.cumsum(starts) - 1
    return numbers


def different_rows(fields: Sequence[Tensor]) -> IntArray:
    """Number the different rows of some fields, taken together, from 0."""
    columns = [column for field in fields for column in _as_rows(field).T.numpy()]
    return _number(*(np.unique(column, return_inverse=True)[1] for column in columns))


def _as_rows(field: Tensor) -> Tensor:
    return field.flatten(1) if field.dim() > 1 else field.unsqueeze(1)


def keep_one_of_each(colors: IntArray, among: NDArray[np.bool_] | None = None) -> Kept:
    """Keep the first thing of each colour, of all or `among` some, in which every colour is there."""
    candidates = np.arange(len(colors)) if among is None else np.flatnonzero(among)
    _, first, count = np.unique(colors[candidates], return_index=True, return_counts=True)
    order = first.argsort()
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Kept(candidates[first[order]], count[order], rank[colors])


def _count(colors: IntArray) -> int:
    return int(colors.max(initial=-1)) + 1


def _number(*columns: IntArray) -> IntArray:
    """Number from 0 the different rows of some columns of numbers that are not negative."""
    rows, size = columns[0], _count(columns[0])
    for column in columns[1:]:
        width = _count(column)
        if size * width >= _LARGEST_CODE:
            rows = np.unique(rows, return_inverse=True)[1]
            size = _count(rows)
        rows, size = rows * width + column, size * width
    return np.unique(rows, return_inverse=True)[1]


def _bag(colors: IntArray, index: IntArray, number: int) -> IntArray:
    """Number the bags of colours at each of `number` places: a random 64-bit number for each colour, summed."""
    random = np.random.default_rng(_HASH_SEED)
    codes = random.integers(-(2**63), 2**63, size=_count(colors), dtype=np.int64)
    bags = np.zeros(number, dtype=np.int64)
    np.add.at(bags, index, codes[colors])
    return np.unique(bags, return_inverse=True)[1]

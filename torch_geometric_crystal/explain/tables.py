"""Attention as rows of tables: for CSV files, or ``pandas.DataFrame(rows)``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from torch_geometric_crystal.explain.attention_map import AttentionMap, check_image_weights
from torch_geometric_crystal.explain.bonds import Bonds, bond_recall, bond_shares
from torch_geometric_crystal.explain.distances import mean_distance, self_share, weight_moved_by_dot_products
from torch_geometric_crystal.explain.widths import sigma_quantiles


def weight_rows(attention: AttentionMap, bonds: Bonds | None = None, min_weight: float = 1e-3) -> list[dict[str, Any]]:
    """One row for each image that an atom looks at, with its weight in each block and head.

    Columns: structure, atom, element, neighbor, neighbor_element, image_a, image_b, image_c, distance (A), bond
    (1 or 0, where bonds are given), and ``block1_head1`` and so on, without heads in reciprocal space. Atoms count
    from 0.

    Args:
        attention: the map.
        bonds: of the map.
        min_weight: images whose weight is less in all heads are left out.

    Raises:
        ReciprocalHeadsError: if all heads are in reciprocal space.
    """
    check_image_weights([attention])
    symbols = attention.elements
    columns = [
        (f"block{block + 1}_head{head + 1}", attention.weights[block, head])
        for block, head in np.argwhere(attention.has_image_weights).tolist()
    ]
    largest = np.max([weights for _, weights in columns], axis=0)
    rows = []
    for edge in np.flatnonzero(largest >= min_weight).tolist():
        atom, neighbor = int(attention.target[edge]), int(attention.source[edge])
        row = {
            "structure": attention.structure_id,
            "atom": atom,
            "element": symbols[atom],
            "neighbor": neighbor,
            "neighbor_element": symbols[neighbor],
            **dict(zip(("image_a", "image_b", "image_c"), attention.shift[edge].tolist(), strict=True)),
            "distance": float(attention.dist[edge]),
        }
        row |= {} if bonds is None else {"bond": int(bonds.is_bond[edge])}
        rows.append(row | {name: float(weights[edge]) for name, weights in columns})
    return rows


def pair_rows(attention: AttentionMap, min_weight: float = 1e-3) -> list[dict[str, Any]]:
    """One row for each pair of atoms, with the weight on all images together: of heads in both domains.

    Columns: structure, atom, element, neighbor, neighbor_element, and ``block1_head1`` and so on.

    Args:
        attention: the map.
        min_weight: pairs whose weight is less in all heads are left out.
    """
    pairs, symbols = attention.pair_weights(), attention.elements
    rows = []
    for atom, neighbor in np.argwhere(pairs.max((0, 1)) >= min_weight).tolist():
        row: dict[str, Any] = {
            "structure": attention.structure_id,
            "atom": atom,
            "element": symbols[atom],
            "neighbor": neighbor,
            "neighbor_element": symbols[neighbor],
        }
        for block, head in np.ndindex(pairs.shape[:2]):
            row[f"block{block + 1}_head{head + 1}"] = float(pairs[block, head, atom, neighbor])
        rows.append(row)
    return rows


def head_rows(
    maps: Sequence[AttentionMap], bonds: Sequence[Bonds] | None = None, within: float = 5.0
) -> list[dict[str, Any]]:
    """One row for each block and head: what it looks at, mean over all atoms of all maps.

    Columns: block, head (from 1), domain (real or reciprocal), sigma_5, sigma_50 and sigma_95 (quantiles, A),
    self_share, moved_by_dot_products, mean_distance and decay_distance (A; the latter is that of equal q.k); with bonds
    also bond_share, and, of the weight on other images within the range, bond_share_in_range, its values for equal q.k
    and for equal weights (decay_share_in_range, uniform_share_in_range), bond_recall, and nearest_recall of the nearest
    images. Heads in reciprocal space have None but for sigma.

    Args:
        maps: of one model.
        bonds: of each map.
        within: range (A) of :func:`~torch_geometric_crystal.explain.bond_shares`.

    Raises:
        ReciprocalHeadsError: if all heads are in reciprocal space.
    """
    check_image_weights(maps)
    sigma = sigma_quantiles(maps, (0.05, 0.5, 0.95))
    columns: dict[str, Any] = {"sigma_5": sigma[0], "sigma_50": sigma[1], "sigma_95": sigma[2]}
    columns |= {
        "self_share": self_share(maps),
        "moved_by_dot_products": weight_moved_by_dot_products(maps),
        "mean_distance": mean_distance(maps),
        "decay_distance": mean_distance(maps, decay_only=True),
    }
    if bonds is not None:
        shares = bond_shares(maps, bonds, within)
        recall, nearest = bond_recall(maps, bonds)
        columns |= {
            "bond_share": shares.of_all,
            "bond_share_in_range": shares.in_range,
            "decay_share_in_range": shares.in_range_decay,
            "uniform_share_in_range": np.full_like(shares.of_all, shares.in_range_uniform),
            "bond_recall": recall,
            "nearest_recall": np.full_like(recall, nearest),
        }
    in_real_space = maps[0].has_image_weights
    rows = []
    for block, head in np.ndindex(in_real_space.shape):
        real = bool(in_real_space[block, head])
        row: dict[str, Any] = {"block": block + 1, "head": head + 1, "domain": "real" if real else "reciprocal"}
        for name, values in columns.items():
            shown = real or name.startswith("sigma")
            row[name] = float(values[block, head]) if shown else None
        rows.append(row)
    return rows
